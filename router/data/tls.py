"""TLS over a TCP connection: to `Downstream` and `Upstream` a transport, to the loop a protocol.

The loop's own TLS knows no half-close, tells nobody of handshakes that failed or last, waits 30 s
for a peer's farewell and keeps 256 KiB for each connection. This costs the same: in a server
that does nothing else 33,000 instructions for a small request on a kept connection, with uvloop's
32,000, aiofastnet's 21,000, plain TCP 4,000 (user space, counted by cachegrind). Strategy:

1. Bytes go through OpenSSL in memory. What one read of the socket brought is decrypted whole and
   given on at once, so nothing waits here: pausing the socket is all there is to flow control.
2. Only a peer's `close_notify` is an end of file (RFC 8446 section 6.1). A connection that ends
   without is lost, whatever had come: an answer cut short is never taken for a whole one.
3. After our own `close_notify` we read on, as after a FIN on TCP.
4. A `Timed` of the wheel until the handshake is over.
"""

import asyncio
import os
import ssl
from collections.abc import Callable, Iterator
from contextlib import suppress
from math import inf
from typing import Any, Final, cast

from router.tls.x509 import NOBODY, identity

IDENTITY: Final = "client_identity"
"""For `get_extra_info`: an `Identity`; without a certificate an empty one, without TLS None."""
RECORD_MAX_BYTES: Final = 16 * 1024
"""RFC 8446 section 5.1."""
STRIDE_BYTES: Final = RECORD_MAX_BYTES
"""Most that OpenSSL's buffers in memory get at a time, for they never shrink again: given what one
read of the loop brings, a connection that has carried a body keeps 300 KiB, with this 66."""
_LOOK_BYTES: Final = 64 * 1024


def why_lost(error: Exception | None) -> str:
    """What to say of a connection that ended with `error` before its time."""
    reason = getattr(error, "reason", None) if isinstance(error, ssl.SSLError) else None
    if reason:
        return f"TLS failed: {reason.replace('_', ' ').lower()}"
    return "the connection closed before the answer ended"


Done = Callable[["TlsTransport", Exception | None], None]
"""Told once how the handshake ended; None: well. Then somebody calls `attach`, now or soon."""


def _strides(data: bytes | bytearray | memoryview) -> Iterator[memoryview]:
    view = memoryview(data)
    return (view[at : at + STRIDE_BYTES] for at in range(0, len(data), STRIDE_BYTES))


class TlsTransport(asyncio.Transport, asyncio.Protocol):
    """One connection. `app` learns of it at `attach`, when the handshake is done."""

    __slots__ = (
        "_app", "_decrypt", "_done", "_encrypt", "_error", "_has_ended", "_has_peer_ended",
        "_incoming", "_is_closing", "_is_open", "_keeps_open", "_outgoing", "_ssl", "_tcp",
        "deadline", "identity", "slot_s",
    )  # fmt: skip

    def __init__(
        self,
        app: asyncio.Protocol,
        context: ssl.SSLContext,
        done: Done,
        server_name: str | None = None,
    ) -> None:
        """`server_name`: whom to expect as a client; None: we are the server.

        Raises:
            ValueError: `server_name` can be in no certificate.
        """
        self.deadline = inf
        self.slot_s = inf
        self.identity = NOBODY
        self._app = app
        self._done: Done | None = done
        self._tcp = cast(asyncio.Transport, None)
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._ssl = context.wrap_bio(
            self._incoming,
            self._outgoing,
            server_side=server_name is None,
            server_hostname=server_name,
        )
        self._decrypt = self._ssl.read
        self._encrypt = self._ssl.write
        self._error: Exception | None = None
        self._is_open = False
        self._is_closing = False
        self._has_ended = False
        """We sent our last."""
        self._has_peer_ended = False
        self._keeps_open = False
        """We go on sending though the peer has ended."""

    def __repr__(self) -> str:
        state = "closing" if self._is_closing else "open" if self._is_open else "handshake"
        return f"<TlsTransport [{state}]>"

    # towards the loop: asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._tcp = cast(asyncio.Transport, transport)
        self._tcp.set_write_buffer_limits(0)
        if not self._ssl.server_side:
            self._shake()

    def data_received(self, data: bytes) -> None:
        if self._has_peer_ended or self._error is not None:
            return
        pieces: list[bytes] = []
        try:
            for piece in (data,) if len(data) <= STRIDE_BYTES else _strides(data):
                self._incoming.write(piece)
                if self._is_open or self._shake():
                    self._decrypt_into(pieces)
        except ssl.SSLError as error:
            self._error = error
        self._deliver(pieces)

    def _deliver(self, pieces: list[bytes]) -> None:
        """Give on what was decrypted, and act on what else the peer had to say."""
        self._send_pending()  # an alert, or the answer to a key update
        if pieces:
            self._app.data_received(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        if self._error is not None:
            self.abort()
        elif self._has_peer_ended and not self._is_closing:
            self._keeps_open = bool(self._app.eof_received())
            if not self._keeps_open:
                self.close()

    def eof_received(self) -> bool:
        if self._done is not None:
            self._fail_handshake(ConnectionResetError("it closed the connection"))
        elif not self._has_peer_ended and not self._is_closing:
            # told at once: `app` must not begin anything on it while the loop closes it
            self._is_closing = True
            self._lose(ConnectionResetError("the connection ended without close_notify"))
        return self._keeps_open

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_closing = True
        self._lose(self._error or exc)

    def _lose(self, error: Exception | None) -> None:
        if self._done is not None:
            self._end_handshake(error or ConnectionResetError("it closed the connection"))
        elif self._is_open:
            self._is_open = False
            self._app.connection_lost(error)
        # they know each other: nothing is left for the collector
        self._app = cast(asyncio.Protocol, None)

    def pause_writing(self) -> None:
        if self._is_open:
            self._app.pause_writing()

    def resume_writing(self) -> None:
        if self._is_open:
            self._app.resume_writing()

    # handshake

    def _shake(self) -> bool:
        """Go on with the handshake. True when it is done and `app` took over."""
        if self._done is None:
            return False
        try:
            self._ssl.do_handshake()
            if self._ssl.server_side:
                self.identity = identity(self._ssl.getpeercert() or {})
        except ssl.SSLWantReadError:
            self._send_pending()
            return False
        except (ssl.SSLError, ValueError) as error:  # ValueError: a certificate that is not text
            self._send_pending()
            self._fail_handshake(error)
            return False
        self._send_pending()
        self._end_handshake(None)
        return self._is_open

    def attach(self) -> None:
        """The handshake is done: `app` takes over, with what has come meanwhile.

        Raises:
            ConnectionError: the connection is over already; `app` knows nothing of it.
        """
        if self._is_closing:
            raise ConnectionResetError("it closed the connection")
        self._is_open = True
        self._app.connection_made(self)
        pieces: list[bytes] = []
        try:
            self._decrypt_into(pieces)
        except ssl.SSLError as error:
            self._error = error
        self._deliver(pieces)

    def _send_pending(self) -> None:
        if self._outgoing.pending:
            self._tcp.write(self._outgoing.read())

    def _fail_handshake(self, error: Exception) -> None:
        self._error = error
        self._is_closing = True
        self._end_handshake(error)
        self._tcp.close()

    def _end_handshake(self, error: Exception | None) -> None:
        done, self._done = self._done, None
        if done is not None:
            done(self, error)

    def on_deadline(self) -> None:
        self._fail_handshake(TimeoutError("the handshake took too long"))

    def write_in_clear(self, data: bytes) -> None:
        """Answer a peer that does not speak TLS, before the connection is closed."""
        self._tcp.write(data)

    # bytes

    def _decrypt_into(self, pieces: list[bytes]) -> None:
        """Decrypt all that has come.

        Raises:
            ssl.SSLError: the peer's bytes are not what it sent, or it says that something is wrong.
        """
        incoming, decrypt = self._incoming, self._decrypt
        try:
            # a record is read whole, so OpenSSL holds nothing that is not in `incoming`; asking it
            # when there is nothing costs 2 us for the exception
            while incoming.pending:
                piece = decrypt(RECORD_MAX_BYTES)
                if not piece:
                    self._has_peer_ended = True
                    return
                pieces.append(piece)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self._has_peer_ended = True

    def has_ended(self) -> bool:
        """Look at once at what the loop has not read yet. True when the connection is over.

        For an idle one: that it has become readable means no more than that. A server of TLS 1.3
        sends session tickets whenever it likes.
        """
        descriptor = self._tcp.get_extra_info("socket").fileno()
        while not self.is_closing():
            try:
                data = os.read(descriptor, _LOOK_BYTES)
            except BlockingIOError:
                return False
            except OSError:
                return True
            if not data:
                return True
            self.data_received(data)
        return True

    # towards `app`: asyncio.Transport

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypt and send `data`; after our end, or on a connection that is over, nothing."""
        if self._is_closing or self._has_ended:
            return
        try:
            if len(data) <= STRIDE_BYTES:
                self._encrypt(data)
                self._tcp.write(self._outgoing.read())
                return
            sealed = []
            for piece in _strides(data):
                self._encrypt(piece)
                sealed.append(self._outgoing.read())
            self._tcp.write(b"".join(sealed))
        except ssl.SSLError as error:
            self._error = error
            self.abort()

    def write_eof(self) -> None:
        """Say that no more will come, and read on."""
        if not (self._is_closing or self._has_ended):
            self._say_farewell()
            self._tcp.write_eof()

    def _say_farewell(self) -> None:
        """Send `close_notify`. What has come was decrypted, so OpenSSL waits for the peer's now."""
        if self._is_open and not self._has_ended:
            self._has_ended = True
            with suppress(ssl.SSLError):
                self._ssl.unwrap()
            self._send_pending()

    def close(self) -> None:
        """Close when what was written has left; the peer's farewell is not waited for."""
        if not self._is_closing:
            self._say_farewell()
            self._is_closing = True
            self._tcp.close()

    def abort(self) -> None:
        """Close at once, without a farewell."""
        self._is_closing = True
        self._tcp.abort()

    def is_closing(self) -> bool:
        return self._is_closing or self._tcp.is_closing()

    def pause_reading(self) -> None:
        self._tcp.pause_reading()

    def resume_reading(self) -> None:
        self._tcp.resume_reading()

    def is_reading(self) -> bool:
        return self._tcp.is_reading()

    def can_write_eof(self) -> bool:
        return True

    def get_write_buffer_size(self) -> int:
        return self._tcp.get_write_buffer_size()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._tcp.set_write_buffer_limits(high, low)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """`IDENTITY`, `ssl_object`, or what is known of the TCP connection."""
        if name == IDENTITY:
            return self.identity
        if name == "ssl_object":
            return self._ssl
        return self._tcp.get_extra_info(name, default)
