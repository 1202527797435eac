"""Clients that come with one request each, over a connection of its own, and account for each."""

import http.client
import socket
import threading
from types import TracebackType

from tests.serve.harness import DEADLINE_S, poll


class Newcomers:
    """Runs from `with` to its end; afterwards `came == answered + refused + len(failed)`.

    Who cannot connect is refused; who was connected and got no whole 200 is a failure.
    """

    def __init__(self, address: str, path: str = "/plain/x", clients: int = 4) -> None:
        self.came = 0
        self.answered = 0
        self.refused = 0
        self.failed: list[str] = []
        self._address = address
        self._path = path
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(clients)]

    def __enter__(self) -> "Newcomers":
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
        assert self.came == self.answered + self.refused + len(self.failed)

    def more(self, count: int = 100) -> None:
        """Wait for so many more answers."""
        before = self.answered
        poll(lambda: self.answered >= before + count, "answered")

    def _run(self) -> None:
        while not self._stopping.wait(0.001):
            outcome = self._come()
            with self._lock:
                self.came += 1
                if outcome is None:
                    self.answered += 1
                elif outcome == "refused":
                    self.refused += 1
                else:
                    self.failed.append(outcome)

    def _come(self) -> str | None:
        """None: answered."""
        host, _, port = self._address.partition(":")
        try:
            sock = socket.create_connection((host, int(port)), timeout=DEADLINE_S)
        except ConnectionRefusedError:
            return "refused"
        connection = http.client.HTTPConnection(self._address)
        connection.sock = sock
        try:
            connection.request("GET", self._path)
            response = connection.getresponse()
            response.read()
        except (OSError, http.client.HTTPException) as error:
            return repr(error)
        finally:
            connection.close()
        return None if response.status == 200 else f"status {response.status}"
