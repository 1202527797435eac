"""Who meets in a scenario of `interleavings`: clients with their cases, origins that answer."""

import asyncio
from math import inf
from random import Random
from typing import cast

from router.data.downstream import Downstream
from router.data.endpoint import EndpointPool
from router.data.upstream import Upstream
from router.data.worker import Worker
from tests.fuzz import reference
from tests.fuzz.links import Link
from tests.fuzz.reference import End
from tests.raw.client import Answer, Outcome

GOOD = ("length", "chunked", "until-close", "interim", "empty", "own-page", "not-routed")
BAD = ("cut", "cut-chunked", "drop", "garbage", "extra", "early", "reset")
"""Kinds of cases: what the router answers itself, and how origins answer the others."""
EVIL = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nEVIL"


class Case:
    """One request, and what becomes of it."""

    def __init__(self, name: bytes, random: Random, kinds: tuple[str, ...]) -> None:
        self.kind = random.choice(kinds)
        self.method = random.choice((b"GET", b"GET", b"HEAD", b"POST", b"PUT"))
        if self.kind in ("not-routed", "switch"):
            self.method = b"GET"  # without a body, since a refusal does not wait for one
        is_sending = self.method in (b"POST", b"PUT")
        self.body = random.randbytes(_size(random)) if is_sending else b""
        self.answer = b"<%b:%b>" % (name, b"a" * _size(random))
        self.seen = 0
        self.is_at_once = random.random() < 0.5
        """What nobody asked for comes together with what somebody did."""
        target = b"/case/%b/%b" % (self.kind.encode(), name)
        if self.kind == "own-page":
            target = b"/-/healthz"
        elif self.kind == "not-routed":
            target = b"/other/" + name
        self.target = target
        self.raw = self._written(random, is_sending)

    def _written(self, random: Random, has_body: bool) -> bytes:
        lines = [b"%b %b HTTP/1.1" % (self.method, self.target), b"host: h"]
        body = self.body
        if self.kind == "switch":
            lines += [b"connection: upgrade", b"upgrade: websocket"]
        elif has_body and random.random() < 0.5:
            lines.append(b"transfer-encoding: chunked")
            size = random.randint(1, 200)
            pieces = [body[at : at + size] for at in range(0, len(body), size)]
            body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
            body += b"0\r\n\r\n"
        elif has_body:
            lines.append(b"content-length: %d" % len(body))
        return b"\r\n".join((*lines, b"", body))

    def response(self) -> list[bytes | None]:
        """What its origin sends: bytes, and None for the end of its side."""
        ok, body = b"HTTP/1.1 200 OK\r\n", self.answer
        length = b"content-length: %d\r\n\r\n" % len(body)
        half = body[: len(body) // 2]
        chunked = b"transfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n"
        if self.method == b"HEAD" and self.kind not in ("drop", "garbage", "reset"):
            return [ok + length]
        match self.kind:
            case "chunked":
                return [ok + chunked % (len(body), body) + b"0\r\n\r\n"]
            case "until-close":
                return [ok + b"\r\n" + body, None]
            case "interim":
                return [b"HTTP/1.1 103 Hints\r\nlink: x\r\n\r\n" * 2 + ok + length + body]
            case "empty":
                return [b"HTTP/1.1 204 No Content\r\n\r\n"]
            case "switch":
                return [b"HTTP/1.1 101 Go\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"]
            case "cut":
                return [ok + length + half, None]
            case "cut-chunked":
                return [ok + chunked % (len(half), half), None]
            case "drop":
                return [None]
            case "garbage":
                return [b"HTTP/1.1 2OO OK\r\n" + length + body]
            case "extra":
                return [ok + length + body, EVIL]
            case _:
                return [ok + length + body]


def _size(random: Random) -> int:
    return random.choice((0, 1, random.randint(2, 90), random.randint(90, 6000)))


class Client:
    """A connection from a client, which pipelines all it has to say."""

    def __init__(self, number: int, random: Random, worker: Worker, is_fair: bool) -> None:
        kinds = GOOD if is_fair else GOOD + BAD
        count = random.randint(1, 5)
        self.cases = [Case(b"%d.%d" % (number, i), random, kinds) for i in range(count)]
        self.is_fair = is_fair
        self.tunnelled = b""
        if random.random() < 0.2:
            self.cases[-1] = Case(b"%d.%d" % (number, count - 1), random, ("switch",))
            self.tunnelled = random.randbytes(_size(random))
        self.protocol = Downstream(worker)
        self.link = Link(self.protocol)
        self.protocol.connection_made(cast(asyncio.Transport, self.link))
        self.link.incoming += b"".join(case.raw for case in self.cases) + self.tunnelled
        self.has_left = False

    def answers(self) -> list[Answer]:
        """Final answers, in order."""
        methods = [case.method for case in self.cases]
        outcome = Outcome(bytes(self.link.sent), self.link.ending)
        found = outcome.answers(*methods, may_be_cut=not self.is_fair)
        return [answer for answer in found if answer.status >= 200 or answer.status == 101]


class Origin:
    """An origin's connection: reads strictly, answers by the kind of the case."""

    def __init__(self, cases: dict[bytes, Case], pool: EndpointPool) -> None:
        self.protocol = Upstream(pool)
        self.link = Link(self.protocol)
        self.protocol.connection_made(cast(asyncio.Transport, self.link))
        self._cases = cases
        self._read = 0
        self._begun: bytes | None = None
        self._is_tunnel = False
        self._is_done = False
        self._evil_after = inf

    def work(self) -> bool:
        """Read what came and answer it. False when there was nothing to do."""
        link = self.link
        data = bytes(link.sent[self._read :])
        if self._is_tunnel:
            self._read += len(data)
            link.incoming += data
            if link.ending == "eof" and not self._is_done:
                self._is_done = link.has_peer_ended = True
                return True
            return bool(data)
        if not data or self._is_done:
            return False
        stream = reference.read_requests(data)
        assert stream.end is not End.REFUSED, data
        if stream.messages:
            message = stream.messages[0]
            self._read += _length(data)
            case = self._cases[message.start[1]]
            assert (message.start[0], message.body) == (case.method, case.body), case.target
            case.seen += 1
            if self._begun == case.target:
                self._begun = None  # it was answered early
            else:
                self._answer(case)
            return True
        if stream.partial is not None:
            case = self._cases[stream.partial.start[1]]
            assert case.body.startswith(stream.partial.body)
            if case.kind in ("early", "reset") and self._begun is None:
                self._begun = case.target
                self._answer(case)
                return True
        return False

    def _answer(self, case: Case) -> None:
        if case.kind == "reset":
            self._is_done = True
            self.link.break_off()
            return
        self._is_tunnel = case.kind == "switch"
        for piece in case.response():
            if piece is None:
                self._is_done = self.link.has_peer_ended = True
            elif piece is EVIL and case.is_at_once:
                self._is_done = self.link.is_read_at_once = True
                self.link.incoming += EVIL
            elif piece is EVIL:
                self._evil_after = self._read
            else:
                self.link.incoming += piece

    def say_evil(self) -> None:
        """Bytes that nobody asked for, read at once.

        Not when the next request is here already: nobody could tell them from its answer.
        """
        link = self.link
        if link.incoming or not link.is_reading:
            return  # the answer before has not been read yet
        is_next_here = self._read < len(link.sent) or link.is_stuck
        is_time = self._evil_after == self._read and not (is_next_here or link.is_closing())
        self._evil_after = inf
        if is_time:
            self._is_done = True
            link.incoming += EVIL
            link.deliver(len(EVIL))


def _length(data: bytes) -> int:
    _, fields, position = reference.head_at(data, 0)
    return reference.body_at(data, position, reference.framing(fields, 1) or 0)[1]
