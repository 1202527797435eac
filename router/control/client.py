"""The admin API as the command line asks it: one question, one JSON document."""

import http.client
import json
from typing import Any, Final
from urllib.parse import urlsplit

from router.errors import PointsmanError
from router.logs import escaped

TIMEOUT_S: Final = 5.0
"""How long a router may take to answer; it needs milliseconds."""


class AdminError(PointsmanError):
    """The router could not be asked, or refused; the message is for the operator."""


def ask(
    admin: str,
    method: str,
    path: str,
    question: Any = None,
    token: str | None = None,
    timeout_s: float = TIMEOUT_S,
) -> dict[str, Any]:
    """The document that the admin API at `admin` (`http://host:port`, or `host:port`) answers.

    Raises:
        AdminError: nothing answers there, or not what a router would, or it refuses.
    """
    host, port = _address(admin)
    headers = {} if token is None else {"authorization": f"Bearer {token}"}
    connection = http.client.HTTPConnection(host, port, timeout=timeout_s)
    try:
        body = None if question is None else json.dumps(question)
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        document = json.loads(response.read())
    except TimeoutError as error:
        raise AdminError(
            f"{admin} did not answer within {timeout_s:g} s; "
            "what was asked may be done all the same"
        ) from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise AdminError(
            f"no router answers at {admin}: {error}; is it running, and is this its admin.listen?"
        ) from error
    finally:
        connection.close()
    if not isinstance(document, dict):
        raise AdminError(f"what answers at {admin} is not a router's admin API")
    if response.status != 200:
        detail = document.get("detail") or f"{admin} answers {response.status} to {path}"
        raise AdminError(escaped(str(detail)))  # it quotes what others wrote
    return document


def _address(admin: str) -> tuple[str, int]:
    try:
        parts = urlsplit(admin if "//" in admin else f"//{admin}")
        port, host = parts.port, parts.hostname
    except ValueError as error:
        raise AdminError(f"{admin!r} is not an admin API's address: {error}") from None
    if parts.scheme not in ("", "http") or not host:
        raise AdminError(f"{admin!r} is not an admin API's address, write http://host:port")
    return host, port or 80
