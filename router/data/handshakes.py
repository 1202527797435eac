"""TLS handshakes: those that clients begin, bounded and counted, and those with endpoints.

A client's handshake takes milliseconds of CPU and may last `downstream.handshake_timeout`, so it
counts as a connection long before there is one to speak of. How each ended is in
`pointsman_tls_handshakes_total`; a log line for each would be a gift to whoever scans ports.
"""

import asyncio
import ssl
from collections.abc import Mapping
from time import monotonic
from typing import TYPE_CHECKING, Final

from router.data.tls import TlsTransport
from router.errors import INTERNAL, MALFORMED, TOO_MANY_CONNECTIONS
from router.http1.problem import write_problem

if TYPE_CHECKING:
    from router.data.downstream import Downstream
    from router.data.upstream import Upstream
    from router.data.worker import Worker

_SURPLUS_MAX: Final = 256
"""As in `clients`: connections past the bound that may still ask for health."""

_NOT_TLS: Final = frozenset(("HTTP_REQUEST", "WRONG_VERSION_NUMBER", "HTTPS_PROXY_REQUEST"))
_OUTCOMES: Final[Mapping[str, str]] = {
    **dict.fromkeys(_NOT_TLS, "not-tls"),
    "UNSUPPORTED_PROTOCOL": "version",
    "NO_PROTOCOLS_AVAILABLE": "version",
    "NO_SHARED_CIPHER": "cipher",
    "NO_SHARED_SIGNATURE_ALGORITHMS": "cipher",
    "NO_SUITABLE_SIGNATURE_ALGORITHM": "cipher",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "client-certificate",
    "CERTIFICATE_VERIFY_FAILED": "client-certificate",
}
"""OpenSSL's reason -> what is counted; an alert of the client's is `rejected`."""


class Handshakes:
    """The listener's side: gives connections TLS while there is a `context`."""

    def __init__(self, worker: "Worker") -> None:
        self.context: ssl.SSLContext | None = None
        self.in_progress: set[TlsTransport] = set()
        self.worker = worker

    def __repr__(self) -> str:
        return f"<Handshakes [{len(self.in_progress)} in progress]>"

    def protocol(self, downstream: "Downstream") -> asyncio.Protocol:
        """What the loop should speak with on a new connection."""
        context = self.context
        if context is None:
            return downstream
        transport = _ServerTransport(downstream, context, self._on_done)
        transport.handshakes = self
        return transport

    def begin(self, transport: TlsTransport) -> bool:
        """A client connected. False when that is one too many."""
        worker = self.worker
        bound = worker.limits.connections + _SURPLUS_MAX
        if len(self.in_progress) + len(worker.clients.connections) >= bound:
            worker.stats.count_refusal(TOO_MANY_CONNECTIONS)
            return False
        self.in_progress.add(transport)
        worker.wheel.arm(transport, monotonic() + worker.limits.handshake_timeout)
        return True

    def abandon(self) -> None:
        """Draining: whoever has not finished by now will send no request."""
        for transport in list(self.in_progress):
            transport.abort()

    def _on_done(self, transport: TlsTransport, error: Exception | None) -> None:
        worker = self.worker
        worker.wheel.drop(transport)
        self.in_progress.discard(transport)
        outcome = outcome_of(error)
        worker.stats.counters["pointsman_tls_handshakes_total", outcome] += 1
        if isinstance(error, ssl.SSLError) and _reason(error) == "HTTP_REQUEST":
            worker.count_unparsed(MALFORMED)
            transport.write_in_clear(
                write_problem(
                    MALFORMED,
                    "this port speaks TLS: use https",
                    b"",
                    date=worker.date_line,
                    is_head=False,
                    close=True,
                )
            )
        if error is None:
            transport.attach()
        else:
            worker.departure.on_connection_lost()


class _ServerTransport(TlsTransport):
    """One that a client opened."""

    __slots__ = ("handshakes",)

    handshakes: Handshakes

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        worker = self.handshakes.worker
        try:
            worker.acceptor.look(self)
            is_welcome = self.handshakes.begin(self)
        except Exception as error:
            # a bug of ours: no deadline may run yet, so nobody else would close it
            worker.outbox.report_bug(error)
            worker.stats.count_refusal(INTERNAL)
            is_welcome = False
        if not is_welcome:
            self.abort()


def outcome_of(error: Exception | None) -> str:
    """How a handshake ended, in a word for the counter."""
    if error is None:
        return "ok"
    if isinstance(error, TimeoutError):
        return "timeout"
    if not isinstance(error, ssl.SSLError):
        return "closed" if isinstance(error, OSError) else "failed"
    reason = _reason(error)
    return _OUTCOMES.get(reason, "rejected" if "ALERT" in reason else "failed")


class HandshakeFailed(ConnectionError):
    """No TLS with an endpoint. `strerror` says why, in words for whoever operates the router."""

    def __init__(self, detail: str) -> None:
        super().__init__(None, detail)


async def connect(
    upstream: "Upstream", address: str, port: int, context: ssl.SSLContext, server_name: str
) -> None:
    """Open a TCP connection to `address` and do the handshake with `server_name` on it.

    Cancelled (by a timeout), it leaves nothing open.

    Raises:
        OSError: no connection.
        HandshakeFailed: no TLS on it.
    """
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[Exception | None] = loop.create_future()

    def on_done(_: TlsTransport, error: Exception | None) -> None:
        if not ended.done():
            ended.set_result(error)

    try:
        transport = TlsTransport(upstream, context, on_done, server_name)
    except ValueError as error:
        raise HandshakeFailed(f"{server_name!r} can be in no certificate") from error
    await loop.create_connection(lambda: transport, address, port)
    try:
        if (failure := await ended) is not None:
            raise HandshakeFailed(_detail(failure)) from failure
        transport.attach()
    except BaseException:
        transport.abort()
        raise


def _detail(error: Exception) -> str:
    """What went wrong, without OpenSSL's codes and lines of C."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate verify failed: {error.verify_message.rstrip('.').lower()}"
    if isinstance(error, ssl.SSLError) and (reason := _reason(error)):
        if reason in _NOT_TLS:
            return "TLS handshake failed: it does not speak TLS"
        return f"TLS handshake failed: {reason.replace('_', ' ').lower()}"
    return f"TLS handshake failed: {error}"


def _reason(error: ssl.SSLError) -> str:
    """OpenSSL's; empty when it is Python that objects."""
    return getattr(error, "reason", None) or ""
