"""A client that accounts for every request it sends.

1. Each request carries an id of its own (`x-id`, `P1-12` for a POST, `G1-13` for a GET). Endpoints
   note it, so that what was delivered twice can be counted, and give it back, so that an answer
   which belongs to another request is seen.
2. Requests leave on a schedule, `rate` a second, or as fast as `connections` allow (0). Latency
   counts from the moment a request was due.
3. Every request ends as one `Outcome`: *answered* by an endpoint (its answer names it), *refused*
   by the proxy in its own name, or *failed*: the connection broke before the answer was whole.
"""

import asyncio
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count
from time import perf_counter
from typing import Final, cast

ANSWERED: Final = "answered"
REFUSED: Final = "refused"
FAILED: Final = "failed"
LEFT: Final = "left"
"""The client's patience was at its end; only with `patience_s`."""
_FIELD: Final = re.compile(rb"\r\n([a-z-]+): *([^\r]*)")
_STOP_WITHIN_S: Final = 30.0
_serial: Final = count(1)
"""Of loads in this process, so that no two of them use the same ids."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a request. Times in seconds of `perf_counter`.

    `endpoint`: the name of the one that answered. `detail`: what was wrong.
    """

    id: str
    kind: str
    status: int
    due_s: float
    took_s: float
    endpoint: str = ""
    detail: str = ""

    @property
    def is_post(self) -> bool:
        return self.id[0] == "P"

    @property
    def is_good(self) -> bool:
        return self.kind == ANSWERED and self.status == 200

    @property
    def end_s(self) -> float:
        return self.due_s + self.took_s


class Reply:
    """One response as far as it has come."""

    def __init__(self) -> None:
        self.data = b""
        self.status = 0
        self.fields: dict[bytes, bytes] = {}
        self._body_at = 0

    def feed(self, data: bytes) -> None:
        self.data += data
        end = self.data.find(b"\r\n\r\n")
        if not self._body_at and end >= 0:
            head = self.data[: end + 2].lower()
            self._body_at = end + 4
            if head.startswith(b"http/1."):
                self.status = int(head[9:12])
                self.fields = dict(_FIELD.findall(head))

    @property
    def is_whole(self) -> bool:
        if not self._body_at:
            return False
        if b"chunked" in self.fields.get(b"transfer-encoding", b""):
            return self.data.endswith(b"0\r\n\r\n")
        return len(self.data) >= self._body_at + int(self.fields.get(b"content-length", b"0"))

    @property
    def body(self) -> bytes:
        return self.data[self._body_at :]


class Connection(asyncio.Protocol):
    """One connection to the proxy, with at most one request on its way."""

    def __init__(self) -> None:
        self.transport = cast(asyncio.Transport, None)
        self.is_open = False
        self._reply = Reply()
        self._ended: asyncio.Future[str] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.is_open = True

    def data_received(self, data: bytes) -> None:
        self._reply.feed(data)
        if self._reply.is_whole:
            self._end("")

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        got = "amid the answer" if self._reply.data else "before the answer"
        self._end(f"closed {got}" + (f": {exc}" if exc else ""))

    async def ask(self, request: bytes) -> tuple[Reply, str]:
        """The response, and what was wrong with it ("": nothing)."""
        self._reply = Reply()
        self._ended = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        error = await self._ended
        if self._reply.fields.get(b"connection") == b"close" or not self._reply.status:
            self.close()
        return self._reply, error

    def close(self) -> None:
        self.is_open = False
        self.transport.abort()

    def _end(self, error: str) -> None:
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(error)


class Load:
    """Load on `address`; runs from `start` to `stop`, afterwards `sent == len(outcomes)`."""

    def __init__(
        self,
        address: str,
        *,
        connections: int = 16,
        rate: float = 0.0,
        posts: bool = True,
        path: str = "/x",
        patience_s: float | None = None,
    ) -> None:
        host, _, port = address.rpartition(":")
        self.sent = 0
        self.outcomes: list[Outcome] = []
        self.late_s: list[float] = []
        """How long after it was due each request left, of those that found their turn early."""
        self._host, self._port = host, int(port)
        self._rate = rate
        self._posts = posts
        self._path = path.encode()
        self._patience_s = patience_s
        self._connections = connections
        self._serial = next(_serial)
        self._numbers = count()
        self._is_stopping = False
        self._tasks: list[asyncio.Task[None]] = []
        self._began_s = 0.0

    async def start(self) -> None:
        self._began_s = perf_counter()
        turns = self._turns()
        self._tasks = [asyncio.create_task(self._work(turns)) for _ in range(self._connections)]

    async def stop(self) -> None:
        """Send no more, and wait for what is on its way."""
        self._is_stopping = True
        done, _ = await asyncio.wait(self._tasks, timeout=_STOP_WITHIN_S)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for task in done:
            task.result()

    async def run(self, seconds: float) -> None:
        """Load for so long."""
        await self.start()
        await asyncio.sleep(seconds)
        await self.stop()

    def _turns(self) -> Iterator[tuple[int, float]]:
        """Number and due time of one request after the other."""
        while not self._is_stopping:
            number = next(self._numbers)
            is_paced = self._rate > 0
            yield number, self._began_s + number / self._rate if is_paced else perf_counter()

    async def _work(self, turns: Iterator[tuple[int, float]]) -> None:
        connection: Connection | None = None
        for number, due_s in turns:
            if (early_s := due_s - perf_counter()) > 0:
                await asyncio.sleep(early_s)
                self.late_s.append(perf_counter() - due_s)
            method = "P" if self._posts and number % 2 else "G"
            name = f"{method}{self._serial}-{number}"
            self.sent += 1
            try:
                async with asyncio.timeout(self._patience_s):
                    if connection is None or not connection.is_open:
                        connection = await self._connect()
                    reply, error = await connection.ask(self._request(name))
            except TimeoutError:
                self._note(name, due_s, LEFT, Reply(), "patience")
                if connection is not None:
                    connection.close()
            except OSError as broken:
                self._note(name, due_s, FAILED, Reply(), f"connect: {broken}")
                await asyncio.sleep(0.01)
            else:
                self._judge(name, due_s, reply, error)
        if connection is not None:
            connection.close()

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(Connection, self._host, self._port)
        return connection

    def _request(self, name: str) -> bytes:
        head = b"host: models\r\nx-id: %b\r\n" % name.encode()
        if name[0] == "G":
            return b"GET %b HTTP/1.1\r\n%b\r\n" % (self._path, head)
        return b"POST %b HTTP/1.1\r\n%bcontent-length: 4\r\n\r\nbody" % (self._path, head)

    def _judge(self, name: str, due_s: float, reply: Reply, error: str) -> None:
        endpoint = reply.fields.get(b"x-endpoint", b"")
        if error:
            self._note(name, due_s, FAILED, reply, error)
        elif not endpoint:
            self._note(name, due_s, REFUSED, reply, _reason(reply.body))
        elif reply.fields.get(b"x-id") != name.lower().encode():
            self._note(name, due_s, FAILED, reply, "the answer of another request")
        else:
            self._note(name, due_s, ANSWERED, reply, "")

    def _note(self, name: str, due_s: float, kind: str, reply: Reply, detail: str) -> None:
        endpoint = reply.fields.get(b"x-endpoint", b"").decode()
        took_s = perf_counter() - due_s
        outcome = Outcome(name, kind, reply.status, due_s, took_s, endpoint, detail)
        self.outcomes.append(outcome)


def _reason(body: bytes) -> str:
    """What a problem document says, or the start of the body."""
    try:
        problem = json.loads(body)
        return f"{problem['type'].rpartition(':')[2]}: {problem.get('detail', '')}"
    except (ValueError, KeyError, TypeError):
        return body[:80].decode("latin-1")


def kinds(outcomes: Iterable[Outcome]) -> Counter[str]:
    """How many were answered, refused, failed."""
    return Counter(outcome.kind for outcome in outcomes)


def twice(delivered: Counter[str]) -> int:
    """How many POSTs an endpoint got that some endpoint had got before."""
    return sum(times - 1 for name, times in delivered.items() if name[0] == "P" and times > 1)
