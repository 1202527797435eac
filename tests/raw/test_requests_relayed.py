"""What a client may send, and the exact bytes that the origin gets of it.

`ID` pins the request id, so that the expected bytes are literals. `OWN` ends every head.
"""

import pytest

from tests.raw.harness import Stand, head

ID = b"X-Request-Id: id-1"
OWN = (
    b"x-forwarded-host: h\r\n"
    b"x-forwarded-for: 127.0.0.1\r\nx-forwarded-proto: http\r\nvia: 1.1 pointsman\r\n\r\n"
)
CLOSE = b"Connection: close"


def relayed(stand: Stand, raw: bytes, target: bytes) -> bytes:
    """The origin's bytes for a request that was answered."""
    outcome = stand.send(raw)
    assert (outcome.only.status, outcome.ending) == (200, "closed")
    assert len(stand.origin.asked(target)) == 1
    return stand.seen_at_origin(target)


def fields_at_origin(stand: Stand, *lines: bytes, method: bytes = b"GET") -> list[bytes]:
    """The field lines that reach the origin, but for the router's own and `host`."""
    target = stand.target()
    raw = head(target, *lines, CLOSE, ID, method=method)
    seen = relayed(stand, raw, target)
    start = b"%b %b HTTP/1.1\r\nhost: h\r\n" % (method, target)
    assert seen.startswith(start)
    assert seen.endswith(b"x-request-id: id-1\r\n" + OWN)
    between = seen[len(start) - 2 : -len(b"x-request-id: id-1\r\n" + OWN)]
    return between.split(b"\r\n")[1:-1]


@pytest.mark.parametrize(
    ("lines", "body", "framing", "sent"),
    [
        pytest.param([b"Content-Length: 5"], b"hello", b"content-length: 5", b"hello", id="length"),
        pytest.param([b"Content-Length: 0"], b"", b"content-length: 0", b"", id="length-0"),
        pytest.param([b"Content-Length:5"], b"hello", b"content-length: 5", b"hello", id="tight"),
        pytest.param([b"Content-Length: \t5 "], b"hello", b"content-length: 5", b"hello", id="ws"),
        pytest.param([b"CONTENT-LENGTH: 005"], b"hello", b"content-length: 5", b"hello", id="0s"),
        pytest.param([], b"", b"content-length: 0", b"", id="neither"),
        pytest.param(
            [b"Transfer-Encoding: chunked"], b"5\r\nhello\r\n0\r\n\r\n",
            b"transfer-encoding: chunked", b"5\r\nhello\r\n0\r\n\r\n", id="chunked",
        ),
        pytest.param(
            [b"transfer-ENCODING:\tCHUNKED "], b"5\r\nhello\r\n0\r\n\r\n",
            b"transfer-encoding: chunked", b"5\r\nhello\r\n0\r\n\r\n", id="chunked-case",
        ),
        pytest.param(
            [b"Transfer-Encoding: chunked"], b"0\r\n\r\n",
            b"transfer-encoding: chunked", b"0\r\n\r\n", id="chunked-empty",
        ),
        pytest.param(
            [b"Transfer-Encoding: chunked"], b"00005;a=b\r\nhello\r\n000;c\r\n\r\n",
            b"transfer-encoding: chunked", b"5\r\nhello\r\n0\r\n\r\n", id="extensions-are-dropped",
        ),
        pytest.param(
            [b"Transfer-Encoding: chunked"], b'5 \t;a="b;c"\r\nhello\r\n0\r\n\r\n',
            b"transfer-encoding: chunked", b"5\r\nhello\r\n0\r\n\r\n", id="extension-quoted",
        ),
        pytest.param(
            [b"Transfer-Encoding: chunked"], b"A\r\n0123456789\r\n0\r\n\r\n",
            b"transfer-encoding: chunked", b"a\r\n0123456789\r\n0\r\n\r\n", id="upper-case-size",
        ),
        pytest.param(
            [b"Transfer-Encoding: chunked", b"Trailer: X-Sum"],
            b"5\r\nhello\r\n0\r\nX-Sum: 1\r\nContent-Length: 9\r\nHost: evil\r\n\r\n",
            b"transfer-encoding: chunked", b"5\r\nhello\r\n0\r\n\r\n", id="trailers-are-dropped",
        ),
        pytest.param(
            [b"Transfer-Encoding: chunked"], b"2\r\n\r\n\r\n4\r\n0\r\n\r\r\n0\r\n\r\n",
            b"transfer-encoding: chunked", b"6\r\n\r\n0\r\n\r\r\n0\r\n\r\n", id="data-like-framing",
        ),
    ],
)  # fmt: skip
def test_framing_is_written_anew(
    stand: Stand, lines: list[bytes], body: bytes, framing: bytes, sent: bytes
) -> None:
    target = stand.target()
    raw = head(target, *lines, CLOSE, ID, method=b"POST") + body
    own = b"\r\nx-request-id: id-1\r\n" + OWN
    assert relayed(stand, raw, target) == (
        b"POST %b HTTP/1.1\r\nhost: h\r\n%b%b%b" % (target, framing, own, sent)
    )


@pytest.mark.parametrize(
    "method",
    [b"GET", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS", b"PURGE", b"QUERY", b"PROPFIND",
     b"get", b"M-SEARCH", b"!#$%&'*+-.^_`|~09", b"A" * 32],
)  # fmt: skip
def test_a_method_that_is_a_token_is_relayed(stand: Stand, method: bytes) -> None:
    target = stand.target()
    seen = relayed(stand, head(target, CLOSE, method=method), target)
    assert seen.startswith(b"%b %b HTTP/1.1\r\n" % (method, target))


@pytest.mark.parametrize(
    "suffix",
    [b"", b"?", b"?a=b&c", b"?a?b/c", b"/", b"//", b"/../x", b"/./x", b"/%2e%2e/x", b"/%2F", b"/%",
     b"/%zz", b"/%00", b"/;v=1", b"/a;b/c", b"/[x]{y}|z", b"/\\..\\x", b"/~'()!*$&+,=:@", b'/"<>^`',
     b"/http://other/"],
)  # fmt: skip
def test_a_target_is_relayed_byte_for_byte(stand: Stand, suffix: bytes) -> None:
    target = stand.target() + suffix
    seen = relayed(stand, head(target, CLOSE), target)
    assert seen.startswith(b"GET %b HTTP/1.1\r\n" % target)


@pytest.mark.parametrize(
    ("form", "sent"),
    [
        pytest.param(b"GET http://other:81%b HTTP/1.1", b"GET %b HTTP/1.1", id="absolute"),
        pytest.param(b"GET HTTP://other:81%b?q HTTP/1.1", b"GET %b?q HTTP/1.1", id="scheme-case"),
        pytest.param(b"OPTIONS http://other:81%b HTTP/1.1", b"OPTIONS %b HTTP/1.1", id="options"),
    ],
)
def test_the_authority_of_an_absolute_target_replaces_host(
    stand: Stand, form: bytes, sent: bytes
) -> None:
    target = stand.target()
    raw = form % target + b"\r\nHost: h\r\nConnection: close\r\n\r\n"
    seen = relayed(stand, raw, (sent % target).split(b" ")[1])
    assert seen.startswith(sent % target + b"\r\nHost: other:81\r\n")
    assert seen.count(b"ost: ") == seen.count(b"Host: ") + seen.count(b"-host: ")
    assert b"x-forwarded-host: other:81\r\n" in seen


@pytest.mark.parametrize(
    ("raw", "target"),
    [
        pytest.param(b"OPTIONS * HTTP/1.1\r\nHost: h\r\n", b"*", id="asterisk"),
        pytest.param(b"OPTIONS http://h HTTP/1.1\r\nHost: h\r\n", b"*", id="absolute-options"),
        pytest.param(b"GET http://h HTTP/1.1\r\nHost: h\r\n", b"/", id="absolute-without-path"),
        pytest.param(b"GET http://h?q=1 HTTP/1.1\r\nHost: h\r\n", b"/?q=1", id="absolute-query"),
    ],
)
def test_a_target_without_a_path_is_completed(stand: Stand, raw: bytes, target: bytes) -> None:
    before = len(stand.origin.asked(target))
    assert stand.send(raw + b"Connection: close\r\n\r\n").only.status == 200
    assert len(stand.origin.asked(target)) == before + 1


@pytest.mark.parametrize(
    "host",
    [b"h", b"H.Example.COM", b"h:8080", b"h:", b"h:0", b"h:65535", b"192.0.2.1:80",
     b"[2001:db8::1]", b"[::ffff:192.0.2.1]:80",
     b"a_b", b"xn--caf-dma", b"h.", b"%20", b"!$&'()*+,;=~-._"],
)  # fmt: skip
def test_a_valid_host_is_relayed_as_it_came(stand: Stand, host: bytes) -> None:
    target = stand.target()
    raw = b"GET %b HTTP/1.1\r\nHost: %b\r\nConnection: close\r\n\r\n" % (target, host)
    assert b"\r\nHost: %b\r\n" % host in relayed(stand, raw, target)


def test_an_empty_host_is_relayed_as_it_came(stand: Stand) -> None:
    target = stand.target()
    raw = b"GET %b HTTP/1.1\r\nHost:\r\nConnection: close\r\n\r\n" % target
    seen = relayed(stand, raw, target)
    assert b"\r\nHost:\r\n" in seen
    assert b"x-forwarded-host" not in seen


@pytest.mark.parametrize(
    "line",
    [
        b"Keep-Alive: timeout=5", b"Proxy-Connection: keep-alive", b"Proxy-Authenticate: Basic",
        b"Proxy-Authorization: Basic eA==", b"TE: trailers", b"TE: gzip, trailers;q=0.5",
        b"Trailer: X-Sum", b"Upgrade: h2c", b"Upgrade: websocket", b"Forwarded: for=1.2.3.4",
        b"X-Forwarded-For: 1.2.3.4", b"X-Forwarded-Host: evil", b"X-Forwarded-Proto: https",
        b"X-Forwarded-Port: 1", b"X-Forwarded-Prefix: /x", b"X-Real-Ip: 1.2.3.4",
        b"X-Router-Variant: v", b"X-Router-Route: r", b"X-Router-Receipt: r",
        b"X-Router-Shadow: true", b"Connection: X-Gone\r\nX-Gone: 1",
        b"Connection: x-a, X-B,,x-c\r\nX-A: 1\r\nx-b: 2\r\nX-C: 3\r\nX-A: 4",
        b"X-Gone: 1\r\nConnection: x-gone",
        b"Connection: keep-alive, Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMA",
    ],
    ids=lambda line: line.split(b"\r\n")[0].decode(),
)  # fmt: skip
def test_fields_of_the_hop_and_of_the_router_stay_here(stand: Stand, line: bytes) -> None:
    assert fields_at_origin(stand, line, b"X-Kept: 1") == [b"X-Kept: 1"]


@pytest.mark.parametrize(
    ("nominated", "lines"),
    [
        (b"host", []),
        (b"authorization", [b"Authorization: Bearer x"]),
        (b"cookie", [b"Cookie: a=1", b"Cookie: b=2"]),
        (b"HOST, Cookie,AUTHORIZATION", [b"Authorization: x", b"Cookie: a=1"]),
        (b"x-forwarded-for, x-forwarded-proto, x-forwarded-host, via", []),
        (b"X-Router-Shadow, x-router-variant", []),
    ],
)
def test_nobody_may_strip_by_naming(stand: Stand, nominated: bytes, lines: list[bytes]) -> None:
    assert fields_at_origin(stand, b"Connection: " + nominated, *lines) == lines


def test_a_request_id_that_was_named_is_replaced_by_ours(stand: Stand) -> None:
    target = stand.target()
    relayed(stand, head(target, b"Connection: close, x-request-id", ID), target)
    (request_id,) = stand.origin.asked(target)[0].values(b"x-request-id")
    assert len(request_id) == 32


@pytest.mark.parametrize("nominated", [b"content-length", b"transfer-encoding"])
def test_naming_a_framing_field_changes_no_framing(stand: Stand, nominated: bytes) -> None:
    target = stand.target()
    framed = {
        b"content-length": (b"Content-Length: 5", b"hello"),
        b"transfer-encoding": (b"Transfer-Encoding: chunked", b"5\r\nhello\r\n0\r\n\r\n"),
    }
    line, body = framed[nominated]
    raw = head(target, b"Connection: close, " + nominated, line, method=b"POST") + body
    relayed(stand, raw, target)
    assert stand.origin.asked(target)[0].body == b"hello"


def test_fields_that_repeat_stay_apart_and_in_order(stand: Stand) -> None:
    lines = [b"Accept: a", b"X: 1", b"Cookie: a=1", b"accept: b", b"Cookie: b=2"]
    assert fields_at_origin(stand, *lines) == [
        b"Accept: a", b"accept: b", b"X: 1", b"Cookie: a=1", b"Cookie: b=2",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "line",
    [b"X-Empty:", b"X: \xe9\xff", b"X:no-space", b"X:  padded \t", b"X: a\tb", b'X: "q, \\"',
     b"X: :", b"!#$: 1"],
)  # fmt: skip
def test_a_field_keeps_its_bytes(stand: Stand, line: bytes) -> None:
    assert fields_at_origin(stand, line) == [line]


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ([b"Via: 1.0 fred"], b"via: 1.0 fred, 1.1 pointsman"),
        ([b"Via: 1.1 a, 1.1 b", b"Via: 1.0 c"], b"via: 1.1 a, 1.1 b, 1.0 c, 1.1 pointsman"),
        ([b"Via:"], b"via: 1.1 pointsman"),
    ],
)
def test_via_only_grows(stand: Stand, given: list[bytes], sent: bytes) -> None:
    target = stand.target()
    seen = relayed(stand, head(target, *given, CLOSE), target)
    assert [line for line in seen.split(b"\r\n") if line.lower().startswith(b"via")] == [sent]


@pytest.mark.parametrize(("given", "sent"), [(b"1", b"0"), (b"10", b"9"), (b"007", b"6")])
def test_max_forwards_of_options_loses_one(stand: Stand, given: bytes, sent: bytes) -> None:
    lines = fields_at_origin(stand, b"Max-Forwards: " + given, method=b"OPTIONS")
    assert lines == [b"max-forwards: " + sent]


def test_max_forwards_of_other_methods_is_left_alone(stand: Stand) -> None:
    assert fields_at_origin(stand, b"Max-Forwards: 0") == [b"Max-Forwards: 0"]


@pytest.mark.parametrize("form", [b"*", b"/x", b"http://h/x"])
def test_options_whose_forwards_ended_is_answered_here(stand: Stand, form: bytes) -> None:
    stand.mark()
    raw = b"OPTIONS %b HTTP/1.1\r\nHost: h\r\nMax-Forwards: 0\r\nConnection: close\r\n\r\n" % form
    answer = stand.send(raw).only
    assert answer.status == 200
    assert b"GET" in (answer.value(b"allow") or b"")
    assert stand.newly_received() == 0


TRUSTED = "127.0.0.9"


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        (b"X-Forwarded-For: 1.2.3.4", b"x-forwarded-for: 1.2.3.4, 127.0.0.9"),
        (b"X-Forwarded-Proto: https", b"x-forwarded-proto: https"),
        (b"X-Forwarded-Host: shop.example", b"x-forwarded-host: shop.example"),
    ],
)
def test_forwarding_fields_are_believed_from_a_trusted_proxy_only(
    stand: Stand, given: bytes, sent: bytes
) -> None:
    for source, is_there in ((TRUSTED, True), ("127.0.0.1", False)):
        target = stand.target()
        assert stand.send(head(target, given, CLOSE), source=source).only.status == 200
        seen = stand.seen_at_origin(target)
        assert (b"\r\n" + sent + b"\r\n" in seen) is is_there
        assert seen.count(b"x-forwarded-for:") == seen.count(b"x-forwarded-host:") == 1


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"GET %b HTTP/1.1\r\nVia: 1.1 p\r\nConnection: close\r\n", id="beside-via"),
        pytest.param(b"GET %b HTTP/1.0\r\n", id="in-http-1.0"),
    ],
)  # fmt: skip
def test_a_stranger_cannot_forge_forwarding_fields(stand: Stand, raw: bytes) -> None:
    target = stand.target()
    forged = b"".join(
        b"X-Forwarded-%b: evil\r\n" % name for name in (b"For", b"Host", b"Proto", b"Port", b"By")
    )
    seen = relayed(stand, raw % target + b"Host: h\r\n" + forged + b"\r\n", target)
    assert b"evil" not in seen
    assert b"\r\nx-forwarded-for: 127.0.0.1\r\n" in seen


def test_http_1_0_is_relayed_as_1_1_and_closed(stand: Stand) -> None:
    target = stand.target()
    raw = b"GET %b HTTP/1.0\r\nHost: h\r\nConnection: keep-alive\r\n\r\n" % target
    outcome = stand.send(raw)
    assert (outcome.only.status, outcome.ending) == (200, "closed")
    assert outcome.only.value(b"connection") == b"close"
    seen = stand.seen_at_origin(target)
    assert seen.startswith(b"GET %b HTTP/1.1\r\nHost: h\r\n" % target)
    assert b"via: 1.0 pointsman\r\n" in seen


def test_http_1_0_without_a_host_gets_that_of_the_endpoint(stand: Stand) -> None:
    target = stand.target()
    seen = relayed(stand, b"GET %b HTTP/1.0\r\n\r\n" % target, target)
    assert b"\r\nhost: %b\r\n" % stand.origin.url.removeprefix("http://").encode() in seen


@pytest.mark.parametrize("segments", ["together", "apart", "singly"])
def test_pipelined_requests_are_answered_in_order(stand: Stand, segments: str) -> None:
    targets = [stand.target() for _ in range(5)]
    for number, target in enumerate(targets):
        stand.origin.script(target, b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n%d" % number)
    raws = [head(target) for target in targets[:-1]] + [head(targets[-1], CLOSE)]
    stream = b"".join(raws)
    if segments == "together":
        outcome = stand.send(stream)
    elif segments == "apart":
        outcome = stand.send(*raws)
    else:
        outcome = stand.send(*(stream[i : i + 1] for i in range(len(stream))))
    assert [answer.body for answer in outcome.answers()] == [b"0", b"1", b"2", b"3", b"4"]


def test_nothing_after_connection_close_is_read(stand: Stand) -> None:
    target, later = stand.target(), stand.target()
    assert stand.send(head(target, CLOSE) + head(later)).only.status == 200
    assert stand.origin.asked(later) == []
