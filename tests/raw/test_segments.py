"""The same bytes mean the same however the network cuts them.

Each segment is sent only after the router has read the one before, so that it really gets them
apart.
"""

from dataclasses import dataclass

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.raw.broken_responses import CASES as BROKEN_RESPONSES
from tests.raw.harness import Stand, head
from tests.raw.origin import OK, Step
from tests.raw.refused_bodies import BODIES
from tests.raw.refused_heads import CASES

CHUNKED = b"POST /s HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
GOOD = (
    head(b"/s", b"Content-Length: 5", method=b"POST") + b"hello",
    CHUNKED + b"5;a=b\r\nhello\r\n1\r\n!\r\n0\r\nX: y\r\n\r\n",
    head(b"/s") + head(b"/s?2", b"Content-Length: 2", method=b"PUT") + b"hi" + head(b"/s?3"),
    b"\r\n" + head(b"/s", b"Connection: close") + head(b"/never"),
)
STREAMS = (*GOOD, *(raw for _, raw, _ in CASES), *(CHUNKED + body for _, body in BODIES))
LAST = head(b"/-/healthz", b"Connection: close")
ANSWERS = (
    OK,
    b"HTTP/1.1 103 X\r\nLink: a\r\n\r\n" + OK,
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;e\r\nok\r\n1\r\n!\r\n0\r\nT:\r\n\r\n",
    OK + b"more",
    *(raw for _, raw in BROKEN_RESPONSES),
)


@dataclass(frozen=True)
class Seen:
    """What a client and an origin saw, without what differs from one time to the next."""

    answers: list[tuple[int, bytes | None, bytes]]
    ending: str
    requests: list[tuple[tuple[bytes, bytes, bytes], bytes]]


def cut(raw: bytes, places: list[int]) -> list[bytes]:
    at = sorted({place % len(raw) for place in places} - {0})
    return [raw[a:b] for a, b in zip([0, *at], [*at, len(raw)], strict=True)]


def seen(stand: Stand, pieces: list[bytes]) -> Seen:
    before = len(stand.origin.requests)
    stand.origin.script_all(Step.READ, OK)
    with stand.client() as client:
        for piece in pieces:
            client.send(piece).until_read()
        outcome = client.end()
    answers = [
        (a.status, a.value(b"connection"), a.body if a.status == 200 else a.reason.encode())
        for a in outcome.answers()
    ]
    requests = [(m.start, m.body) for m in stand.origin.requests[before:]]
    return Seen(answers, outcome.ending, requests)


STAND = [HealthCheck.function_scoped_fixture]
places = st.lists(st.integers(0, 4000), min_size=1, max_size=6)


@settings(max_examples=250, deadline=None, suppress_health_check=STAND)
@given(raw=st.sampled_from(STREAMS), at=places)
@example(raw=GOOD[3], at=[1])
@example(raw=b"\r\n" + GOOD[3], at=[1, 2, 3])
@example(raw=GOOD[1], at=list(range(200)))
@example(raw=GOOD[2], at=list(range(400)))
def test_of_a_request_any_segments_give_the_same_outcome(
    stand: Stand, raw: bytes, at: list[int]
) -> None:
    whole = seen(stand, [raw + LAST])
    assert seen(stand, cut(raw + LAST, at)) == whole


@settings(max_examples=150, deadline=None, suppress_health_check=STAND)
@given(raw=st.sampled_from(ANSWERS), at=places)
def test_of_a_response_any_segments_give_the_same_outcome(
    stand: Stand, raw: bytes, at: list[int]
) -> None:
    found = []
    for pieces in ([raw], cut(raw, at)):
        target = stand.target()
        stand.origin.script(target, Step.READ, *pieces)
        request = head(target, b"Connection: close", b"Content-Length: 0", method=b"POST")
        outcome = stand.send(request)
        found.append([(a.status, a.is_whole, a.body[:20]) for a in outcome.answers()])
    assert found[0] == found[1]
