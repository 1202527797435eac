"""Experiments end to end: real classifiers, rewards that come late and not always, and a crash."""

import http.client
import json
import subprocess
import sys
import threading
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.serve.harness import Router, call, document, serving

pytestmark = pytest.mark.process

MODELS = ("cat-dog", "cat-dog-koala", "cat-dog-next")
"""The first has never seen three of the ten classes; both others are right almost always."""
WORST = "cat-dog"
DELAY = 30
"""Requests between an answer and its reward."""
LOSS = 0.1
BATCH = 10
KILL_AFTER = 120
"""Rewards acknowledged before everything is killed, in the middle of traffic."""
REQUESTS_MAX = 4000


@pytest.fixture(scope="module")
def models() -> Iterator[list[tuple[str, str]]]:
    """(name, URL) of three model servers."""
    pytest.importorskip("sklearn")
    with ExitStack() as stack:
        found: list[tuple[str, str]] = []
        for name in MODELS:
            command = [sys.executable, "-m", "router.demo.server", "--model", name]
            process = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE))
            stack.callback(process.terminate)
            assert process.stdout is not None
            found.append(
                (name, f"http://127.0.0.1:{json.loads(process.stdout.readline())['port']}")
            )
        yield found


class Client:
    """Sends images, and posts whether the answer was right: later, and not always."""

    def __init__(self) -> None:
        from router.demo import models

        _, held_out = models.load()
        self.random = Random(1)
        self.pictures = [
            (self._question(image.tolist()), int(label))
            for image, label in zip(held_out.images, held_out.labels, strict=True)
        ]
        self.waiting: deque[dict[str, Any]] = deque()
        self.variant_of: dict[str, str] = {}
        self.acknowledged: Counter[str] = Counter()
        self.unsure: Counter[str] = Counter()
        """Posted, and nobody answered."""

    @staticmethod
    def _question(image: list[float]) -> bytes:
        tensor = {"name": "image", "shape": [1, len(image)], "datatype": "FP32", "data": image}
        return json.dumps({"inputs": [tensor]}).encode()

    def step(self, router: Router) -> None:
        """One request, and the rewards that are due."""
        body, label = self.random.choice(self.pictures)
        answer = call(router.listen, "POST", "/v2/models/animals/infer", body)
        right = answer.json()["outputs"][0]["data"][0] == label
        receipt = answer.headers["x-router-receipt"]
        self.variant_of[receipt] = answer.headers["x-router-variant"]
        if self.random.random() >= LOSS:
            self.waiting.append({"receipt": receipt, "kpi": "right", "value": right})
        if len(self.waiting) >= DELAY + BATCH:
            self.post(router, [self.waiting.popleft() for _ in range(BATCH)])

    def post(self, router: Router, batch: list[dict[str, Any]]) -> None:
        variants = Counter(self.variant_of[item["receipt"]] for item in batch)
        self.unsure += variants
        answer = call(router.listen, "POST", "/-/feedback", batch)
        self.unsure -= variants
        assert answer.status == 200, answer.body
        assert answer.json()["accepted"] == BATCH, answer.body
        self.acknowledged += variants


def learned(router: Router) -> dict[str, int]:
    return {name: int(row["rewards"]) for name, row in router.route("animals")["learned"].items()}


def test_traffic_leaves_the_worst_model_and_a_crash_forgets_nothing_acknowledged(
    tmp_path: Path, models: list[tuple[str, str]]
) -> None:
    route = {
        "name": "animals",
        "match": {"path": "/v2/models/animals/"},
        "policy": {
            "type": "bandit",
            "variants": [{"backend": name} for name in MODELS],
            "reward": "right",
        },
        "kpis": {"right": {"type": "binary"}, "latency": {"source": "latency", "guardrail": True}},
    }
    config = document(models, workers=2, state=f"sqlite://{tmp_path}/state.db", routes=[route])
    client = Client()
    with serving(tmp_path, config) as router:
        with pytest.raises((OSError, http.client.HTTPException)):
            killer = None
            for _ in range(REQUESTS_MAX):
                if killer is None and sum(client.acknowledged.values()) >= KILL_AFTER:
                    killer = threading.Thread(target=router.kill)
                    killer.start()
                client.step(router)
        assert killer is not None
        killer.join()
    with serving(tmp_path, config) as router:
        found = learned(router)
        for name in MODELS:
            low = client.acknowledged[name]
            assert low <= found[name] <= low + client.unsure[name]
        uncounted = {name: found[name] - client.acknowledged[name] for name in MODELS}
        for step in range(REQUESTS_MAX):
            client.step(router)
            if step >= 100 and router.weights("animals")[WORST] < 0.05:
                break
        assert router.weights("animals")[WORST] < 0.05
        found = learned(router)
        assert found == {name: client.acknowledged[name] + uncounted[name] for name in MODELS}

        def report() -> Any:
            return call(router.admin, "GET", "/routes/animals/report").json()

        arms = {arm["variant"]: arm for arm in report()["kpis"][0]["whole"]["arms"]}
        assert {name: arm["n"] for name, arm in arms.items()} == found
        assert arms[WORST]["pooled"] < arms["cat-dog-next"]["pooled"]
        assert report()["is_learned"] is True
        measured = report()["kpis"][1]["whole"]["arms"]
        assert sum(arm["n"] for arm in measured) == sum(
            arm["exposed"]["requests"] for arm in measured
        )
        page = call(router.admin, "GET", "/routes/animals/report?format=md")
        assert page.headers["content-type"].startswith("text/markdown")
        router.stop()
