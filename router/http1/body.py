"""Chunked transfer coding (RFC 9112 section 7.1), decoded strictly.

Owns the only place where chunk framing is read. Chunk extensions are dropped and bounded, trailer
fields are validated, bounded and dropped (RFC 9110 section 6.5.1 lets an intermediary do so).
"""

import re
from enum import IntEnum
from typing import Final

from router.errors import MALFORMED, HeadError, Refusal

LINE_MAX_BYTES: Final = 256
"""Longest chunk-size line, extensions included. Real ones are under 20 bytes."""
TRAILERS_MAX_BYTES: Final = 8192
"""Largest trailer section of a response; of a request it is a setting."""

_SIZE_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?\Z")
_TRAILER: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t\x20-\x7e\x80-\xff]*\Z")

LAST_CHUNK: Final = b"0\r\n\r\n"


class _State(IntEnum):
    SIZE = 0
    DATA = 1
    DATA_END = 2
    TRAILERS = 3
    DONE = 4


class LengthDecoder:
    """A body of known length. Feed bytes, get payload; `done` and `rest` as in `ChunkedDecoder`."""

    __slots__ = ("_remaining", "done", "rest")

    def __init__(self, body_bytes: int) -> None:
        self.done = body_bytes == 0
        self.rest = b""
        self._remaining = body_bytes

    def feed(self, data: bytes) -> bytes:
        """The payload bytes in `data`."""
        if len(data) < self._remaining:
            self._remaining -= len(data)
            return data
        self.done = True
        self.rest = data[self._remaining :]
        return data[: self._remaining]


class ChunkedDecoder:
    """Feed bytes, get payload. `done` turns true at the end; `rest` then holds what followed."""

    __slots__ = (
        "_buffer", "_refusal", "_remaining", "_state", "_trailer_bytes", "_trailers_max_bytes",
        "done", "rest",
    )  # fmt: skip

    def __init__(
        self, refusal: Refusal = MALFORMED, trailers_max_bytes: int = TRAILERS_MAX_BYTES
    ) -> None:
        self.done = False
        self.rest = b""
        self._refusal = refusal
        self._state = _State.SIZE
        self._remaining = 0
        self._buffer = b""
        self._trailer_bytes = 0
        self._trailers_max_bytes = trailers_max_bytes

    def feed(self, data: bytes) -> bytes:
        """The payload bytes in `data`, joined.

        Raises:
            HeadError: the framing is not that of RFC 9112 section 7.1, or a bound is passed.
        """
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
        pieces: list[bytes] = []
        position = 0
        end = len(data)
        while position < end:
            state = self._state
            if state is _State.DATA:
                piece = data[position : position + self._remaining]
                pieces.append(piece)
                position += len(piece)
                self._remaining -= len(piece)
                if self._remaining:
                    break
                self._state = _State.DATA_END
            elif state is _State.DATA_END:
                if not b"\r\n".startswith(data[position : position + 2]):
                    raise HeadError(self._refusal, "chunk data is not followed by CRLF")
                if end - position < 2:
                    self._buffer = data[position:]
                    break
                position += 2
                self._state = _State.SIZE
            elif state is _State.DONE:
                self.rest = data[position:]
                break
            else:
                newline = data.find(b"\r\n", position)
                if newline < 0:
                    self._keep_partial_line(data[position:])
                    break
                self._line(data[position:newline])
                position = newline + 2
        self.done = self._state is _State.DONE
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _keep_partial_line(self, line: bytes) -> None:
        if self._state is _State.SIZE:
            bound = LINE_MAX_BYTES
        else:
            bound = max(0, self._trailers_max_bytes - self._trailer_bytes - 2)
        if len(line) - line.endswith(b"\r") > bound:
            raise HeadError(self._refusal, "a chunk line or the trailer section is too long")
        if b"\n" in line or b"\r" in line[:-1]:
            raise HeadError(self._refusal, "a chunk line holds a bare CR or LF")
        self._buffer = line

    def _line(self, line: bytes) -> None:
        if self._state is _State.SIZE:
            match = _SIZE_LINE.match(line) if len(line) <= LINE_MAX_BYTES else None
            if match is None:
                raise HeadError(self._refusal, "a chunk size is malformed")
            self._remaining = int(match[1], 16)
            self._state = _State.DATA if self._remaining else _State.TRAILERS
        elif not line:
            self._state = _State.DONE
        else:
            self._trailer_bytes += len(line) + 2
            if self._trailer_bytes > self._trailers_max_bytes or not _TRAILER.match(line):
                raise HeadError(self._refusal, "a trailer field is malformed or too long")


def encode_chunk(payload: bytes) -> bytes:
    """One chunk; `payload` must not be empty (that would be the last chunk)."""
    return b"%x\r\n%b\r\n" % (len(payload), payload)
