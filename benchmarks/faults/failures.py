"""Endpoints and clients that fail: pooled connections gone stale, hangs, refusals, departures."""

import asyncio
from time import perf_counter
from typing import Final

from benchmarks.faults.origin import Origin
from benchmarks.faults.rig import Client, Figure, Rig, eventually, rig

FIRST_BYTE_S: Final = 1.0


async def stale(count: int) -> list[Figure]:
    """Requests that meet a pooled connection which its endpoint has closed or is about to drop."""
    async with rig() as it:
        client = await it.connect()
        statuses = {}
        for method in (b"GET", b"POST"):
            for path in ("/stale", "/closing"):
                for number in range(count // 2):
                    name = b"%b-%b-%d" % (method, path.encode(), number)
                    client.ask(path, b"content-length: 0\r\nx-id: %b\r\n" % name, method)
                    statuses[name] = await client.answer()
        gets = [status for name, status in statuses.items() if name.startswith(b"GET")]
        posts = {name: status for name, status in statuses.items() if name.startswith(b"POST")}
        answered = sum(status == 200 for status in gets)
        most = max(it.origin.delivered[name] for name in posts)
        posted = sum(status == 200 for status in posts.values())
    return [
        Figure(
            "GET on a stale pooled connection",
            "all answered 200",
            f"{answered} of {len(gets)}",
            answered == len(gets),
            {"answered": answered, "asked": len(gets)},
        ),
        Figure(
            "POST on a stale pooled connection",
            "delivered at most once",
            f"at most {most}, of {len(posts)}; {posted} answered 200, the others 502",
            most <= 1 and set(posts.values()) <= {200, 502},
            {"most_deliveries": most, "answered": posted, "asked": len(posts)},
        ),
    ]


async def hang(rounds: int) -> list[Figure]:
    """An endpoint that takes the request and says nothing."""
    late_s, closed_s, most = [], [], 0
    async with rig(backend={"timeout": {"first_byte": f"{FIRST_BYTE_S:g}s"}}) as it:
        for number in range(rounds):
            name = b"%d" % number
            client = await it.connect()
            began_s = perf_counter()
            client.ask("/hang", b"x-id: %b\r\n" % name)
            status = await client.answer()
            late_s.append(perf_counter() - began_s - FIRST_BYTE_S)
            await eventually(lambda name=name: name in it.origin.ended_s, "the endpoint to be left")  # type: ignore[misc]  # the default binds the loop's name
            closed_s.append(it.origin.ended_s[name] - began_s - FIRST_BYTE_S)
            most = max(most, it.origin.delivered[name])
            client.close()
    return [
        Figure(
            "endpoint hangs",
            f"504 at the set {FIRST_BYTE_S:g} s + <= 250 ms, its connection closed, delivered once",
            f"{status} at + {max(late_s) * 1000:.0f} ms, closed at + {max(closed_s) * 1000:.0f} ms,"
            f" delivered {most} time(s)",
            status == 504 and max(*late_s, *closed_s) <= 0.25 and min(late_s) >= 0 and most == 1,
            {"late_s": max(late_s), "closed_s": max(closed_s), "delivered": most},
        )
    ]


async def recovery(rounds: int) -> list[Figure]:
    """An endpoint that refused connections for a second, and is back."""
    took_s = []
    async with rig() as it:
        client = await it.connect()
        for _ in range(rounds):
            port = it.origin.port
            await it.origin.stop()
            until_s = perf_counter() + 1.0
            while perf_counter() < until_s:
                client.ask("/small")
                assert await client.answer() == 502  # noqa: S101 - nobody listens
                await asyncio.sleep(0.01)
            it.origin = Origin()
            await it.origin.start(port)
            began_s = perf_counter()
            client.ask("/small")
            while await client.answer() != 200:
                client.ask("/small")
            took_s.append(perf_counter() - began_s)
        await it.origin.stop()
    return [
        Figure(
            "recovery after refusal",
            "<= 100 ms",
            f"{max(took_s) * 1000:.1f} ms",
            max(took_s) <= 0.1,
            {"worst_s": max(took_s)},
        )
    ]


async def client_gone(rounds: int) -> list[Figure]:
    """A client that leaves while its request is being computed, or answered."""
    figures = []
    async with rig() as it:
        for what, path in (("before the first byte", "/hang"), ("amid the answer", "/events/9999")):
            worst_s = 0.0
            for number in range(rounds):
                for way in (Client.close, Client.reset):
                    name = f"{path}-{number}-{way.__name__}".encode()
                    worst_s = max(worst_s, await _leave(it, path, name, way is Client.reset))
            figures.append(
                Figure(
                    f"client gone {what} -> endpoint's connection closed",
                    "<= 100 ms",
                    f"{worst_s * 1000:.1f} ms",
                    worst_s <= 0.1,
                    {"worst_s": worst_s},
                )
            )
    return figures


async def _leave(it: Rig, path: str, name: bytes, by_reset: bool) -> float:
    """Seconds from the client's departure to the end of the endpoint's connection."""
    client = await it.connect()
    client.ask(path, b"x-id: %b\r\n" % name)
    if path == "/hang":
        await eventually(lambda: it.origin.delivered[name], "the request to arrive")
    else:
        await client.head()
    began_s = perf_counter()
    if by_reset:
        client.reset()
    else:
        client.close()
    await eventually(lambda: name in it.origin.ended_s, "the endpoint to be told")
    return it.origin.ended_s[name] - began_s
