from collections.abc import Callable

import pytest

from router.errors import (
    CODING_UNKNOWN,
    EXPECTATION_UNKNOWN,
    HEAD_TOO_LARGE,
    MALFORMED,
    TARGET_TOO_LONG,
    VERSION_UNSUPPORTED,
    HeadError,
    Refusal,
)
from router.http1 import request as module
from router.http1.request import RequestParser
from router.http1.request_head import CHUNKED, RequestHead
from tests.http1.samples import (
    CLIENT,
    MAX_FIELDS,
    MAX_LINE_BYTES,
    OWN_LINES,
    relayed_fields,
    request,
    request_with,
    written,
)


def own_lines(head: RequestHead) -> bytes:
    """`OWN_LINES` with the host that was asked for."""
    told = (head.header(b"host") or b"").strip()
    return OWN_LINES.replace(
        b"x-forwarded-host: h\r\n", b"x-forwarded-host: %b\r\n" % told if told else b""
    )


@pytest.mark.parametrize(
    ("raw", "body_bytes", "sent"),
    [
        pytest.param(
            b"GET /a?b HTTP/1.1\r\nHost: Example.com:8080\r\nAccept: */*",
            0,
            b"GET /a?b HTTP/1.1\r\nHost: Example.com:8080\r\nAccept: */*\r\n",
            id="get",
        ),
        pytest.param(
            b"POST / HTTP/1.1\r\nX-A: 1\r\nhost: h\r\nContent-Length: 007\r\nX-B:2",
            7,
            b"POST / HTTP/1.1\r\nX-A: 1\r\nhost: h\r\nX-B:2\r\ncontent-length: 7\r\n",
            id="length-is-written-anew-and-the-rest-keeps-its-order",
        ),
        pytest.param(
            b"POST / HTTP/1.1\r\nhost: h\r\nTransfer-Encoding: Chunked",
            CHUNKED,
            b"POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n",
            id="chunked",
        ),
        pytest.param(
            b"POST / HTTP/1.1\r\nhost: h",
            0,
            b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 0\r\n",
            id="post-without-a-body-says-so",
        ),
        pytest.param(
            b"DELETE / HTTP/1.1\r\nhost: h\r\ncontent-length: 0",
            0,
            b"DELETE / HTTP/1.1\r\nhost: h\r\n",
            id="delete-without-a-body",
        ),
        pytest.param(
            b"GET / HTTP/1.1\r\nhost: h\r\ncontent-length: 3",
            3,
            b"GET / HTTP/1.1\r\nhost: h\r\ncontent-length: 3\r\n",
            id="get-with-a-body",
        ),
        pytest.param(
            b"GET http://Other:81/p HTTP/1.1\r\nx: 1\r\nHost: h",
            0,
            b"GET /p HTTP/1.1\r\nx: 1\r\nHost: Other:81\r\n",
            id="absolute-form-replaces-the-host",
        ),
        pytest.param(
            b"GET / HTTP/1.1\r\nhost: h\r\nAccept: a\r\ncookie: a=1\r\naccept: b\r\nCookie: b=2",
            0,
            b"GET / HTTP/1.1\r\nhost: h\r\nAccept: a\r\naccept: b\r\n"
            b"cookie: a=1\r\nCookie: b=2\r\n",
            id="repeated-fields-stay-apart",
        ),
        pytest.param(
            b"GET / HTTP/1.1\r\nhost:",
            0,
            b"GET / HTTP/1.1\r\nhost:\r\n",
            id="empty-host",
        ),
    ],
)
def test_a_head_is_written_for_the_endpoint_from_what_was_parsed(
    raw: bytes, body_bytes: int, sent: bytes
) -> None:
    head = request(raw)
    assert head.body_bytes == body_bytes
    assert written(head) == sent + own_lines(head)


HTTP10_LINES = OWN_LINES.replace(b"via: 1.1", b"via: 1.0")


def test_http_1_0_is_upgraded_for_the_endpoint_and_never_kept_alive() -> None:
    head = request(b"GET / HTTP/1.0\r\nConnection: keep-alive")
    assert head.is_http10
    assert not head.keep_alive
    assert written(head) == b"GET / HTTP/1.1\r\nhost:\r\n" + own_lines(head).replace(
        b"via: 1.1", b"via: 1.0"
    )


@pytest.mark.parametrize(
    ("method", "given", "relayed", "is_last_hop"),
    [
        pytest.param(b"OPTIONS", b"3", b"2", False, id="one-less-for-the-next"),
        pytest.param(b"OPTIONS", b"1", b"0", False, id="the-next-is-the-last"),
        pytest.param(b"OPTIONS", b"0", None, True, id="none-left"),
        pytest.param(b"GET", b"0", b"0", False, id="means-nothing-elsewhere"),
    ],
)
def test_max_forwards_is_counted_down(
    method: bytes, given: bytes, relayed: bytes | None, is_last_hop: bool
) -> None:
    head = request(method + b" / HTTP/1.1\r\nhost: h\r\nMax-Forwards: " + given)
    assert head.is_last_hop is is_last_hop
    if relayed is not None:
        assert head.header(b"max-forwards") == relayed


@pytest.mark.parametrize("given", [b"-1", b"+1", b"", b"0x1", b"1, 2", b"9" * 19])
def test_max_forwards_that_is_no_number_is_refused(given: bytes) -> None:
    with pytest.raises(HeadError) as caught:
        request(b"OPTIONS / HTTP/1.1\r\nhost: h\r\nmax-forwards: " + given)
    assert caught.value.refusal is MALFORMED


def test_http_1_0_expectations_are_ignored() -> None:
    head = request(b"POST / HTTP/1.0\r\nhost: h\r\nexpect: 100-continue\r\ncontent-length: 1")
    assert not head.expects_continue
    assert written(head) == (b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 1\r\n" + HTTP10_LINES)


@pytest.mark.parametrize(
    ("lines", "refusal"),
    [
        pytest.param(b"", MALFORMED, id="no-host"),
        pytest.param(b"host: a\r\nhost: a", MALFORMED, id="host-twice"),
        pytest.param(b"host: a\r\nHOST: b", MALFORMED, id="host-twice-in-another-case"),
        pytest.param(b"host: a b", MALFORMED, id="invalid-host"),
        pytest.param(b"host: h\r\nhost : h", MALFORMED, id="space-before-colon"),
        pytest.param(b"host: h\r\n folded", MALFORMED, id="folded-line"),
        pytest.param(b" x: 1\r\nhost: h", MALFORMED, id="space-before-the-first-field"),
        pytest.param(b"host: h\r\nx: a\nb", MALFORMED, id="bare-lf"),
        pytest.param(b"host: h\r\nx: a\rb", MALFORMED, id="bare-cr"),
        pytest.param(b"host: h\nx: a", MALFORMED, id="lf-ends-a-line"),
        pytest.param(b"host: h\r\nx: \x00", MALFORMED, id="nul"),
        pytest.param(b"host: h\r\ncontent-length: ", MALFORMED, id="length-empty"),
        pytest.param(b"host: h\r\ncontent-length: +5", MALFORMED, id="length-plus"),
        pytest.param(b"host: h\r\ncontent-length: -5", MALFORMED, id="length-minus"),
        pytest.param(b"host: h\r\ncontent-length: 1_0", MALFORMED, id="length-underscore"),
        pytest.param(b"host: h\r\ncontent-length: 0x5", MALFORMED, id="length-hex"),
        pytest.param(b"host: h\r\ncontent-length: 5 5", MALFORMED, id="length-two-words"),
        pytest.param(b"host: h\r\ncontent-length: 5, 5", MALFORMED, id="length-list"),
        pytest.param(b"host: h\r\ncontent-length: 5.0", MALFORMED, id="length-decimal"),
        pytest.param(b"host: h\r\ncontent-length: \xd9\xa5", MALFORMED, id="length-other-digit"),
        pytest.param(b"host: h\r\ncontent-length: \xa05", MALFORMED, id="length-nbsp"),
        pytest.param(b"host: h\r\ncontent-length: " + b"9" * 19, MALFORMED, id="length-19-digits"),
        pytest.param(
            b"host: h\r\ncontent-length: 5\r\nContent-Length: 5", MALFORMED, id="length-twice"
        ),
        pytest.param(
            b"host: h\r\ncontent-length: 5\r\nx: 1\r\ncontent-length: 6",
            MALFORMED,
            id="length-twice-apart",
        ),
        pytest.param(
            b"host: h\r\ncontent-length: 5\r\ntransfer-encoding: chunked", MALFORMED, id="cl.te"
        ),
        pytest.param(
            b"host: h\r\ntransfer-encoding: chunked\r\ncontent-length: 5", MALFORMED, id="te.cl"
        ),
        pytest.param(
            b"host: h\r\ntransfer-encoding: chunked\r\nTransfer-Encoding: chunked",
            MALFORMED,
            id="te.te",
        ),
        pytest.param(
            b"host: h\r\ntransfer-encoding: x\r\ncontent-length: 5", MALFORMED, id="cl-and-odd-te"
        ),
        pytest.param(b"host: h\r\ntransfer-encoding: gzip", CODING_UNKNOWN, id="te-gzip"),
        pytest.param(
            b"host: h\r\ntransfer-encoding: gzip, chunked", CODING_UNKNOWN, id="te-gzip-chunked"
        ),
        pytest.param(
            b"host: h\r\ntransfer-encoding: chunked, identity", CODING_UNKNOWN, id="te-not-last"
        ),
        pytest.param(
            b"host: h\r\ntransfer-encoding: chunked, chunked", CODING_UNKNOWN, id="te-chunked-twice"
        ),
        pytest.param(b"host: h\r\ntransfer-encoding: ,chunked", CODING_UNKNOWN, id="te-comma"),
        pytest.param(b"host: h\r\ntransfer-encoding: chunked;q=1", CODING_UNKNOWN, id="te-param"),
        pytest.param(b'host: h\r\ntransfer-encoding: "chunked"', CODING_UNKNOWN, id="te-quoted"),
        pytest.param(b"host: h\r\ntransfer-encoding: xchunked", CODING_UNKNOWN, id="te-xchunked"),
        pytest.param(b"host: h\r\ntransfer-encoding:", CODING_UNKNOWN, id="te-empty"),
        pytest.param(
            b"host: h\r\ntransfer-encoding: chun\xe2\x84\xaaed", CODING_UNKNOWN, id="te-kelvin"
        ),
        pytest.param(b"host: h\r\ntransfer-encoding: \x0bchunked", MALFORMED, id="te-vertical-tab"),
        pytest.param(b"host: h\r\ntransfer_encoding: chunked", MALFORMED, id="te-underscore"),
        pytest.param(b"host: h\r\ncontent_length: 5", MALFORMED, id="length-name-underscore"),
        pytest.param(b"host: h\r\nx_forwarded_for: 1.2.3.4", MALFORMED, id="forged-wsgi-client"),
        pytest.param(b"host: h\r\nexpect: 200-ok", EXPECTATION_UNKNOWN, id="other-expectation"),
        pytest.param(
            b"host: h\r\nexpect: 100-continue, x", EXPECTATION_UNKNOWN, id="expectation-list"
        ),
        pytest.param(
            b"host: h\r\nexpect: 100-continue\r\nexpect: 100-continue", MALFORMED, id="expect-twice"
        ),
        pytest.param(
            b"host: h\r\ncontent-type: a/b\r\ncontent-type: a/c", MALFORMED, id="type-twice"
        ),
        pytest.param(
            b"host: h\r\nauthorization: a\r\nauthorization: b", MALFORMED, id="credentials-twice"
        ),
    ],
)
def test_a_head_that_is_ambiguous_or_malformed_is_refused(lines: bytes, refusal: Refusal) -> None:
    raw = b"POST / HTTP/1.1\r\n" + lines if lines else b"POST / HTTP/1.1"
    with pytest.raises(HeadError) as caught:
        request(raw)
    assert caught.value.refusal is refusal
    assert refusal.close


def test_a_coding_in_http_1_0_is_refused() -> None:
    with pytest.raises(HeadError, match=r"transfer-encoding is given in HTTP/1\.0") as caught:
        request(b"POST / HTTP/1.0\r\nhost: h\r\ntransfer-encoding: chunked")
    assert caught.value.refusal is MALFORMED


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"GET http://a/ HTTP/1.1\r\nhost: a b", id="invalid-host-field"),
        pytest.param(b"GET http://a/ HTTP/1.1", id="no-host-field"),
        pytest.param(b"GET http://u@a/ HTTP/1.1\r\nhost: a", id="userinfo"),
        pytest.param(b"GET http://a:99999/ HTTP/1.1\r\nhost: a", id="port"),
        pytest.param(b"GET http://[a/ HTTP/1.1\r\nhost: a", id="bracket"),
    ],
)
def test_absolute_form_excuses_neither_a_bad_host_nor_a_bad_authority(raw: bytes) -> None:
    with pytest.raises(HeadError) as caught:
        request(raw)
    assert caught.value.refusal is MALFORMED


def test_the_largest_length_has_18_digits() -> None:
    assert request_with(b"content-length: " + b"9" * 18).body_bytes == 10**18 - 1


@pytest.mark.parametrize("count", [MAX_FIELDS - 1, MAX_FIELDS])
def test_fields_up_to_the_bound_are_read(count: int) -> None:
    head = request(b"GET / HTTP/1.1\r\nhost: h" + b"\r\nx: 1" * (count - 1))
    assert len(relayed_fields(head)) == count


def test_one_field_above_the_bound_is_refused() -> None:
    with pytest.raises(HeadError, match="101 header fields, expected no more than 100") as caught:
        request(b"GET / HTTP/1.1\r\nhost: h" + b"\r\nx: 1" * MAX_FIELDS)
    assert caught.value.refusal is HEAD_TOO_LARGE


@pytest.mark.parametrize("length", [MAX_LINE_BYTES - 1, MAX_LINE_BYTES])
def test_a_request_line_up_to_the_bound_is_read(length: int) -> None:
    line = b"GET /%b HTTP/1.1" % (b"a" * (length - 14))
    assert len(line) == length
    assert len(request(line + b"\r\nhost: h").path) == length - 13


def test_a_request_line_one_byte_above_the_bound_is_refused() -> None:
    with pytest.raises(HeadError, match="request line of 8193 bytes") as caught:
        request(b"GET /%b HTTP/1.1\r\nhost: h" % (b"a" * (MAX_LINE_BYTES - 13)))
    assert caught.value.refusal is TARGET_TOO_LONG


@pytest.mark.parametrize(
    "line",
    [
        b"Keep-Alive: timeout=5",
        b"Proxy-Connection: keep-alive",
        b"Proxy-Authenticate: Basic",
        b"Proxy-Authorization: Basic eA==",
        b"TE: trailers",
        b"Trailer: x",
        b"Upgrade: h2c",
        b"Forwarded: for=1.2.3.4",
        b"X-Forwarded-For: 1.2.3.4",
        b"X-Forwarded-Proto: https",
        b"X-Forwarded-Host: other",
        b"X-Router-Shadow: true",
        b"X-Router-Receipt: r",
        b"X-Router-Route: r",
        b"X-Router-Variant: v",
        b"Connection: keep-alive",
        b"connection: close",
        b"Connection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMA\r\nUpgrade: h2c",
    ],
    ids=lambda line: line.split(b":")[0].decode(),
)
def test_fields_of_the_hop_and_of_the_router_do_not_reach_the_endpoint(line: bytes) -> None:
    assert written(request_with(line)) == (
        b"POST /p HTTP/1.1\r\nhost: h\r\ncontent-length: 0\r\n" + OWN_LINES
    )


@pytest.mark.parametrize(
    ("lines", "relayed"),
    [
        pytest.param([b"connection: x-a", b"x-a: 1", b"x-b: 2"], [b"x-b: 2"], id="one"),
        pytest.param([b"connection: close,, X-A ,x-b", b"x-a: 1", b"x-b: 2"], [], id="list"),
        pytest.param(
            [b"connection: x-a", b"x-a: 1", b"Connection: x-b", b"X-A: 3", b"x-b: 2"],
            [],
            id="repeated",
        ),
        pytest.param([b"connection: host"], [], id="host-stays"),
        pytest.param(
            [b"connection: cookie, authorization", b"cookie: a=1", b"authorization: b"],
            [b"cookie: a=1", b"authorization: b"],
            id="credentials-stay",
        ),
        pytest.param([b"connection: keep-alive", b"keep-alive: 5"], [], id="keep-alive"),
    ],
)
def test_nominated_fields_are_removed_but_for_those_others_rely_on(
    lines: list[bytes], relayed: list[bytes]
) -> None:
    assert relayed_fields(request_with(*lines)) == [b"host: h", *relayed]


def test_nominating_the_routers_own_fields_does_not_strip_them() -> None:
    head = request_with(
        b"connection: x-forwarded-for, x-forwarded-proto, via, x-request-id, content-length",
        b"content-length: 4",
    )
    assert written(head) == (b"POST /p HTTP/1.1\r\nhost: h\r\ncontent-length: 4\r\n" + OWN_LINES)


def test_nominating_transfer_encoding_does_not_change_the_framing() -> None:
    head = request_with(b"connection: transfer-encoding", b"transfer-encoding: chunked")
    assert head.body_bytes == CHUNKED


@pytest.mark.parametrize(
    ("lines", "keep_alive"),
    [
        pytest.param([], True, id="default"),
        pytest.param([b"connection: keep-alive"], True, id="keep-alive"),
        pytest.param([b"connection: Close"], False, id="close"),
        pytest.param([b"connection: keep-alive, close"], False, id="close-last"),
        pytest.param([b"connection: close", b"connection: keep-alive"], False, id="close-wins"),
    ],
)
def test_a_connection_is_kept_unless_the_client_says_close(
    lines: list[bytes], keep_alive: bool
) -> None:
    assert request_with(*lines).keep_alive is keep_alive


def test_an_expectation_is_noted_and_relayed() -> None:
    head = request_with(b"Expect: 100-Continue", b"content-length: 1")
    assert head.expects_continue
    assert relayed_fields(head) == [b"host: h", b"Expect: 100-Continue"]


@pytest.mark.parametrize(
    ("line", "request_id"),
    [
        pytest.param(b"X-Request-Id: 01HZ-a_b.c:d/e=f@g", b"01HZ-a_b.c:d/e=f@g", id="clean"),
        pytest.param(b"x-request-id: " + b"a" * 128, b"a" * 128, id="longest"),
        pytest.param(b"x-request-id: " + b"a" * 129, b"", id="too-long"),
        pytest.param(b"x-request-id:", b"", id="empty"),
        pytest.param(b"x-request-id: a b", b"", id="space"),
        pytest.param(b'x-request-id: a"b', b"", id="quote"),
        pytest.param(b"x-request-id: <a>", b"", id="markup"),
        pytest.param(b"x-request-id: \xff", b"", id="byte-above-127"),
        pytest.param(b"x-request-id: a\r\nx-request-id: b", b"", id="twice"),
    ],
)
def test_a_request_id_is_kept_when_clean_and_else_left_to_the_router(
    line: bytes, request_id: bytes
) -> None:
    head = request_with(line)
    assert head.request_id == request_id
    assert relayed_fields(head) == [b"host: h"]


def test_what_a_parser_remembers_does_not_change_what_it_reads() -> None:
    known = RequestParser(MAX_FIELDS, MAX_LINE_BYTES)
    raws = [
        b"POST /p HTTP/1.1\r\nhost: h\r\ncontent-length: 3\r\nx: 1\r\nconnection: x",
        b"GET http://b/p HTTP/1.1\r\nhost: h",
        b"GET http://c/p HTTP/1.1\r\nhost: h",
        b"GET /p HTTP/1.0\r\nhost: h\r\nx-request-id: a",
    ]
    fresh = [(request(raw).host, written(request(raw))) for raw in raws]
    for _ in range(3):
        heads = [known.parse(raw, CLIENT) for raw in raws]
        assert [(head.host, written(head)) for head in heads] == fresh


def test_heads_parsed_from_the_same_bytes_share_no_fields() -> None:
    known = RequestParser(MAX_FIELDS, MAX_LINE_BYTES)
    raw = b"GET / HTTP/1.1\r\nhost: h\r\nx: 1"
    known.parse(raw, CLIENT).fields.clear()
    assert relayed_fields(known.parse(raw, CLIENT)) == [b"host: h", b"x: 1"]


@pytest.mark.parametrize(
    "raw_of",
    [
        pytest.param(lambda n: b"GET /%d HTTP/1.1\r\nhost: h" % n, id="targets"),
        pytest.param(lambda n: b"GET / HTTP/1.1\r\nhost: h%d" % n, id="hosts"),
        pytest.param(lambda n: b"GET http://h%d/ HTTP/1.1\r\nhost: h" % n, id="authorities"),
        pytest.param(
            lambda n: b"GET /%b%d HTTP/1.1\r\nhost: %b" % (b"a" * 600, n, b"h" * 600), id="long"
        ),
    ],
)
def test_memory_stays_bounded_whatever_clients_send(raw_of: Callable[[int], bytes]) -> None:
    known = RequestParser(MAX_FIELDS, MAX_LINE_BYTES)
    for n in range(2 * module._REMEMBERED_MAX_LINES + 10):
        raw = raw_of(n)
        head = known.parse(raw, CLIENT)
        assert head.line.relayed + b"\r\n" == written(head)[: len(head.line.relayed) + 2]
        assert max(len(known._lines), len(known._hosts)) <= module._REMEMBERED_MAX_LINES
    assert all(len(line) <= module._REMEMBERED_MAX_BYTES for line in known._lines)
    assert all(len(line) <= module._REMEMBERED_MAX_BYTES for line in known._hosts)


def test_a_refused_head_leaves_nothing_that_lets_it_pass_the_second_time() -> None:
    known = RequestParser(MAX_FIELDS, MAX_LINE_BYTES)
    for raw in (
        b"CONNECT h:1 HTTP/1.1\r\nhost: h",
        b"GET / HTTP/1.1\r\nhost: a b",
        b"GET / HTTP/1.1\r\nhost: h\r\nx : 1",
        b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: +1",
    ):
        for _ in range(2):
            with pytest.raises(HeadError):
                known.parse(raw, CLIENT)


ASKS = b"\r\nconnection: keep-alive, Upgrade\r\nUpgrade: WebSocket"


def test_a_request_for_websocket_is_passed_on_in_our_words() -> None:
    head = request(b"GET / HTTP/1.1\r\nhost: h\r\nsec-websocket-key: k" + ASKS)
    assert head.is_upgrade
    assert written(head) == (
        b"GET / HTTP/1.1\r\nhost: h\r\nsec-websocket-key: k\r\nx-request-id: id-1\r\n"
        b"connection: Upgrade\r\nupgrade: websocket\r\nx-forwarded-host: h\r\n"
        b"x-forwarded-for: 192.0.2.7\r\nx-forwarded-proto: http\r\nvia: 1.1 pointsman\r\n\r\n"
    )


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"POST / HTTP/1.1\r\nhost: h" + ASKS, id="post"),
        pytest.param(b"GET / HTTP/1.0\r\nhost: h" + ASKS, id="http-1.0"),
        pytest.param(b"GET / HTTP/1.1\r\nhost: h\r\ncontent-length: 1" + ASKS, id="length"),
        pytest.param(
            b"GET / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked" + ASKS, id="chunked"
        ),
        pytest.param(b"GET / HTTP/1.1\r\nhost: h" + ASKS[:-9] + b"h2c", id="h2c"),
        pytest.param(b"GET / HTTP/1.1\r\nhost: h" + ASKS + b", h2c", id="list"),
        pytest.param(b"GET / HTTP/1.1\r\nhost: h\r\nupgrade: websocket", id="not-nominated"),
        pytest.param(b"GET / HTTP/1.1\r\nhost: h\r\nconnection: upgrade", id="no-protocol"),
    ],
)
def test_any_other_upgrade_is_not_passed_on(raw: bytes) -> None:
    head = request(raw)
    assert not head.is_upgrade
    assert b"upgrade" not in written(head).lower()


@pytest.mark.parametrize(
    ("raw", "refusal"),
    [
        pytest.param(b"GET /\r\n", MALFORMED, id="http-0.9"),
        pytest.param(b"PRI * HTTP/2.0\r\n", VERSION_UNSUPPORTED, id="http-2"),
        pytest.param(b"\x16\x03\x01", MALFORMED, id="tls"),
        pytest.param(b"GET /" + b"x" * MAX_LINE_BYTES, TARGET_TOO_LONG, id="line-too-long"),
    ],
)
def test_what_cannot_become_a_request_is_refused_before_its_end(
    raw: bytes, refusal: Refusal
) -> None:
    with pytest.raises(HeadError) as caught:
        RequestParser(MAX_FIELDS, MAX_LINE_BYTES).check_beginning(raw)
    assert caught.value.refusal is refusal


AT_LIMIT = b"GET /" + b"x" * (MAX_LINE_BYTES - 14) + b" HTTP/1.1"


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"GET", id="a-method"),
        pytest.param(b"\r", id="half-an-empty-line"),
        pytest.param(b"GET / HTTP/1.1\r\nho", id="half-a-field"),
        pytest.param(AT_LIMIT, id="the-longest-line"),
        pytest.param(AT_LIMIT + b"\r", id="the-longest-line-and-half-its-end"),
        pytest.param(AT_LIMIT + b"\r\n", id="the-longest-line-and-its-end"),
    ],
)
def test_the_beginning_of_a_request_is_waited_for(raw: bytes) -> None:
    RequestParser(MAX_FIELDS, MAX_LINE_BYTES).check_beginning(raw)
