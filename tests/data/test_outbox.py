"""Bytes gathered and sent together."""

import asyncio
from typing import cast

from router.data.outbox import AT_ONCE_BYTES, Outbox
from tests.data.scripted import Loop, Transport


def test_bytes_leave_at_the_end_of_the_turn_in_order() -> None:
    loop, a, b = Loop(), Transport(), Transport()
    outbox = Outbox(cast(asyncio.AbstractEventLoop, loop))
    for transport, data in ((a, b"1"), (b, b"2"), (a, b"3")):
        outbox.write(cast(asyncio.Transport, transport), data)
    assert a.written == b.written == []
    assert len(loop.soon) == 1
    loop.turn()
    assert (a.written, b.written) == ([b"1", b"3"], [b"2"])


def test_bytes_for_a_closed_connection_are_dropped() -> None:
    loop, a, b = Loop(), Transport(), Transport()
    outbox = Outbox(cast(asyncio.AbstractEventLoop, loop))
    outbox.write(cast(asyncio.Transport, a), b"1")
    outbox.write(cast(asyncio.Transport, b), b"2")
    a.abort()
    loop.turn()
    assert (a.written, b.written) == ([], [b"2"])


def test_a_large_piece_leaves_at_once_and_not_before_what_was_written_earlier() -> None:
    loop, a = Loop(), Transport()
    outbox = Outbox(cast(asyncio.AbstractEventLoop, loop))
    large = bytes(AT_ONCE_BYTES + 1)
    outbox.write(cast(asyncio.Transport, a), b"first")
    outbox.write(cast(asyncio.Transport, a), large)
    assert a.written == [b"first", large]
    loop.turn()
    assert len(a.written) == 2
