"""What counts as an answer, and users over real sockets against a scripted router."""

from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer

from router.demo.routes import AB, ANIMALS, BANDIT, ROUTES
from router.demo.tally import Tally
from router.demo.traffic import USERS, Traffic, UnexpectedAnswer, picture, read_answer

GOOD = orjson.dumps({"model_version": "v1", "outputs": [{"data": [7]}]})


def test_a_picture_is_an_inference_request_for_one_image() -> None:
    shown = picture([0.0, 1.0], 7)
    assert shown.label == 7
    assert orjson.loads(shown.body)["inputs"] == [
        {"name": "image", "shape": [1, 2], "datatype": "FP32", "data": [0.0, 1.0]}
    ]


def test_a_whole_answer_gives_variant_and_label() -> None:
    assert read_answer(ANIMALS, 200, "animals", "v1", GOOD) == ("v1", 7)


@pytest.mark.parametrize(
    ("status", "route", "variant", "body", "reason"),
    [
        (503, "animals", None, b"overloaded", "status 503: overloaded"),
        (200, "ab", "v1", GOOD, "answered by route ab, variant v1"),
        (200, None, "v1", GOOD, "answered by route None, variant v1"),
        (200, "animals", None, GOOD, "answered by route animals, variant None"),
        (200, "animals", "v2", GOOD, "the router names variant v2, the model server v1"),
        (200, "animals", "v1", GOOD[:-1], "the body is not an inference answer"),
        (200, "animals", "v1", b"[]", "the body is not an inference answer"),
        (200, "animals", "v1", b'{"outputs": []}', "the body is not an inference answer"),
    ],
)
def test_anything_else_is_not_an_answer(
    status: int, route: str | None, variant: str | None, body: bytes, reason: str
) -> None:
    with pytest.raises(UnexpectedAnswer, match=f"^{reason}$"):
        read_answer(ANIMALS, status, route, variant, body)


class ScriptedRouter:
    """Answers 7 on every route; gives a receipt on one; keeps what it was sent."""

    def __init__(self) -> None:
        self.users: dict[str, set[str]] = {route.name: set() for route in ROUTES}
        self.feedback: list[Any] = []
        self.broken_route: str | None = None
        self.feedback_status = 200

    async def infer(self, request: web.Request) -> web.Response:
        name = request.match_info["model"]
        self.users[name].add(request.headers["x-user-id"])
        if name == self.broken_route:
            return web.Response(status=502)
        headers = {"x-router-route": name, "x-router-variant": "v1"}
        if name == BANDIT.name:
            headers["x-router-receipt"] = "token"
        return web.Response(body=GOOD, headers=headers)

    async def report(self, request: web.Request) -> web.Response:
        self.feedback.append(await request.json())
        return web.Response(status=self.feedback_status)


@pytest.fixture
def router() -> ScriptedRouter:
    return ScriptedRouter()


@pytest.fixture
async def origin(router: ScriptedRouter) -> AsyncIterator[str]:
    application = web.Application()
    application.router.add_post("/v2/models/{model}/infer", router.infer)
    application.router.add_post("/-/feedback", router.report)
    async with TestServer(application) as server:
        yield str(server.make_url("")).rstrip("/")


async def send(origin: str, labels: list[int]) -> Tally:
    tally = Tally([], window=100)
    pictures = [picture([0.0], label) for label in labels]
    async with ClientSession() as session:
        await Traffic(session, origin, pictures, tally).run(seconds=0.9)
    return tally


async def test_every_user_asks_and_right_answers_are_counted(
    router: ScriptedRouter, origin: str
) -> None:
    tally = await send(origin, [7])
    answered = {route.name: tally.variant(route.name, "v1") for route in ROUTES}
    assert not tally.failures
    assert len(set.union(*router.users.values())) == tally.requests <= USERS
    assert all(each.requests == each.correct > 0 for each in answered.values())


async def test_every_receipt_is_answered_with_whether_the_answer_was_right(
    router: ScriptedRouter, origin: str
) -> None:
    tally = await send(origin, [7, 3])
    bandit = tally.variant(BANDIT.name, "v1")
    rewards = [each["reward"] for each in router.feedback]
    assert {each["receipt"] for each in router.feedback} == {"token"}
    assert len(rewards) == bandit.requests
    assert 0 < sum(rewards) == bandit.correct < bandit.requests


async def test_a_failed_request_is_counted_with_its_reason_and_the_users_go_on(
    router: ScriptedRouter, origin: str
) -> None:
    router.broken_route = AB.name
    tally = await send(origin, [7])
    assert dict(tally.failures) == {"ab: status 502: ": len(router.users[AB.name])}
    assert tally.variant(ANIMALS.name, "v1").requests > 0


async def test_refused_feedback_is_a_failure(router: ScriptedRouter, origin: str) -> None:
    router.feedback_status = 403
    tally = await send(origin, [7])
    assert dict(tally.failures) == {"bandit: feedback refused with 403: b''": len(router.feedback)}


async def test_nobody_listening_is_a_failure_of_every_request(unused_tcp_port: int) -> None:
    tally = await send(f"http://127.0.0.1:{unused_tcp_port}", [7])
    assert tally.failures.total() == tally.requests > 0
