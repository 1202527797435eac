"""How a gate is asked: an instant query of a Prometheus, or a webhook that answers.

An answer that says something is a verdict; everything else raises `Unanswered`, which the gate's
`on_error` decides about. A query that answers, but with nothing to compare, is inconclusive.
Reasons are the words that follow the gate's name.
"""

import math
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import urlencode

import orjson

from router.control.gates import Context
from router.control.post import Answer, Unanswered
from router.control.signing import HEADER, sign
from router.control.webhooks import Post
from router.rollouts.options import AskedWebhook, Gate, PrometheusQuery
from router.rollouts.state import Outcome, Verdict

REASON_MAX_CHARS: Final = 300
"""Of what somebody else gives as a reason or an error."""


class Asker:
    """Asks gates of both kinds."""

    def __init__(self, post: Post, now: Callable[[], float]) -> None:
        """`now` is seconds since 1970."""
        self._post = post
        self._now = now

    async def __call__(self, gate: Gate, context: Context) -> Verdict:
        """What a gate says.

        Raises:
            Unanswered: nothing, or nothing that can be understood.
        """
        if gate.prometheus is not None:
            return await self._query(gate, gate.prometheus)
        assert gate.webhook is not None  # noqa: S101 - held by Gate._one_kind
        return await self._webhook(gate, gate.webhook, context)

    async def _query(self, gate: Gate, asked: PrometheusQuery) -> Verdict:
        """POST /api/v1/query (Prometheus HTTP API, "Instant queries")."""
        answer = await self._post(
            asked.url.rstrip("/") + "/api/v1/query",
            urlencode({"query": asked.query, "timeout": f"{gate.timeout:g}"}).encode(),
            {"content-type": "application/x-www-form-urlencoded"},
            gate.timeout,
        )
        document = _document(answer)
        if document.get("status") != "success":
            said = document.get("error")
            raise Unanswered(_short(said) if isinstance(said, str) else f"status {answer.status}")
        value, trouble = _number(document.get("data"))
        if value is None:
            return Verdict(Outcome.INCONCLUSIVE, trouble)
        return _compared(asked, value)

    async def _webhook(self, gate: Gate, asked: AskedWebhook, context: Context) -> Verdict:
        body = orjson.dumps(
            {
                "version": 1,
                "gate": gate.name,
                "route": context.route,
                "guard": context.guard,
                **context.standing,
            }
        )
        headers = {"content-type": "application/json"}
        if asked.secret is not None:
            headers[HEADER] = sign(asked.secret, body, self._now())
        answer = await self._post(asked.url, body, headers, gate.timeout)
        if not 200 <= answer.status < 300:
            raise Unanswered(f"status {answer.status}")
        if not answer.body.strip():
            return Verdict(Outcome.PASS, "says pass")
        return _said(_document(answer))


def _document(answer: Answer) -> dict[str, Any]:
    """The JSON object of an answer.

    Raises:
        Unanswered: it has none, or is too long.
    """
    if answer.is_cut:
        raise Unanswered(f"the answer is longer than {len(answer.body)} bytes")
    try:
        document = orjson.loads(answer.body)
    except orjson.JSONDecodeError:
        document = None
    if not isinstance(document, dict):
        raise Unanswered(f"status {answer.status}, and the answer is not a JSON object")
    return document


def _number(data: Any) -> tuple[float | None, str]:
    """The one number of a query's result, or why there is none."""
    match data:
        case {"resultType": "scalar", "result": [_, str(text)]}:
            pass
        case {"resultType": "vector", "result": [{"value": [_, str(text)]}]}:
            pass
        case {"resultType": "vector", "result": []}:
            return None, "found nothing"
        case {"resultType": "vector", "result": [_, _, *rest]}:
            found = 2 + len(rest)
            return None, f"found {found} series, expected one: aggregate them, like sum()"
        case {"resultType": "string" | "matrix" as kind}:
            return None, f"yields a {kind}, expected one number"
        case _:
            raise Unanswered("the answer is not one of Prometheus's")
    try:
        value = float(text)
    except ValueError:
        raise Unanswered(f"the answer has {_short(text)!r} where a number belongs") from None
    return (None, "yields NaN") if math.isnan(value) else (value, "")


def _compared(asked: PrometheusQuery, value: float) -> Verdict:
    if asked.below is not None:
        is_met, bound = value < asked.below, f"below {asked.below:g}"
    else:
        assert asked.above is not None  # noqa: S101 - held by PrometheusQuery._one_side
        is_met, bound = value > asked.above, f"above {asked.above:g}"
    outcome = Outcome.PASS if is_met else Outcome.FAIL
    said = bound if is_met else f"not {bound}"
    return Verdict(outcome, f"yields {value:g}, {said}", {"value": value})


def _said(document: dict[str, Any]) -> Verdict:
    """What a webhook answered in so many words."""
    word = document.get("outcome")
    if word not in tuple(Outcome):
        raise Unanswered(
            f"the answer's outcome is {_short(repr(word))}, expected pass, fail or inconclusive"
        )
    reason = document.get("reason")
    said = f": {_short(reason)}" if isinstance(reason, str) and reason else ""
    return Verdict(Outcome(word), f"says {word}{said}")


def _short(text: str) -> str:
    return text if len(text) <= REASON_MAX_CHARS else text[: REASON_MAX_CHARS - 1] + "…"
