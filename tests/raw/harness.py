"""A running router between a client that sends any bytes and an origin that remembers them all.

A `Stand` is one router (`python -m router serve`, one worker) with one origin in this process; a
session has one for each kind of settings.
"""

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from tests.fuzz.reference import CRLF
from tests.raw.client import Client, Outcome
from tests.raw.origin import Origin
from tests.serve.harness import Router, document, poll, serving, total


class Stand:
    """A router and its origin. `mark` and `check` bracket what one test does."""

    def __init__(self, router: Router, origin: Origin) -> None:
        self.router = router
        self.origin = origin
        self._numbers = count(1)
        self._before: Counter[str] = Counter()
        self._seen = 0

    def target(self) -> bytes:
        """A target that no other case has."""
        return b"/case/%d" % next(self._numbers)

    def client(self, source: str = "127.0.0.1") -> Client:
        return Client(self.router.listen, source)

    def send(self, *segments: bytes, source: str = "127.0.0.1") -> Outcome:
        """What a client gets for these bytes, up to the end of its connection."""
        with self.client(source) as client:
            return client.send(*segments).end()

    def refused(self) -> Counter[str]:
        """`pointsman_refused_total` by reason."""
        metrics = self.router.metrics()
        found = re.compile(r'pointsman_refused_total\{reason="([^"]+)"\}')
        return Counter({m[1]: int(v) for s, v in metrics.items() if (m := found.fullmatch(s))})

    def counted(self, name: str, **labels: str) -> float:
        return total(self.router.metrics(), name, **labels)

    def mark(self) -> None:
        """Remember what was counted and received so far."""
        self._before = self.refused()
        self._seen = self.origin.received_bytes

    def newly_refused(self) -> dict[str, int]:
        """Refusals since `mark`, by reason."""
        return dict(self.refused() - self._before)

    def newly_received(self) -> int:
        """Bytes at the origin since `mark`."""
        return self.origin.received_bytes - self._seen

    def seen_at_origin(self, target: bytes) -> bytes:
        """The one request for `target`, byte for byte."""
        link = self.origin.link_of(target)
        (raw,) = [
            raw
            for raw, message in zip(link.raws, link.requests, strict=True)
            if message.start[1] == target
        ]
        return raw

    def link_ended(self, target: bytes) -> str:
        """How the connection over which `target` was asked for ended; waits for it."""
        link = self.origin.link_of(target)
        return poll(lambda: link.ending, "ended")


@contextmanager
def standing(directory: Path, backend: dict[str, Any], **settings: Any) -> Iterator[Stand]:
    """A stand whose backend has these keys; `settings` are top-level keys of the config."""
    origin = Origin()
    config = document([("origin", origin.url)], **settings)
    config["routes"] = [{"name": "all", "backend": "origin"}]
    config["backends"]["origin"].update(backend)
    try:
        with serving(directory, config) as router:
            yield Stand(router, origin)
    finally:
        origin.stop()


def head(target: bytes, *lines: bytes, method: bytes = b"GET") -> bytes:
    """A head with these field lines after `host`."""
    return CRLF.join((b"%b %b HTTP/1.1" % (method, target), b"host: h", *lines, b"", b""))
