# ruff: noqa: E501 - a row of a table is one line
"""Published attacks on HTTP implementations, by their names, against this one.

Every attack tries to make the origin see a request for `HIDDEN` that the router did not see, or to
get something past the router. It must be refused, or be one request to both.
"""

import pytest

from tests.raw.harness import Stand, head
from tests.raw.origin import OK, Step
from tests.serve.harness import poll

HIDDEN = b"/hidden"
INNER = b"GET /hidden HTTP/1.1\r\nHost: h\r\nX: y\r\n\r\n"
CLOSE = b"Connection: close"


def post(*lines: bytes, body: bytes = b"", version: bytes = b"HTTP/1.1") -> bytes:
    return b"\r\n".join((b"POST /p " + version, b"Host: h", *lines, b"", body))


TE = b"Transfer-Encoding: chunked"
LONG = b"Content-Length: %d" % len(INNER)
ENDED = b"0\r\n\r\n"

REFUSED: list[tuple[str, bytes, int]] = [
    ("CL.TE", post(b"Content-Length: %d" % len(ENDED + INNER), TE, body=ENDED + INNER), 400),
    ("TE.CL", post(TE, b"Content-Length: 4", body=b"2e\r\n" + INNER + b"\r\n" + ENDED), 400),
    ("TE.TE-obfuscated-second", post(TE, b"Transfer-Encoding: cow", body=ENDED + INNER), 400),
    ("TE.TE-obfuscated-first", post(b"Transfer-encoding: x", TE, body=ENDED + INNER), 400),
    ("CL.0-list", post(b"Content-Length: 0, %d" % len(INNER), body=INNER), 400),
    ("CL.CL", post(b"Content-Length: 0", LONG, body=INNER), 400),
    ("TE.0-odd-coding", post(b"Transfer-Encoding: chunked, identity", body=ENDED + INNER), 501),
    ("0.CL-expect-obfuscated", post(b"Expect: y 100-continue", LONG, body=INNER), 417),
    ("0.CL-vertical-tab", post(b"Content-Length:\x0b%d" % len(INNER), body=INNER), 400),
    ("CVE-2023-30589-bare-cr-ends-a-field", post(b"X: y\rTransfer-Encoding: chunked", body=ENDED), 400),
    ("CVE-2023-37276-cr-starts-a-value", post(b"X-Abc: \rxTransfer-Encoding: chunked", body=b"1\r\nA\r\n" + ENDED), 400),
    ("CVE-2023-37276-cr-and-a-field", post(b"X-Abc: \rTransfer-Encoding: chunked", body=ENDED + INNER), 400),
    ("CVE-2023-47627-length-plus", post(b"Content-Length: +0", body=INNER), 400),
    ("CVE-2023-47627-length-minus-0", post(b"Content-Length: -0", body=INNER), 400),
    ("CVE-2023-47627-length-underscore", post(b"Content-Length: 0_0", body=INNER), 400),
    ("CVE-2023-47627-length-other-digits", post(b"Content-Length: \xd9\xa0", body=INNER), 400),
    ("CVE-2023-47627-chunk-size-0x", post(TE, body=b"0x0\r\n\r\n" + INNER), 400),
    ("CVE-2023-47627-chunk-size-plus", post(TE, body=b"+0\r\n\r\n" + INNER), 400),
    ("CVE-2023-47627-chunk-size-underscore", post(TE, body=b"0_0\r\n\r\n" + INNER), 400),
    ("CVE-2023-47627-name-with-nul", post(b"Transfer-Encoding\x00: chunked", body=ENDED + INNER), 400),
    ("CVE-2023-47627-name-with-bracket", post(b"Transfer-Encoding]: chunked", body=ENDED + INNER), 400),
    ("CVE-2023-47627-version-of-other-digits", post(version=b"HTTP/1.\xf0\x9d\x9f\x99", body=INNER), 400),
    ("GHSA-pjjw-qhg8-p2p9-cr-before-lf-less-name", post(b"A: b\r\rTransfer-Encoding: chunked", body=ENDED + INNER), 400),
    ("GHSA-pjjw-qhg8-p2p9-lf-only-lines", b"POST /p HTTP/1.1\nHost: h\nTransfer-Encoding: chunked\n\n" + INNER, 400),
    ("CVE-2024-23829-version-without-a-dot", post(version=b"HTTP/1\xc3\xb61", body=INNER), 400),
    ("CVE-2024-52304-lf-in-a-chunk-extension", post(TE, body=b"0;a\nb\r\n\r\n" + INNER), 400),
    ("CVE-2025-53643-trailers-unparsed-no-colon", post(TE, body=b"0\r\n" + INNER), 400),
    ("CVE-2025-53643-trailers-unparsed-lf", post(TE, body=b"0\r\nX: y\n\r\n" + INNER), 400),
    ("aiohttp-kelvin-sign", post(b"Transfer-Encoding: chun\xe2\x84\xaaed", body=ENDED + INNER), 501),
    ("aiohttp-kelvin-sign-and-length", post(b"Transfer-Encoding: chun\xe2\x84\xaaed", LONG, body=INNER), 400),
    ("CVE-2026-111750-pure-python-strip-0x1c", post(b"Transfer-Encoding: \x1cchunked", body=ENDED + INNER), 400),
    ("CVE-2026-111750-pure-python-strip-0x85", post(b"Transfer-Encoding: \x85chunked", body=ENDED + INNER), 501),
    ("CVE-2026-111750-pure-python-strip-nbsp", post(b"Content-Length: \xa0%d" % len(INNER), body=INNER), 400),
    ("CVE-2026-111750-pure-python-splitlines", post(b"X: y\x0bTransfer-Encoding: chunked", body=ENDED + INNER), 400),
    ("CVE-2026-2835-http-1.0-with-te", post(TE, body=ENDED + INNER, version=b"HTTP/1.0"), 400),
    ("CVE-2026-2835-http-1.0-with-odd-te", post(b"Transfer-Encoding: identity, chunked", body=ENDED + INNER, version=b"HTTP/1.0"), 400),
    ("CVE-2026-2835-several-codings", post(b"Transfer-Encoding: identity", TE, body=ENDED + INNER), 400),
    ("fasthttp-chunk-extension-ended-by-lf", post(TE, body=b"2;\nxx\r\n4c\r\n0\r\n\r\n" + INNER), 400),
    ("fasthttp-chunk-extension-ended-by-cr", post(TE, body=b"2;\rxx\r\n0\r\n\r\n" + INNER), 400),
    ("funky-chunks-TERM.EXT", post(TE, body=b"2;\nxx\r\n22\r\nc\r\n0\r\n\r\n" + INNER), 400),
    ("funky-chunks-EXT.TERM", post(TE, body=b"2;\rxx\r\n22\r\nc\r\n0\r\n\r\n" + INNER), 400),
    ("funky-chunks-TERM.SPILL", post(TE, body=b"5\r\nAAAAAXX2\r\n45\r\n0\r\n\r\n" + INNER), 400),
    ("funky-chunks-SPILL.TERM", post(TE, body=b"5\r\nAAAAA\rX2\r\n45\r\n0\r\n\r\n" + INNER), 400),
    ("funky-chunks-ONE.TWO", post(TE, body=b"5\r\nAAAAA\n0\r\n\r\n" + INNER), 400),
    ("funky-chunks-TWO.ONE", post(TE, body=b"5\nAAAAA\r\n0\r\n\r\n" + INNER), 400),
    ("funky-chunks-ZERO.TWO", post(TE, body=b"5\r\nAAAAA0\r\n\r\n" + INNER), 400),
    ("http-desync-obs-fold", post(b"Transfer-Encoding:\r\n chunked", LONG, body=INNER), 400),
    ("http-desync-space-before-colon", post(b"Transfer-Encoding : chunked", LONG, body=INNER), 400),
    ("http-desync-underscore", post(b"Transfer_Encoding: chunked", LONG, body=INNER), 400),
    ("h2c-prior-knowledge", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00", 505),
]  # fmt: skip


@pytest.mark.parametrize(
    ("raw", "status"), [pytest.param(raw, status, id=name) for name, raw, status in REFUSED]
)
def test_is_refused(stand: Stand, raw: bytes, status: int) -> None:
    before = len(stand.origin.requests)
    outcome = stand.send(raw + INNER)
    assert (outcome.only.status, outcome.ending) == (status, "closed")
    assert len(stand.origin.requests) == before


@pytest.mark.parametrize(
    ("lines", "body"),
    [
        pytest.param((b"Content-Length: %d" % len(INNER),), INNER, id="CL.0"),
        pytest.param((TE,), b"%x\r\n%b\r\n0\r\n\r\n" % (len(INNER), INNER), id="TE.0"),
        pytest.param(
            (TE,), b"0\r\nContent-Length: 40\r\nTransfer-Encoding: x\r\n\r\n",
            id="CVE-2025-53643-framing-in-trailers",
        ),
        pytest.param((TE,), b"1;a=b;c=d\r\nx\r\n0;e\r\n\r\n", id="fasthttp-chunk-extensions"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("method", [b"POST", b"GET", b"OPTIONS", b"DELETE", b"HEAD"])
def test_is_one_request_to_both(
    stand: Stand, method: bytes, lines: tuple[bytes, ...], body: bytes
) -> None:
    target = stand.target()
    if method == b"HEAD":
        stand.origin.script(target, Step.READ, OK[: OK.index(b"ok")])
    outcome = stand.send(head(target, CLOSE, *lines, method=method) + body)
    (answer,) = outcome.answers(method)
    assert answer.status == 200
    assert len(stand.origin.asked(target)) == 1
    assert stand.origin.asked(HIDDEN) == []


# upgrade

ASKS = (b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Key: k")
SWITCH = b"HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"


def test_cve_2026_2833_bytes_after_an_upgrade_wait_for_the_101(stand: Stand) -> None:
    target = stand.target()
    stand.origin.script(target, Step.READ, b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n")
    outcome = stand.send(head(target, *ASKS), INNER.replace(b"X: y", CLOSE))
    assert [answer.status for answer in outcome.answers()] == [403, 200]
    # what followed was read as a request of its own, with our fields, not tunnelled
    assert all(m.values(b"x-forwarded-for") for m in stand.origin.asked(HIDDEN))
    stand.origin.requests.clear()


@pytest.mark.parametrize("line", [LONG, TE])
def test_cve_2026_69243_upgrade_with_a_body_reads_the_body(stand: Stand, line: bytes) -> None:
    target = stand.target()
    body = INNER if line == LONG else b"%x\r\n%b\r\n0\r\n\r\n" % (len(INNER), INNER)
    raw = head(target, b"Connection: close, Upgrade", b"Upgrade: websocket", line) + body
    assert stand.send(raw).only.status == 200
    (request,) = stand.origin.asked(target)
    assert (request.body, request.values(b"upgrade")) == (INNER, [])


def test_cve_2024_23326_a_200_with_upgrade_opens_no_tunnel(stand: Stand) -> None:
    target = stand.target()
    answer = OK.replace(b"\r\n", b"\r\nConnection: upgrade\r\nUpgrade: websocket\r\n", 1)
    stand.origin.script(target, Step.READ, answer)
    outcome = stand.send(head(target, *ASKS) + b"GET / HTTP/1.1\r\nX : y\r\n\r\n")
    assert [answer.status for answer in outcome.answers()] == [200, 400]


def test_h2c_upgrade_is_not_passed_on(stand: Stand) -> None:
    target = stand.target()
    lines = (
        b"Connection: close, Upgrade, HTTP2-Settings",
        b"Upgrade: h2c",
        b"HTTP2-Settings: AAMA",
    )
    assert stand.send(head(target, *lines)).only.status == 200
    request = stand.origin.asked(target)[0]
    assert not {b"upgrade", b"http2-settings", b"connection"} & {n for n, _ in request.fields}


@pytest.mark.parametrize(
    "name", [b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto", b"via", b"x-request-id"]
)
def test_cve_2026_105299_naming_our_fields_does_not_strip_them(stand: Stand, name: bytes) -> None:
    target = stand.target()
    raw = head(target, b"Connection: close, " + name, name + b": forged")
    assert stand.send(raw).only.status == 200
    (value,) = stand.origin.asked(target)[0].values(name)
    assert value
    assert value != b"forged"


# truncation, and answers to somebody else


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\n\r\nok",
    ],
    ids=["cut-chunked-of-caddy", "cut-length", "reset-until-close-of-haproxy-envoy-caddy"],
)
def test_a_reset_never_ends_in_a_good_looking_answer(stand: Stand, answer: bytes) -> None:
    target = stand.target()
    stand.origin.script(target, Step.READ, answer, Step.RESET)
    outcome = stand.send(head(target, b"Content-Length: 0", CLOSE, method=b"POST"))
    assert outcome.ending == "reset" or outcome.only.status == 502


def test_response_queue_poisoning_an_extra_answer_reaches_nobody(stand: Stand) -> None:
    target, later = stand.target(), stand.target()
    evil = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
    stand.origin.script(target, Step.READ, OK + evil, Step.HOLD)
    stand.send(head(target, CLOSE))
    assert stand.send(head(later, CLOSE)).only.body == b"ok"
    assert poll(lambda: stand.origin.link_of(target).ending)


def test_http1_must_die_early_answer_leaves_no_half_request_behind(stand: Stand) -> None:
    """The connection whose request body was not sent whole is never used again."""
    target, later = stand.target(), stand.target()
    stand.origin.script(target, OK, Step.HOLD)
    raw = head(target, b"Expect: 100-continue", LONG, method=b"POST")
    outcome = stand.send(raw)
    assert (outcome.only.status, outcome.ending) == (200, "closed")
    stand.send(head(later, CLOSE))
    link = stand.origin.link_of(later)
    assert target not in bytes(link.received)
