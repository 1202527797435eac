"""Endpoints that die, hang, fail half of the time, or are all gone; for every proxy."""

import asyncio
from time import perf_counter
from typing import Final

from benchmarks.failover.bench import RATE, Bench, bad, steady_after_s
from benchmarks.failover.load import FAILED, Outcome
from benchmarks.faults.rig import Figure
from benchmarks.peers import Peer

_CONNECTIONS: Final = 64
_CONNECTIONS_OF_HANG: Final = 768
"""Enough for what waits for a hung endpoint: the load stays open."""
HANG_S: Final = 3.0
"""First-byte timeout of every proxy."""


async def killed(bench: Bench, peer: Peer) -> list[Figure]:
    """One of three endpoints is killed, and comes back."""
    async with bench.stand(peer) as it:
        work = it.load(connections=_CONNECTIONS, rate=RATE)
        await work.start()
        await asyncio.sleep(bench.seconds(3))
        killed_s = perf_counter()
        await it.endpoints[0].kill()
        await asyncio.sleep(bench.seconds(4.5))
        back_s = perf_counter()
        await it.endpoints[0].start()
        up_s = perf_counter()
        await asyncio.sleep(max(2.0, bench.seconds(3)))
        await work.stop()
        bench.account(it, work)
    failed = bad(work.outcomes)
    gets = [outcome for outcome in failed if not outcome.is_post]
    late = [outcome for outcome in failed if outcome.end_s > killed_s + 0.1]
    after = [outcome for outcome in failed if outcome.due_s >= back_s]
    again_s = _used_again_s(work.outcomes, "a", up_s)
    steady_s = steady_after_s(work.outcomes, killed_s, back_s)
    return [
        Figure(
            "one of three endpoints killed: failed",
            "only POSTs in flight on it, none later",
            f"{_of(failed, work.sent)}: {len(gets)} GETs, {len(failed) - len(gets)} POSTs"
            f"{f', {len(late)} later than 0.1 s' if late else ''}",
            not gets and not late and len(failed) <= _CONNECTIONS,
            {"failed": len(failed), "failed_gets": len(gets), "failed_late": len(late)},
        ),
        Figure(
            "... p99 steady again",
            "<= 0.5 s",
            f"{steady_s:.2f} s",
            steady_s <= 0.5,
            {"steady_after_s": steady_s},
        ),
        Figure(
            "... back: in use again, failed since",
            "<= 1.2 s, 0 failed",
            f"{again_s:.2f} s, {len(after)} failed",
            again_s <= 1.2 and not after,
            {"in_use_again_s": again_s, "failed_since": len(after)},
        ),
    ]


async def hangs(bench: Bench, peer: Peer) -> list[Figure]:
    """One of three endpoints hangs: it is stopped, so that nothing of it answers any more."""
    async with bench.stand(peer) as it:
        work = it.load(connections=_CONNECTIONS_OF_HANG, rate=RATE)
        await work.start()
        await asyncio.sleep(bench.seconds(3))
        hung_s = perf_counter()
        it.endpoints[0].freeze()
        await asyncio.sleep(max(5.5, bench.seconds(7)))
        await work.stop()
        it.endpoints[0].thaw()
        await asyncio.sleep(0.2)  # it reads what it was sent, and notes it
        bench.account(it, work)
    failed = bad(work.outcomes)
    gets = [outcome for outcome in failed if not outcome.is_post]
    last_s = max((outcome.end_s - hung_s for outcome in failed), default=0.0)
    slowest_s = max(o.took_s for o in work.outcomes if not o.is_post)
    return [
        Figure(
            "one of three hangs: failed",
            "<= 188, the last within 3.5 s",
            f"{_of(failed, work.sent)} ({len(gets)} GETs), the last after {last_s:.1f} s",
            len(failed) <= 188 and last_s <= HANG_S + 0.5,
            {"failed": len(failed), "failed_gets": len(gets), "last_s": last_s},
        ),
        Figure(
            "... slowest GET",
            "<= 2 s, 0 GETs failed",
            f"{slowest_s:.1f} s, {len(gets)} failed",
            slowest_s <= 2 and not gets,
            {"slowest_get_s": slowest_s},
        ),
    ]


async def half_errors(bench: Bench, peer: Peer) -> list[Figure]:
    """One of three endpoints answers half of its requests with 500."""
    async with bench.stand(peer) as it:
        work = it.load(connections=_CONNECTIONS, rate=RATE)
        await work.start()
        await asyncio.sleep(bench.seconds(2))
        it.endpoints[0].tell("errors", 0.5)
        await asyncio.sleep(bench.seconds(15))
        await work.stop()
        bench.account(it, work)
    passed_on = [outcome for outcome in work.outcomes if outcome.status == 500]
    other = [outcome for outcome in bad(work.outcomes) if outcome.status != 500]
    return [
        Figure(
            "one of three answers half with 500: passed on",
            "<= 60, 0 failed otherwise",
            f"{_of(passed_on, work.sent)}, {len(other)} failed otherwise",
            len(passed_on) <= 60 and not other,
            {"passed_on": len(passed_on), "failed_otherwise": len(other)},
        )
    ]


async def all_down(bench: Bench, peer: Peer) -> list[Figure]:
    """All endpoints are killed, and come back one after the other."""
    async with bench.stand(peer) as it:
        work = it.load(connections=_CONNECTIONS, rate=RATE / 4)
        await work.start()
        await asyncio.sleep(1)
        down_s = perf_counter()
        for endpoint in it.endpoints:
            await endpoint.kill()
        await asyncio.sleep(max(4.0, bench.seconds(8)))
        first, *others = it.endpoints
        await first.start()
        back_s = perf_counter()
        for endpoint in others:
            await endpoint.start()
        await asyncio.sleep(3)
        await work.stop()
        bench.account(it, work)
    good = [o.end_s - back_s for o in work.outcomes if o.is_good and o.due_s > down_s + 0.1]
    meanwhile = [o for o in bad(work.outcomes) if down_s + 0.1 <= o.due_s < back_s]
    slowest_s = max((outcome.took_s for outcome in meanwhile), default=0.0)
    first_s = max(0.0, min(good, default=99.0))
    return [
        Figure(
            "all down and back: first success",
            "<= 0.1 s",
            f"{first_s:.2f} s",
            first_s <= 0.1,
            {"first_success_s": first_s},
        ),
        Figure(
            "... refusals meanwhile",
            "answered within 50 ms",
            f"{len(meanwhile)}, at most {slowest_s * 1000:.0f} ms",
            bool(meanwhile) and slowest_s <= 0.05,
            {"refused": len(meanwhile), "slowest_s": slowest_s},
        ),
    ]


async def garbage(bench: Bench, peer: Peer) -> list[Figure]:
    """One of three endpoints sends garbage, or breaks off amid head or body."""
    async with bench.stand(peer) as it:
        work = it.load(connections=_CONNECTIONS, rate=RATE)
        await work.start()
        for mode in ("garbage", "reset-head", "reset-body", "cut-chunks"):
            await asyncio.sleep(1)
            it.endpoints[0].tell(mode)
        spoiled_s = perf_counter() - 3 + 0.1
        await asyncio.sleep(1)
        await work.stop()
        bench.account(it, work)
    failed = bad(work.outcomes)
    looks_good = [
        o for o in work.outcomes if o.is_good and o.endpoint == "a" and o.due_s > spoiled_s
    ]
    garbled = [o for o in failed if o.kind != FAILED and not o.status]
    return [
        Figure(
            "one of three sends garbage or resets: looks good, garbled",
            "0, 0",
            f"{len(looks_good)}, {len(garbled)}; {_of(failed, work.sent)} refused or broken",
            not looks_good and not garbled,
            {"looks_good": len(looks_good), "garbled": len(garbled), "failed": len(failed)},
        )
    ]


def _of(some: list[Outcome], count: int) -> str:
    return f"{len(some):,} of {count:,}"


def _used_again_s(outcomes: list[Outcome], endpoint: str, since_s: float) -> float:
    """Seconds until that endpoint answers; 99 when it never does."""
    ends = [o.end_s for o in outcomes if o.endpoint == endpoint and o.end_s >= since_s]
    return min(ends, default=since_s + 99) - since_s
