"""Conversations of more than one turn: 100-continue, early answers, interim answers, WebSocket."""

import pytest

from tests.raw.harness import Stand, head
from tests.raw.origin import OK, Step
from tests.serve.harness import poll

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
CLOSE = b"Connection: close"
ASKS = (b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Key: k")
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"


# expect


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_body_announced_by_expect_is_sent_after_the_endpoints_100(
    stand: Stand, framing: str
) -> None:
    target = stand.target()
    stand.origin.script(target, CONTINUE, Step.READ, OK)
    is_chunked = framing == "chunked"
    line = b"Transfer-Encoding: chunked" if is_chunked else b"Content-Length: 5"
    raw = head(target, b"Expect: 100-continue", line, CLOSE, method=b"POST")
    with stand.client() as client:
        client.send(raw).until(CONTINUE)
        outcome = client.send(b"5\r\nhello\r\n0\r\n\r\n" if is_chunked else b"hello").end()
    assert [answer.status for answer in outcome.answers()] == [100, 200]
    (request,) = stand.origin.asked(target)
    assert (request.body, request.values(b"expect")) == (b"hello", [b"100-continue"])


def test_a_body_that_does_not_wait_for_the_100_is_relayed(stand: Stand) -> None:
    target = stand.target()
    stand.origin.script(target, CONTINUE, Step.READ, OK)
    raw = head(target, b"Expect: 100-continue", b"Content-Length: 5", CLOSE, method=b"POST")
    assert stand.send(raw + b"hello").only.status == 200
    assert stand.origin.asked(target)[0].body == b"hello"


def test_an_early_final_answer_ends_the_connection_when_the_body_was_not_sent(
    stand: Stand,
) -> None:
    target = stand.target()
    stand.origin.script(target, OK.replace(b"200 OK", b"417 No"), Step.HOLD)
    raw = head(target, b"Expect: 100-continue", b"Content-Length: 5", method=b"POST")
    outcome = stand.send(raw)
    assert (outcome.only.status, outcome.ending) == (417, "closed")
    assert outcome.only.value(b"connection") == b"close"
    assert stand.origin.asked(target) == []


def test_an_early_final_answer_to_a_body_in_progress_leaves_no_connection_to_reuse(
    stand: Stand,
) -> None:
    target, later = stand.target(), stand.target()
    stand.origin.script(target, OK, Step.HOLD)
    raw = head(target, b"Content-Length: 50", method=b"POST")
    outcome = stand.send(raw + b"only some")
    assert (outcome.only.status, outcome.ending) == (200, "closed")
    stand.send(head(later, CLOSE))
    link = stand.origin.link_of(later)
    assert target not in bytes(link.received)


def test_what_follows_an_unsent_body_is_not_read_as_a_request(stand: Stand) -> None:
    """0.CL by `expect`: the early answer must not make a request of the body."""
    target, hidden = stand.target(), stand.target()
    stand.origin.script(target, OK.replace(b"200 OK", b"401 No"), Step.HOLD)
    body = head(hidden)
    raw = head(target, b"Expect: 100-continue", b"Content-Length: %d" % len(body), method=b"POST")
    with stand.client() as client:
        client.send(raw).until(b"401 No")
        outcome = client.send(body, head(hidden)).end()
    assert [answer.status for answer in outcome.answers()] == [401]
    assert stand.origin.asked(hidden) == []


def test_expect_of_http_1_0_is_ignored_and_gets_no_interim_answer(stand: Stand) -> None:
    target = stand.target()
    raw = b"POST %b HTTP/1.0\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nhi"
    stand.origin.script(target, CONTINUE, Step.READ, OK)
    outcome = stand.send(raw % target)
    assert [answer.status for answer in outcome.answers()] == [200]
    assert stand.origin.asked(target)[0].values(b"expect") == []


# interim answers

HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n"


@pytest.mark.parametrize(
    ("interims", "statuses"),
    [
        pytest.param(HINTS, [103], id="103"),
        pytest.param(HINTS + HINTS, [103, 103], id="103-twice"),
        pytest.param(b"HTTP/1.1 102 Processing\r\n\r\n" + HINTS, [102, 103], id="102-103"),
        pytest.param(CONTINUE, [100], id="100-nobody-waits-for"),
        pytest.param(b"HTTP/1.1 199 What\r\n\r\n", [199], id="unknown"),
        pytest.param(HINTS * 16, [103] * 16, id="as-many-as-allowed"),
    ],
)
def test_interim_answers_are_passed_on_before_the_final_one(
    stand: Stand, interims: bytes, statuses: list[int]
) -> None:
    target = stand.target()
    stand.origin.script(target, Step.READ, interims + OK)
    answers = stand.send(head(target, CLOSE)).answers()
    assert [answer.status for answer in answers] == [*statuses, 200]
    if statuses[0] == 103:
        assert answers[0].values(b"link") == [b"</a>; rel=preload"]


def test_interim_answers_are_kept_from_http_1_0(stand: Stand) -> None:
    target = stand.target()
    stand.origin.script(target, Step.READ, HINTS + OK)
    outcome = stand.send(b"GET %b HTTP/1.0\r\n\r\n" % target)
    assert [answer.status for answer in outcome.answers()] == [200]


def test_a_flood_of_interim_answers_is_refused(stand: Stand) -> None:
    target = stand.target()
    stand.origin.script(target, Step.READ, HINTS * 17 + OK)
    answers = stand.send(head(target, CLOSE)).answers()
    assert [answer.status for answer in answers][-1] == 502
    assert answers[-1].reason == "upstream-malformed"


# websocket


def test_a_websocket_carries_bytes_both_ways_and_ends_side_by_side(stand: Stand) -> None:
    target = stand.target()
    stand.origin.script(target, Step.READ, SWITCH, Step.ECHO)
    with stand.client() as client:
        client.send(head(target, *ASKS)).until(b"\r\n\r\n")
        client.send(b"\x00ping\xff").until(b"\x00ping\xff")
        outcome = client.send(b"last").half_close().end()
    answer = outcome.only
    assert answer.status == 101
    assert answer.values(b"connection") == [b"Upgrade"]
    assert answer.values(b"upgrade") == [b"websocket"]
    assert outcome.raw.endswith(b"\x00ping\xfflast")
    assert outcome.ending == "closed"
    seen = stand.origin.asked(target)[0]
    assert seen.values(b"upgrade") == [b"websocket"]
    assert seen.values(b"sec-websocket-key") == [b"k"]


def test_an_endpoint_that_says_no_more_first_can_still_listen(stand: Stand) -> None:
    target = stand.target()
    stand.origin.script(target, Step.READ, SWITCH + b"bye", Step.HALF, Step.HOLD)
    with stand.client() as client:
        outcome = client.send(head(target, *ASKS)).end()
        assert outcome.raw.endswith(b"bye")
        client.send(b"after")
        link = stand.origin.link_of(target)
        poll(lambda: bytes(link.received).endswith(b"after"), "heard")


def test_bytes_sent_ahead_of_the_switch_are_not_read_as_a_request(stand: Stand) -> None:
    target, hidden = stand.target(), stand.target()
    stand.origin.script(target, Step.READ, SWITCH, Step.ECHO)
    with stand.client() as client:
        client.send(head(target, *ASKS) + head(hidden)).until(hidden)
        client.half_close().end()
    assert stand.origin.asked(hidden) == []
    assert bytes(stand.origin.link_of(target).received).endswith(head(hidden))


def test_bytes_sent_ahead_of_a_refused_switch_are_the_next_request(stand: Stand) -> None:
    """They are HTTP when the endpoint says no: never sent on before it has answered."""
    target, later = stand.target(), stand.target()
    stand.origin.script(target, Step.READ, OK)
    outcome = stand.send(head(target, *ASKS) + head(later, CLOSE))
    assert [answer.status for answer in outcome.answers()] == [200, 200]
    assert later not in bytes(stand.origin.asked(target)[0].body)
    assert len(stand.origin.asked(later)) == 1


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"POST %b HTTP/1.1\r\nHost: h\r\n", id="post"),
        pytest.param(b"GET %b HTTP/1.0\r\nHost: h\r\n", id="http-1.0"),
        pytest.param(b"GET %b HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n", id="with-a-length"),
        pytest.param(b"GET %b HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n", id="chunked"),
    ],
)
def test_an_upgrade_that_could_hide_a_body_is_not_passed_on(stand: Stand, raw: bytes) -> None:
    target = stand.target()
    lines = b"Connection: close, Upgrade\r\nUpgrade: websocket\r\n\r\n"
    body = {b"Length": b"hi", b"Encoding": b"2\r\nhi\r\n0\r\n\r\n"}
    sent = next((b for name, b in body.items() if name in raw), b"")
    assert stand.send(raw % target + lines + sent).only.status == 200
    seen = stand.origin.asked(target)[0]
    assert seen.values(b"upgrade") == seen.values(b"connection") == []


@pytest.mark.parametrize(
    "protocol", [b"h2c", b"websocket, h2c", b"HTTP/2.0", b"TLS/1.0", b"irc/6.9"]
)
def test_a_protocol_other_than_websocket_is_not_passed_on(stand: Stand, protocol: bytes) -> None:
    target = stand.target()
    raw = head(target, b"Connection: Upgrade, close", b"Upgrade: " + protocol)
    assert stand.send(raw).only.status == 200
    seen = stand.origin.asked(target)[0]
    assert seen.values(b"upgrade") == seen.values(b"connection") == []


@pytest.mark.parametrize(
    ("lines", "answer"),
    [
        pytest.param((), SWITCH, id="not-asked-for"),
        pytest.param(ASKS, SWITCH.replace(b"websocket", b"h2c"), id="another-protocol"),
        pytest.param(ASKS, b"HTTP/1.1 101 Switching\r\n\r\n", id="no-protocol"),
        pytest.param(ASKS, SWITCH.replace(b"1.1 101", b"1.0 101"), id="http-1.0"),
    ],
)
def test_a_switch_that_does_not_answer_the_question_is_refused(
    stand: Stand, lines: tuple[bytes, ...], answer: bytes
) -> None:
    target = stand.target()
    stand.origin.script(target, Step.READ, answer, Step.HOLD)
    with stand.client() as client:
        client.send(head(target, *lines)).until(b"malformed")
        client.send(head(stand.target(), CLOSE))
        answers = client.end().answers()
    assert (answers[0].status, answers[0].reason) == (502, "upstream-malformed")
    assert stand.link_ended(target) in ("closed", "reset")


def test_a_200_with_upgrade_fields_opens_no_tunnel(stand: Stand) -> None:
    target, later = stand.target(), stand.target()
    stand.origin.script(target, Step.READ, OK.replace(b"\r\n", b"\r\nUpgrade: websocket\r\n", 1))
    with stand.client() as client:
        client.send(head(target, *ASKS)).until(b"ok")
        answers = client.send(head(later, CLOSE)).end().answers()
    assert [answer.status for answer in answers] == [200, 200]
    assert answers[0].values(b"upgrade") == []
    assert len(stand.origin.asked(later)) == 1
