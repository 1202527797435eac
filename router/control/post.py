"""POSTs that control makes on its own account: notifications, and questions to gates.

Owns the client session, and what may be said of an error: never a URL, for it may be a secret.
Redirects are not followed, and of an answer no more than `ANSWER_MAX_BYTES` are read.
"""

import asyncio
import os
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from router import __version__

if TYPE_CHECKING:
    import aiohttp

ANSWER_MAX_BYTES: Final = 64 * 1024
"""Verdicts and acknowledgements are short."""
_RETRY_AFTER_MAX_CHARS: Final = 6


class Unanswered(Exception):
    """Nobody answered; the text says why."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back. `is_cut`: there was more. `retry_after_s`: how long it wants to be left."""

    status: int
    body: bytes
    is_cut: bool = False
    retry_after_s: float = 0.0


class Poster:
    """One client session, opened when it is first needed."""

    def __init__(self, purpose: str) -> None:
        """`purpose` goes into the user agent."""
        self._purpose = purpose
        self._session: aiohttp.ClientSession | None = None

    async def __call__(
        self, url: str, body: bytes, headers: Mapping[str, str], timeout_s: float
    ) -> Answer:
        """POST, and read the answer.

        Raises:
            Unanswered: there is none within `timeout_s`.
        """
        import aiohttp  # late: most routers post nothing

        try:
            async with (
                asyncio.timeout(timeout_s),
                self._open().post(
                    url, data=body, headers=headers, allow_redirects=False
                ) as response,
            ):
                content = await _read(response.content)
        except TimeoutError:
            raise Unanswered(f"no answer within {timeout_s:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise Unanswered(_said(error)) from None  # the cause would show the URL
        return Answer(
            response.status,
            content[:ANSWER_MAX_BYTES],
            len(content) > ANSWER_MAX_BYTES,
            _seconds(response.headers.get("retry-after", "")),
        )

    def _open(self) -> "aiohttp.ClientSession":
        if self._session is None:
            import aiohttp

            self._session = aiohttp.ClientSession(
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={
                    "user-agent": f"pointsman/{__version__} {self._purpose}",
                    "accept-encoding": "identity",
                },
                auto_decompress=False,
                timeout=aiohttp.ClientTimeout(total=None),  # the caller's is the one that counts
            )
        return self._session

    async def close(self) -> None:
        """Close what is open."""
        if self._session is not None:
            await self._session.close()
            self._session = None


async def _read(content: "aiohttp.StreamReader") -> bytes:
    """The body, or its beginning and a byte too many."""
    body = bytearray()
    async for chunk in content.iter_chunked(ANSWER_MAX_BYTES):
        body += chunk
        if len(body) > ANSWER_MAX_BYTES:
            break
    return bytes(body)


def _said(error: Exception) -> str:
    """What went wrong, without whom it went wrong with."""
    cause = getattr(error, "os_error", error)
    if isinstance(cause, ssl.SSLError):  # its number is OpenSSL's, not the system's
        return f"TLS failed ({getattr(cause, 'reason', None) or type(cause).__name__})"
    if isinstance(cause, socket.gaierror):
        return "its name cannot be resolved"
    number = getattr(error, "errno", None)
    if isinstance(number, int) and number > 0:
        return os.strerror(number).lower()
    return f"no answer ({type(error).__name__})"


def _seconds(text: str) -> float:
    """`Retry-After` in seconds (RFC 9110 section 10.2.3); 0 when it is a date or absent."""
    is_number = text.isascii() and text.isdigit() and len(text) <= _RETRY_AFTER_MAX_CHARS
    return float(text) if is_number else 0.0
