import pytest

from benchmarks.errors import BenchmarkError
from benchmarks.frames import (
    EVENT_BYTES,
    FRAME_BYTES,
    MASKED_FRAME_BYTES,
    Stamp,
    chunk,
    echo,
    event,
    message,
    read_echo,
    read_event,
)

_STAMP = Stamp(7, 1_000_000_000_123, 1_000_000_000_456)
_MASK = b"\x01\x02\x03\x04"


def test_an_event_carries_its_stamp_and_has_one_size() -> None:
    text = event(_STAMP)
    assert len(text) == EVENT_BYTES
    assert text.startswith(b"data: 00000007 00000001000000000123 00000001000000000456 xxx")
    assert text.endswith(b"xxx\n\n")
    assert read_event(text) == _STAMP


@pytest.mark.parametrize("changed", [b"x" + event(_STAMP)[1:], event(_STAMP)[:-1] + b"x", b""])
def test_a_changed_event_is_refused(changed: bytes) -> None:
    with pytest.raises(BenchmarkError, match="expected an event"):
        read_event(changed)


def test_an_event_without_a_stamp_is_refused() -> None:
    with pytest.raises(BenchmarkError, match="expected a stamp"):
        read_event(event(_STAMP).replace(b"00000007 ", b"0000000x "))


def test_a_chunk_has_its_length_in_front() -> None:
    assert chunk(b"x" * 18) == b"12\r\n" + b"x" * 18 + b"\r\n"
    assert chunk(b"") == b"0\r\n\r\n"


def test_a_message_is_masked_and_its_echo_is_not() -> None:
    frame = message(_STAMP, _MASK)
    assert len(frame) == MASKED_FRAME_BYTES
    assert frame[:6] == b"\x82\xe4" + _MASK
    assert frame[6:10] == bytes(a ^ b for a, b in zip(b"0000", _MASK, strict=True))
    back = echo(frame)
    assert len(back) == FRAME_BYTES
    assert back[:10] == b"\x82\x6400000007"
    assert read_echo(back) == _STAMP


def test_a_frame_that_is_not_ours_is_refused() -> None:
    with pytest.raises(BenchmarkError, match="expected a masked frame"):
        echo(echo(message(_STAMP, _MASK)))
    with pytest.raises(BenchmarkError, match="expected an unmasked frame"):
        read_echo(message(_STAMP, _MASK))
