"""Active health checks: every endpoint of a backend with `health:`, one task each.

Owns what is believed about each endpoint; tells workers when that changes, never otherwise.

1. An endpoint starts as up: a restart of the router must not take a fleet out.
2. It goes down after `unhealthy_after` failures in a row and comes up after `healthy_after`
   successes in a row. Success is a status from 200 to 399 within the timeout, on a new connection
   (so that an endpoint which no longer accepts is seen).
3. Intervals are jittered by 10 % so that checks of many endpoints do not beat together.
4. Over a reload an endpoint of the same backend and URL keeps what is believed about it.
"""

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Final

from router import __version__, logs
from router.config.backends import HealthCheck
from router.config.model import Config
from router.messages import EndpointHealth

JITTER: Final = 0.1

log = logging.getLogger(__name__)

Probe = Callable[[str, float], Awaitable[str | None]]
"""Check a URL within a timeout in seconds: why it failed, or None."""

Place = tuple[str, str]
"""(backend, endpoint URL)."""


@dataclass(slots=True)
class Checked:
    """What is believed about one endpoint."""

    check: HealthCheck
    is_up: bool
    since_s: float
    reason: str | None = None
    """Why the last check failed; None after a success or before the first."""
    streak: int = 0
    """Results in a row that contradict `is_up`."""

    def observe(self, failure: str | None, now_s: float) -> bool:
        """Take in a check's result. Returns whether the endpoint changed sides."""
        self.reason = failure
        if (failure is None) == self.is_up:
            self.streak = 0
            return False
        self.streak += 1
        needed = self.check.unhealthy_after if self.is_up else self.check.healthy_after
        if self.streak < needed:
            return False
        self.is_up, self.since_s, self.streak = not self.is_up, now_s, 0
        return True


class Health:
    """Every checked endpoint of the config in force."""

    def __init__(
        self,
        push: Callable[[EndpointHealth], None],
        probe: Probe,
        random: Random,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`push` tells all workers; `probe` makes one check; `now` is seconds since 1970."""
        self._push = push
        self._probe = probe
        self._random = random
        self._now = now
        self._checked: dict[Place, Checked] = {}
        self._tasks: dict[Place, asyncio.Task[None]] = {}

    def down(self, config: Config) -> dict[str, list[str]]:
        """Backend -> URLs of those endpoints of `config` that are known to be down."""
        down: dict[str, list[str]] = {}
        for place in _places(config):
            checked = self._checked.get(place)
            if checked is not None and not checked.is_up:
                down.setdefault(place[0], []).append(place[1])
        return down

    def adopt(self, config: Config) -> None:
        """Check the endpoints of `config` from now on, and no others."""
        places = _places(config)
        for place in self._checked.keys() - places.keys():
            self._stop(place)
            del self._checked[place]
        for place, check in places.items():
            checked = self._checked.get(place)
            if checked is not None and checked.check == check:
                continue
            if checked is None:
                self._checked[place] = checked = Checked(check, True, self._now())
            checked.check = check
            self._stop(place)
            self._tasks[place] = asyncio.create_task(
                self._watch(place, checked), name=f"health {place[1]}"
            )

    def state_of(self, backend: str, url: str) -> Checked | None:
        """What is believed about an endpoint; None when it is not checked."""
        return self._checked.get((backend, url))

    def all(self) -> Iterator[tuple[Place, Checked]]:
        """Every checked endpoint."""
        yield from self._checked.items()

    async def close(self) -> None:
        """Stop checking."""
        tasks = list(self._tasks.values())
        for place in list(self._tasks):
            self._stop(place)
        await asyncio.gather(*tasks, return_exceptions=True)

    def _stop(self, place: Place) -> None:
        task = self._tasks.pop(place, None)
        if task is not None:
            task.cancel()

    async def _watch(self, place: Place, checked: Checked) -> None:
        """Check one endpoint for ever."""
        backend, url = place
        check = checked.check
        await asyncio.sleep(check.interval * JITTER * self._random.random())
        while True:
            failure = await self._probe(url + check.path, check.timeout)
            if checked.observe(failure, self._now()):
                self._push(EndpointHealth(backend, url, checked.is_up))
                logs.event(
                    log,
                    "endpoint_up" if checked.is_up else "endpoint_down",
                    severity=logging.INFO if checked.is_up else logging.WARNING,
                    backend=backend,
                    endpoint=url,
                    **({} if failure is None else {"reason": failure}),
                )
            await asyncio.sleep(check.interval * self._random.uniform(1 - JITTER, 1 + JITTER))


def _places(config: Config) -> dict[Place, HealthCheck]:
    return {
        (name, endpoint.url): backend.health
        for name, backend in config.backends.items()
        if backend.health is not None
        for endpoint in backend.endpoints
    }


class HttpProbe:
    """The probe for HTTP endpoints. Bodies are not read: the status is the answer."""

    def __init__(self) -> None:
        import aiohttp  # late: workers are started before this is needed

        self._timeout = aiohttp.ClientTimeout
        self._error = aiohttp.ClientError
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, force_close=True),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"user-agent": f"pointsman/{__version__} health"},
            auto_decompress=False,
        )

    async def __call__(self, url: str, timeout_s: float) -> str | None:
        """Why `url` failed, or None."""
        try:
            async with self._session.get(
                url, allow_redirects=False, timeout=self._timeout(total=timeout_s)
            ) as response:
                status = response.status
        except TimeoutError:
            return f"no answer within {timeout_s:g} s"
        except (self._error, OSError, ValueError) as error:
            number = error.errno if isinstance(error, OSError) else None
            if number is not None and number > 0:  # negative: a resolver's, with a text of its own
                return os.strerror(number).lower()
            return str(error) or type(error).__name__
        return None if 200 <= status < 400 else f"status {status}"

    async def close(self) -> None:
        """Close what is open."""
        await self._session.close()
