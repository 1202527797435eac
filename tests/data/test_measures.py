"""What workers measure of the variants of a route that can have a rollout."""

from typing import Any

import pytest

from router.data.measures import End, Measures
from router.messages import EndpointState
from router.rollouts.guard import Judge
from router.rollouts.measured import (
    ABORTS,
    ERRORS,
    FIRST_BYTE,
    LATENCY,
    TRUNCATED,
    Measured,
    bucket_of,
)
from router.rollouts.options import Guard
from router.rollouts.state import Outcome
from tests.data.acts import Act, Held, acting, answer, close, reset, say, unavailable
from tests.data.harness import (
    OK,
    Lab,
    Origin,
    Router,
    Wire,
    document,
    eventually,
    request,
    response,
)

ENDLESS = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nha\r\n"
ALWAYS = request(b"GET", b"/", None, b"x-canary: always")


def canary(stable: Origin, canary: Origin, **backend: Any) -> dict[str, Any]:
    """A canary with a rollout; `x-canary: always` gets it."""
    return {
        "backends": {
            "stable": {"endpoints": [stable.url]},
            "canary": {"endpoints": [canary.url], **backend},
        },
        "routes": [
            {
                "name": "all",
                "policy": {
                    "type": "canary",
                    "stable": "stable",
                    "canary": "canary",
                    "steps": [{"weight": "10%", "hold": "1m"}],
                    "sticky": {"header": "x-user-id"},
                    "override": {"header": "x-canary"},
                },
            }
        ],
    }


async def start(lab: Lab, of: Origin, **backend: Any) -> Router:
    """A router whose canary is `of`."""
    return await lab.start(canary(await lab.answering(), of, **backend))


async def canary_after(router: Router, requests: int) -> Measured:
    """What was measured of the canary when so many requests had ended."""
    key = ("all", "canary")
    await router.reported(lambda: key in router.measured)
    await router.reported(lambda: router.measured[key].requests >= requests)
    assert router.measured[key].requests == requests
    return router.measured[key]


def happened(measured: Measured) -> dict[str, int]:
    """What happened at least once."""
    assert all(of == measured.requests for of, _ in measured.rates.values())
    return {name: count for name, (_, count) in measured.rates.items() if count}


def count(measured: Measured, name: str) -> int:
    return sum(measured.distributions.get(name, {}).values())


def taken(measures: Measures) -> Measured:
    ((route, variant, dumped),) = measures.take()
    assert (route, variant) == ("r", "v")
    return Measured.restore(dumped)


# counting


@pytest.mark.parametrize(
    ("status", "end", "rates", "latencies"),
    [
        (200, End.WHOLE, {}, 1),
        (404, End.WHOLE, {}, 1),
        (101, End.WHOLE, {}, 0),
        (500, End.WHOLE, {ERRORS: 1}, 0),
        (503, End.WHOLE, {ERRORS: 1}, 0),
        (0, End.ABORTED, {ABORTS: 1}, 1),
        (200, End.ABORTED, {ABORTS: 1}, 0),
        (502, End.CUT, {ERRORS: 1, TRUNCATED: 1}, 0),
    ],
)
def test_a_request_counts_by_how_it_ended(
    status: int, end: End, rates: dict[str, int], latencies: int
) -> None:
    measures = Measures("r", "v")
    measures.observe(status, 0.5, end)
    measured = taken(measures)
    assert measured.requests == 1
    assert happened(measured) == rates
    assert count(measured, LATENCY) == latencies


def test_who_leaves_unanswered_waited_so_long_at_least() -> None:
    measures = Measures("r", "v")
    measures.observe(0, 5.0, End.ABORTED)
    measures.observe(200, 7.0, End.ABORTED)
    distributions = taken(measures).distributions
    assert distributions == {LATENCY: {bucket_of(5.0): 1}, FIRST_BYTE: {bucket_of(5.0): 1}}


def test_a_variant_whose_requests_hang_until_clients_leave_fails_the_default_guard() -> None:
    judge = Judge(Guard(), "stable", "canary")
    for _ in range(60):
        stable, canary = Measures("r", "stable"), Measures("r", "canary")
        for i in range(90):
            stable.observe(200, 0.05 + i / 10_000, End.WHOLE)
        for i in range(10):
            if i < 3:
                canary.observe(0, 1.0, End.ABORTED)
            else:
                canary.observe(200, 0.05, End.WHOLE)
        rows = [*stable.take(), *canary.take()]
        judge.observe({variant: Measured.restore(dump) for _, variant, dump in rows}, {})
    verdict = judge.verdict()
    assert verdict.outcome is Outcome.FAIL
    assert verdict.reason.startswith("latency p95 ")


def test_what_says_nothing_of_the_variant_is_not_counted() -> None:
    measures = Measures("r", "v")
    measures.observe(413, 0.5, End.EXCUSED)
    assert measures.take() == []


def test_a_time_falls_into_its_bucket_of_the_sketch_and_none_is_too_short() -> None:
    measures = Measures("r", "v")
    for elapsed_s in (0.0, 0.25, 0.25, 3600.0):
        measures.observe_head(200, elapsed_s)
    assert taken(measures).distributions[FIRST_BYTE] == {
        bucket_of(1e-6): 1,
        bucket_of(0.25): 2,
        bucket_of(3600.0): 1,
    }


def test_the_head_of_an_error_has_no_time() -> None:
    measures = Measures("r", "v")
    measures.observe_head(503, 0.001)
    assert measures.take() == []


def test_a_take_empties_what_was_counted_and_leaves_what_it_gave() -> None:
    measures = Measures("r", "v")
    measures.observe(200, 0.5, End.WHOLE)
    first = taken(measures)
    measures.observe(500, 0.5, End.WHOLE)
    second = taken(measures)
    assert (first.requests, second.requests) == (1, 1)
    assert (happened(first), happened(second)) == ({}, {ERRORS: 1})
    assert measures.take() == []


# exchanges


async def test_both_variants_are_measured_at_the_same_time(lab: Lab) -> None:
    router = await start(lab, await lab.answering(response(status=b"500 No")))
    for data in (request(), request(), ALWAYS):
        await lab.ask(data)
    measured = await canary_after(router, 1)
    assert happened(measured) == {ERRORS: 1}
    stable = router.measured["all", "stable"]
    assert (stable.requests, happened(stable)) == (2, {})
    assert count(stable, LATENCY) == count(stable, FIRST_BYTE) == 2


async def test_a_route_without_a_rollout_is_not_measured(lab: Lab) -> None:
    router = await lab.start(document(await lab.answering()))
    await lab.ask(request())
    await router.reported(lambda: router.requests["all", "v1", "2xx"] == 1)
    assert router.measured == {}


@pytest.mark.parametrize("act", [reset, close, unavailable])
async def test_a_failure_that_a_retry_hides_is_nobodys(lab: Lab, act: Act) -> None:
    origin = await acting(lab, act, answer())
    router = await start(lab, origin, retry={"attempts": 2, "on": ["reset", 503], "backoff": "1ms"})
    assert (await lab.ask(ALWAYS)).status == 200
    assert happened(await canary_after(router, 1)) == {}


@pytest.mark.parametrize("act", [reset, unavailable])
async def test_a_failure_that_no_retry_hides_is_one_error(lab: Lab, act: Act) -> None:
    origin = await acting(lab, act, act, act)
    router = await start(lab, origin, retry={"attempts": 2, "on": ["reset", 503], "backoff": "1ms"})
    assert (await lab.ask(ALWAYS)).status >= 500
    assert happened(await canary_after(router, 1)) == {ERRORS: 1}


async def test_an_overflow_is_an_error_of_the_variant_and_the_answer_its_fallbacks(
    lab: Lab,
) -> None:
    gone = await lab.answering()
    router = await start(lab, gone)
    router.send(EndpointState("canary", gone.url, "down", []))
    await eventually(lambda: not router.pool("canary").targets)
    assert (await lab.ask(ALWAYS)).field("x-router-variant") == "stable"
    assert happened(await canary_after(router, 1)) == {ERRORS: 1}
    stable = router.measured["all", "stable"]
    assert (stable.requests, happened(stable), count(stable, LATENCY)) == (1, {}, 1)


async def test_a_response_cut_midway_is_an_error_and_truncated(lab: Lab) -> None:
    async def script(wire: Wire) -> None:
        await wire.message()
        wire.send(ENDLESS)
        await wire.drained()
        wire.reset()

    router = await start(lab, await lab.origin(script))
    client = await lab.sent(ALWAYS)
    assert await client.is_broken()
    measured = await canary_after(router, 1)
    assert happened(measured) == {ERRORS: 1, TRUNCATED: 1}
    assert (count(measured, FIRST_BYTE), count(measured, LATENCY)) == (1, 0)


@pytest.mark.parametrize("begun", [b"", ENDLESS])
async def test_a_client_that_leaves_is_no_error_whenever_it_does(lab: Lab, begun: bytes) -> None:
    origin = await acting(lab, Held(say(b""), begun=begun))
    router = await start(lab, origin)
    client = await lab.sent(ALWAYS)
    await eventually(lambda: origin.requests)
    if begun:
        assert await client.until(b"ha")
    client.close()
    assert happened(await canary_after(router, 1)) == {ABORTS: 1}


async def test_a_stream_counts_at_its_end_but_its_first_byte_at_once(lab: Lab) -> None:
    rest = Held(say(b"0\r\n\r\n"), begun=ENDLESS)
    router = await start(lab, await acting(lab, rest))
    client = await lab.sent(ALWAYS)
    assert await client.until(b"ha")
    measured = await canary_after(router, 0)
    assert (count(measured, FIRST_BYTE), count(measured, LATENCY)) == (1, 0)
    rest.go.set()
    assert await client.until(b"0\r\n\r\n")
    measured = await canary_after(router, 1)
    assert (count(measured, FIRST_BYTE), count(measured, LATENCY)) == (1, 1)
    assert happened(measured) == {}


async def test_a_request_refused_for_the_clients_fault_is_not_measured(lab: Lab) -> None:
    origin = await lab.answering()
    router = await start(lab, origin)
    client = await lab.sent(
        b"POST / HTTP/1.1\r\nhost: x\r\nx-canary: always\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    await eventually(lambda: origin.wires)
    client.send(b"nonsense\r\n")
    assert (await client.message()).status == 400
    await lab.ask(ALWAYS)
    assert happened(await canary_after(router, 1)) == {}


async def test_what_waited_too_long_for_its_backend_is_an_error_of_the_variant(lab: Lab) -> None:
    hung = await acting(lab, Held(answer()))
    router = await start(lab, hung, limits={"connections": 1, "pending": 0})
    first = await lab.sent(ALWAYS)
    await eventually(lambda: hung.requests)
    assert (await lab.ask(ALWAYS)).problem() == "overloaded"
    assert happened(await canary_after(router, 1)) == {ERRORS: 1}
    first.close()


async def test_a_request_whose_endpoint_was_taken_out_is_not_measured(lab: Lab) -> None:
    hung = await acting(lab, Held(answer()), answer())
    router = await lab.start({**canary(await lab.answering(), hung), "drain_timeout": "10ms"})
    client = await lab.sent(ALWAYS)
    await eventually(lambda: hung.requests)
    router.send(EndpointState("canary", hung.url, "drain", []))
    assert (await client.message()).problem() == "upstream-removed"
    router.send(EndpointState("canary", hung.url, "up", []))
    await eventually(lambda: router.pool("canary").targets)
    assert (await lab.ask(ALWAYS)).status == 200
    assert happened(await canary_after(router, 1)) == {}


async def test_a_reload_loses_nothing_and_counts_nothing_twice(lab: Lab) -> None:
    late = Held(say(OK))
    old = await acting(lab, late, answer())
    router = await start(lab, old)
    client = await lab.sent(ALWAYS)
    await eventually(lambda: old.requests)
    other = await lab.answering(response(status=b"500 No"))
    await router.reload(canary(await lab.answering(), other))
    await lab.ask(ALWAYS)
    late.go.set()
    assert (await client.message()).status == 200
    assert happened(await canary_after(router, 2)) == {ERRORS: 1}
    for _ in range(3):
        await router.flush()
    assert router.measured["all", "canary"].requests == 2


async def test_an_upgraded_connection_has_a_first_byte_but_no_latency(lab: Lab) -> None:
    async def script(wire: Wire) -> None:
        await wire.head()
        wire.send(
            b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
        )
        wire.half_close()

    router = await start(lab, await lab.origin(script))
    client = await lab.sent(
        b"GET / HTTP/1.1\r\nhost: x\r\nx-canary: always\r\n"
        b"connection: upgrade\r\nupgrade: websocket\r\n\r\n"
    )
    assert (await client.head()).status == 101
    client.half_close()
    measured = await canary_after(router, 1)
    assert (count(measured, FIRST_BYTE), count(measured, LATENCY)) == (1, 0)
    assert happened(measured) == {}
