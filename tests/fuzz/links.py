"""A connection without a socket: a transport as uvloop's, and the kernel and the peer behind it."""

import asyncio
from typing import Any


class Link:
    """A transport that behaves as uvloop's does, and the kernel and the peer behind it."""

    def __init__(self, protocol: Any) -> None:
        self.protocol = protocol
        self.sent = bytearray()
        """What the peer can read."""
        self.incoming = bytearray()
        """What the peer sent and nobody has read yet."""
        self.has_peer_ended = False
        self.ending = ""
        """How the router ended its side: empty while it has not, `eof`, `closed` or `reset`."""
        self.is_over = False
        self.is_reading = True
        self.is_read_at_once = False
        self._loop = asyncio.get_running_loop()
        self._queue = bytearray()
        self._room = 0
        self._is_at_end = False
        self._wants_eof = False
        self._is_closing = False
        self._is_protocol_paused = False

    # the transport

    def write(self, data: bytes) -> None:
        if self._is_closing:
            return
        assert not self._wants_eof, "written after write_eof"
        assert data, "an empty write"
        self._queue += data
        self._push()
        if self._queue and not self._is_protocol_paused:
            self._is_protocol_paused = True
            self.protocol.pause_writing()

    def write_eof(self) -> None:
        self._wants_eof = True
        self._push()

    def close(self) -> None:
        if not self._is_closing:
            self._is_closing = True
            self._push()

    def abort(self) -> None:
        self._end("closed", None)

    def reset(self) -> None:
        self._end("reset", None)

    def is_closing(self) -> bool:
        return self._is_closing

    def pause_reading(self) -> None:
        assert self.is_reading
        self.is_reading = False

    def resume_reading(self) -> None:
        assert not self.is_reading
        self.is_reading = True

    def get_write_buffer_size(self) -> int:
        return len(self._queue)

    def set_write_buffer_limits(self, high: int) -> None:
        assert high == 0

    def get_extra_info(self, name: str) -> Any:
        return {"socket": self, "peername": ("127.0.0.1", 1)}.get(name)

    def fileno(self) -> int:
        return 0

    def setsockopt(self, *_: int) -> None:
        pass

    # the kernel and the peer

    @property
    def is_stuck(self) -> bool:
        """The peer does not take what was written."""
        return bool(self._queue) and not self.is_over

    def take(self, count: int) -> None:
        """The peer makes room for `count` more bytes."""
        self._room += count
        self._push()
        if not self._queue and self._is_protocol_paused and not self.is_over:
            self._is_protocol_paused = False
            self.protocol.resume_writing()

    @property
    def can_deliver(self) -> bool:
        return (
            self.is_reading
            and not (self._is_closing or self._is_at_end)
            and (bool(self.incoming) or self.has_peer_ended)
        )

    def deliver(self, count: int) -> None:
        """The loop reads up to `count` bytes, or the end."""
        count = len(self.incoming) if self.is_read_at_once else count
        data = bytes(self.incoming[:count])
        del self.incoming[:count]
        if data:
            self.protocol.data_received(data)
            return
        self._is_at_end = True
        if not self.protocol.eof_received():
            self.close()

    def break_off(self) -> None:
        """The peer resets the connection."""
        self.incoming.clear()
        self._end("reset", ConnectionResetError())

    def _push(self) -> None:
        count = min(self._room, len(self._queue))
        self._room -= count
        self.sent += self._queue[:count]
        del self._queue[:count]
        if not self._queue and self._is_closing:
            self._end("closed", None)
        elif not self._queue and self._wants_eof and not self.ending:
            self.ending = "eof"

    def _end(self, how: str, error: Exception | None) -> None:
        self._is_closing = True
        self._queue.clear()
        if not self.is_over:
            self.is_over = True
            self.ending = how
            self._loop.call_soon(self.protocol.connection_lost, error)
