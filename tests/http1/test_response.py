import pytest

from router.errors import UPSTREAM_MALFORMED, HeadError
from router.http1 import response as module
from router.http1.response import CHUNKED, UNTIL_CLOSE, ResponseParser
from tests.http1.samples import MAX_FIELDS, response, response_with


@pytest.mark.parametrize(
    ("raw", "body_bytes", "relayed", "framing"),
    [
        pytest.param(
            b"HTTP/1.1 200 OK\r\nServer: s\r\nContent-Length: 005\r\nX:1",
            5,
            b"HTTP/1.1 200 OK\r\nServer: s\r\nX:1\r\n",
            b"content-length: 5\r\n",
            id="length",
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\nx: 1",
            CHUNKED,
            b"HTTP/1.1 200 OK\r\nx: 1\r\n",
            b"transfer-encoding: chunked\r\n",
            id="chunked",
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nx: 1",
            UNTIL_CLOSE,
            b"HTTP/1.1 200 OK\r\nx: 1\r\n",
            b"transfer-encoding: chunked\r\n",
            id="until-close",
        ),
        pytest.param(
            b"HTTP/1.0 200 OK\r\ncontent-length: 0",
            0,
            b"HTTP/1.1 200 OK\r\n",
            b"content-length: 0\r\n",
            id="http-1.0",
        ),
        pytest.param(
            b"HTTP/1.1 404 Nichts da\xfc\r\ncontent-length: 0",
            0,
            b"HTTP/1.1 404 Nichts da\xfc\r\n",
            b"content-length: 0\r\n",
            id="reason-is-kept",
        ),
        pytest.param(
            b"HTTP/1.1 503 \r\ncontent-length: 0",
            0,
            b"HTTP/1.1 503 Service Unavailable\r\n",
            b"content-length: 0\r\n",
            id="empty-reason-is-filled-in",
        ),
        pytest.param(
            b"HTTP/1.1 299\r\ncontent-length: 0",
            0,
            b"HTTP/1.1 299 \r\n",
            b"content-length: 0\r\n",
            id="unknown-status-without-reason",
        ),
        pytest.param(
            b"HTTP/1.1 204 No Content\r\ncontent-length: 0",
            0,
            b"HTTP/1.1 204 No Content\r\n",
            b"",
            id="204-has-no-framing",
        ),
        pytest.param(
            b"HTTP/1.1 204 No Content\r\ntransfer-encoding: chunked",
            0,
            b"HTTP/1.1 204 No Content\r\n",
            b"",
            id="204-chunked-has-no-framing",
        ),
        pytest.param(
            b"HTTP/1.1 304 Not Modified\r\ncontent-length: 9",
            0,
            b"HTTP/1.1 304 Not Modified\r\n",
            b"content-length: 9\r\n",
            id="304-describes-a-length",
        ),
        pytest.param(
            b"HTTP/1.1 304 Not Modified\r\netag: a",
            0,
            b"HTTP/1.1 304 Not Modified\r\netag: a\r\n",
            b"",
            id="304-without-length",
        ),
        pytest.param(
            b"HTTP/1.1 304 Not Modified\r\ntransfer-encoding: chunked",
            0,
            b"HTTP/1.1 304 Not Modified\r\n",
            b"",
            id="304-chunked",
        ),
        pytest.param(
            b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nlink: </b>\r\ncontent-length: 5",
            0,
            b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nlink: </b>\r\n",
            b"",
            id="interim",
        ),
        pytest.param(
            b"HTTP/1.1 100 Continue", 0, b"HTTP/1.1 100 Continue\r\n", b"", id="no-fields"
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nx: 1\r\n"
            b"set-cookie: b=2, c\r\ncontent-length: 1",
            1,
            b"HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nset-cookie: b=2, c\r\nx: 1\r\n",
            b"content-length: 1\r\n",
            id="set-cookie-stays-apart-and-in-order",
        ),
    ],
)
def test_a_head_is_written_for_the_client_from_what_was_parsed(
    raw: bytes, body_bytes: int, relayed: bytes, framing: bytes
) -> None:
    head = response(raw)
    assert head.body_bytes == body_bytes
    assert head.relayed == relayed
    assert head.framed == relayed + framing


@pytest.mark.parametrize(
    ("line", "declared", "framing"),
    [
        (b"content-length: 9", 9, b"content-length: 9\r\n"),
        (b"transfer-encoding: chunked", None, b"transfer-encoding: chunked\r\n"),
        (b"x: 1", None, b"x: 1\r\ntransfer-encoding: chunked\r\n"),
    ],
    ids=["length", "chunked", "neither"],
)
def test_an_answer_to_head_describes_a_body_and_has_none(
    line: bytes, declared: int | None, framing: bytes
) -> None:
    head = response_with(line, is_head=True)
    assert head.body_bytes == 0
    assert head.declared_length == declared
    assert head.framed == b"HTTP/1.1 200 OK\r\n" + framing


def test_the_same_bytes_mean_different_framing_for_head_and_get_on_one_connection() -> None:
    parser = ResponseParser(MAX_FIELDS)
    raw = b"HTTP/1.1 200 OK\r\ncontent-length: 9"
    for _ in range(2):
        assert parser.parse(raw, is_head=False).body_bytes == 9
        assert parser.parse(raw, is_head=True).body_bytes == 0


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"HTTP/1.1", id="version-only"),
        pytest.param(b"HTTP/1.1 ", id="no-status"),
        pytest.param(b"HTTP/1.1 20 OK", id="two-digits"),
        pytest.param(b"HTTP/1.1 2000 OK", id="four-digits"),
        pytest.param(b"HTTP/1.1 200OK", id="no-space-after-status"),
        pytest.param(b"HTTP/1.1  200 OK", id="two-spaces"),
        pytest.param(b"HTTP/1.1\t200 OK", id="tab"),
        pytest.param(b" HTTP/1.1 200 OK", id="leading-space"),
        pytest.param(b"HTTP/1.1 099 X", id="status-099"),
        pytest.param(b"HTTP/1.1 600 X", id="status-600"),
        pytest.param(b"HTTP/1.1 999 X", id="status-999"),
        pytest.param(b"HTTP/1.1 +20 X", id="signed-status"),
        pytest.param(b"HTTP/1.1 2\xd9\xa0 X", id="other-digits"),
        pytest.param(b"HTTP/1.1 200 O\x00K", id="nul-in-reason"),
        pytest.param(b"HTTP/1.1 200 O\rK", id="cr-in-reason"),
        pytest.param(b"HTTP/1.1 200 OK\nx: y", id="lf-ends-a-line"),
        pytest.param(b"HTTP/2 200 OK", id="http-2"),
        pytest.param(b"HTTP/1.2 200 OK", id="http-1.2"),
        pytest.param(b"http/1.1 200 OK", id="lower-case"),
        pytest.param(b"ICY 200 OK", id="icy"),
        pytest.param(b"SSH-2.0-OpenSSH_9.2", id="ssh"),
        pytest.param(b"HTTP/1.1 200 OK\r\nno colon", id="no-colon"),
        pytest.param(b"HTTP/1.1 200 OK\r\nx : 1", id="space-before-colon"),
        pytest.param(b"HTTP/1.1 200 OK\r\nx: 1\r\n folded", id="folded-line"),
        pytest.param(b"HTTP/1.1 200 OK\r\nx: \x00", id="nul"),
        pytest.param(b"HTTP/1.1 200 OK\r\nx: a\rb", id="bare-cr"),
        pytest.param(b"HTTP/1.1 200 OK\r\nx: a\nb", id="bare-lf"),
        pytest.param(b"HTTP/1.1 200 OK\r\ncontent-length: +5", id="length-plus"),
        pytest.param(b"HTTP/1.1 200 OK\r\ncontent-length: -5", id="length-minus"),
        pytest.param(b"HTTP/1.1 200 OK\r\ncontent-length: 5, 5", id="length-list"),
        pytest.param(b"HTTP/1.1 200 OK\r\ncontent-length: 1_0", id="length-underscore"),
        pytest.param(b"HTTP/1.1 200 OK\r\ncontent-length:", id="length-empty"),
        pytest.param(b"HTTP/1.1 200 OK\r\ncontent-length: " + b"9" * 19, id="length-19-digits"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6", id="length-twice"
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked", id="cl.te"
        ),
        pytest.param(b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked", id="te-gzip"),
        pytest.param(b"HTTP/1.1 200 OK\r\ntransfer-encoding: identity", id="te-identity"),
        pytest.param(b"HTTP/1.1 200 OK\r\ntransfer-encoding: xchunked", id="te-xchunked"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked",
            id="te-twice",
        ),
        pytest.param(b"HTTP/1.0 200 OK\r\ntransfer-encoding: chunked", id="te-in-http-1.0"),
        pytest.param(b"HTTP/1.1 200 OK" + b"\r\nx: 1" * (MAX_FIELDS + 1), id="too-many-fields"),
    ],
)
@pytest.mark.parametrize("is_head", [False, True], ids=["get", "head"])
def test_a_head_that_is_ambiguous_or_malformed_is_refused_as_the_endpoints_fault(
    raw: bytes, is_head: bool
) -> None:
    parser = ResponseParser(MAX_FIELDS)
    for _ in range(2):
        with pytest.raises(HeadError) as caught:
            parser.parse(raw, is_head)
        assert caught.value.refusal is UPSTREAM_MALFORMED
    assert not parser._heads


def test_fields_up_to_the_bound_are_read() -> None:
    assert response_with(*[b"x: 1"] * MAX_FIELDS).relayed.count(b"x: 1") == MAX_FIELDS


@pytest.mark.parametrize(
    "line",
    [
        b"Proxy-Authenticate: Basic",
        b"Proxy-Connection: keep-alive",
        b"TE: trailers",
        b"Trailer: x",
        b"Upgrade: h2c",
        b"Keep-Alive: timeout=5",
        b"X-Request-Id: echoed",
        b"X-Router-Receipt: forged",
        b"X-Router-Route: r",
        b"X-Router-Variant: v",
        b"Connection: keep-alive",
        b"Connection: X-Gone, Via, Upgrade\r\nx-gone: 1\r\nvia: 1.1 a\r\nupgrade: websocket",
        b"Connection: set-cookie\r\nConnection: X-Gone\r\nX-Gone: 2",
    ],
    ids=lambda line: line.replace(b"\r\n", b" ").decode(),
)
def test_fields_of_the_hop_and_of_the_router_do_not_reach_the_client(line: bytes) -> None:
    head = response_with(b"Set-Cookie: a=1", line, b"content-length: 0")
    assert head.relayed == b"HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\n"


def test_the_endpoints_via_is_relayed() -> None:
    head = response_with(b"Via: 1.1 a", b"via: 1.1 b")
    assert head.relayed == b"HTTP/1.1 200 OK\r\nVia: 1.1 a\r\nvia: 1.1 b\r\n"


def test_nominating_the_length_does_not_change_the_framing() -> None:
    head = response_with(b"connection: content-length", b"content-length: 4")
    assert head.body_bytes == 4
    assert head.framed == b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n"


@pytest.mark.parametrize(
    ("raw", "keep_alive"),
    [
        pytest.param(b"HTTP/1.1 200 OK", True, id="http-1.1"),
        pytest.param(b"HTTP/1.1 200 OK\r\nconnection: Close", False, id="close"),
        pytest.param(b"HTTP/1.1 200 OK\r\nconnection: x", True, id="other-option"),
        pytest.param(b"HTTP/1.1 200 OK\r\nconnection: close, keep-alive", False, id="close-wins"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nconnection: close\r\nconnection: keep-alive",
            False,
            id="close-wins-over-a-later-field",
        ),
        pytest.param(b"HTTP/1.0 200 OK", False, id="http-1.0"),
        pytest.param(b"HTTP/1.0 200 OK\r\nconnection: Keep-Alive", True, id="http-1.0-kept"),
        pytest.param(b"HTTP/1.0 200 OK\r\nconnection: x", False, id="http-1.0-other-option"),
        pytest.param(b"HTTP/1.1 204 No Content\r\ncontent-length: 0", True, id="204"),
        pytest.param(b"HTTP/1.1 204 No Content\r\ncontent-length: 5", False, id="204-with-body"),
        pytest.param(
            b"HTTP/1.1 204 No Content\r\ntransfer-encoding: chunked", False, id="204-chunked"
        ),
        pytest.param(b"HTTP/1.1 304 Not Modified\r\ncontent-length: 5", True, id="304"),
    ],
)
def test_a_connection_is_kept_only_when_the_next_answer_cannot_be_mistaken(
    raw: bytes, keep_alive: bool
) -> None:
    assert response(raw).keep_alive is keep_alive


@pytest.mark.parametrize(
    ("lines", "seconds"),
    [
        ([b"Keep-Alive: timeout=5, max=100"], 5.0),
        ([b"connection: keep-alive", b"keep-alive: max=1,timeout=30"], 30.0),
        ([b"connection: Keep-Alive", b"keep-alive: timeout=0"], 0.0),
        ([b"keep-alive: timeout=9999999"], None),
        ([b"keep-alive: timeout=-1"], None),
        ([b"keep-alive: 5"], None),
        ([b"x: timeout=5"], None),
    ],
)
def test_the_endpoint_says_how_long_it_keeps_a_connection(
    lines: list[bytes], seconds: float | None
) -> None:
    assert response_with(*lines).keep_alive_s == seconds


def test_the_same_bytes_give_the_same_head() -> None:
    parser = ResponseParser(MAX_FIELDS)
    raw = b"HTTP/1.1 200 OK\r\ncontent-length: 1"
    assert parser.parse(raw, is_head=False) is parser.parse(raw, is_head=False)


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"HTTP/1.1 200 OK\r\nSet-Cookie: a=1", id="cookies"),
        pytest.param(b"HTTP/1.1 200 OK\r\nSET-COOKIE: a=1", id="cookies-in-capitals"),
        pytest.param(b"HTTP/1.1 200 OK\r\nx: " + b"v" * 1024, id="long"),
    ],
)
def test_heads_with_cookies_and_long_heads_are_not_remembered(raw: bytes) -> None:
    parser = ResponseParser(MAX_FIELDS)
    first, second = parser.parse(raw, is_head=False), parser.parse(raw, is_head=False)
    assert first.framed == second.framed
    assert not parser._heads


def test_memory_stays_bounded_whatever_an_endpoint_sends() -> None:
    parser = ResponseParser(MAX_FIELDS)
    for n in range(2 * module._REMEMBERED_MAX_HEADS + 10):
        raw = b"HTTP/1.1 200 reason %d\r\ncontent-length: %d" % (n, n)
        assert parser.parse(raw, is_head=False).framed == raw + b"\r\n"
        assert len(parser._heads) <= module._REMEMBERED_MAX_HEADS
        assert len(parser._lines) <= module._REMEMBERED_MAX_LINES
    parser.parse(b"HTTP/1.1 200 " + b"r" * 2000, is_head=False)
    assert all(len(line) <= module._REMEMBERED_MAX_BYTES for line in parser._lines)


def test_what_a_parser_remembers_does_not_change_what_it_reads() -> None:
    known = ResponseParser(MAX_FIELDS)
    raws = [
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\nx: 1",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\nconnection: x\r\nx: 1",
        b"HTTP/1.0 200 OK\r\nx: 1",
    ]
    fresh = [(response(raw).framed, response(raw).keep_alive) for raw in raws]
    for _ in range(3):
        heads = [known.parse(raw, is_head=False) for raw in raws]
        assert [(head.framed, head.keep_alive) for head in heads] == fresh


@pytest.mark.parametrize(
    ("raw", "is_switch"),
    [
        (b"HTTP/1.1 101 X\r\nconnection: upgrade\r\nUpgrade: WebSocket", True),
        (b"HTTP/1.1 101 X\r\nconnection: upgrade\r\nupgrade: h2c", False),
        (b"HTTP/1.1 101 X\r\nconnection: upgrade", False),
        (b"HTTP/1.1 101 X", False),
        (b"HTTP/1.1 200 OK\r\nconnection: upgrade\r\nupgrade: websocket", False),
    ],
    ids=["websocket", "h2c", "no-protocol", "bare", "200"],
)
def test_only_a_101_for_websocket_switches(raw: bytes, is_switch: bool) -> None:
    head = response(raw)
    assert head.is_switch is is_switch
    assert b"upgrade" not in head.relayed.lower()
