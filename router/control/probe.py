"""One check of one endpoint, on a connection of its own: why it failed, or None.

Knows nothing of what a failure means (see `health.py`). aiohttp makes the requests; checks that
only connect use the loop alone.
"""

import asyncio
import os
import re
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from router import __version__
from router.config.health import HealthCheck

BODY_MAX_BYTES: Final = 64 * 1024
"""How much of an answer is searched: a health page is short, and a stream must not be held."""
_PORTS: Final = {"http": 80, "https": 443}


Tls = tuple[ssl.SSLContext | None, str | None]
"""A context (None: the system's CAs) and the name to expect (None: the endpoint's host)."""


@dataclass(frozen=True, slots=True)
class Target:
    """What is checked, and how."""

    backend: str
    url: str
    check: HealthCheck


class EndpointProbe:
    """Makes the checks that a config can ask for. Needs a running loop."""

    def __init__(self, tls_of: Callable[[str], Tls] = lambda backend: (None, None)) -> None:
        """`tls_of`: how a backend's endpoints are met, by its name, when their URL is https."""
        import aiohttp  # late: workers are started before this is needed
        import yarl

        self._aiohttp = aiohttp
        self._tls_of = tls_of
        self._url = yarl.URL
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, force_close=True),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={
                "user-agent": f"pointsman/{__version__} health",
                "accept-encoding": "identity",
            },
            auto_decompress=False,
        )

    async def __call__(self, target: Target) -> str | None:
        """Why the check failed, or None."""
        check = target.check
        try:
            async with asyncio.timeout(check.timeout):
                return await (self._get(target) if check.path else self._connect(target))
        except TimeoutError:
            return f"no answer within {check.timeout:g} s"
        except (self._aiohttp.ClientError, OSError, ValueError) as error:
            number = error.errno if isinstance(error, OSError) else None
            if number is not None and number > 0:  # negative: a resolver's, with a text of its own
                return os.strerror(number).lower()
            return str(error) or type(error).__name__

    async def close(self) -> None:
        """Close what is open."""
        await self._session.close()

    async def _get(self, target: Target) -> str | None:
        check = target.check
        context, server_name = self._tls_of(target.backend)
        async with self._session.get(
            self._url(_base(target) + (check.path or ""), encoded=True),
            allow_redirects=False,
            headers={} if check.host is None else {"host": check.host},
            ssl=context or True,
            server_hostname=server_name,
            timeout=self._aiohttp.ClientTimeout(total=None),  # the caller's is the one that counts
        ) as response:
            if not check.expects(response.status):
                return f"status {response.status}"
            if not check.body:
                return None
            body = bytearray()
            async for chunk in response.content.iter_chunked(BODY_MAX_BYTES):
                body += chunk
                if len(body) >= BODY_MAX_BYTES:
                    break
            found = re.search(check.body.encode(), bytes(body[:BODY_MAX_BYTES]))
            return None if found else "the body is not as expected"

    async def _connect(self, target: Target) -> str | None:
        parts = urlsplit(_base(target))
        transport, _ = await asyncio.get_running_loop().create_connection(
            asyncio.Protocol, parts.hostname or "", parts.port or _PORTS[parts.scheme]
        )
        transport.close()
        return None


def _base(target: Target) -> str:
    """The endpoint's URL, on the check's port when it has one."""
    if target.check.port is None:
        return target.url
    parts = urlsplit(target.url)
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{host}:{target.check.port}"
