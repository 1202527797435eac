"""Clients that come with one request each, over a connection of its own, and account for each."""

import http.client
import socket
import threading

from tests.serve.crowd import Crowd
from tests.serve.harness import DEADLINE_S


class Newcomers(Crowd):
    """Afterwards `came == answered + refused + len(failed)`.

    Who cannot connect is refused; who was connected and got no whole 200 is a failure.
    """

    pause_s = 0.001

    def __init__(self, address: str, path: str = "/plain/x", clients: int = 4) -> None:
        super().__init__(clients)
        self.came = 0
        self.answered = 0
        self.refused = 0
        self.failed: list[str] = []
        self._address = address
        self._path = path
        self._lock = threading.Lock()

    @property
    def answers(self) -> int:
        return self.answered

    @property
    def is_accounted_for(self) -> bool:
        return self.came == self.answered + self.refused + len(self.failed)

    def _run(self, client: int) -> None:
        while self.goes_on():
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
