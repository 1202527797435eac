"""The addresses behind the names of endpoints, looked up again on a schedule.

Owns the addresses of each name; tells its owner when the set of them changes, never otherwise.

1. IP addresses and `localhost` need no look-up; nor do backends with `resolve: 0`.
2. A look-up that fails changes nothing: the last good addresses stay, the failure is told once and
   counted, until a look-up works again.
3. A name is looked up once at a time. One that the system does not answer is waited for as one
   failure after another, not asked again; at most `LOOKUPS_MAX` are under way.
"""

import asyncio
import ipaddress
import logging
import socket
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from random import Random
from typing import Final
from urllib.parse import urlsplit

from router import logs
from router.config.model import Config

TIMEOUT_S: Final = 5.0
"""Past this a look-up counts as failed; what the system waits for one name server by default."""
LOOKUPS_MAX: Final = 16
"""Look-ups under way, each a thread; those of a system without a name server take 10 s and more."""
ADDRESSES_MAX: Final = 256
"""Addresses of one name that are used; the lowest."""
_JITTER: Final = 0.1

log = logging.getLogger(__name__)

LookUp = Callable[[str], Awaitable[Iterable[str]]]
"""The IP addresses of a name. Raises OSError (or UnicodeError) when there are none."""


@dataclass(slots=True)
class Resolved:
    """What is known of one name. Times are seconds since 1970."""

    addresses: tuple[str, ...] = ()
    """In order, so that equal sets are equal; empty before the first good answer."""
    since_s: float | None = None
    """When these addresses were first seen."""
    failure: str | None = None
    """Why the last look-up failed; None when it did not."""
    failing_since_s: float | None = None


class Resolver:
    """Every name of the config in force."""

    def __init__(
        self,
        on_change: Callable[[str], None],
        look_up: LookUp,
        random: Random,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`on_change` is told whose addresses changed."""
        self.failures: Counter[tuple[str, ...]] = Counter()
        """(name,) -> look-ups that failed."""
        self._on_change = on_change
        self._look_up = look_up
        self._random = random
        self._now = now
        self._slots = asyncio.Semaphore(LOOKUPS_MAX)
        self._resolved: dict[str, Resolved] = {}
        self._intervals_s: dict[str, float] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._under_way: dict[str, asyncio.Task[tuple[str, ...]]] = {}

    def adopt(self, config: Config) -> None:
        """Look up the names of `config` from now on, and no others."""
        wanted = _intervals_s(config)
        for name in self._tasks.keys() - wanted.keys():
            self._tasks.pop(name).cancel()
            del self._resolved[name], self._intervals_s[name]
        for name, interval_s in wanted.items():
            if self._intervals_s.get(name) == interval_s:
                continue
            if name in self._tasks:
                self._tasks[name].cancel()
            self._intervals_s[name] = interval_s
            resolved = self._resolved.setdefault(name, Resolved())
            self._tasks[name] = asyncio.create_task(
                self._watch(name, resolved, interval_s), name=f"resolve {name}"
            )

    def state_of(self, url: str) -> Resolved | None:
        """What is known of the name in an endpoint's URL; None when it is not looked up."""
        return self._resolved.get(host_of(url))

    async def close(self) -> None:
        """Stop. A look-up that the system does not answer ends with the process."""
        tasks = [*self._tasks.values(), *self._under_way.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _watch(self, name: str, resolved: Resolved, interval_s: float) -> None:
        """Look up one name for ever."""
        while True:
            try:
                addresses = await self._resolve(name)
            except TimeoutError:
                self._failed(name, resolved, f"no answer within {TIMEOUT_S:g} s")
            except (OSError, UnicodeError) as error:
                self._failed(name, resolved, getattr(error, "strerror", None) or str(error))
            else:
                self._succeeded(name, resolved, addresses)
            await asyncio.sleep(interval_s * self._random.uniform(1 - _JITTER, 1 + _JITTER))

    async def _resolve(self, name: str) -> tuple[str, ...]:
        task = self._under_way.get(name)
        if task is None:
            task = self._under_way[name] = asyncio.create_task(self._ask(name))
            task.add_done_callback(lambda done: self._answered(name, done))
        done, _ = await asyncio.wait({task}, timeout=TIMEOUT_S)
        if not done:
            raise TimeoutError
        return task.result()

    def _answered(self, name: str, task: asyncio.Task[tuple[str, ...]]) -> None:
        self._under_way.pop(name, None)
        if not task.cancelled():
            task.exception()  # seen, also when nobody waits for it any more

    async def _ask(self, name: str) -> tuple[str, ...]:
        async with self._slots:
            found = await self._look_up(name)
        addresses = tuple(sorted(set(found), key=_order)[:ADDRESSES_MAX])
        if not addresses:
            raise OSError("the name has no address")
        return addresses

    def _succeeded(self, name: str, resolved: Resolved, addresses: tuple[str, ...]) -> None:
        if resolved.failure is not None:
            resolved.failure = resolved.failing_since_s = None
            logs.event(log, "resolved_again", host=name)
        if addresses == resolved.addresses:
            return
        if resolved.addresses:
            logs.event(log, "addresses_changed", host=name, addresses=list(addresses))
        resolved.addresses, resolved.since_s = addresses, self._now()
        self._on_change(name)

    def _failed(self, name: str, resolved: Resolved, failure: str) -> None:
        self.failures[(name,)] += 1
        if resolved.failure is None:
            resolved.failing_since_s = self._now()
            logs.event(
                log,
                "not_resolved",
                severity=logging.WARNING,
                host=name,
                reason=failure,
                kept=len(resolved.addresses),
            )
        resolved.failure = failure


def host_of(url: str) -> str:
    """The host in an endpoint's URL, without brackets."""
    return urlsplit(url).hostname or ""


def is_name(host: str) -> bool:
    """Whether a host's addresses may change: it is neither an IP address nor this machine."""
    if host == "localhost" or host.endswith(".localhost"):
        return False
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return True
    return False


def _intervals_s(config: Config) -> dict[str, float]:
    """Name -> the shortest interval that a backend asks for."""
    intervals_s: dict[str, float] = {}
    for backend in config.backends.values():
        for endpoint in backend.endpoints if backend.resolve else ():
            host = host_of(endpoint.url)
            if is_name(host):
                intervals_s[host] = min(backend.resolve, intervals_s.get(host, backend.resolve))
    return intervals_s


def _order(address: str) -> tuple[int, bytes]:
    parsed = ipaddress.ip_address(address)
    return parsed.version, parsed.packed


async def look_up(name: str) -> Iterable[str]:
    """The addresses that the system has for `name`, asked in a thread that no exit waits for.

    Raises:
        OSError: it has none, or does not know.
        UnicodeError: no name of the DNS.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[set[str]] = loop.create_future()

    def settle(found: set[str], error: Exception | None) -> None:
        if answer.done():
            return
        if error is None:
            answer.set_result(found)
        else:
            answer.set_exception(error)

    def ask() -> None:
        found: set[str] = set()
        failure: Exception | None = None
        try:
            # AI_ADDRCONFIG: no IPv6 addresses on a host without IPv6, and the other way round
            rows = socket.getaddrinfo(
                name, None, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG
            )
            found = {str(row[4][0]) for row in rows}
        except (OSError, UnicodeError) as error:
            failure = error
        with suppress(RuntimeError):  # the loop was closed meanwhile
            loop.call_soon_threadsafe(settle, found, failure)

    threading.Thread(target=ask, name=f"resolve {name}", daemon=True).start()
    return await answer
