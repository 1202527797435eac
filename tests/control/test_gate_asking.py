"""What gates say: a real Prometheus's answers, a webhook's, and answers that are none."""

import asyncio
import contextlib
import hashlib
import hmac
import shutil
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
from aiohttp import web

from router.control.gate_asking import Asker
from router.control.gates import Context
from router.control.post import Poster, Unanswered
from router.rollouts.options import Gate
from router.rollouts.state import Outcome, Verdict
from tests.control.receiver import Receiver, receiver
from tests.control.support import eventually

CONTEXT = Context(
    "animals",
    "digest",
    "guard",
    (),
    {"old": "v1", "new": "v2", "phase": "baking", "step": 3, "weights": {"v1": 0.5, "v2": 0.5}},
)


def gate(**options: Any) -> Gate:
    return Gate.model_validate({"name": "slo", **options})


def query(url: str, promql: str, **bound: float) -> Gate:
    return gate(prometheus={"url": url, "query": promql, **bound})


async def asked(one: Gate) -> Verdict:
    post = Poster("test")
    try:
        return await Asker(post, lambda: 1_767_225_601.9)(one, CONTEXT)
    finally:
        await post.close()


# A real Prometheus


@contextlib.asynccontextmanager
async def prometheus(folder: Path) -> AsyncIterator[str]:
    """A Prometheus without targets on a free port: its URL."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("prometheus is not installed (Debian package prometheus)")
    (folder / "prometheus.yml").write_text("global: {scrape_interval: 1s}\n")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        program,
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=error",
    )
    url = f"http://127.0.0.1:{port}"
    try:
        async with aiohttp.ClientSession() as session:

            async def is_ready() -> bool:
                assert process.returncode is None, "prometheus ended"
                with contextlib.suppress(aiohttp.ClientError):
                    async with session.get(f"{url}/-/ready") as response:
                        return response.status == 200
                return False

            await eventually(is_ready, 60.0)
        yield url
    finally:
        process.terminate()
        await process.wait()


async def test_a_real_prometheus_is_asked_and_its_answer_compared(tmp_path: Path) -> None:
    async with prometheus(tmp_path) as url:
        for promql, bound, outcome, reason in [
            ("vector(0.5)", {"below": 1}, Outcome.PASS, "yields 0.5, below 1"),
            ("vector(0.5)", {"below": 0.5}, Outcome.FAIL, "yields 0.5, not below 0.5"),
            ("vector(0.5)", {"above": 0.2}, Outcome.PASS, "yields 0.5, above 0.2"),
            ("scalar(vector(3))", {"above": 4}, Outcome.FAIL, "yields 3, not above 4"),
            ("1/0", {"below": 1}, Outcome.FAIL, "yields inf, not below 1"),
            ("0/0", {"below": 1}, Outcome.INCONCLUSIVE, "yields NaN"),
            ("nothing", {"below": 1}, Outcome.INCONCLUSIVE, "found nothing"),
            (
                'label_replace(vector(1), "a", "b", "", "") or vector(2)',
                {"below": 1},
                Outcome.INCONCLUSIVE,
                "found 2 series, expected one: aggregate them, like sum()",
            ),
            (
                '"text"',
                {"below": 1},
                Outcome.INCONCLUSIVE,
                "yields a string, expected one number",
            ),
        ]:
            verdict = await asked(query(url, promql, **bound))
            assert (verdict.outcome, verdict.reason) == (outcome, reason), promql
        with pytest.raises(Unanswered, match="parse error"):
            await asked(query(url, "sum(", below=1))


async def test_a_value_is_kept_as_a_figure() -> None:
    data = {"resultType": "scalar", "result": [1.0, "0.25"]}
    answer = web.json_response({"status": "success", "data": data})
    async with receiver() as there:
        there.answers = [answer]
        verdict = await asked(query(there.url + "/prom/", "a b", below=1))
        assert verdict.figures == {"value": 0.25}
        [got] = there.posted
        assert got.path == "/prom/api/v1/query"
        assert got.body == b"query=a+b&timeout=5"


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"<html>", "status 200, and the answer is not a JSON object"),
        (b"[]", "not a JSON object"),
        (b'{"status": "error", "error": "too many samples"}', "^too many samples$"),
        (b'{"status": "error"}', "^status 200$"),
        (b'{"status": "success"}', "not one of Prometheus's"),
        (b'{"status": "success", "data": {"resultType": "scalar"}}', "not one of Prometheus's"),
        (
            b'{"status": "success", "data": {"resultType": "vector", "result": [{"value": 3}]}}',
            "not one of Prometheus's",
        ),
        (
            b'{"status": "success", "data": {"resultType": "scalar", "result": [1, "x"]}}',
            "'x' where a number belongs",
        ),
        (b'{"a": "' + b"x" * 70_000 + b'"}', "longer than 65536 bytes"),
    ],
)
async def test_what_is_no_answer_of_a_prometheus_is_an_error(answer: bytes, said: str) -> None:
    async with receiver() as there:
        there.answers = [web.Response(body=answer)]
        with pytest.raises(Unanswered, match=said):
            await asked(query(there.url, "up", below=1))


# Webhooks


async def told(there: Receiver, **options: Any) -> Verdict:
    return await asked(gate(webhook={"url": there.url + "/qa", **options}))


async def test_a_webhook_is_told_where_the_rollout_stands_and_the_post_is_signed() -> None:
    async with receiver() as there:
        await told(there, secret="0123456789abcdef")
        [got] = there.posted
    assert got.path == "/qa"
    assert orjson.loads(got.body) == {
        "version": 1,
        "gate": "slo",
        "route": "animals",
        "guard": "guard",
        "old": "v1",
        "new": "v2",
        "phase": "baking",
        "step": 3,
        "weights": {"v1": 0.5, "v2": 0.5},
    }
    digest = hmac.new(b"0123456789abcdef", b"1767225601." + got.body, hashlib.sha256).hexdigest()
    assert got.headers["x-pointsman-signature"] == f"t=1767225601,v1={digest}"


async def test_without_a_secret_nothing_is_signed() -> None:
    async with receiver() as there:
        await told(there)
        assert "x-pointsman-signature" not in there.posted[0].headers


@pytest.mark.parametrize(
    ("status", "body", "outcome", "reason"),
    [
        (200, b"", Outcome.PASS, "says pass"),
        (204, b"", Outcome.PASS, "says pass"),
        (200, b'{"outcome": "pass"}', Outcome.PASS, "says pass"),
        (
            201,
            b'{"outcome": "fail", "reason": "3 of 40 labels are wrong"}',
            Outcome.FAIL,
            "says fail: 3 of 40 labels are wrong",
        ),
        (
            200,
            b'{"outcome": "inconclusive", "reason": 7}',
            Outcome.INCONCLUSIVE,
            "says inconclusive",
        ),
    ],
)
async def test_a_webhook_says_pass_fail_or_inconclusive(
    status: int, body: bytes, outcome: Outcome, reason: str
) -> None:
    async with receiver() as there:
        there.answers = [web.Response(status=status, body=body)]
        assert await told(there) == Verdict(outcome, reason)


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (302, b'{"outcome": "pass"}', "^status 302$"),
        (404, b'{"outcome": "pass"}', "^status 404$"),
        (503, b"", "^status 503$"),
        (200, b"OK", "not a JSON object"),
        (200, b"{}", "outcome is None, expected pass, fail or inconclusive"),
        (200, b'{"outcome": ["pass"]}', r"outcome is \['pass'\], expected"),
    ],
)
async def test_every_other_answer_of_a_webhook_is_an_error(
    status: int, body: bytes, said: str
) -> None:
    async with receiver() as there:
        there.answers = [web.Response(status=status, body=body)]
        with pytest.raises(Unanswered, match=said):
            await told(there)


async def test_a_long_reason_is_cut() -> None:
    async with receiver() as there:
        there.answers = [web.json_response({"outcome": "fail", "reason": "x" * 1000})]
        assert len((await told(there)).reason) < 350
