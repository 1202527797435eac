"""Clients that send request after request over kept connections, and account for each of them."""

import http.client
import ssl
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

from tests.serve.harness import DEADLINE_S, Answer, poll, read_answer

_PAUSE_S = 0.002


@dataclass(frozen=True)
class Sent:
    """A request that was answered as it should be. `number` counts the requests of `client`."""

    client: int
    number: int
    answer: Answer

    @property
    def variant(self) -> str:
        return self.answer.headers["x-router-variant"]


@dataclass(frozen=True)
class Failed:
    """A request that was not, and why."""

    client: int
    number: int
    reason: str


class Steady:
    """Runs from `with` to its end; afterwards `sent == len(answered) + len(failed)`.

    `headers(client, number)` are those of a request; by default they hold a unique id, and a
    response that does not return it is a failure. So is any but 200 with the name of the variant
    that the router names.
    """

    def __init__(
        self,
        address: str,
        path: str = "/plain/x",
        clients: int = 4,
        headers: Callable[[int, int], dict[str, str]] | None = None,
        tls: ssl.SSLContext | None = None,
        is_kept: bool = True,
    ) -> None:
        """`tls`: connect with it. Without `is_kept` every request has a connection of its own."""
        self.answered: list[Sent] = []
        self.failed: list[Failed] = []
        self._address = address
        self._path = path
        self._tls = tls
        self._is_kept = is_kept
        self._headers = headers or (lambda client, n: {"x-request-id": f"client-{client}-{n}"})
        self._sent = [0] * clients
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(n,)) for n in range(clients)]

    def __enter__(self) -> "Steady":
        for thread in self._threads:
            thread.start()
        self.more()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()
        assert self.sent == len(self.answered) + len(self.failed)

    @property
    def sent(self) -> int:
        return sum(self._sent)

    def more(self, count: int = 100) -> list[Sent]:
        """Wait for so many more answers; these."""
        before = len(self.answered)
        poll(lambda: len(self.answered) >= before + count, "answered")
        return self.answered[before:]

    def variants(self, count: int = 100) -> Counter[str]:
        """Who gives the next so many answers."""
        return Counter(item.variant for item in self.more(count))

    def _run(self, client: int) -> None:
        connection: http.client.HTTPConnection
        if self._tls is None:
            connection = http.client.HTTPConnection(self._address, timeout=DEADLINE_S)
        else:
            connection = http.client.HTTPSConnection(
                self._address, timeout=DEADLINE_S, context=self._tls
            )
        while not self._stopping.wait(_PAUSE_S):
            number = self._sent[client]
            self._sent[client] += 1
            headers = self._headers(client, number)
            try:
                connection.request("GET", self._path, headers=headers)
                answer = read_answer(connection.getresponse())
            except (OSError, http.client.HTTPException) as error:
                self.failed.append(Failed(client, number, repr(error)))
                connection.close()
            else:
                self._account(Sent(client, number, answer), headers)
            if not self._is_kept:
                connection.close()
        connection.close()

    def _account(self, item: Sent, headers: dict[str, str]) -> None:
        answer = item.answer
        expected = headers.get("x-request-id", answer.headers.get("x-request-id"))
        if answer.status != 200 or answer.body.decode() != answer.headers.get("x-router-variant"):
            self.failed.append(Failed(item.client, item.number, f"{answer}"))
        elif answer.headers.get("x-request-id") != expected:
            self.failed.append(Failed(item.client, item.number, f"expected {expected}: {answer}"))
        else:
            self.answered.append(item)
