import json

import pytest

from router import errors
from router.errors import MALFORMED, NO_ENDPOINT, NO_ROUTE, Refusal
from router.http1.problem import write_answer, write_problem

REFUSALS = [value for value in vars(errors).values() if isinstance(value, Refusal)]


def test_a_problem_is_a_whole_response_with_a_json_body() -> None:
    head, _, body = write_problem(NO_ROUTE, "no route", b"id-1").partition(b"\r\n\r\n")
    assert head == (
        b"HTTP/1.1 404 Not Found\r\ncontent-type: application/problem+json\r\n"
        b"content-length: %d\r\nx-request-id: id-1" % len(body)
    )
    assert json.loads(body) == {
        "type": "urn:pointsman:problem:no-route",
        "title": "No route matches this request",
        "status": 404,
        "detail": "no route",
        "request_id": "id-1",
    }


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.reason)
def test_every_refusal_can_be_answered(refusal: Refusal) -> None:
    head, _, body = write_problem(refusal, "d", b"").partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % refusal.status)
    assert (b"\r\nconnection: close" in head) is refusal.close
    assert json.loads(body)["type"] == "urn:pointsman:problem:" + refusal.reason


def test_reasons_are_distinct() -> None:
    assert len({refusal.reason for refusal in REFUSALS}) == len(REFUSALS)


@pytest.mark.parametrize(
    "detail", ['"quoted" \\ \r\nset-cookie: a=1', "\x00\x1f\x7f", "caf\xe9 \u212a", "</script>"]
)
def test_a_detail_from_outside_stays_in_the_json(detail: str) -> None:
    head, _, body = write_problem(MALFORMED, detail, b"\xffid").partition(b"\r\n\r\n")
    assert b"set-cookie" not in head
    assert json.loads(body)["detail"] == detail
    assert b"content-length: %d\r\n" % len(body) in head


def test_a_head_request_gets_the_length_and_no_body() -> None:
    whole = write_problem(NO_ROUTE, "no route", b"id-1")
    head, _, body = whole.partition(b"\r\n\r\n")
    assert write_problem(NO_ROUTE, "no route", b"id-1", is_head=True) == head + b"\r\n\r\n"
    assert body


def test_a_problem_closes_when_asked_and_says_when_to_come_back() -> None:
    head = write_problem(NO_ENDPOINT, "d", b"i", close=True).partition(b"\r\n\r\n")[0]
    assert head.split(b"\r\n")[3:] == [b"x-request-id: i", b"retry-after: 1", b"connection: close"]


def test_a_plain_answer_is_written_byte_for_byte() -> None:
    assert write_answer(200, b"text/plain", b"ok\n", extra=b"x: 1\r\n") == (
        b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 3\r\nx: 1\r\n\r\nok\n"
    )
