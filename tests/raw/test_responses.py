"""What an endpoint may not send, and what a client gets of what it may."""

import pytest

from tests.raw.broken_responses import CASES, CORRUPT, CUT
from tests.raw.client import Answer
from tests.raw.harness import Stand, head
from tests.raw.origin import OK, Step
from tests.serve.harness import poll

CLOSE = b"Connection: close"


def answered(stand: Stand, answer: bytes, *, method: bytes = b"GET") -> Answer:
    """What a client gets of `answer`, over a connection of its own."""
    target = stand.target()
    stand.origin.script(target, Step.READ, answer)
    (found,) = stand.send(head(target, CLOSE, method=method)).answers(method)
    return found


@pytest.mark.parametrize("method", [b"GET", b"POST"])
@pytest.mark.parametrize("raw", [pytest.param(raw, id=rule) for rule, raw in CASES])
def test_an_answer_becomes_a_502_for(stand: Stand, raw: bytes, method: bytes) -> None:
    stand.mark()
    target, later = stand.target(), stand.target()
    stand.origin.script(target, Step.READ, raw, Step.HOLD)
    outcome = stand.send(head(target, method=method) + head(later, CLOSE))
    first, second = outcome.answers()
    assert (first.status, first.reason) == (502, "upstream-malformed")
    assert stand.newly_refused() == {"upstream-malformed": 1}
    assert len(stand.origin.asked(target)) == 1, "it was sent again"
    assert second.status == 200
    assert target not in bytes(stand.origin.link_of(later).received), "the link was used again"
    assert stand.link_ended(target) in ("closed", "reset")


@pytest.mark.parametrize(
    ("raw", "ending"), [pytest.param(raw, ending, id=rule) for rule, raw, ending in CUT]
)
@pytest.mark.parametrize("version", [b"HTTP/1.1", b"HTTP/1.0"])
def test_a_body_cut_short_never_looks_whole(
    stand: Stand, raw: bytes, ending: str, version: bytes
) -> None:
    target = stand.target()
    end = Step.CLOSE if ending == "close" else Step.RESET
    stand.origin.script(target, Step.READ, raw, end)
    outcome = stand.send(b"POST %b %b\r\nHost: h\r\nContent-Length: 0\r\n\r\n" % (target, version))
    assert outcome.ending == "reset" or [a.status for a in outcome.answers()] == [502]


@pytest.mark.parametrize("raw", [pytest.param(raw, id=rule) for rule, raw in CORRUPT])
def test_a_chunked_body_is_broken_off_at(stand: Stand, raw: bytes) -> None:
    target = stand.target()
    stand.origin.script(target, Step.READ, raw, Step.HOLD)
    outcome = stand.send(head(target, CLOSE))
    assert outcome.ending == "reset" or [a.status for a in outcome.answers()] == [502]
    assert stand.link_ended(target) in ("closed", "reset")


@pytest.mark.parametrize(
    ("answer", "status", "body"),
    [
        pytest.param(OK, 200, b"ok", id="length"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length:\t02 \r\n\r\nok", 200, b"ok", id="ows"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200, b"", id="length-0"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n2;x=y\r\nok\r\n0\r\n\r\n",
            200, b"ok", id="chunked",
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 200, b"",
            id="chunked-empty",
        ),
        pytest.param(b"HTTP/1.0 404 No\r\nContent-Length: 2\r\n\r\nno", 404, b"no", id="http-1.0"),
        pytest.param(b"HTTP/1.1 599 \r\nContent-Length: 0\r\n\r\n", 599, b"", id="empty-reason"),
        pytest.param(b"HTTP/1.1 299\r\nContent-Length: 0\r\n\r\n", 299, b"", id="no-reason"),
        pytest.param(b"HTTP/1.1 200 \xfc\r\nContent-Length: 0\r\n\r\n", 200, b"", id="latin-1"),
    ],
)  # fmt: skip
def test_an_answer_arrives_whole_and_leaves_both_connections_usable(
    stand: Stand, answer: bytes, status: int, body: bytes
) -> None:
    target, later = stand.target(), stand.target()
    stand.origin.script(target, Step.READ, answer)
    first, second = stand.send(head(target) + head(later, CLOSE)).answers()
    assert (first.status, first.body, first.is_whole) == (status, body, True)
    assert second.status == 200
    is_http11 = answer.startswith(b"HTTP/1.1")
    assert (stand.origin.link_of(target) is stand.origin.link_of(later)) is is_http11


@pytest.mark.parametrize(
    ("method", "answer", "length"),
    [
        (b"HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", b"5"),
        (b"HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", None),
        (b"HEAD", b"HTTP/1.1 200 OK\r\n\r\n", None),
        (b"GET", b"HTTP/1.1 204 X\r\n\r\n", None),
        (b"GET", b"HTTP/1.1 204 X\r\nContent-Length: 0\r\n\r\n", None),
        (b"GET", b"HTTP/1.1 304 X\r\nContent-Length: 5\r\n\r\n", b"5"),
        (b"GET", b"HTTP/1.1 304 X\r\nTransfer-Encoding: chunked\r\n\r\n", None),
        (b"GET", b"HTTP/1.1 304 X\r\n\r\n", None),
    ],
    ids=lambda value: value.decode().replace("\r\n", "|") if value else "-",
)
def test_an_answer_without_a_body_has_none_whatever_its_fields_say(
    stand: Stand, method: bytes, answer: bytes, length: bytes | None
) -> None:
    target, later = stand.target(), stand.target()
    stand.origin.script(target, Step.READ, answer)
    outcome = stand.send(head(target, method=method) + head(later, CLOSE))
    first, second = outcome.answers(method, b"GET")
    assert (first.body, first.value(b"content-length")) == (b"", length)
    assert (second.status, second.body) == (200, b"ok")


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        (b"HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"),
        (b"HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
        (b"GET", b"HTTP/1.1 204 X\r\nContent-Length: 5\r\n\r\nhello"),
        (b"GET", b"HTTP/1.1 304 X\r\nContent-Length: 5\r\n\r\nhello"),
        (b"GET", OK + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"),
        (b"GET", OK + b"\r\n"),
        (b"GET", OK + b"x"),
        (b"GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n" + OK),
        (b"GET", b"HTTP/1.1 204 X\r\n\r\n" + OK),
    ],
    ids=range(9),
)
def test_bytes_after_an_answer_poison_the_connection(
    stand: Stand, method: bytes, answer: bytes
) -> None:
    target, later = stand.target(), stand.target()
    stand.origin.script(target, Step.READ, answer, Step.HOLD)
    outcome = stand.send(head(target, method=method) + head(later, CLOSE))
    first, second = outcome.answers(method, b"GET")
    assert (first.status, second.status, second.body) == (first.status, 200, b"ok")
    assert b"evil" not in outcome.raw
    assert stand.link_ended(target) in ("closed", "reset")


@pytest.mark.parametrize(
    "said", [OK, b"HTTP/1.1 408 Timeout\r\nConnection: close\r\n\r\n", b"\x00"]
)
def test_an_answer_that_nobody_asked_for_reaches_nobody(stand: Stand, said: bytes) -> None:
    target, later = stand.target(), stand.target()
    stand.origin.script(target, Step.READ, OK, said, Step.HOLD)
    with stand.client() as client:
        client.send(head(target)).until(b"ok")
        stand.link_ended(target)
        answers = client.send(head(later, CLOSE)).end().answers()
    assert [(answer.status, answer.body) for answer in answers] == [(200, b"ok")] * 2
    assert stand.origin.link_of(later) is not stand.origin.link_of(target)


@pytest.mark.parametrize(
    "line",
    [
        b"Connection: close", b"Connection: Close, X", b"Connection: keep-alive, close",
    ],
)  # fmt: skip
def test_an_endpoint_that_says_close_is_not_asked_again(stand: Stand, line: bytes) -> None:
    target, later = stand.target(), stand.target()
    stand.origin.script(target, Step.READ, OK.replace(b"\r\n", b"\r\n%b\r\n" % line, 1), Step.HOLD)
    first, second = stand.send(head(target) + head(later, CLOSE)).answers()
    assert (first.status, second.status) == (200, 200)
    assert first.values(b"connection") == []
    assert stand.link_ended(target) in ("closed", "reset")


@pytest.mark.parametrize("version", [b"HTTP/1.1", b"HTTP/1.0"])
def test_a_body_until_close_ends_cleanly_when_the_endpoint_ends_cleanly(
    stand: Stand, version: bytes
) -> None:
    target = stand.target()
    stand.origin.script(target, Step.READ, b"HTTP/1.1 200 OK\r\n\r\nall of it", Step.CLOSE)
    outcome = stand.send(b"GET %b %b\r\nHost: h\r\nConnection: close\r\n\r\n" % (target, version))
    answer = outcome.only
    assert (answer.status, answer.body, answer.is_whole) == (200, b"all of it", True)
    assert answer.is_until_close is (version == b"HTTP/1.0")


@pytest.mark.parametrize(
    "line",
    [
        b"Keep-Alive: timeout=5", b"Proxy-Connection: keep-alive", b"Proxy-Authenticate: Basic",
        b"TE: x", b"Trailer: X-Sum", b"Upgrade: h2c", b"Connection: X-Gone\r\nX-Gone: 1",
        b"X-Router-Variant: forged", b"X-Router-Route: forged", b"X-Router-Receipt: forged",
        b"X-Request-Id: forged",
    ],
    ids=lambda line: line.split(b":")[0].decode(),
)  # fmt: skip
def test_fields_of_the_hop_and_forged_ones_do_not_reach_the_client(
    stand: Stand, line: bytes
) -> None:
    answer = answered(stand, OK.replace(b"\r\n", b"\r\n%b\r\nX-Kept: 1\r\n" % line, 1))
    names = [name for name, _ in answer.fields]
    own = {b"x-router-variant", b"x-router-route", b"x-request-id", b"via", b"content-length"}
    assert set(names) - own == {b"x-kept", b"connection", b"date"}
    assert len(names) == len(set(names))
    assert b"forged" not in [value for _, value in answer.fields]


@pytest.mark.parametrize("name", [b"set-cookie", b"content-length"])
def test_an_endpoint_cannot_name_away_what_others_need(stand: Stand, name: bytes) -> None:
    lines = b"\r\nConnection: %b\r\nSet-Cookie: a=1\r\n" % name
    answer = answered(stand, OK.replace(b"\r\n", lines, 1))
    assert (answer.value(b"set-cookie"), answer.body) == (b"a=1", b"ok")


def test_cookies_that_are_set_stay_apart_and_in_order(stand: Stand) -> None:
    cookies = [b"a=1; Expires=Wed, 21 Oct 2026 07:28:00 GMT", b"b=2", b"a=3"]
    lines = b"".join(b"Set-Cookie: %b\r\n" % cookie for cookie in cookies)
    assert answered(stand, OK.replace(b"\r\n", b"\r\n" + lines, 1)).values(b"set-cookie") == cookies


@pytest.mark.parametrize("given", [b"", b"Date: Sat, 01 Jan 2000 00:00:00 GMT\r\n"])
def test_an_answer_has_one_date(stand: Stand, given: bytes) -> None:
    answer = answered(stand, OK.replace(b"\r\n", b"\r\n" + given, 1))
    date = answer.value(b"date")
    assert date is not None
    assert date.endswith(b" GMT")
    assert not given or date in given


def test_trailers_of_an_answer_are_dropped(stand: Stand) -> None:
    raw = b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nSet-Cookie:\r\n\r\n"
    answer = answered(stand, raw)
    assert (answer.body, answer.values(b"set-cookie")) == (b"ok", [])


@pytest.mark.parametrize("ending", [Step.CLOSE, Step.RESET])
@pytest.mark.parametrize(
    "raw",
    [b"", b"H", b"HTTP/1.1 200 OK", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n",
     b"HTTP/1.1 103 X\r\n\r\nHTTP/1.1 200 OK\r\n"],
    ids=["nothing", "one-byte", "status-line", "no-empty-line", "after-an-interim"],
)  # fmt: skip
def test_a_head_cut_short_is_a_502_and_a_post_is_not_sent_again(
    stand: Stand, raw: bytes, ending: Step
) -> None:
    target = stand.target()
    stand.origin.script(target, Step.READ, raw, ending)
    outcome = stand.send(head(target, b"Content-Length: 0", CLOSE, method=b"POST"))
    assert outcome.only.status == 502
    assert outcome.only.reason in ("upstream-reset", "upstream-malformed")
    assert poll(lambda: len(stand.origin.asked(target))) == 1
