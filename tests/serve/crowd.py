"""Clients in threads of their own: the frame of `traffic` and `newcomers`."""

import threading
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self

from tests.serve.harness import poll


class Crowd(ABC):
    """Runs from `with` to its end; afterwards every request is accounted for."""

    pause_s: float
    """Of each client, between its requests."""

    def __init__(self, clients: int) -> None:
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(n,)) for n in range(clients)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        self.wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        self.end()
        assert self.is_accounted_for

    def end(self) -> None:
        """Ask no more, and wait for what was asked; for when the program is to end before."""
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    @property
    @abstractmethod
    def answers(self) -> int:
        """How many there were so far."""

    @property
    @abstractmethod
    def is_accounted_for(self) -> bool:
        """Whether every request had one outcome."""

    @abstractmethod
    def _run(self, client: int) -> None:
        """One client: ask while it `goes_on`."""

    def goes_on(self) -> bool:
        """After a pause: whether there is to be another request."""
        return not self._stopping.wait(self.pause_s)

    def wait(self, count: int = 100) -> None:
        """Wait for so many more answers."""
        before = self.answers
        poll(lambda: self.answers >= before + count, "answered")
