import pytest

from router.errors import MALFORMED, METHOD_REFUSED, VERSION_UNSUPPORTED, HeadError, Refusal
from router.http1.target import parse_host, parse_request_line, query_value


@pytest.mark.parametrize(
    ("raw", "relayed", "path", "authority"),
    [
        pytest.param(b"GET / HTTP/1.1", b"GET / HTTP/1.1", b"/", b"", id="root"),
        pytest.param(b"GET /a?b=c?d HTTP/1.1", b"GET /a?b=c?d HTTP/1.1", b"/a", b"", id="query"),
        pytest.param(b"GET /a? HTTP/1.1", b"GET /a? HTTP/1.1", b"/a", b"", id="empty-query"),
        pytest.param(
            b"PUT //a/../%2e%2E;x=[1]|\\ HTTP/1.1",
            b"PUT //a/../%2e%2E;x=[1]|\\ HTTP/1.1",
            b"//a/../%2e%2E;x=[1]|\\",
            b"",
            id="path-is-not-rewritten",
        ),
        pytest.param(b"OPTIONS * HTTP/1.1", b"OPTIONS * HTTP/1.1", b"*", b"", id="asterisk"),
        pytest.param(
            b"GET http://h:80/a?b HTTP/1.1", b"GET /a?b HTTP/1.1", b"/a", b"h:80", id="absolute"
        ),
        pytest.param(
            b"GET HTTP://H HTTP/1.1", b"GET / HTTP/1.1", b"/", b"H", id="absolute-without-path"
        ),
        pytest.param(
            b"GET http://h?q HTTP/1.1", b"GET /?q HTTP/1.1", b"/", b"h", id="absolute-query-only"
        ),
        pytest.param(
            b"OPTIONS http://h HTTP/1.1", b"OPTIONS * HTTP/1.1", b"*", b"h", id="absolute-options"
        ),
        pytest.param(
            b"OPTIONS http://h/ HTTP/1.1", b"OPTIONS / HTTP/1.1", b"/", b"h", id="absolute-path"
        ),
        pytest.param(b"PURGE /x HTTP/1.1", b"PURGE /x HTTP/1.1", b"/x", b"", id="extension-method"),
        pytest.param(b"get /x HTTP/1.1", b"get /x HTTP/1.1", b"/x", b"", id="methods-have-case"),
        pytest.param(b"GET /x HTTP/1.0", b"GET /x HTTP/1.1", b"/x", b"", id="http-1.0"),
        pytest.param(b"GET /x HTTP/1.9", b"GET /x HTTP/1.1", b"/x", b"", id="later-minor"),
    ],
)
def test_a_request_line_is_relayed_in_origin_form_as_http_1_1(
    raw: bytes, relayed: bytes, path: bytes, authority: bytes
) -> None:
    line = parse_request_line(raw)
    assert (line.relayed, line.path, line.authority) == (relayed, path, authority)
    assert line.minor == (0 if raw.endswith(b"1.0") else 1)


@pytest.mark.parametrize(
    ("raw", "refusal"),
    [
        pytest.param(b"", MALFORMED, id="empty"),
        pytest.param(b"GET /", MALFORMED, id="http-0.9"),
        pytest.param(b"GET  / HTTP/1.1", MALFORMED, id="two-spaces"),
        pytest.param(b" GET / HTTP/1.1", MALFORMED, id="leading-space"),
        pytest.param(b"GET / HTTP/1.1 ", MALFORMED, id="trailing-space"),
        pytest.param(b"GET / HTTP/1.1\n", MALFORMED, id="trailing-lf"),
        pytest.param(b"GET / HTTP/1.1\r", MALFORMED, id="trailing-cr"),
        pytest.param(b"GET\t/ HTTP/1.1", MALFORMED, id="tab"),
        pytest.param(b"GET\x0b/ HTTP/1.1", MALFORMED, id="vertical-tab"),
        pytest.param(b"GET /a b HTTP/1.1", MALFORMED, id="space-in-target"),
        pytest.param(b"GET /a\x00 HTTP/1.1", MALFORMED, id="nul-in-target"),
        pytest.param(b"GET /a\x7f HTTP/1.1", MALFORMED, id="del-in-target"),
        pytest.param(b"GET /caf\xc3\xa9 HTTP/1.1", MALFORMED, id="byte-above-127-in-target"),
        pytest.param(b"GET /a\rb HTTP/1.1", MALFORMED, id="cr-in-target"),
        pytest.param(b"GET / HTTP/1.1\nx: y", MALFORMED, id="lf-instead-of-crlf"),
        pytest.param(b"GET / http/1.1", MALFORMED, id="version-in-lower-case"),
        pytest.param(b"GET / HTTP/1.10", MALFORMED, id="two-digit-minor"),
        pytest.param(b"GET / HTTP/ 1.1", MALFORMED, id="space-in-version"),
        pytest.param(b"GET / HTTP/1,1", MALFORMED, id="comma-in-version"),
        pytest.param(b"GET / XTTP/1.1", MALFORMED, id="other-protocol"),
        pytest.param(b"G(T / HTTP/1.1", MALFORMED, id="delimiter-in-method"),
        pytest.param(b"G\xc3\x89T / HTTP/1.1", MALFORMED, id="byte-above-127-in-method"),
        pytest.param(b"A" * 33 + b" / HTTP/1.1", MALFORMED, id="method-of-33-bytes"),
        pytest.param(b"GET a HTTP/1.1", MALFORMED, id="relative-target"),
        pytest.param(b"GET * HTTP/1.1", MALFORMED, id="asterisk-for-get"),
        pytest.param(b"OPTIONS ** HTTP/1.1", MALFORMED, id="two-asterisks"),
        pytest.param(b"GET ?q HTTP/1.1", MALFORMED, id="query-alone"),
        pytest.param(b"GET /a#b HTTP/1.1", MALFORMED, id="fragment"),
        pytest.param(b"GET http://h/a#b HTTP/1.1", MALFORMED, id="fragment-in-absolute"),
        pytest.param(b"GET http://h#b HTTP/1.1", MALFORMED, id="fragment-after-authority"),
        pytest.param(b"GET http:///a HTTP/1.1", MALFORMED, id="absolute-without-host"),
        pytest.param(b"GET https://h/a HTTP/1.1", MALFORMED, id="https-on-a-plain-connection"),
        pytest.param(b"GET ftp://h/a HTTP/1.1", MALFORMED, id="other-scheme"),
        pytest.param(b"GET h:443 HTTP/1.1", MALFORMED, id="authority-form"),
        pytest.param(b"CONNECT h:443 HTTP/1.1", METHOD_REFUSED, id="connect"),
        pytest.param(b"TRACE / HTTP/1.1", METHOD_REFUSED, id="trace"),
        pytest.param(b"PRI * HTTP/2.0", VERSION_UNSUPPORTED, id="http-2-preface"),
        pytest.param(b"GET / HTTP/0.9", VERSION_UNSUPPORTED, id="http-0.9-named"),
        pytest.param(b"GET / HTTP/3.1", VERSION_UNSUPPORTED, id="http-3"),
    ],
)
def test_a_request_line_that_may_not_be_relayed_is_refused(raw: bytes, refusal: Refusal) -> None:
    with pytest.raises(HeadError) as caught:
        parse_request_line(raw)
    assert caught.value.refusal is refusal


@pytest.mark.parametrize(
    ("value", "host"),
    [
        pytest.param(b"Example.COM", b"example.com", id="lower-cased"),
        pytest.param(b" h ", b"h", id="padding"),
        pytest.param(b"h:8080", b"h", id="port"),
        pytest.param(b"h:", b"h", id="empty-port"),
        pytest.param(b"h:65535", b"h", id="highest-port"),
        pytest.param(b"h.", b"h", id="root-dot"),
        pytest.param(b"192.0.2.1:80", b"192.0.2.1", id="ipv4"),
        pytest.param(b"[2001:DB8::1]:80", b"[2001:db8::1]", id="ipv6"),
        pytest.param(b"a_b~!$&'()*+,;=%20", b"a_b~!$&'()*+,;=%20", id="every-kind-of-reg-name"),
        pytest.param(b"", b"", id="empty"),
    ],
)
def test_a_host_is_read_without_its_port(value: bytes, host: bytes) -> None:
    assert parse_host(b"host:" + value) == host


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(b"h:65536", id="port-above-65535"),
        pytest.param(b"h:000080", id="port-of-six-digits"),
        pytest.param(b"h:+80", id="signed-port"),
        pytest.param(b"h:8_0", id="underscore-in-port"),
        pytest.param(b"h:\xd9\xa1", id="other-digits-in-port"),
        pytest.param(b"h:80:80", id="two-ports"),
        pytest.param(b":80", id="port-alone"),
        pytest.param(b"user@h", id="userinfo"),
        pytest.param(b"a b", id="space"),
        pytest.param(b"a/b", id="slash"),
        pytest.param(b"a?b", id="question-mark"),
        pytest.param(b"a#b", id="hash"),
        pytest.param(b"a\\b", id="backslash"),
        pytest.param(b"http://h", id="url"),
        pytest.param(b"::1", id="ipv6-without-brackets"),
        pytest.param(b"[::1", id="bracket-not-closed"),
        pytest.param(b"[::1]x", id="text-after-bracket"),
        pytest.param(b"[fe80::1%25eth0]", id="ipv6-zone"),
        pytest.param(b"caf\xc3\xa9", id="byte-above-127"),
    ],
)
def test_a_host_that_is_none_is_refused(value: bytes) -> None:
    with pytest.raises(HeadError) as caught:
        parse_host(b"host: " + value)
    assert caught.value.refusal is MALFORMED


@pytest.mark.parametrize(
    ("target", "value"),
    [
        (b"/x?country=AU", b"AU"),
        (b"/x?a=1&country=AU&country=NZ", b"AU"),
        (b"/x?country=%41%55+x", b"AU x"),
        (b"/x?%63ountry=AU", b"AU"),
        (b"/x?country=a=b", b"a=b"),
        (b"/x?country", b""),
        (b"/x?country=%zz%4", b"%zz%4"),
        (b"/x?country=a?b", b"a?b"),
        (b"/x?Country=AU", None),
        (b"/x?&&", None),
        (b"/x", None),
        (b"*", None),
    ],
)
def test_a_query_parameter_is_read_as_forms_write_it(target: bytes, value: bytes | None) -> None:
    assert query_value(target, b"country") == value
