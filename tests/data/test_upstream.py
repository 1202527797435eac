"""One connection to an endpoint, over a scripted transport."""

import asyncio
from typing import cast

import pytest

from router.data.upstream import Upstream
from router.http1.response import ResponseHead
from tests.data.scripted import Bench, Call, Clock, Transport, transport_of

WHOLE = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.fixture
def bench(clock: Clock) -> Bench:
    return Bench(
        ["http://127.0.0.1:1"], timeout={"first_byte": "10s", "idle": "2s"}, keep_alive="30s"
    )


def connected(bench: Bench, call: Call) -> Upstream:
    return bench.connect(bench.pool.endpoints[0], call)


def is_idle(connection: Upstream) -> bool:
    return transport_of(connection).state == "open" and connection in connection.pool.idle


@pytest.mark.parametrize("cut", range(1, len(WHOLE)))
def test_a_response_may_come_in_any_two_pieces(bench: Bench, cut: int) -> None:
    call = Call()
    connection = connected(bench, call)
    connection.data_received(WHOLE[:cut])
    connection.data_received(WHOLE[cut:])
    payload = b"".join(item for event in call.events for item in event if isinstance(item, bytes))
    assert payload == b"hello"
    assert [event[-1] for event in call.events].count(True) == 1
    assert call.events[-1][-1] is True
    assert is_idle(connection)


@pytest.mark.parametrize(
    ("answer", "is_kept"),
    [
        (WHOLE, True),
        (WHOLE + b"more", False),
        (b"HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n", False),
        (b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 0\r\n\r\n", True),
        (b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n", False),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", True),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nmore", False),
    ],
)
def test_only_a_connection_beyond_doubt_is_kept(bench: Bench, answer: bytes, is_kept: bool) -> None:
    connection = connected(bench, Call())
    connection.data_received(answer)
    assert is_idle(connection) == is_kept
    assert connection.pool.in_flight == 0
    assert transport_of(connection).state == ("open" if is_kept else "aborted")


def test_a_connection_whose_request_is_not_wholly_sent_is_not_kept(bench: Bench) -> None:
    connection = connected(bench, Call())
    transport_of(connection).unsent_bytes = 1
    connection.data_received(WHOLE)
    assert not is_idle(connection)


def test_a_connection_whose_request_is_not_complete_is_not_kept(bench: Bench) -> None:
    call = Call()
    call.is_request_complete = False
    connection = connected(bench, call)
    connection.data_received(WHOLE)
    assert not is_idle(connection)
    assert call.events == [("response", 200, b"hello", True)]


def test_the_first_byte_has_a_deadline_of_its_own(bench: Bench, clock: Clock) -> None:
    call = Call()
    connection = connected(bench, call)
    connection.expect_response()
    clock.now += 9.5
    bench.loop.turn()
    assert call.events == []
    clock.now += 1
    bench.loop.turn()
    assert call.events == [("lost", "upstream-first-byte-timeout")]
    assert transport_of(connection).state == "aborted"


def test_every_piece_starts_the_idle_time_anew(bench: Bench, clock: Clock) -> None:
    call = Call()
    connection = connected(bench, call)
    connection.data_received(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n")
    for _ in range(5):
        clock.now += 1.8
        bench.loop.turn()
        connection.data_received(b"x")
    clock.now += 2.2
    bench.loop.turn()
    assert call.events[-1] == ("lost", "upstream-idle-timeout")
    assert len(call.events) == 7


def test_while_the_client_does_not_read_the_clock_stands(bench: Bench, clock: Clock) -> None:
    call = Call()
    connection = connected(bench, call)
    connection.data_received(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n")
    connection.pause_reading()
    clock.now += 100
    bench.loop.turn()
    assert call.events == [("response", 200, b"", False)]
    assert not transport_of(connection).is_reading
    connection.resume_reading()
    assert transport_of(connection).is_reading
    clock.now += 2.2
    bench.loop.turn()
    assert call.events[-1] == ("lost", "upstream-idle-timeout")


def test_while_the_clients_body_is_missing_the_clock_stands(bench: Bench, clock: Clock) -> None:
    call = Call()
    connection = connected(bench, call)
    connection.expect_nothing()
    clock.now += 100
    bench.loop.turn()
    assert call.events == []


def test_an_endpoint_that_says_how_long_it_keeps_connections_is_believed(
    bench: Bench, clock: Clock
) -> None:
    connection = connected(bench, Call())
    connection.data_received(
        b"HTTP/1.1 200 OK\r\nkeep-alive: timeout=3\r\ncontent-length: 0\r\n\r\n"
    )
    assert is_idle(connection)
    clock.now += 2.2  # a second less than it said
    bench.loop.turn()
    assert transport_of(connection).state != "open"


def test_bytes_without_a_request_end_the_connection(bench: Bench) -> None:
    connection = bench.connect(bench.pool.endpoints[0])
    connection.data_received(WHOLE)
    assert transport_of(connection).state == "aborted"
    assert bench.failures("unsolicited") == 1


def test_giving_up_frees_the_connection_once(bench: Bench) -> None:
    call = Call()
    connection = connected(bench, call)
    connection.abort()
    connection.abort()
    connection.connection_lost(None)
    assert call.events == []
    assert (connection.pool.open, connection.pool.in_flight) == (0, 0)


def test_an_end_of_file_ends_only_a_body_that_goes_until_close(bench: Bench) -> None:
    until_close, with_length = Call(), Call()
    first, second = connected(bench, until_close), connected(bench, with_length)
    first.data_received(b"HTTP/1.1 200 OK\r\n\r\nhel")
    second.data_received(WHOLE[:-2])
    for connection in (first, second):
        connection.eof_received()
        connection.connection_lost(None)
    assert until_close.events[-1] == ("body", b"", True)
    assert with_length.events[-1] == ("lost", "upstream-reset")
    assert (first.pool.open, first.pool.in_flight) == (0, 0)


def test_a_lost_connection_never_ends_a_body_that_goes_until_close(bench: Bench) -> None:
    call = Call()
    connection = connected(bench, call)
    connection.data_received(b"HTTP/1.1 200 OK\r\n\r\nhel")
    connection.connection_lost(ConnectionResetError())
    assert call.events[-1] == ("lost", "upstream-reset")


def test_answers_to_head_requests_have_no_body(bench: Bench) -> None:
    call = Call(is_head=True)
    connection = connected(bench, call)
    connection.data_received(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n")
    assert call.events == [("response", 200, b"", True)]
    assert is_idle(connection)


INTERIM = b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"


@pytest.mark.parametrize("cut", range(1, len(INTERIM + WHOLE)))
def test_an_interim_answer_and_a_response_may_come_in_any_two_pieces(
    bench: Bench, cut: int
) -> None:
    call = Call()
    connection = connected(bench, call)
    connection.data_received((INTERIM + WHOLE)[:cut])
    connection.data_received((INTERIM + WHOLE)[cut:])
    assert call.events[0] == ("interim", 103)
    assert call.events[-1][-1] is True
    assert is_idle(connection)


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\nx: y\n", INTERIM + b"HTTP/1.1 200 OK\n"])
def test_a_line_that_ends_without_cr_is_found_however_it_comes(bench: Bench, head: bytes) -> None:
    for cut in range(len(head) + 1):
        call = Call()
        connection = connected(bench, call)
        connection.data_received(head[:cut])
        if cut < len(head):
            connection.data_received(head[cut:])
        assert call.events[-1] == ("lost", "upstream-malformed")


def test_bytes_that_come_before_the_request_has_left_are_no_answer_to_it(bench: Bench) -> None:
    """They were sent for the request before, or for nobody: the connection is read in the same
    batch of events in which it was taken from the pool."""
    connection = bench.connect(bench.pool.endpoints[0])
    call = Call()
    connection.pool.idle.remove(connection)
    connection.pool.in_flight += 1
    connection.begin(call)
    connection.write(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n")
    connection.data_received(WHOLE)
    assert call.events == [("lost", "upstream-reset")]
    assert transport_of(connection).state == "aborted"
    assert transport_of(connection).written == []
    assert bench.failures("unsolicited") == 1


def test_the_pool_gets_a_connection_back_only_when_its_call_knows(bench: Bench) -> None:
    """Another call may be waiting for it, and the first may still want to stop it."""
    order: list[str] = []

    class Knowing(Call):
        def on_response(self, head: ResponseHead, payload: bytes, complete: bool) -> None:
            order.append("told")
            assert not is_idle(connection)
            connection.pause_reading()  # what a client that does not read leads to
            connection.resume_reading()

    connection = connected(bench, Knowing())
    connection.data_received(WHOLE)
    assert order == ["told"]
    assert is_idle(connection)


@pytest.mark.parametrize("is_wanted", [True, False])
async def test_a_connection_lost_before_it_was_used_is_told_to_whoever_gets_it(
    bench: Bench, is_wanted: bool
) -> None:
    endpoint = bench.pool.endpoints[0]
    connection = Upstream(endpoint)
    connection.connection_made(cast(asyncio.Transport, Transport()))
    endpoint.open += 1
    connection.connection_lost(None)
    endpoint.in_flight += 1
    call = Call()
    if is_wanted:
        connection.begin(call)
        await asyncio.sleep(0)
    else:
        connection.give_back()
    assert call.events == ([("lost", "upstream-reset")] if is_wanted else [])
    assert (endpoint.open, endpoint.in_flight, list(endpoint.idle)) == (0, 0, [])


def test_the_end_of_an_answer_does_not_wait_for_a_request_that_nobody_reads(bench: Bench) -> None:
    connection = connected(bench, Call())
    connection.data_received(b"HTTP/1.1 200 OK\r\n\r\nhel")
    transport_of(connection).unsent_bytes = 1
    assert not connection.eof_received()
    assert transport_of(connection).state == "aborted"
