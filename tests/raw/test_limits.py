"""Every bound on what clients and endpoints send: below it, at it, above it."""

import contextlib
import time

import pytest

from tests.raw.client import Outcome
from tests.raw.harness import Stand, head
from tests.raw.origin import OK, Step
from tests.serve.harness import poll

CLOSE = b"Connection: close"


def check(stand: Stand, outcome: Outcome, refused: tuple[int, str] | None) -> None:
    """Answered by the origin, or refused, counted, and closed."""
    answer = outcome.only
    assert outcome.ending == "closed"
    if refused is None:
        assert answer.status == 200
        assert stand.newly_refused() == {}
    else:
        assert (answer.status, answer.reason) == refused
        assert answer.value(b"connection") == b"close"
        assert stand.newly_refused() == {refused[1]: 1}


@pytest.fixture(autouse=True)
def _marked(request: pytest.FixtureRequest) -> None:
    for name in ("small", "hasty", "crowded"):
        if name in request.fixturenames:
            request.getfixturevalue(name).mark()


# heads

TOO_LONG = (414, "target-too-long")
HEAD_TOO_LARGE = (431, "head-too-large")
BODY_TOO_LARGE = (413, "body-too-large")


@pytest.mark.parametrize(
    ("length", "refused"), [(255, None), (256, None), (257, TOO_LONG), (700, TOO_LONG)]
)
def test_request_line(small: Stand, length: int, refused: tuple[int, str] | None) -> None:
    target = small.target()
    target += b"a" * (length - len(b"GET  HTTP/1.1") - len(target))
    check(small, small.send(head(target, CLOSE)), refused)
    assert (small.newly_received() == 0) is (refused is not None)


@pytest.mark.parametrize("is_split", [False, True], ids=["whole", "in-pieces"])
@pytest.mark.parametrize(
    ("length", "refused"),
    [(1023, None), (1024, None), (1025, HEAD_TOO_LARGE), (5000, HEAD_TOO_LARGE)],
)
def test_head_bytes(
    small: Stand, length: int, refused: tuple[int, str] | None, is_split: bool
) -> None:
    target = small.target()
    room = length - len(head(target, CLOSE, b"X: ")) + 4
    raw = head(target, CLOSE, b"X: " + b"a" * room)
    assert raw.index(b"\r\n\r\n") == length
    pieces = [raw[i : i + 100] for i in range(0, len(raw), 100)] if is_split else [raw]
    check(small, small.send(*pieces), refused)
    assert (small.newly_received() == 0) is (refused is not None)


@pytest.mark.parametrize(("count", "refused"), [(7, None), (8, None), (9, HEAD_TOO_LARGE)])
def test_number_of_headers(small: Stand, count: int, refused: tuple[int, str] | None) -> None:
    target = small.target()
    lines = [b"X-%d: 1" % number for number in range(count - 2)]
    check(small, small.send(head(target, CLOSE, *lines)), refused)
    assert (small.newly_received() == 0) is (refused is not None)


# bodies


@pytest.mark.parametrize("framing", ["length", "chunked", "many-chunks"])
@pytest.mark.parametrize(
    ("size", "refused"), [(999, None), (1000, None), (1001, BODY_TOO_LARGE), (9000, BODY_TOO_LARGE)]
)
def test_body_bytes(small: Stand, size: int, refused: tuple[int, str] | None, framing: str) -> None:
    target = small.target()
    if framing == "length":
        raw = head(target, CLOSE, b"Content-Length: %d" % size, method=b"POST") + b"a" * size
    else:
        step = size if framing == "chunked" else 100
        sizes = [min(step, size - at) for at in range(0, size, step)]
        body = b"".join(b"%x\r\n%b\r\n" % (n, b"a" * n) for n in sizes) + b"0\r\n\r\n"
        raw = head(target, CLOSE, b"Transfer-Encoding: chunked", method=b"POST") + body
    check(small, small.send(raw), refused)
    assert len(small.origin.asked(target)) == (refused is None)


@pytest.mark.parametrize("length", [b"1001", b"999999999999999999"])
def test_a_declared_length_above_the_bound_is_refused_before_the_body_comes(
    small: Stand, length: bytes
) -> None:
    raw = head(small.target(), b"Content-Length: " + length, method=b"POST")
    check(small, small.send(raw), BODY_TOO_LARGE)
    assert small.newly_received() == 0


@pytest.mark.parametrize("length", [63, 64, 65])
@pytest.mark.parametrize("is_split", [False, True], ids=["whole", "in-pieces"])
def test_trailer_bytes(small: Stand, length: int, is_split: bool) -> None:
    target = small.target()
    raw = head(target, CLOSE, b"Transfer-Encoding: chunked", method=b"POST")
    trailers = b"X: " + b"a" * (length - 5) + b"\r\n"
    assert len(trailers) == length
    body = b"0\r\n" + trailers + b"\r\n"
    pieces = [raw, *(body[i : i + 9] for i in range(0, len(body), 9))] if is_split else [raw + body]
    check(small, small.send(*pieces), None if length <= 64 else (400, "malformed-request"))


@pytest.mark.parametrize("length", [255, 256, 257])
def test_chunk_line_bytes(small: Stand, length: int) -> None:
    target = small.target()
    raw = head(target, CLOSE, b"Transfer-Encoding: chunked", method=b"POST")
    line = b"1;" + b"a" * (length - 2)
    outcome = small.send(raw + line + b"\r\na\r\n0\r\n\r\n")
    check(small, outcome, None if length <= 256 else (400, "malformed-request"))


def test_a_chunk_line_that_never_ends_is_refused_while_it_comes(small: Stand) -> None:
    raw = head(small.target(), b"Transfer-Encoding: chunked", method=b"POST")
    check(small, small.send(raw, b"1;" + b"a" * 300), (400, "malformed-request"))


# times


@pytest.mark.parametrize("sent", [b"G", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nHost: h\r\nX"])
def test_a_head_that_does_not_end_in_time_is_a_408(hasty: Stand, sent: bytes) -> None:
    check(hasty, hasty.send(sent), (408, "slow-client"))
    assert hasty.newly_received() == 0


def test_dripping_bytes_buy_a_head_no_time(hasty: Stand) -> None:
    """Slowloris: the time counts from the head's first byte, whatever comes meanwhile."""
    began_s = time.monotonic()
    with hasty.client() as client:
        client.sock.settimeout(0.02)
        client.send(b"GET / HTTP/1.1\r\nHost: h\r\n")
        while time.monotonic() < began_s + 10:
            client.send(b"X: y\r\n"[:1])
            with contextlib.suppress(TimeoutError):
                if client.until(b"}"):
                    break
        client.sock.settimeout(10)
        check(hasty, client.end(), (408, "slow-client"))
    assert time.monotonic() - began_s < 5


@pytest.mark.parametrize("framing", [b"Content-Length: 500", b"Transfer-Encoding: chunked"])
def test_a_body_that_stops_coming_is_a_408(hasty: Stand, framing: bytes) -> None:
    target = hasty.target()
    outcome = hasty.send(head(target, framing, method=b"POST"), b"5\r\n")
    check(hasty, outcome, (408, "slow-client"))
    assert hasty.origin.asked(target) == []


def test_a_body_slower_than_the_least_rate_is_a_408(hasty: Stand) -> None:
    target = hasty.target()
    with hasty.client() as client:
        client.sock.settimeout(0.05)
        client.send(head(target, b"Content-Length: 900", method=b"POST"))
        end_s = time.monotonic() + 10
        while time.monotonic() < end_s:
            client.send(b"a")
            with contextlib.suppress(TimeoutError):
                if client.until(b"}"):
                    break
        client.sock.settimeout(10)
        check(hasty, client.end(), (408, "slow-client"))
    assert hasty.origin.asked(target) == []


@pytest.mark.parametrize("is_used", [False, True], ids=["never-used", "kept-alive"])
def test_an_idle_connection_is_closed_without_a_word(hasty: Stand, is_used: bool) -> None:
    with hasty.client() as client:
        if is_used:
            client.send(head(hasty.target())).until(b"ok")
        before = len(client.received)
        outcome = client.end()
    assert (len(outcome.raw), outcome.ending) in [(before, "closed"), (before, "reset")]
    assert hasty.newly_refused() == {}


def test_requests_per_connection(small: Stand) -> None:
    targets = [small.target() for _ in range(4)]
    outcome = small.send(b"".join(head(target) for target in targets))
    answers = outcome.answers()
    assert [answer.status for answer in answers] == [200] * 3
    assert [answer.values(b"connection") for answer in answers] == [[], [], [b"close"]]
    assert outcome.ending == "closed"
    assert small.origin.asked(targets[3]) == []


# endpoints


@pytest.mark.parametrize("length", [1023, 1024, 1025, 5000])
def test_response_head_bytes(small: Stand, length: int) -> None:
    target = small.target()
    start = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX: "
    answer = start + b"a" * (length - len(start)) + b"\r\n\r\nok"
    small.origin.script(target, Step.READ, answer)
    found = small.send(head(target, CLOSE)).only
    assert found.status == (200 if length <= 1024 else 502)
    assert found.status == 200 or found.reason == "upstream-malformed"


@pytest.mark.parametrize("count", [7, 8, 9])
def test_response_headers(small: Stand, count: int) -> None:
    target = small.target()
    lines = b"".join(b"X-%d: 1\r\n" % number for number in range(count - 1))
    small.origin.script(target, Step.READ, OK.replace(b"\r\n", b"\r\n" + lines, 1))
    assert small.send(head(target, CLOSE)).only.status == (200 if count <= 8 else 502)


def test_a_response_head_that_never_ends_is_cut_at_its_bound(small: Stand) -> None:
    target = small.target()
    endless = b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 100_000
    small.origin.script(target, Step.READ, endless, Step.HOLD)
    assert small.send(head(target, CLOSE)).only.reason == "upstream-malformed"


def test_no_answer_in_time_is_a_504(hasty: Stand) -> None:
    target = hasty.target()
    hasty.origin.script(target, Step.READ, Step.HOLD)
    answer = hasty.send(head(target, CLOSE)).only
    assert (answer.status, answer.reason) == (504, "upstream-first-byte-timeout")
    assert hasty.link_ended(target) in ("closed", "reset")


def test_an_answer_that_stops_is_cut(hasty: Stand) -> None:
    target = hasty.target()
    hasty.origin.script(target, Step.READ, OK.replace(b": 2", b": 9"), Step.HOLD)
    outcome = hasty.send(head(target, CLOSE))
    assert outcome.ending == "reset"


def test_a_silent_tunnel_is_ended(hasty: Stand) -> None:
    target = hasty.target()
    switch = b"HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
    hasty.origin.script(target, Step.READ, switch, Step.ECHO)
    outcome = hasty.send(head(target, b"Connection: Upgrade", b"Upgrade: websocket"))
    assert outcome.raw.startswith(b"HTTP/1.1 101 ")
    assert hasty.link_ended(target) in ("closed", "reset")


# crowds

OWN_PAGES = [
    head(path, CLOSE, method=method)
    for path in (b"/-/healthz", b"/-/readyz")
    for method in (b"GET", b"HEAD")
]
"""What is never shed."""
IN_FLIGHT = "pointsman_requests_in_flight"
SURPLUS_MAX = 256
"""Connections past the bound that are still read."""


def check_own_pages(stand: Stand, source: str = "127.0.0.1") -> None:
    for page in OWN_PAGES:
        outcome = stand.send(page, source=source)
        assert [answer.status for answer in outcome.answers(page.split(b" ")[0])] == [200]


def open_connections(stand: Stand) -> int:
    return int(stand.counted("pointsman_downstream_connections"))


@pytest.mark.parametrize(
    ("sources", "count"),
    [
        pytest.param(["127.0.0.1"], 3, id="per-client"),
        pytest.param(["127.0.0.1", "127.0.0.2", "127.0.0.3"], 6, id="per-worker"),
    ],
)
def test_connections(crowded: Stand, sources: list[str], count: int) -> None:
    poll(lambda: open_connections(crowded) == 0, "empty")
    with contextlib.ExitStack() as stack:
        for number in range(count):
            client = stack.enter_context(crowded.client(sources[number % len(sources)]))
            client.send(head(crowded.target())).until(b"ok")
        crowded.mark()
        outcome = crowded.send(head(crowded.target()), source=sources[-1])
        check(crowded, outcome, (503, "too-many-connections"))
        assert outcome.only.value(b"retry-after")
        assert crowded.newly_received() == 0
        check_own_pages(crowded, sources[-1])
    poll(lambda: open_connections(crowded) == 0, "empty")
    assert crowded.send(head(crowded.target(), CLOSE)).only.status == 200


def test_connections_far_beyond_the_bound_are_closed_unread(crowded: Stand) -> None:
    poll(lambda: open_connections(crowded) == 0, "empty")
    crowded.mark()
    with contextlib.ExitStack() as stack:
        for number in range(6 + SURPLUS_MAX):
            stack.enter_context(crowded.client(f"127.0.1.{1 + number % 100}"))
        poll(lambda: open_connections(crowded) == 6 + SURPLUS_MAX, "full")
        outcome = crowded.send(OWN_PAGES[0], source="127.0.2.1")
        assert (outcome.raw, crowded.newly_received()) == (b"", 0)
        assert crowded.newly_refused() == {"too-many-connections": 1}
    poll(lambda: open_connections(crowded) == 0, "empty")
    assert crowded.send(head(crowded.target(), CLOSE)).only.status == 200


def test_requests_in_progress(crowded: Stand) -> None:
    """The newest is refused, and what is in progress goes on to its end."""
    poll(lambda: open_connections(crowded) == 0, "empty")
    held = [crowded.target() for _ in range(2)]
    with contextlib.ExitStack() as stack:
        clients = []
        for number, target in enumerate(held):
            assert crowded.send(head(crowded.target(), CLOSE)).only.status == 200  # below
            client = stack.enter_context(crowded.client(f"127.0.0.{4 + number}"))
            raw = head(target, CLOSE, b"Content-Length: 2", method=b"POST")
            clients.append(client.send(raw))
            poll(lambda: crowded.counted(IN_FLIGHT) == len(clients), "busy")
        crowded.mark()
        seen = crowded.origin.received_bytes
        outcome = crowded.send(head(crowded.target()))
        check(crowded, outcome, (503, "too-many-requests"))
        assert outcome.only.value(b"retry-after")
        assert crowded.origin.received_bytes == seen
        assert crowded.send(head(b"/", method=b"HEAD")).answers(b"HEAD")[0].status == 503
        check_own_pages(crowded)
        for client in clients:
            assert client.send(b"hi").end().only.status == 200
    poll(lambda: crowded.counted(IN_FLIGHT) == 0, "idle")
    assert crowded.send(head(crowded.target(), CLOSE)).only.status == 200
