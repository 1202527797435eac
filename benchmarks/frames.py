"""What travels in streams: events, messages and the frames around them. Pure.

Every event and message carries its number in the stream, when it was due and when it left
(`time.monotonic_ns`, one clock for all processes of a machine), and is of one size. So who
receives them knows what was lost, changed or late.

Frames are those of RFC 6455 section 5.2, for payloads of less than 126 bytes.
"""

from dataclasses import dataclass
from typing import Final

from benchmarks.errors import BenchmarkError

EVENT_BYTES: Final = 128
_PAYLOAD_BYTES: Final = 100
FRAME_BYTES: Final = 2 + _PAYLOAD_BYTES
MASKED_FRAME_BYTES: Final = FRAME_BYTES + 4
_BINARY: Final = 0x82
_MASKED: Final = 0x80
_STAMP_CHARS: Final = 8 + 1 + 20 + 1 + 20
_EVENT_START: Final = b"data: "


@dataclass(frozen=True, slots=True)
class Stamp:
    """What an event or a message says of itself."""

    number: int
    due_ns: int
    sent_ns: int

    def text(self) -> bytes:
        return b"%08d %020d %020d" % (self.number, self.due_ns, self.sent_ns)

    @classmethod
    def read(cls, text: bytes) -> "Stamp":
        """Raises BenchmarkError when `text` does not begin with a stamp."""
        try:
            return cls(*map(int, text[:_STAMP_CHARS].split(b" ")))
        except (ValueError, TypeError):
            raise BenchmarkError(f"expected a stamp, found {text[:60]!r}") from None


def event(stamp: Stamp) -> bytes:
    """One server-sent event of `EVENT_BYTES`."""
    return (_EVENT_START + stamp.text() + b" ").ljust(EVENT_BYTES - 2, b"x") + b"\n\n"


def chunk(payload: bytes) -> bytes:
    """A chunk of RFC 9112 section 7.1; an empty one ends the body."""
    return b"%x\r\n%b\r\n" % (len(payload), payload)


def read_event(text: bytes) -> Stamp:
    """Raises BenchmarkError when `text` is not an event of ours."""
    if not text.startswith(_EVENT_START) or not text.endswith(b"x\n\n"):
        raise BenchmarkError(f"expected an event, found {text!r}")
    return Stamp.read(text[len(_EVENT_START) :])


def message(stamp: Stamp, mask: bytes) -> bytes:
    """A client's frame: masked by 4 bytes."""
    head = bytes((_BINARY, _MASKED | _PAYLOAD_BYTES))
    return head + mask + _xor((stamp.text() + b" ").ljust(_PAYLOAD_BYTES, b"x"), mask)


def echo(frame: bytes) -> bytes:
    """A server's frame with what the client's masked `frame` holds.

    Raises:
        BenchmarkError: it is not a masked frame of our size.
    """
    if frame[:2] != bytes((_BINARY, _MASKED | _PAYLOAD_BYTES)):
        raise BenchmarkError(f"expected a masked frame, found {frame[:8]!r}")
    return bytes((_BINARY, _PAYLOAD_BYTES)) + _xor(frame[6:], frame[2:6])


def read_echo(frame: bytes) -> Stamp:
    """Raises BenchmarkError when `frame` is not an echo of ours."""
    if frame[:2] != bytes((_BINARY, _PAYLOAD_BYTES)) or not frame.endswith(b"x"):
        raise BenchmarkError(f"expected an unmasked frame, found {frame[:8]!r}")
    return Stamp.read(frame[2:])


def _xor(payload: bytes, mask: bytes) -> bytes:
    repeated = (mask * (len(payload) // 4 + 1))[: len(payload)]
    together = int.from_bytes(payload, "big") ^ int.from_bytes(repeated, "big")
    return together.to_bytes(len(payload), "big")
