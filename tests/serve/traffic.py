"""Clients that send request after request over kept connections, and account for each of them."""

import http.client
import ssl
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from tests.serve.crowd import Crowd
from tests.serve.harness import DEADLINE_S, Answer, read_answer


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


class Steady(Crowd):
    """Afterwards `sent == len(answered) + len(failed)`.

    `headers(client, number)` are those of a request; by default they hold a unique id, and a
    response that does not return it is a failure. So is any but 200 with the name of the variant
    that the router names.
    """

    pause_s = 0.002

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
        super().__init__(clients)
        self.answered: list[Sent] = []
        self.failed: list[Failed] = []
        self._address = address
        self._path = path
        self._tls = tls
        self._is_kept = is_kept
        self._headers = headers or (lambda client, n: {"x-request-id": f"client-{client}-{n}"})
        self._sent = [0] * clients

    @property
    def sent(self) -> int:
        return sum(self._sent)

    @property
    def answers(self) -> int:
        return len(self.answered)

    @property
    def is_accounted_for(self) -> bool:
        return self.sent == len(self.answered) + len(self.failed)

    def more(self, count: int = 100) -> list[Sent]:
        """Wait for so many more answers; these."""
        before = len(self.answered)
        self.wait(count)
        return self.answered[before:]

    def variants(self, count: int = 100) -> Counter[str]:
        """Who answers so many of the requests that begin from now on, or some more."""
        first = list(self._sent)
        came = self.more(count + len(first))  # each client may have one under way
        return Counter(item.variant for item in came if item.number >= first[item.client])

    def _run(self, client: int) -> None:
        connection: http.client.HTTPConnection
        if self._tls is None:
            connection = http.client.HTTPConnection(self._address, timeout=DEADLINE_S)
        else:
            connection = http.client.HTTPSConnection(
                self._address, timeout=DEADLINE_S, context=self._tls
            )
        while self.goes_on():
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
