# ruff: noqa: E501 - a row of a table is one line
"""Seeds and mutations: messages that are nearly right.

A mutant is a seed with one to four edits of the kinds that have fooled HTTP parsers. Everything
comes from one `Random`, so a number tells a mutant again.
"""

from random import Random

REQUESTS = (
    b"GET /a HTTP/1.1\r\nhost: h\r\n\r\n",
    b"GET /a?b=c%20d HTTP/1.1\r\nHost: h:80\r\nAccept: */*\r\nX-A: 1\r\nx-a: 2\r\n\r\n",
    b"POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello",
    b"POST /p HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"5\r\nhello\r\n6;ext=1\r\n world\r\n0\r\n\r\n",
    b"PUT /t HTTP/1.1\r\nHost: h\r\ntrailer: x-t\r\ntransfer-encoding: chunked\r\n\r\n"
    b"1\r\na\r\n0\r\nX-T: 1\r\n\r\n",
    b"GET http://other:8080/abs?q HTTP/1.1\r\nHost: h\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: h\r\nMax-Forwards: 5\r\n\r\n",
    b"HEAD /h HTTP/1.1\r\nHost: [::1]:80\r\nConnection: keep-alive, X-Gone\r\nX-Gone: 1\r\n\r\n",
    b"GET /old HTTP/1.0\r\nConnection: close\r\n\r\n",
    b"DELETE /d HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\nCookie: a=1\r\nCookie: b=2\r\n\r\n",
    b"GET /f HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 1.2.3.4\r\nForwarded: for=x\r\n"
    b"Via: 1.1 p\r\nX-Router-Variant: v\r\nX-Request-Id: id\r\n\r\n",
    b"POST /1 HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabcGET /2 HTTP/1.1\r\nHost: h\r\n\r\n",
    b"POST /1 HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    b"POST /2 HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx",
    b"GET /w HTTP/1.1\r\nHost: h\r\nTE: trailers\r\nUpgrade: h2c\r\nConnection: upgrade, te\r\n\r\n",
)
RESPONSES = (
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-A: 1\r\n\r\n"
    b"5\r\nhello\r\n3;e\r\nabc\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n"
    b"1\r\na\r\n0\r\nX-T: 1\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nServer: s\r\n\r\nuntil the end",
    b"HTTP/1.0 404 Not Found\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nno",
    b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 204 No Content\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n\r\n",
    b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\nETag: x\r\n\r\n",
    b"HTTP/1.1 500 Oh\r\nConnection: close, X-Gone\r\nX-Gone: 1\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nKeep-Alive: timeout=5\r\nX-Router-Variant: forged\r\n"
    b"Content-Length: 3\r\n\r\nabcHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
)
BODIES = (
    b"0\r\n\r\n",
    b"5\r\nhello\r\n0\r\n\r\n",
    b"A;a=b\r\n0123456789\r\n000\r\n\r\n",
    b"1\r\na\r\n2 ;x\r\nbc\r\n0\r\nX-T: 1\r\nY: 2\r\n\r\nGET / HTTP/1.1\r\n\r\n",
    b"10\r\n0123456789abcdef\r\n0\r\n\r\n",
)
TOKENS = (
    b"\r\n", b"\n", b"\r", b"\r\n\r\n", b"\r\n ", b"\r\n\t", b"\n\n", b"\x00", b"\x0b", b"\x0c", b"\x7f",
    b"\x85", b"\xa0", b"\xff", b" ", b"\t", b":", b" :", b";", b",", b"+", b"-", b"_", b"0x", b"0",
    b"00", b"1", b"3", b"5", b"a", b"ff", b"ffffffffffffffff", b"10000000000000000", b"7fffffffffffffff",
    b"9223372036854775808", b"99999999999999999999", b"1_0", b"5, 5", b"\xd9\xa5",
    b"chunked", b"identity", b"gzip, chunked", b"chunked, identity", b"chun\xe2\x84\xaaed",
    b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding : chunked\r\n", b"Transfer-Encoding:\x0bchunked\r\n",
    b"transfer_encoding: chunked\r\n", b"Content-Length: 0\r\n", b"Content-Length: 5\r\n",
    b"Content-Length: 6\r\n", b"content_length: 5\r\n", b"Host: evil\r\n", b"Connection: close\r\n",
    b"Connection: content-length\r\n", b"Connection: host, transfer-encoding\r\n", b"Expect: 100-continue\r\n",
    b"X: y\r\n", b" X: y\r\n", b"Upgrade: websocket\r\nConnection: Upgrade\r\n", b"Trailer: Content-Length\r\n",
    b"GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n", b"GET", b"POST", b"HEAD", b"OPTIONS", b"CONNECT", b"PRI * HTTP/2.0",
    b"HTTP/1.0", b"HTTP/1.1", b"HTTP/0.9", b"HTTP/2", b"http://h/", b"http://u@h/", b"*", b"/", b"//", b"?", b"#",
    b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", b"0\r\n\r\n", b"5\r\nhello\r\n",
)  # fmt: skip


class Mutator:
    """Mutants of `seeds`, the same for the same `random`."""

    def __init__(self, random: Random, seeds: tuple[bytes, ...]) -> None:
        self._random = random
        self._seeds = seeds

    def mutant(self) -> bytes:
        random = self._random
        data = random.choice(self._seeds)
        for _ in range(random.choice((1, 1, 1, 2, 2, 3, 4))):
            data = self._edit(data)
        return data

    def _edit(self, data: bytes) -> bytes:
        random = self._random
        place = random.randrange(len(data) + 1)
        kind = random.randrange(10)
        if kind < 3:  # put a token in
            return data[:place] + random.choice(TOKENS) + data[place:]
        if kind == 3:  # put a token over as many bytes
            token = random.choice(TOKENS)
            return data[:place] + token + data[place + len(token) :]
        if kind == 4:  # lose some bytes
            return data[:place] + data[place + random.randrange(1, 9) :]
        if kind == 5:  # any byte over another
            return data[:place] + bytes((random.randrange(256),)) + data[place + 1 :]
        if kind == 6:  # any byte in between
            return data[:place] + bytes((random.randrange(256),)) + data[place:]
        lines = data.split(b"\r\n")
        index = random.randrange(len(lines))
        if kind == 7:  # a line twice, or somewhere else
            lines.insert(random.randrange(len(lines) + 1), lines[index])
            return b"\r\n".join(lines)
        if kind == 8:  # a line of another seed
            lines[index] = random.choice(random.choice(self._seeds).split(b"\r\n"))
            return b"\r\n".join(lines)
        del lines[index]  # a line less
        return b"\r\n".join(lines)
