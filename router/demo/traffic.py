"""The demo's users: each sends images of digits under an id of their own, and looks at the answer.

1. A user is one coroutine: send, wait for the answer, think, send again. So a user's answers come
   in the order of the requests, and the rate is `USERS / THINK_S` whatever the answers take.
2. A user visits the routes in turn; users start at different ones, so all routes are always busy.
3. An answer counts only when it is whole: status 200, the expected route, a label, and the
   version the model server names being the variant the router names. Anything else is a failure.
4. Where the router gave a receipt, the user says whether the answer was right.
"""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
import orjson

from router.demo.routes import ROUTES, DemoRoute
from router.demo.tally import Answer, Tally

USERS: Final = 200
THINK_S: Final = 1.0
REQUEST_TIMEOUT_S: Final = 10.0
FEEDBACK_TARGET: Final = "/-/feedback"
_JSON: Final = {"content-type": "application/json"}


@dataclass(frozen=True, slots=True)
class Picture:
    """An inference request, ready to send, and the digit it shows."""

    body: bytes
    label: int


def picture(image: Sequence[float], label: int) -> Picture:
    """The request for one image (its pixels, 0..1)."""
    tensor = {"name": "image", "shape": [1, len(image)], "datatype": "FP32", "data": list(image)}
    return Picture(orjson.dumps({"inputs": [tensor]}), label)


class UnexpectedAnswer(ValueError):
    """An answer that is not what a user asked for."""


def read_answer(
    route: DemoRoute, status: int, named_route: str | None, variant: str | None, body: bytes
) -> tuple[str, int]:
    """The variant that answered and the label it gave.

    Raises:
        UnexpectedAnswer: the status is not 200, another route or no variant is named, or the body
            is not an inference answer of that variant.
    """
    if status != 200:
        raise UnexpectedAnswer(f"status {status}: {body[:200].decode(errors='replace')}")
    if named_route != route.name or variant is None:
        raise UnexpectedAnswer(f"answered by route {named_route}, variant {variant}")
    try:
        document = orjson.loads(body)
        label, version = document["outputs"][0]["data"][0], document["model_version"]
    except (orjson.JSONDecodeError, LookupError, TypeError):
        raise UnexpectedAnswer("the body is not an inference answer") from None
    if version != variant:
        raise UnexpectedAnswer(f"the router names variant {variant}, the model server {version}")
    return variant, label


class Traffic:
    """All users. `origin` is the router's `http://host:port`."""

    def __init__(
        self, session: aiohttp.ClientSession, origin: str, pictures: Sequence[Picture], tally: Tally
    ) -> None:
        self._session = session
        self._origin = origin
        self._pictures = pictures
        self._tally = tally

    async def run(self, seconds: float) -> None:
        """Send for so long, and return when the last answer is in."""
        end_s = asyncio.get_running_loop().time() + seconds
        async with asyncio.TaskGroup() as group:
            for number in range(USERS):
                group.create_task(self._user(number, end_s))

    async def _user(self, number: int, end_s: float) -> None:
        loop = asyncio.get_running_loop()
        choose = random.Random(number)  # noqa: S311 - which picture is sent guards nothing
        next_s = loop.time() + number / USERS * THINK_S
        visit = number
        while next_s < end_s:
            await asyncio.sleep(next_s - loop.time())
            await self._visit(ROUTES[visit % len(ROUTES)], f"user-{number}", choose)
            next_s = max(next_s + THINK_S, loop.time())
            visit += 1

    async def _visit(self, route: DemoRoute, user: str, choose: random.Random) -> None:
        shown = choose.choice(self._pictures)
        try:
            await self._ask(route, user, shown)
        except (aiohttp.ClientError, TimeoutError, UnexpectedAnswer) as error:
            self._tally.failed(f"{route.name}: {str(error) or type(error).__name__}")

    async def _ask(self, route: DemoRoute, user: str, shown: Picture) -> None:
        loop = asyncio.get_running_loop()
        start_s = loop.time()
        async with self._session.post(
            self._origin + route.target, data=shown.body, headers={"x-user-id": user, **_JSON}
        ) as response:
            body = await response.read()
            latency_s = loop.time() - start_s
            headers = response.headers
        variant, label = read_answer(
            route,
            response.status,
            headers.get("x-router-route"),
            headers.get("x-router-variant"),
            body,
        )
        is_correct = label == shown.label
        self._tally.answered(Answer(route.name, user, variant, is_correct, latency_s))
        receipt = headers.get("x-router-receipt")
        if receipt is not None:
            await self._report({"receipt": receipt, "reward": int(is_correct)})

    async def _report(self, feedback: dict[str, Any]) -> None:
        async with self._session.post(
            self._origin + FEEDBACK_TARGET, data=orjson.dumps(feedback), headers=_JSON
        ) as response:
            body = await response.read()
        if response.status != 200:
            raise UnexpectedAnswer(f"feedback refused with {response.status}: {body[:200]!r}")
