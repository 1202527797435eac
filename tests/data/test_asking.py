"""A variant without an endpoint, and what a request leaves in memory while it waits."""

from typing import Any

import pytest

from router.data.asking import Asking
from router.messages import EndpointState
from tests.data.acts import acting, answer, hang, reset
from tests.data.harness import (
    Lab,
    Origin,
    Router,
    document,
    eventually,
    request,
    response,
)

FORCED = b"x-canary: always"


def canary(stable: Origin, new: Origin, **backend: Any) -> dict[str, Any]:
    """Requests with `FORCED` get the canary, others `stable`."""
    config = document(stable, **backend)
    config["backends"]["v2"] = {"endpoints": [new.url], **backend}
    config["routes"] = [
        {
            "name": "all",
            "policy": {
                "type": "canary",
                "stable": "v1",
                "canary": "v2",
                "weight": "50%",
                "sticky": {"cookie": "uid"},
                "override": {"header": "x-canary"},
            },
        }
    ]
    return config


async def take_down(router: Router, backend: str, *origins: Origin) -> None:
    for origin in origins:
        router.send(EndpointState(backend, origin.url, "down", []))
    await router.flush()


# overflow


async def test_stable_answers_for_a_canary_without_a_healthy_endpoint(lab: Lab) -> None:
    stable, new = await lab.answering(response(b"stable")), await lab.answering(response(b"new"))
    router = await lab.start(canary(stable, new))
    assert (await lab.ask(request(b"GET", b"/", None, FORCED))).body == b"new"
    await take_down(router, "v2", new)
    got = await lab.ask(request(b"POST", b"/", b"x", FORCED))
    assert (got.body, got.field("x-router-variant")) == (b"stable", "v1")
    router.send(EndpointState("v2", new.url, "up", []))
    await router.flush()
    assert (await lab.ask(request(b"GET", b"/", None, FORCED))).body == b"new"
    await router.flush()
    assert router.requests == {("all", "v2", "2xx"): 2, ("all", "v1", "2xx"): 1}
    assert router.counted("overflow", "all", "v2", "v1") == 1
    assert router.counted("decisions", "all", "v2", "override") == 3  # that was what was chosen
    assert router.counted("refused", "no-healthy-endpoint") == 0


async def test_nobody_answers_for_stable(lab: Lab) -> None:
    stable, new = await lab.answering(), await lab.answering()
    router = await lab.start(canary(stable, new))
    await take_down(router, "v1", stable)
    got = await lab.ask(request(b"GET", b"/", None, b"x-canary: never"))
    assert (got.status, got.problem()) == (503, "no-healthy-endpoint")
    assert new.requests == []


async def test_when_the_fallback_is_down_as_well_the_answer_is_a_503(lab: Lab) -> None:
    stable, new = await lab.answering(), await lab.answering()
    router = await lab.start(canary(stable, new))
    await take_down(router, "v1", stable)
    await take_down(router, "v2", new)
    got = await lab.ask(request(b"GET", b"/", None, FORCED))
    assert (got.status, got.problem()) == (503, "no-healthy-endpoint")
    await router.flush()
    assert router.counted("overflow", "all", "v2", "v1") == 1
    assert router.requests == {("all", "v1", "5xx"): 1}


async def test_fallbacks_in_a_circle_would_end(lab: Lab) -> None:
    """No policy has such; a new one that had would not take the worker down."""
    stable, new = await lab.answering(), await lab.answering()
    router = await lab.start(canary(stable, new))
    variants = router.worker.snapshot.bindings[0].variants
    variants["v1"].fallback = variants["v2"]
    await take_down(router, "v1", stable)
    await take_down(router, "v2", new)
    assert (await lab.ask(request(b"GET", b"/", None, FORCED))).problem() == "no-healthy-endpoint"
    await router.flush()
    assert router.counted("overflow", "all", "v2", "v1") == 1


async def test_a_cookie_is_issued_as_if_nothing_had_happened(lab: Lab) -> None:
    stable, new = await lab.answering(response(b"stable")), await lab.answering(response(b"new"))
    router = await lab.start(canary(stable, new))
    await take_down(router, "v2", new)
    cookies = []
    for _ in range(40):
        got = await lab.ask(request())
        assert got.body == b"stable"
        cookies.append((got.field("set-cookie") or "").partition(";")[0].encode())
    await router.flush()
    overflowed = router.counted("overflow", "all", "v2", "v1")
    assert 5 < overflowed < 35
    router.send(EndpointState("v2", new.url, "up", []))
    await router.flush()
    bodies = [(await lab.ask(request(b"GET", b"/", None, b"cookie: " + one))).body
              for one in cookies]  # fmt: skip
    assert bodies.count(b"new") == overflowed  # each is with its variant again


async def test_an_answer_of_a_fallback_has_no_receipt(lab: Lab) -> None:
    one, two = await lab.answering(), await lab.answering()
    config = document(one)
    config["backends"]["v2"] = {"endpoints": [two.url]}
    variants = [{"backend": "v1"}, {"backend": "v2"}]
    policy = {"type": "bandit", "variants": variants, "fallback": "v1"}
    config["routes"] = [{"name": "all", "policy": policy}]
    router = await lab.start(config)
    await take_down(router, "v2", two)
    answers = [await lab.ask(request()) for _ in range(40)]
    await router.flush()
    overflowed = router.counted("overflow", "all", "v2", "v1")
    assert 5 < overflowed < 35
    assert sum(got.field("x-router-receipt") is None for got in answers) == overflowed


async def test_requests_that_wait_for_a_connection_overflow_as_well(lab: Lab) -> None:
    stable, new = await lab.answering(response(b"stable")), await acting(lab, hang)
    router = await lab.start(canary(stable, new, limits={"connections": 1}))
    first, second = await lab.client(), await lab.client()
    first.send(request(b"GET", b"/", None, FORCED))
    await eventually(lambda: new.requests)
    second.send(request(b"POST", b"/", b"x", FORCED))
    await eventually(lambda: router.pool("v2").pending)
    await take_down(router, "v2", new)
    assert (await second.message()).body == b"stable"
    first.close()


async def test_a_request_overflows_after_a_failed_attempt_if_it_may_be_repeated(lab: Lab) -> None:
    """The endpoint fails; before the next attempt the health check has seen it."""
    stable, new = await lab.answering(response(b"stable")), await acting(lab, reset)
    retry = {"backoff": "150ms", "backoff_max": "150ms"}
    router = await lab.start(canary(stable, new, retry=retry, outlier=None))
    router.worker.random = lambda: 0.99  # the whole wait
    client = await lab.client()
    client.send(request(b"GET", b"/", None, FORCED))
    await eventually(lambda: new.requests and new.wires[0].ended.is_set())
    await take_down(router, "v2", new)
    assert (await client.message()).body == b"stable"
    assert len(new.requests) == 1


async def test_a_body_that_still_comes_goes_to_the_fallback(lab: Lab) -> None:
    stable, new = await lab.answering(response(b"stable")), await lab.answering()
    router = await lab.start(canary(stable, new))
    await take_down(router, "v2", new)
    client = await lab.client()
    client.send(request(b"POST", b"/", None, FORCED, b"content-length: 6"), b"one")
    await eventually(lambda: stable.wires and stable.wires[0].received.endswith(b"one"))
    client.send(b"two")
    assert (await client.message()).body == b"stable"
    assert stable.requests[0].body == b"onetwo"


async def test_a_request_without_a_host_names_the_endpoint_it_goes_to(lab: Lab) -> None:
    stable, new = await lab.answering(), await lab.answering()
    router = await lab.start(canary(stable, new))
    await take_down(router, "v2", new)
    client = await lab.client()
    client.send(b"POST / HTTP/1.0\r\ncontent-length: 2\r\n" + FORCED + b"\r\n\r\nhi")
    assert (await client.head()).status == 200
    (got,) = stable.requests
    assert (got.field("host"), got.body) == (stable.url.removeprefix("http://"), b"hi")


# what is kept


@pytest.mark.parametrize(
    ("data", "kept"),
    [
        (request(b"POST", b"/", bytes(1000)), True),  # small: nobody asks
        (request(b"POST", b"/", bytes(8000)), False),
        (request(b"POST", b"/", bytes(8000), b"idempotency-key: 1"), True),
        (request(b"PUT", b"/", bytes(8000)), True),
        (request(b"PUT", b"/", bytes(70_000)), False),
    ],
    ids=["small", "post", "key", "put", "large"],
)
async def test_a_request_is_kept_only_while_it_may_be_needed(
    lab: Lab, data: bytes, kept: bool
) -> None:
    origin = await acting(lab, hang)
    router = await lab.start(document(origin))
    client = await lab.client()
    client.send(data)
    await eventually(lambda: origin.requests)
    (connection,) = router.connections
    assert isinstance(connection.handler, Asking)
    assert bool(connection.handler.held) is kept
    client.close()


async def test_an_upload_is_kept_up_to_the_buffer_and_then_let_go(lab: Lab) -> None:
    origin = await acting(lab, answer())
    router = await lab.start(document(origin, retry={"buffer": "32KiB"}))
    client = await lab.client()
    client.send(request(b"PUT", b"/", None, b"content-length: 60000"))
    sizes = []
    for sent in range(6):
        client.send(bytes(10_000))
        await eventually(
            lambda sent=sent: (
                origin.wires and len(origin.wires[0].received) > sent * 10_000 + 10_000
            )
        )  # type: ignore[misc]  # a default binds the loop's value
        (connection,) = router.connections
        if isinstance(connection.handler, Asking):
            sizes.append(sum(map(len, connection.handler.held)))
    assert (await client.message()).status == 200
    assert sizes[:3] == sorted(sizes[:3])
    assert sizes[0] > 10_000
    assert sizes[3:5] == [0, 0]
