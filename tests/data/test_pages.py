"""The router's own pages on the listener, and feedback that control answers."""

import pytest

from router.messages import Drain, FeedbackAnswer, FeedbackRequest
from tests.data.harness import Lab, document, eventually, request


async def test_health_and_readiness_are_answered_here(lab: Lab) -> None:
    origin = await lab.answering()
    await lab.start(document(origin))
    for path in (b"/-/healthz", b"/-/readyz"):
        assert (await lab.ask(request(b"GET", path))).status == 200
    assert origin.requests == []


async def test_while_draining_the_worker_is_alive_but_not_ready(lab: Lab) -> None:
    router = await lab.start(document(await lab.answering()))
    router.send(Drain(30.0, 5.0))
    await router.flush()
    assert (await lab.ask(request(b"GET", b"/-/healthz"))).status == 200
    assert (await lab.ask(request(b"GET", b"/-/readyz"))).status == 503


async def test_an_unknown_page_is_a_404_and_keeps_the_connection(lab: Lab) -> None:
    router = await lab.start(document(await lab.answering()))
    client = await lab.client()
    client.send(request(b"HEAD", b"/-/nothing"), request(b"GET", b"/-/nothing"))
    assert (await client.message(has_body=False)).status == 404
    got = await client.message()
    assert (got.status, got.problem()) == (404, "no-route")
    client.send(request())
    assert (await client.message()).status == 200
    await router.flush()
    assert router.counted("refused", "no-route") == 2


async def test_control_answers_feedback(lab: Lab) -> None:
    router = await lab.start(document(await lab.answering()))
    client = await lab.client()
    client.send(
        request(b"POST", b"/-/feedback", '{"é": 1}'.encode(), b"content-type: application/json")
    )
    asked = await router.received(FeedbackRequest)
    assert (asked.content_type, asked.body) == ("application/json", '{"é": 1}')
    router.send(FeedbackAnswer(asked.ticket, 202, "application/json", '{"taken": "ü"}'))
    got = await client.message()
    assert (got.status, got.body.decode()) == (202, '{"taken": "ü"}')
    assert got.field("content-type") == "application/json"
    client.send(request())
    assert (await client.message()).status == 200


async def test_answers_find_their_askers_in_any_order(lab: Lab) -> None:
    router = await lab.start(document(await lab.answering()))
    clients = [await lab.client() for _ in range(3)]
    asked = []
    for number, client in enumerate(clients):
        client.send(request(b"POST", b"/-/feedback", b"%d" % number))
        asked.append(await router.received(FeedbackRequest))
    clients[1].close()  # does not wait for its answer
    await eventually(lambda: router.worker.in_flight == 2)
    for item in reversed(asked):
        router.send(FeedbackAnswer(item.ticket, 200, "text/plain", item.body))
    assert (await clients[0].message()).body == b"0"
    assert (await clients[2].message()).body == b"2"


async def test_a_chunked_body_and_one_announced_with_expect_are_taken(lab: Lab) -> None:
    router = await lab.start(document(await lab.answering()))
    client = await lab.client()
    head = (b"transfer-encoding: chunked", b"expect: 100-continue")
    client.send(request(b"POST", b"/-/feedback", None, *head))
    assert (await client.head()).status == 100
    client.send(b"2\r\nab\r\n", b"2\r\ncd\r\n0\r\n\r\n")
    asked = await router.received(FeedbackRequest)
    assert asked.body == "abcd"
    router.send(FeedbackAnswer(asked.ticket, 200, "text/plain", ""))
    assert (await client.message()).status == 200


@pytest.mark.parametrize(
    ("data", "status", "reason"),
    [
        (request(b"POST", b"/-/feedback", b"x" * 101), 413, "body-too-large"),
        (request(b"POST", b"/-/feedback", b"\xff"), 400, "malformed-request"),
    ],
)
async def test_feedback_that_cannot_be_passed_on_is_refused(
    lab: Lab, data: bytes, status: int, reason: str
) -> None:
    router = await lab.start({**document(await lab.answering()), "feedback": {"max_body": 100}})
    got = await lab.ask(data)
    assert (got.status, got.problem()) == (status, reason)
    await router.flush()
    assert router.counted("refused", reason) == 1


async def test_feedback_is_posted(lab: Lab) -> None:
    await lab.start(document(await lab.answering()))
    assert (await lab.ask(request(b"GET", b"/-/feedback"))).status == 405


async def test_without_control_feedback_is_a_503_and_traffic_goes_on(lab: Lab) -> None:
    router = await lab.start(document(await lab.answering()))
    client = await lab.client()
    client.send(request(b"POST", b"/-/feedback", b"x"))
    await router.received(FeedbackRequest)
    assert router.channel is not None
    router.channel.close()
    got = await client.message()
    assert (got.status, got.problem()) == (503, "control-away")
    client.send(request(b"POST", b"/-/feedback", b"x"))
    assert (await client.message()).status == 503
    client.send(request())
    assert (await client.message()).status == 200


@pytest.mark.parametrize(
    ("rest", "status", "reason"),
    [
        (b"transfer-encoding: chunked\r\n\r\nnonsense\r\n", 400, "malformed-request"),
        (b"content-length: 1001\r\n\r\n", 413, "body-too-large"),
        (b"content-length: 5\r\n\r\nhi", 408, "slow-client"),
        (b"x: y", 408, "slow-client"),
    ],
    ids=["malformed", "too-large", "stops", "head-does-not-end"],
)
async def test_a_head_request_refused_for_its_own_body_gets_none(
    lab: Lab, rest: bytes, status: int, reason: str
) -> None:
    bounds = {"body_bytes": 1000, "body_timeout": "50ms", "head_timeout": "50ms"}
    config = {**document(await lab.answering()), "downstream": bounds}
    router = await lab.start(config)
    client = await lab.client()
    client.send(b"HEAD /-/healthz HTTP/1.1\r\nhost: m\r\n" + rest)
    got = await client.message(has_body=False)
    assert (got.status, got.field("connection")) == (status, "close")
    assert await client.end() == b""
    await router.flush()
    assert router.counted("refused", reason) == 1
