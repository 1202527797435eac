"""Copies that nobody waits for."""

import asyncio
import time
from random import Random
from typing import Any

import pytest

from router.data import mirror
from router.data.mirror import Copies
from tests.data.harness import (
    Lab,
    Origin,
    Received,
    Router,
    Wire,
    document,
    eventually,
    request,
    response,
)


def shadowed(primary: Origin, *shadows: Origin, **shadow: Any) -> dict[str, Any]:
    """`all` is answered by `v1` and copied to `s0`, `s1`, ..."""
    config = document(primary)
    options = {"sample": "100%", **shadow}
    config["routes"][0]["shadow"] = []
    for number, origin in enumerate(shadows):
        config["backends"][f"s{number}"] = {"endpoints": [origin.url]}
        config["routes"][0]["shadow"].append({"backend": f"s{number}", **options})
    return config


async def outcome(router: Router, name: str, count: int = 1, backend: str = "s0") -> None:
    """Wait until so many copies ended that way; then no copy may be left."""

    async def counted() -> int:
        await router.flush()
        return router.counted("shadow_requests", "all", backend, name)

    end_s = time.monotonic() + 5
    while await counted() < count:
        assert time.monotonic() < end_s, f"no {name}: {router.counters}"
    assert await counted() == count


async def never(wire: Wire) -> None:
    while True:
        await wire.message()


def fields_of(got: Received) -> list[bytes]:
    return sorted(got.lines)


@pytest.mark.parametrize(
    "data",
    [
        request(b"GET", b"/a?b=c", None, b"x-user: 1", b"cookie: a=b"),
        request(b"POST", b"/a", b"body " * 1000, b"content-type: text/plain"),
        request(b"HEAD", b"/a"),
    ],
    ids=["get", "post", "head"],
)
async def test_the_copy_equals_the_original_but_for_its_mark(lab: Lab, data: bytes) -> None:
    primary, shadow = await lab.answering(), await lab.answering(response(b"ignored"))
    router = await lab.start(shadowed(primary, shadow))
    assert (await lab.ask(data, has_body=not data.startswith(b"HEAD"))).status == 200
    await eventually(lambda: shadow.requests)
    (original,), (copy,) = primary.requests, shadow.requests
    assert (copy.first, copy.body) == (original.first, original.body)
    assert fields_of(copy) == sorted([*original.lines, b"x-router-shadow: true"])
    await outcome(router, "answered")


async def test_a_chunked_body_is_copied_with_its_length(lab: Lab) -> None:
    primary, shadow = await lab.answering(), await lab.answering()
    await lab.start(shadowed(primary, shadow))
    data = request(b"POST", b"/", None, b"transfer-encoding: chunked", b"expect: 100-continue")
    client = await lab.client()
    client.send(data, b"3\r\nabc\r\n", b"2\r\nde\r\n0\r\n\r\n")
    assert (await client.message()).status == 200
    await eventually(lambda: shadow.requests)
    assert shadow.requests[0].body == primary.requests[0].body == b"abcde"
    assert shadow.requests[0].field("content-length") == "5"
    assert shadow.requests[0].field("expect") is None


async def test_the_clients_answer_is_the_same_with_and_without_a_shadow(lab: Lab) -> None:
    primary, shadow = await lab.answering(), await lab.answering(response(status=b"500 No"))
    plain, copied = document(primary), shadowed(primary, shadow)
    router = await lab.start(plain)
    data = request(b"POST", b"/", b"x", b"x-request-id: 1")

    async def lines() -> list[bytes]:
        got = await lab.ask(data)
        return [got.first, *(line for line in got.lines if not line.startswith(b"date")), got.body]

    without = await lines()
    await router.reload(copied)
    assert await lines() == without
    await outcome(router, "answered")


async def test_a_shadow_has_connections_of_its_own(lab: Lab) -> None:
    """Even where the shadow is the backend that answers."""
    primary = await lab.answering()
    config = document(primary)
    config["routes"][0]["shadow"] = [{"backend": "v1", "sample": "100%"}]
    router = await lab.start(config)
    client = await lab.client()
    for _ in range(5):
        client.send(request())
        await client.message()
    await outcome(router, "answered", 5, "v1")
    counts = [
        (wire.received.count(b"GET /"), wire.received.count(b"-shadow: true"))
        for wire in primary.wires
    ]
    assert sum(requests for requests, _ in counts) == 10
    assert sorted({copies / requests for requests, copies in counts}) == [0.0, 1.0]


async def test_a_hung_shadow_delays_nobody_and_is_ended(lab: Lab) -> None:
    primary, shadow = await lab.answering(), await lab.origin(never)
    router = await lab.start(shadowed(primary, shadow, timeout="50ms"))
    client = await lab.client()
    for _ in range(20):
        client.send(request(b"POST", b"/", b"x"))
        assert (await client.message()).status == 200
    await outcome(router, "timeout", 20)
    assert len(primary.requests) == 20
    for wire in shadow.wires:
        await asyncio.wait_for(wire.ended.wait(), 5)


async def test_a_refusing_shadow_is_counted_and_nothing_more(lab: Lab) -> None:
    primary, shadow = await lab.answering(), await lab.refusing()
    router = await lab.start(shadowed(primary, shadow))
    assert (await lab.ask(request())).status == 200
    await outcome(router, "failed")


async def test_a_shadow_that_resets_or_babbles_is_counted_and_nothing_more(lab: Lab) -> None:
    async def resets(wire: Wire) -> None:
        await wire.message()
        wire.reset()

    primary = await lab.answering()
    shadows = await lab.origin(resets), await lab.answering(b"garbage\r\n\r\n")
    router = await lab.start(shadowed(primary, *shadows))
    assert (await lab.ask(request())).status == 200
    await outcome(router, "failed", 1, "s0")
    await outcome(router, "failed", 1, "s1")


async def test_a_shadow_that_fails_gets_a_copy_now_and_then_until_one_is_answered(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    later_s = 0.0
    monkeypatch.setattr(mirror, "monotonic", lambda: time.monotonic() + later_s)
    primary, shadow = await lab.answering(), await lab.refusing()
    router = await lab.start(shadowed(primary, shadow))
    for number in range(5):
        await lab.ask(request())
        await outcome(router, "failed", number + 1)
    for _ in range(3):
        await lab.ask(request())
    await outcome(router, "dropped_failing", 3)
    later_s += 0.2
    await lab.ask(request())
    await outcome(router, "failed", 6)  # it tried
    later_s += 0.1
    await lab.ask(request())
    await outcome(router, "dropped_failing", 4)  # for now twice the time has to pass
    await shadow.start()
    later_s += 1.0
    await lab.ask(request())
    await outcome(router, "answered", 1)
    for _ in range(3):
        await lab.ask(request())
    await outcome(router, "answered", 4)
    assert len(primary.requests) == 14


async def test_a_shadow_over_its_limits_does_not_count_as_failing(lab: Lab) -> None:
    primary, shadow = await lab.answering(), await lab.origin(never)
    config = shadowed(primary, shadow, timeout="200ms")
    config["backends"]["s0"]["limits"] = {"connections": 1, "pending": 0}
    router = await lab.start(config)
    for _ in range(9):
        await lab.ask(request())
    await outcome(router, "failed", 8)
    await outcome(router, "timeout", 1)


async def test_more_copies_than_allowed_are_dropped(lab: Lab) -> None:
    primary, shadow = await lab.answering(), await lab.origin(never)
    router = await lab.start(shadowed(primary, shadow, in_flight=3, timeout="200ms"))
    client = await lab.client()
    for _ in range(10):
        client.send(request())
        await client.message()
    await router.flush()
    assert router.gauges["pointsman_shadow_in_flight"] == 3
    await outcome(router, "dropped_in_flight", 7)
    await outcome(router, "timeout", 3)


async def test_more_bytes_than_allowed_are_dropped(lab: Lab) -> None:
    primary, shadow = await lab.answering(), await lab.origin(never)
    config = shadowed(
        primary, shadow, in_flight_bytes=2500, max_body=2000, timeout="200ms", in_flight=9
    )
    router = await lab.start(config)
    client = await lab.client()
    for _ in range(5):
        client.send(request(b"POST", b"/", bytes(1000)))
        await client.message()
    await outcome(router, "dropped_bytes", 3)
    await outcome(router, "timeout", 2)


@pytest.mark.parametrize("is_chunked", [False, True])
async def test_a_body_larger_than_allowed_is_not_copied(lab: Lab, is_chunked: bool) -> None:
    primary, shadow = await lab.answering(), await lab.answering()
    router = await lab.start(shadowed(primary, shadow, max_body=1000))
    if is_chunked:
        data = request(b"POST", b"/", None, b"transfer-encoding: chunked")
        data += b"3e8\r\n" + bytes(1000) + b"\r\n1\r\nx\r\n0\r\n\r\n"
    else:
        data = request(b"POST", b"/", bytes(1001))
    assert (await lab.ask(data)).status == 200
    await outcome(router, "skipped_size")
    assert len(primary.requests[0].body) == 1001
    assert shadow.accepted == 0


async def test_an_incomplete_request_is_not_copied(lab: Lab) -> None:
    primary, shadow = await lab.answering(), await lab.answering()
    router = await lab.start(shadowed(primary, shadow))
    client = await lab.client()
    client.send(request(b"POST", b"/", None, b"content-length: 10"), b"half")
    await eventually(lambda: primary.wires and primary.wires[0].received.endswith(b"half"))
    client.close()
    await outcome(router, "skipped_incomplete")
    assert shadow.accepted == 0


async def test_the_share_of_copies_follows_the_sample(lab: Lab) -> None:
    primary, shadow = await lab.answering(), await lab.answering()
    router = await lab.start(document(primary))
    router.worker.random = Random(5).random
    await router.reload(shadowed(primary, shadow, sample="25%", in_flight=1000))
    client = await lab.client()
    for _ in range(400):
        client.send(request())
        await client.message()
    await eventually(lambda: not any(mirror.in_flight for mirror in router.mirrors))
    # binomial(400, 1/4): standard deviation 8.7; four of them
    assert abs(len(shadow.requests) - 100) < 35


async def test_a_copy_leaves_only_after_the_answer_is_complete(lab: Lab) -> None:
    go_on = asyncio.Event()

    async def script(wire: Wire) -> None:
        await wire.message()
        wire.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\no")
        await go_on.wait()
        wire.send(b"k")

    shadow = await lab.answering()
    router = await lab.start(shadowed(await lab.origin(script), shadow))
    client = await lab.client()
    client.send(request())
    await client.head()
    await client.exactly(1)
    assert shadow.accepted == 0
    go_on.set()
    assert await client.exactly(1) == b"k"
    await outcome(router, "answered")


async def test_a_bug_in_the_mirror_costs_the_client_nothing(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    primary, watcher = await lab.answering(), await lab.answering()
    await lab.start(shadowed(primary, watcher))
    reported: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    client = await lab.client()
    with monkeypatch.context() as broken:
        broken.setattr(Copies, "send", lambda *_: 1 / 0)
        for _ in range(2):
            client.send(request())
            assert (await client.message()).body == b"ok"
    assert [type(context["exception"]) for context in reported] == [ZeroDivisionError] * 2
    assert client.unread == b""
