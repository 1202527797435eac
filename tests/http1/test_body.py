from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.errors import MALFORMED, UPSTREAM_MALFORMED, HeadError
from router.http1.body import (
    LAST_CHUNK,
    LINE_MAX_BYTES,
    TRAILERS_MAX_BYTES,
    ChunkedDecoder,
    encode_chunk,
)

Segments = Callable[[bytes], list[bytes]]
Outcome = tuple[bytes, bool, bytes] | str
"""Payload, whether the body is whole and what followed it; or why it was refused."""


def decode(*segments: bytes) -> Outcome:
    """What becomes of a body that comes in these segments."""
    decoder = ChunkedDecoder()
    payload = b""
    for index, segment in enumerate(segments):
        if decoder.done:
            return payload, True, decoder.rest + b"".join(segments[index:])
        try:
            payload += decoder.feed(segment)
        except HeadError as error:
            return error.detail
    return payload, decoder.done, decoder.rest


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    """`data` cut at these places, taken modulo its length."""
    places = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    return [data[a:b] for a, b in pairwise(places)]


def one_by_one(data: bytes) -> list[bytes]:
    return [data[n : n + 1] for n in range(len(data))]


@pytest.mark.parametrize(
    ("data", "payload", "rest"),
    [
        pytest.param(b"0\r\n\r\n", b"", b"", id="empty-body"),
        pytest.param(b"3\r\nabc\r\n0\r\n\r\n", b"abc", b"", id="one-chunk"),
        pytest.param(b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", b"abcde", b"", id="two-chunks"),
        pytest.param(b"00a\r\n0123456789\r\n000\r\n\r\n", b"0123456789", b"", id="leading-zeros"),
        pytest.param(b"A\r\n0123456789\r\n0\r\n\r\n", b"0123456789", b"", id="capital-digit"),
        pytest.param(b"4\r\n\r\n0\r\r\n0\r\n\r\n", b"\r\n0\r", b"", id="data-looks-like-framing"),
        pytest.param(b"3;a=b\r\nabc\r\n0;c\r\n\r\n", b"abc", b"", id="extensions"),
        pytest.param(b'3 \t;a="b;\\"c"\r\nabc\r\n0\r\n\r\n', b"abc", b"", id="quoted-extension"),
        pytest.param(b"3;\r\nabc\r\n0\r\n\r\n", b"abc", b"", id="empty-extension"),
        pytest.param(b"0\r\nX-A: 1\r\nHost: b\r\n\r\n", b"", b"", id="trailers-are-dropped"),
        pytest.param(b"0\r\nx:\r\n\r\n", b"", b"", id="empty-trailer"),
        pytest.param(b"1\r\na\r\n0\r\n\r\nGET /", b"a", b"GET /", id="next-request-follows"),
        pytest.param(b"0\r\n\r\n\r\n", b"", b"\r\n", id="empty-line-follows"),
    ],
)
def test_a_chunked_body_gives_its_payload_and_what_follows(
    data: bytes, payload: bytes, rest: bytes
) -> None:
    assert decode(data) == (payload, True, rest)
    assert decode(*one_by_one(data)) == (payload, True, rest)


REFUSED_SIZE = "a chunk size is malformed"
REFUSED_LINE = "a chunk line holds a bare CR or LF"
REFUSED_END = "chunk data is not followed by CRLF"
REFUSED_TRAILER = "a trailer field is malformed or too long"


@pytest.mark.parametrize(
    ("data", "detail"),
    [
        pytest.param(b"\r\n", REFUSED_SIZE, id="empty-size"),
        pytest.param(b"g\r\n", REFUSED_SIZE, id="no-hex-digit"),
        pytest.param(b"+1\r\na", REFUSED_SIZE, id="plus"),
        pytest.param(b"-1\r\na", REFUSED_SIZE, id="minus"),
        pytest.param(b"0x1\r\na", REFUSED_SIZE, id="hex-prefix"),
        pytest.param(b"1_0\r\na", REFUSED_SIZE, id="underscore"),
        pytest.param(b" 1\r\na", REFUSED_SIZE, id="leading-space"),
        pytest.param(b"1 \r\na", REFUSED_SIZE, id="trailing-space"),
        pytest.param(b"1\x0b\r\na", REFUSED_SIZE, id="vertical-tab"),
        pytest.param(b"1\xa0\r\na", REFUSED_SIZE, id="no-break-space"),
        pytest.param(b"\xd9\xa1\r\na", REFUSED_SIZE, id="other-digit"),
        pytest.param(b"1,1\r\na", REFUSED_SIZE, id="two-sizes"),
        pytest.param(b"1\x00\r\na", REFUSED_SIZE, id="nul-after-size"),
        pytest.param(b"1;a\x00\r\na", REFUSED_SIZE, id="nul-in-extension"),
        pytest.param(b"1;a\x7f\r\na", REFUSED_SIZE, id="del-in-extension"),
        pytest.param(b"0" * 15 + b"1\r\na", REFUSED_SIZE, id="sixteen-digits"),
        pytest.param(b"f" * 17 + b"\r\na", REFUSED_SIZE, id="size-overflows"),
        pytest.param(b"1\na\r\n0\r\n\r\n", None, id="lf-ends-size"),
        pytest.param(b"1;a\nb\r\na\r\n0\r\n\r\n", None, id="lf-in-extension"),
        pytest.param(b"1;\n0\r\n\r\nGET / HTTP/1.1\r\n", None, id="term-ext"),
        pytest.param(b"1\rX\r\na\r\n0\r\n\r\n", None, id="cr-in-size"),
        pytest.param(b"1\n", REFUSED_LINE, id="lf-ends-size-and-nothing-follows"),
        pytest.param(b"1\rX", REFUSED_LINE, id="cr-in-size-and-nothing-follows"),
        pytest.param(b"1\r\naX\r\n0\r\n\r\n", REFUSED_END, id="data-longer-than-size"),
        pytest.param(b"1\r\naXX0\r\n\r\n", REFUSED_END, id="two-bytes-that-are-no-crlf"),
        pytest.param(b"1\r\na\n0\r\n\r\n", REFUSED_END, id="lf-after-data"),
        pytest.param(b"1\r\na\r0\r\n\r\n", REFUSED_END, id="cr-after-data"),
        pytest.param(b"1\r\na\n\r0\r\n\r\n", REFUSED_END, id="lf-cr-after-data"),
        pytest.param(b"1\r\na0\r\n\r\n", REFUSED_END, id="nothing-after-data"),
        pytest.param(b"0\r\nno colon\r\n\r\n", REFUSED_TRAILER, id="trailer-without-colon"),
        pytest.param(b"0\r\n: v\r\n\r\n", REFUSED_TRAILER, id="trailer-without-name"),
        pytest.param(b"0\r\na : v\r\n\r\n", REFUSED_TRAILER, id="space-before-colon-in-trailer"),
        pytest.param(b"0\r\na: v\r\n folded\r\n\r\n", REFUSED_TRAILER, id="folded-trailer"),
        pytest.param(b"0\r\na: \x00\r\n\r\n", REFUSED_TRAILER, id="nul-in-trailer"),
        pytest.param(b"0\r\na: v\nb: w\r\n\r\n", None, id="lf-in-trailer"),
        pytest.param(b"0\r\nGET / HTTP/1.1\r\n", REFUSED_TRAILER, id="request-in-trailers"),
        pytest.param(b"0\r\n\n", REFUSED_LINE, id="lf-ends-the-body"),
        pytest.param(b"0\n\n", REFUSED_LINE, id="lf-everywhere"),
    ],
)
def test_malformed_framing_is_refused_however_it_is_cut(data: bytes, detail: str | None) -> None:
    for segments in ([data], one_by_one(data)):
        refused = decode(*segments)
        assert isinstance(refused, str)
        # a bare LF or CR is noticed at once in part of a line, else with the line's end
        assert detail in (None, refused)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"3",
        b"3\r",
        b"3\r\n",
        b"3\r\nab",
        b"3\r\nabc",
        b"3\r\nabc\r",
        b"0\r\n",
        b"0\r\na: b\r\n",
    ],
)
def test_a_body_cut_short_is_not_done(data: bytes) -> None:
    outcome = decode(data)
    assert not isinstance(outcome, str)
    assert not outcome[1]


def test_a_refusal_is_the_one_for_the_side_the_bytes_came_from() -> None:
    for refusal in (MALFORMED, UPSTREAM_MALFORMED):
        with pytest.raises(HeadError) as caught:
            ChunkedDecoder(refusal).feed(b"x\r\n")
        assert caught.value.refusal is refusal


@pytest.mark.parametrize("segments_of", [lambda data: [data], one_by_one], ids=["whole", "bytes"])
class TestBounds:
    @pytest.mark.parametrize(
        ("length", "passes"),
        [(LINE_MAX_BYTES - 1, True), (LINE_MAX_BYTES, True), (LINE_MAX_BYTES + 1, False)],
    )
    def test_a_size_line_has_a_bound(
        self, segments_of: Segments, length: int, passes: bool
    ) -> None:
        line = b"1;".ljust(length, b"x")
        outcome = decode(*segments_of(line + b"\r\na\r\n" + LAST_CHUNK))
        assert outcome == (b"a", True, b"") if passes else isinstance(outcome, str)

    @pytest.mark.parametrize(
        ("total", "passes"),
        [
            (TRAILERS_MAX_BYTES - 1, True),
            (TRAILERS_MAX_BYTES, True),
            (TRAILERS_MAX_BYTES + 1, False),
        ],
    )
    def test_the_trailer_section_has_a_bound(
        self, segments_of: Segments, total: int, passes: bool
    ) -> None:
        first = b"a: b\r\n"
        second = b"c: ".ljust(total - len(first) - 2, b"x") + b"\r\n"
        assert len(first + second) == total
        outcome = decode(*segments_of(b"0\r\n" + first + second + b"\r\n"))
        assert outcome == (b"", True, b"") if passes else isinstance(outcome, str)


@pytest.mark.parametrize(
    ("start", "more", "bound"),
    [
        pytest.param(b"1;", b"x", LINE_MAX_BYTES, id="extension"),
        pytest.param(b"0\r\na:", b"x", TRAILERS_MAX_BYTES, id="trailer"),
        pytest.param(b"0\r\n", b"a: b\r\n", TRAILERS_MAX_BYTES, id="trailers"),
    ],
)
def test_a_line_that_never_ends_is_refused_near_the_bound(
    start: bytes, more: bytes, bound: int
) -> None:
    decoder = ChunkedDecoder()
    decoder.feed(start)
    fed = 0
    with pytest.raises(HeadError):
        while fed <= bound + 8:
            decoder.feed(more)
            fed += len(more)
    assert len(decoder._buffer) <= bound


def test_payload_is_not_kept_by_the_decoder() -> None:
    decoder = ChunkedDecoder()
    assert decoder.feed(b"fffff\r\n" + b"x" * 70_000) == b"x" * 70_000
    assert decoder._buffer == b""


chunks = st.lists(st.binary(min_size=1, max_size=40), max_size=6)
cut_places = st.lists(st.integers(min_value=0, max_value=400), max_size=12)
pieces = st.lists(
    st.one_of(
        st.sampled_from(
            [b"\r\n", b"\r", b"\n", b"0", b"3", b"a", b";", b" ", b"abc", b"3\r\nabc\r\n", b"x: y"]
        ),
        st.just(LAST_CHUNK),
        st.binary(max_size=3),
    ),
    max_size=12,
).map(b"".join)


@given(chunks, cut_places, st.binary(max_size=20))
def test_what_is_encoded_comes_back_however_it_is_cut(
    payloads: list[bytes], cuts: list[int], rest: bytes
) -> None:
    data = b"".join(map(encode_chunk, payloads)) + LAST_CHUNK + rest
    assert decode(*split(data, cuts)) == (b"".join(payloads), True, rest)


@given(pieces, cut_places)
def test_any_bytes_have_the_same_outcome_however_they_are_cut(data: bytes, cuts: list[int]) -> None:
    whole = decode(data)
    cut = decode(*split(data, cuts))
    if isinstance(whole, str):
        assert isinstance(cut, str)
    else:
        assert cut == whole
