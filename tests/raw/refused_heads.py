# ruff: noqa: E501 - a row of a table is one line
"""Request heads that may not be relayed, by rule: (rule, bytes, reason of the refusal).

`head()` completes field lines to a POST; a case about the request line or the host is whole bytes.
"""

MALFORMED = "malformed-request"
CODING = "coding-unknown"
EXPECTATION = "expectation-unknown"
METHOD = "method-refused"
VERSION = "version-unsupported"

Case = tuple[str, bytes, str]


def post(*lines: bytes) -> bytes:
    return b"\r\n".join((b"POST /p HTTP/1.1", b"Host: h", *lines, b"", b""))


def get(target: bytes = b"/", host: bytes = b"Host: h\r\n", version: bytes = b"HTTP/1.1") -> bytes:
    return b"GET %b %b\r\n%b\r\n" % (target, version, host)


TWO_FRAMINGS: list[Case] = [
    ("cl-then-te", post(b"Content-Length: 5", b"Transfer-Encoding: chunked"), MALFORMED),
    ("te-then-cl", post(b"Transfer-Encoding: chunked", b"Content-Length: 5"), MALFORMED),
    ("te-and-cl-0", post(b"Transfer-Encoding: chunked", b"Content-Length: 0"), MALFORMED),
    ("odd-te-and-cl", post(b"Transfer-Encoding: x", b"Content-Length: 5"), MALFORMED),
    ("empty-te-and-cl", post(b"Transfer-Encoding:", b"Content-Length: 5"), MALFORMED),
    ("te-and-malformed-cl", post(b"Transfer-Encoding: chunked", b"Content-Length: x"), MALFORMED),
    (
        "cl-te-apart-by-other-fields",
        post(b"Content-Length: 5", b"X: 1", b"Y: 2", b"Transfer-Encoding: chunked"),
        MALFORMED,
    ),
    (
        "cl-te-with-connection-naming-cl",
        post(b"Connection: content-length", b"Content-Length: 5", b"Transfer-Encoding: chunked"),
        MALFORMED,
    ),
    (
        "cl-te-with-connection-naming-te",
        post(b"Connection: transfer-encoding", b"Content-Length: 5", b"Transfer-Encoding: chunked"),
        MALFORMED,
    ),
]
CODINGS: list[Case] = [
    (f"te-{name}", post(b"Transfer-Encoding: " + value), CODING)
    for name, value in [
        ("gzip", b"gzip"),
        ("identity", b"identity"),
        ("gzip-then-chunked", b"gzip, chunked"),
        ("chunked-then-identity", b"chunked, identity"),
        ("chunked-then-gzip", b"chunked, gzip"),
        ("chunked-twice", b"chunked, chunked"),
        ("chunked-twice-without-comma", b"chunked chunked"),
        ("leading-comma", b",chunked"),
        ("trailing-comma", b"chunked,"),
        ("parameter", b"chunked;q=1"),
        ("parameter-with-space", b"chunked ; foo=bar"),
        ("double-quoted", b'"chunked"'),
        ("single-quoted", b"'chunked'"),
        ("prefix", b"xchunked"),
        ("suffix", b"chunkedx"),
        ("cow", b"cow"),
        ("kelvin-sign", b"chun\xe2\x84\xaaed"),
        ("long-s", b"chunked\xc5\xbf"),
        ("nbsp", b"\xa0chunked"),
        ("next-line", b"chunked\x85"),
        ("spaced-letters", b"chun ked"),
        ("tab-inside", b"chunk\ted"),
    ]
] + [("te-empty", post(b"Transfer-Encoding:"), CODING)]
CODING_LINES: list[Case] = [
    ("te-twice", post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"), MALFORMED),
    ("te-twice-odd-last", post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: x"), MALFORMED),
    ("te-twice-odd-first", post(b"Transfer-Encoding: x", b"transfer-encoding: chunked"), MALFORMED),
    ("te-space-before-colon", post(b"Transfer-Encoding : chunked"), MALFORMED),
    ("te-tab-before-colon", post(b"Transfer-Encoding\t: chunked"), MALFORMED),
    ("te-vertical-tab-in-value", post(b"Transfer-Encoding: \x0bchunked"), MALFORMED),
    ("te-form-feed-in-value", post(b"Transfer-Encoding: chunked\x0c"), MALFORMED),
    ("te-nul-in-value", post(b"Transfer-Encoding: chunked\x00"), MALFORMED),
    ("te-bare-cr-before-value", post(b"Transfer-Encoding: \rchunked"), MALFORMED),
    ("te-bare-lf-before-name", post(b"X: y\nTransfer-Encoding: chunked"), MALFORMED),
    ("te-bare-cr-before-name", post(b"X: y\rTransfer-Encoding: chunked"), MALFORMED),
    ("te-folded", post(b"Transfer-Encoding:\r\n chunked"), MALFORMED),
    ("te-behind-a-fold", post(b"X: y\r\n Transfer-Encoding: chunked"), MALFORMED),
    ("te-underscore", post(b"Transfer_Encoding: chunked"), MALFORMED),
    ("te-leading-space", post(b" Transfer-Encoding: chunked"), MALFORMED),
    ("te-no-colon", post(b"Transfer-Encoding chunked"), MALFORMED),
    ("te-nul-in-name", post(b"Transfer-\x00Encoding: chunked"), MALFORMED),
    (
        "te-in-http-1.0",
        b"POST /p HTTP/1.0\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n",
        MALFORMED,
    ),
    (
        "te-and-cl-in-http-1.0",
        b"POST /p HTTP/1.0\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
        MALFORMED,
    ),
]
LENGTHS: list[Case] = [
    (f"cl-{name}", post(b"Content-Length: " + value), MALFORMED)
    for name, value in [
        ("plus", b"+5"),
        ("minus", b"-5"),
        ("minus-0", b"-0"),
        ("hex", b"0x5"),
        ("hex-digits", b"a"),
        ("octal", b"0o5"),
        ("underscore", b"1_0"),
        ("point", b"5.0"),
        ("exponent", b"5e0"),
        ("space-inside", b"1 0"),
        ("tab-inside", b"1\t0"),
        ("list-of-equals", b"5, 5"),
        ("list-of-differing", b"5, 6"),
        ("list-without-space", b"5,5"),
        ("trailing-comma", b"5,"),
        ("leading-comma", b",5"),
        ("semicolon", b"5;"),
        ("quoted", b'"5"'),
        ("word", b"five"),
        ("arabic-digit", b"\xd9\xa5"),
        ("fullwidth-digit", b"\xef\xbc\x95"),
        ("superscript", b"\xb2"),
        ("nbsp", b"\xa05"),
        ("2-to-63", b"9223372036854775808"),
        ("2-to-64", b"18446744073709551616"),
        ("2-to-64-plus-5", b"18446744073709551621"),
        ("19-digits", b"9" * 19),
        ("200-digits", b"9" * 200),
    ]
] + [
    ("cl-empty", post(b"Content-Length:"), MALFORMED),
    ("cl-blank", post(b"Content-Length: \t "), MALFORMED),
    ("cl-vertical-tab", post(b"Content-Length: \x0b5"), MALFORMED),
    ("cl-nul", post(b"Content-Length: 5\x00"), MALFORMED),
    ("cl-bare-cr", post(b"Content-Length: \r5"), MALFORMED),
    ("cl-folded", post(b"Content-Length:\r\n 5"), MALFORMED),
    ("cl-folded-second-digit", post(b"Content-Length: 1\r\n 0"), MALFORMED),
    ("cl-twice-differing", post(b"Content-Length: 5", b"Content-Length: 6"), MALFORMED),
    ("cl-twice-equal", post(b"Content-Length: 5", b"Content-Length: 5"), MALFORMED),
    ("cl-twice-equal-but-written-apart", post(b"Content-Length: 5", b"content-length: 05"), MALFORMED),
    ("cl-twice-one-empty", post(b"Content-Length: 5", b"Content-Length:"), MALFORMED),
    ("cl-three-times", post(*[b"Content-Length: 0"] * 3), MALFORMED),
    ("cl-space-before-colon", post(b"Content-Length : 5"), MALFORMED),
    ("cl-underscore-in-name", post(b"Content_Length: 5"), MALFORMED),
    ("cl-twice-in-http-1.0", b"POST / HTTP/1.0\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", MALFORMED),
]  # fmt: skip
LINES: list[Case] = [
    ("lf-ends-the-request-line", b"GET / HTTP/1.1\nHost: h\r\n\r\n", MALFORMED),
    ("lf-ends-every-line", b"GET / HTTP/1.1\nHost: h\n\n", MALFORMED),
    ("lf-ends-a-field", b"GET / HTTP/1.1\r\nHost: h\nX: y\r\n\r\n", MALFORMED),
    ("lf-is-the-empty-line", b"GET / HTTP/1.1\r\nHost: h\r\n\n", MALFORMED),
    ("cr-ends-the-request-line", b"GET / HTTP/1.1\rHost: h\r\n\r\n", MALFORMED),
    ("cr-ends-a-field", b"GET / HTTP/1.1\r\nHost: h\rX: y\r\n\r\n", MALFORMED),
    ("cr-cr-lf", b"GET / HTTP/1.1\r\nHost: h\r\r\n\r\n", MALFORMED),
    ("cr-in-a-value", post(b"X: a\rb"), MALFORMED),
    ("lf-in-a-value", post(b"X: a\nb"), MALFORMED),
    ("cr-at-the-start-of-a-value", post(b"X:\ry"), MALFORMED),
    ("cr-alone-as-a-line", post(b"\r"), MALFORMED),
    ("lf-at-the-start-of-a-name", post(b"\nX: y"), MALFORMED),
    ("fold-with-space", post(b"X: y\r\n z"), MALFORMED),
    ("fold-with-tab", post(b"X: y\r\n\tz"), MALFORMED),
    ("fold-right-after-the-request-line", b"GET / HTTP/1.1\r\n Host: h\r\n\r\n", MALFORMED),
    ("fold-that-is-blank", post(b"X: y\r\n "), MALFORMED),
    ("fold-of-host", b"GET / HTTP/1.1\r\nHost:\r\n h\r\n\r\n", MALFORMED),
    ("space-before-colon", post(b"X : y"), MALFORMED),
    ("tab-before-colon", post(b"X\t: y"), MALFORMED),
    ("host-space-before-colon", b"GET / HTTP/1.1\r\nHost : h\r\n\r\n", MALFORMED),
    ("empty-name", post(b": y"), MALFORMED),
    ("colon-alone", post(b":"), MALFORMED),
    ("no-colon", post(b"X"), MALFORMED),
    ("blank-line-of-spaces", post(b"  "), MALFORMED),
]
LINES += [
    (f"name-with-{name}", post(b"X" + char + b"Y: 1"), MALFORMED)
    for name, char in [
        ("space", b" "), ("slash", b"/"), ("bracket", b"["), ("brace", b"{"), ("paren", b"("),
        ("at", b"@"), ("comma", b","), ("semicolon", b";"), ("equals", b"="), ("question", b"?"),
        ("less-than", b"<"), ("quote", b'"'), ("backslash", b"\\"), ("nul", b"\x00"),
        ("del", b"\x7f"), ("vertical-tab", b"\x0b"), ("escape", b"\x1b"), ("utf-8", b"\xc3\xa9"),
        ("byte-255", b"\xff"),
    ]
]  # fmt: skip
LINES += [
    (f"value-with-control-{code:#04x}", post(b"X: a" + bytes((code,)) + b"b"), MALFORMED)
    for code in [*range(9), 11, 12, *range(14, 32), 127]
]
REQUEST_LINES: list[Case] = [
    ("http-0.9", b"GET /\r\n\r\n", MALFORMED),
    ("http-0.9-named", get(version=b"HTTP/0.9"), VERSION),
    ("http-2-preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", VERSION),
    ("http-2-named", get(version=b"HTTP/2.0"), VERSION),
    ("http-3-named", get(version=b"HTTP/3.0"), VERSION),
    ("http-2-without-minor", get(version=b"HTTP/2"), MALFORMED),
    ("version-missing", b"GET / \r\nHost: h\r\n\r\n", MALFORMED),
    ("version-lower-case", get(version=b"http/1.1"), MALFORMED),
    ("version-two-digits", get(version=b"HTTP/1.10"), MALFORMED),
    ("version-leading-zero", get(version=b"HTTP/01.1"), MALFORMED),
    ("version-comma", get(version=b"HTTP/1,1"), MALFORMED),
    ("version-other-digit", get(version=b"HTTP/1.\xf0\x9d\x9f\x99"), MALFORMED),
    ("version-other-separator", get(version=b"HTTP/1\xc3\xb61"), MALFORMED),
    ("version-space-inside", get(version=b"HTTP/ 1.1"), MALFORMED),
    ("version-other-protocol", get(version=b"ICY/1.1"), MALFORMED),
    ("space-after-version", get(version=b"HTTP/1.1 "), MALFORMED),
    ("word-after-version", get(version=b"HTTP/1.1 x"), MALFORMED),
    ("two-spaces-before-target", b"GET  / HTTP/1.1\r\nHost: h\r\n\r\n", MALFORMED),
    ("two-spaces-before-version", b"GET /  HTTP/1.1\r\nHost: h\r\n\r\n", MALFORMED),
    ("tab-between", b"GET\t/\tHTTP/1.1\r\nHost: h\r\n\r\n", MALFORMED),
    ("space-before-method", b" GET / HTTP/1.1\r\nHost: h\r\n\r\n", MALFORMED),
    ("method-missing", b"/ HTTP/1.1\r\nHost: h\r\n\r\n", MALFORMED),
    ("method-with-delimiter", b"G(T / HTTP/1.1\r\nHost: h\r\n\r\n", MALFORMED),
    ("method-with-colon", b"GET: / HTTP/1.1\r\nHost: h\r\n\r\n", MALFORMED),
    ("method-with-nul", b"GE\x00T / HTTP/1.1\r\nHost: h\r\n\r\n", MALFORMED),
    ("method-of-33-bytes", b"A" * 33 + b" / HTTP/1.1\r\nHost: h\r\n\r\n", MALFORMED),
    ("target-missing", b"GET HTTP/1.1\r\nHost: h\r\n\r\n", MALFORMED),
    ("target-with-space", get(b"/a b"), MALFORMED),
    ("target-with-nul", get(b"/a\x00"), MALFORMED),
    ("target-with-control", get(b"/a\x1f"), MALFORMED),
    ("target-with-del", get(b"/a\x7f"), MALFORMED),
    ("target-with-utf-8", get(b"/caf\xc3\xa9"), MALFORMED),
    ("target-with-cr", get(b"/a\rb"), MALFORMED),
    ("target-with-lf", get(b"/a\nb"), MALFORMED),
    ("target-with-fragment", get(b"/a#b"), MALFORMED),
    ("target-relative", get(b"a"), MALFORMED),
    ("target-query-only", get(b"?a"), MALFORMED),
    ("target-backslash", get(b"\\a"), MALFORMED),
    ("target-authority-form-of-get", get(b"h:80"), MALFORMED),
    ("target-asterisk-of-get", get(b"*"), MALFORMED),
    ("target-asterisk-with-more", b"OPTIONS *a HTTP/1.1\r\nHost: h\r\n\r\n", MALFORMED),
    ("absolute-https", get(b"https://h/"), MALFORMED),
    ("absolute-other-scheme", get(b"ftp://h/"), MALFORMED),
    ("absolute-without-host", get(b"http:///a"), MALFORMED),
    ("absolute-with-userinfo", get(b"http://u@h/"), MALFORMED),
    ("absolute-with-bad-port", get(b"http://h:99999/"), MALFORMED),
    ("absolute-with-fragment", get(b"http://h/#a"), MALFORMED),
    ("absolute-with-backslash", get(b"http://h\\a/"), MALFORMED),
    ("absolute-with-invalid-host-field", get(b"http://h/", b"Host: a b\r\n"), MALFORMED),
    ("absolute-without-host-field", get(b"http://h/", b""), MALFORMED),
    ("connect", b"CONNECT h:443 HTTP/1.1\r\nHost: h:443\r\n\r\n", METHOD),
    ("connect-to-a-path", b"CONNECT / HTTP/1.1\r\nHost: h\r\n\r\n", METHOD),
    ("trace", b"TRACE / HTTP/1.1\r\nHost: h\r\n\r\n", METHOD),
    ("trace-with-max-forwards", b"TRACE / HTTP/1.1\r\nHost: h\r\nMax-Forwards: 0\r\n\r\n", METHOD),
    ("lf-first", b"\nGET / HTTP/1.1\r\nHost: h\r\n\r\n", MALFORMED),
    ("cr-first", b"\rGET / HTTP/1.1\r\nHost: h\r\n\r\n", MALFORMED),
    ("empty-line-and-lf-first", b"\r\n\nGET / HTTP/1.1\r\nHost: h\r\n\r\n", MALFORMED),
    ("tls-client-hello", b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x03\r\n\r\n", MALFORMED),
    ("ssh-banner", b"SSH-2.0-OpenSSH_9.2\r\n\r\n", MALFORMED),
    ("response-as-request", b"HTTP/1.1 200 OK\r\nHost: h\r\n\r\n", MALFORMED),
]
HOSTS: list[Case] = [
    ("host-missing", get(host=b""), MALFORMED),
    ("host-missing-among-others", get(host=b"X: y\r\n"), MALFORMED),
    ("host-twice-equal", get(host=b"Host: h\r\nHost: h\r\n"), MALFORMED),
    ("host-twice-differing", get(host=b"Host: h\r\nhost: g\r\n"), MALFORMED),
    ("host-twice-in-http-1.0", get(host=b"Host: h\r\nhost: g\r\n", version=b"HTTP/1.0"), MALFORMED),
] + [
    (f"host-{name}", get(host=b"Host: %b\r\n" % value), MALFORMED)
    for name, value in [
        ("list", b"a, b"), ("space", b"a b"), ("slash", b"a/b"), ("query", b"a?b"),
        ("hash", b"a#b"), ("at", b"u@h"), ("backslash", b"a\\b"), ("quote", b'"h"'),
        ("url", b"http://h"), ("utf-8", b"caf\xc3\xa9"), ("port-word", b"h:http"),
        ("port-65536", b"h:65536"), ("port-signed", b"h:+80"), ("port-negative", b"h:-1"),
        ("port-six-digits", b"h:000080"), ("two-ports", b"h:80:80"), ("port-alone", b":80"),
        ("bare-ipv6", b"::1"), ("open-bracket", b"[::1"), ("text-after-bracket", b"[::1]x"),
        ("zone", b"[fe80::1%25eth0]"), ("empty-bracket", b"[]"), ("angle", b"<h>"),
    ]
]  # fmt: skip
FIELDS: list[Case] = [
    ("expect-other", post(b"Expect: 200-ok", b"Content-Length: 0"), EXPECTATION),
    ("expect-list", post(b"Expect: 100-continue, x", b"Content-Length: 0"), EXPECTATION),
    ("expect-empty", post(b"Expect:", b"Content-Length: 0"), EXPECTATION),
    ("expect-quoted", post(b'Expect: "100-continue"', b"Content-Length: 0"), EXPECTATION),
    ("expect-twice", post(b"Expect: 100-continue", b"Expect: 100-continue"), MALFORMED),
    ("expect-obfuscated", post(b"Expect: y 100-continue", b"Content-Length: 0"), EXPECTATION),
    ("authorization-twice", post(b"Authorization: a", b"Authorization: b"), MALFORMED),
    ("content-type-twice", post(b"Content-Type: a/b", b"Content-Type: c/d"), MALFORMED),
    ("x-forwarded-for-underscore", post(b"X_Forwarded_For: 1.2.3.4"), MALFORMED),
    ("x-router-variant-underscore", post(b"X_Router_Variant: v"), MALFORMED),
    (
        "max-forwards-signed",
        b"OPTIONS / HTTP/1.1\r\nHost: h\r\nMax-Forwards: +1\r\n\r\n",
        MALFORMED,
    ),
    ("max-forwards-word", b"OPTIONS * HTTP/1.1\r\nHost: h\r\nMax-Forwards: x\r\n\r\n", MALFORMED),
]
CASES: list[Case] = [
    *TWO_FRAMINGS, *CODINGS, *CODING_LINES, *LENGTHS, *LINES, *REQUEST_LINES, *HOSTS, *FIELDS,
]  # fmt: skip
