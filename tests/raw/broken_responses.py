# ruff: noqa: E501 - a row of a table is one line
"""Answers of an endpoint that may not be passed on: (rule, bytes). Each must become a 502."""

Case = tuple[str, bytes]


def ok(*lines: bytes, body: bytes = b"") -> bytes:
    return b"\r\n".join((b"HTTP/1.1 200 OK", *lines, b"", body))


STATUS_LINES: list[Case] = [
    (f"status-line-{name}", line + b"\r\nContent-Length: 2\r\n\r\nok")
    for name, line in [
        ("empty", b""), ("version-only", b"HTTP/1.1"), ("no-status", b"HTTP/1.1 "),
        ("one-digit", b"HTTP/1.1 2 OK"), ("two-digits", b"HTTP/1.1 20 OK"),
        ("four-digits", b"HTTP/1.1 2000 OK"), ("no-space-after-status", b"HTTP/1.1 200OK"),
        ("two-spaces", b"HTTP/1.1  200 OK"), ("tab", b"HTTP/1.1\t200 OK"),
        ("leading-space", b" HTTP/1.1 200 OK"), ("000", b"HTTP/1.1 000 X"), ("099", b"HTTP/1.1 099 X"),
        ("600", b"HTTP/1.1 600 X"), ("999", b"HTTP/1.1 999 X"), ("signed", b"HTTP/1.1 +20 X"),
        ("negative", b"HTTP/1.1 -20 X"), ("hex", b"HTTP/1.1 0xc8 X"), ("underscore", b"HTTP/1.1 2_0 X"),
        ("other-digits", b"HTTP/1.1 2\xd9\xa0 X"), ("word", b"HTTP/1.1 OK 200"),
        ("http-2", b"HTTP/2 200 OK"), ("http-2.0", b"HTTP/2.0 200 OK"), ("http-1.2", b"HTTP/1.2 200 OK"),
        ("http-0.9", b"HTTP/0.9 200 OK"), ("lower-case", b"http/1.1 200 OK"), ("icy", b"ICY 200 OK"),
        ("ssh", b"SSH-2.0-OpenSSH_9.2"), ("html", b"<html>"), ("a-request", b"GET / HTTP/1.1"),
        ("nul-in-reason", b"HTTP/1.1 200 O\x00K"), ("control-in-reason", b"HTTP/1.1 200 O\x01K"),
        ("del-in-reason", b"HTTP/1.1 200 O\x7fK"), ("cr-in-reason", b"HTTP/1.1 200 O\rK"),
        ("lf-at-its-end", b"HTTP/1.1 200 OK\nX: y"), ("empty-line-first", b"\r\nHTTP/1.1 200 OK"),
    ]
]  # fmt: skip
LINES: list[Case] = [
    (f"head-{name}", ok(line, b"Content-Length: 2", body=b"ok"))
    for name, line in [
        ("no-colon", b"X"), ("empty-name", b": y"), ("space-before-colon", b"X : y"),
        ("tab-before-colon", b"X\t: y"), ("space-in-name", b"X Y: z"), ("nul-in-name", b"X\x00: y"),
        ("utf-8-in-name", b"X\xc3\xa9: y"), ("nul-in-value", b"X: \x00"), ("control-in-value", b"X: \x1b"),
        ("del-in-value", b"X: \x7f"), ("bare-cr", b"X: a\rb"), ("bare-lf", b"X: a\nb"),
        ("fold-with-space", b"X: y\r\n z"), ("fold-with-tab", b"X: y\r\n\tz"),
        ("split-cookie", b"Set-Cookie: a=1\nSet-Cookie: b=2"), ("cr-cr-lf", b"X: y\r"),
    ]
] + [
    ("head-folded-first-line", b"HTTP/1.1 200 OK\r\n X: y\r\nContent-Length: 2\r\n\r\nok"),
]  # fmt: skip
FRAMINGS: list[Case] = [
    ("cl-and-te", ok(b"Content-Length: 2", b"Transfer-Encoding: chunked", body=b"2\r\nok\r\n0\r\n\r\n")),
    ("te-and-cl", ok(b"Transfer-Encoding: chunked", b"Content-Length: 2", body=b"2\r\nok\r\n0\r\n\r\n")),
    ("odd-te-and-cl", ok(b"Transfer-Encoding: x", b"Content-Length: 2", body=b"ok")),
    ("te-in-http-1.0", b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"),
    ("te-twice", ok(*[b"Transfer-Encoding: chunked"] * 2, body=b"2\r\nok\r\n0\r\n\r\n")),
    ("cl-twice-equal", ok(*[b"Content-Length: 2"] * 2, body=b"ok")),
    ("cl-twice-differing", ok(b"Content-Length: 2", b"Content-Length: 3", body=b"ok")),
    ("cl-and-te-in-304", b"HTTP/1.1 304 X\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n"),
    ("cl-malformed-in-304", b"HTTP/1.1 304 X\r\nContent-Length: x\r\n\r\n"),
    ("cl-malformed-in-204", b"HTTP/1.1 204 X\r\nContent-Length: -1\r\n\r\n"),
    ("interim-malformed", b"HTTP/1.1 103 X\r\nX : y\r\n\r\n" + ok(b"Content-Length: 2", body=b"ok")),
    ("switch-unasked", b"HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"),
] + [
    (f"te-{name}", ok(b"Transfer-Encoding: " + value, body=b"2\r\nok\r\n0\r\n\r\n"))
    for name, value in [
        ("empty", b""), ("gzip", b"gzip"), ("identity", b"identity"), ("gzip-chunked", b"gzip, chunked"),
        ("chunked-identity", b"chunked, identity"), ("chunked-twice-in-one", b"chunked, chunked"),
        ("parameter", b"chunked;q=1"), ("quoted", b'"chunked"'), ("xchunked", b"xchunked"),
        ("leading-comma", b",chunked"), ("kelvin", b"chun\xe2\x84\xaaed"), ("vertical-tab", b"\x0bchunked"),
    ]
] + [
    (f"cl-{name}", ok(b"Content-Length: " + value, body=b"ok"))
    for name, value in [
        ("empty", b""), ("plus", b"+2"), ("minus", b"-2"), ("hex", b"0x2"), ("underscore", b"1_0"),
        ("list", b"2, 2"), ("point", b"2.0"), ("word", b"two"), ("space-inside", b"1 0"),
        ("other-digit", b"\xd9\xa2"), ("nbsp", b"\xa02"), ("2-to-63", b"9223372036854775808"),
        ("2-to-64-plus-2", b"18446744073709551618"), ("19-digits", b"9" * 19), ("semicolon", b"2;"),
    ]
]  # fmt: skip
CASES: list[Case] = [*STATUS_LINES, *LINES, *FRAMINGS]

CHUNKED = ok(b"Transfer-Encoding: chunked")
CUT: list[tuple[str, bytes, str]] = [
    (f"length-{ending}", ok(b"Content-Length: 10", body=b"hello"), ending)
    for ending in ("close", "reset")
] + [
    (f"chunked-{name}-{ending}", CHUNKED + body, ending)
    for ending in ("close", "reset")
    for name, body in [
        ("no-chunk", b""), ("in-size", b"5\r\nhello\r\n1"), ("after-size", b"5\r\n"),
        ("in-data", b"5\r\nhe"), ("before-data-end", b"5\r\nhello"), ("in-data-end", b"5\r\nhello\r"),
        ("no-last-chunk", b"5\r\nhello\r\n"), ("no-final-line", b"5\r\nhello\r\n0\r\n"),
        ("in-final-line", b"5\r\nhello\r\n0\r\n\r"), ("in-trailers", b"5\r\nhello\r\n0\r\nX: y\r\n"),
    ]
] + [("until-close-reset", ok(b"X: y", body=b"hello"), "reset")]  # fmt: skip
"""Bodies that end before their framing does: (rule, bytes, how the endpoint ends)."""
CORRUPT: list[Case] = [
    (name, CHUNKED + b"5\r\nhello\r\n" + body)
    for name, body in [
        ("size-word", b"xyz\r\n"), ("size-signed", b"-1\r\n"), ("size-0x", b"0x1\r\n"),
        ("size-overflow", b"ffffffffffffffffff\r\n"), ("size-space", b" 1\r\na\r\n"),
        ("size-lf", b"1\na\r\n"), ("extension-lf", b"1;a\nb\r\na\r\n"), ("extension-nul", b"1;\x00\r\na\r\n"),
        ("extension-too-long", b"1;" + b"a" * 300 + b"\r\na\r\n"), ("data-spilled", b"1\r\nab\r\n0\r\n\r\n"),
        ("data-end-lf", b"1\r\na\n0\r\n\r\n"), ("end-lf", b"0\r\n\n\r\n"), ("trailer-malformed", b"0\r\nx\r\n\r\n"),
        ("trailer-folded", b"0\r\nx: y\r\n z\r\n\r\n"), ("trailers-too-long", b"0\r\n" + b"x: y\r\n" * 2000 + b"\r\n"),
        ("empty-size", b"\r\n\r\n"),
    ]
]  # fmt: skip
"""Chunked bodies that go wrong after a good first chunk."""
