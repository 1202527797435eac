"""What a client may not send: refused with its reason, counted, the connection closed, and nothing
of it at the origin. Behind every case stands another request, which must find nobody."""

import pytest

from tests.raw.harness import Stand, head
from tests.raw.refused_bodies import BODIES
from tests.raw.refused_heads import CASES

SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n"
STATUS = {
    "malformed-request": 400,
    "coding-unknown": 501,
    "method-refused": 405,
    "expectation-unknown": 417,
    "version-unsupported": 505,
}


def singly(raw: bytes) -> list[bytes]:
    return [raw[index : index + 1] for index in range(len(raw))]


@pytest.mark.parametrize("pieces", ["whole", "singly"])
@pytest.mark.parametrize(
    ("raw", "reason"), [pytest.param(raw, reason, id=rule) for rule, raw, reason in CASES]
)
def test_a_head_is_refused_for(stand: Stand, raw: bytes, reason: str, pieces: str) -> None:
    stand.mark()
    segments = [raw + SMUGGLED] if pieces == "whole" else [*singly(raw), SMUGGLED]
    outcome = stand.send(*segments)
    answer = outcome.only
    assert (answer.status, answer.reason) == (STATUS[reason], reason)
    assert answer.value(b"connection") == b"close"
    assert answer.value(b"date")
    assert outcome.ending == "closed"
    assert stand.newly_refused() == {reason: 1}
    assert stand.newly_received() == 0


@pytest.mark.parametrize(
    "raw", [pytest.param(raw, id=rule) for rule, raw, reason in CASES if "method" in reason]
)
def test_a_method_refused_names_those_that_are_relayed(stand: Stand, raw: bytes) -> None:
    allow = stand.send(raw).only.value(b"allow")
    assert allow is not None
    assert {b"GET", b"POST", b"OPTIONS"} <= set(allow.split(b", "))
    assert not {b"CONNECT", b"TRACE"} & set(allow.split(b", "))


@pytest.mark.parametrize("pieces", ["whole", "singly", "after-the-head"])
@pytest.mark.parametrize("body", [pytest.param(body, id=rule) for rule, body in BODIES])
def test_a_chunked_body_is_refused_for(stand: Stand, body: bytes, pieces: str) -> None:
    stand.mark()
    target = stand.target()
    raw = head(target, b"Transfer-Encoding: chunked", method=b"POST")
    segments = {
        "whole": [raw + body + SMUGGLED],
        "singly": [raw, *singly(body), SMUGGLED],
        "after-the-head": [raw, body + SMUGGLED],
    }[pieces]
    outcome = stand.send(*segments)
    answer = outcome.only
    assert (answer.status, answer.reason) == (400, "malformed-request")
    assert answer.value(b"connection") == b"close"
    assert outcome.ending == "closed"
    assert stand.newly_refused() == {"malformed-request": 1}
    assert stand.origin.asked(target) == []
    assert stand.origin.asked(b"/smuggled") == []


@pytest.mark.parametrize("first", ["answered", "in-progress"])
def test_a_good_request_before_a_bad_one_is_answered_first(stand: Stand, first: str) -> None:
    target = stand.target()
    good = head(target)
    bad = b"GET / HTTP/1.1\r\nHost : h\r\n\r\n"
    with stand.client() as client:
        if first == "answered":
            client.send(good).until(b"ok")
            client.send(bad)
        else:
            client.send(good + bad)
        outcome = client.end()
    assert [answer.status for answer in outcome.answers()] == [200, 400]
    assert len(stand.origin.asked(target)) == 1


@pytest.mark.parametrize("pieces", ["whole", "singly"])
@pytest.mark.parametrize("count", [1, 2, 9])
def test_empty_lines_before_a_request_are_ignored(stand: Stand, count: int, pieces: str) -> None:
    raw = b"\r\n" * count + head(stand.target(), b"Connection: close")
    assert stand.send(*([raw] if pieces == "whole" else singly(raw))).only.status == 200


def test_bytes_of_a_head_that_never_ends_reach_nobody(stand: Stand) -> None:
    stand.mark()
    with stand.client() as client:
        outcome = client.send(b"GET / HTTP/1.1\r\nHost: h\r\nX: y").half_close().end()
    assert outcome.raw == b""
    assert stand.newly_received() == 0


@pytest.mark.parametrize("line", [b"X : y", b"Content-Length: +1", b"Transfer-Encoding: gzip"])
def test_a_refusal_of_a_head_request_has_no_body(stand: Stand, line: bytes) -> None:
    (answer,) = stand.send(head(b"/", line, method=b"HEAD") + SMUGGLED).answers(b"HEAD")
    assert answer.status in (400, 501)
    assert answer.value(b"content-length") != b"0"
