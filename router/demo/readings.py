"""What the router and the shadow say of themselves: generation, weights, mirrored copies."""

from collections.abc import Mapping
from dataclasses import dataclass

import aiohttp
import orjson
from prometheus_client.parser import text_string_to_metric_families

from router.demo.processes import DemoError
from router.demo.routes import ANIMALS


@dataclass(frozen=True, slots=True)
class Reading:
    """`weights`: (route, variant) -> 0..1. `copies`: outcome -> shadow copies, by the router.

    `received` counts the copies that arrived, by the shadow itself.
    """

    generation: int
    weights: Mapping[tuple[str, str], float]
    copies: Mapping[str, int]
    received: int

    @property
    def answered(self) -> int:
        """Copies the router sent and saw answered."""
        return self.copies.get("answered", 0)


def read_metrics(text: str) -> tuple[dict[tuple[str, str], float], dict[str, int]]:
    """Weights by (route, variant), and shadow copies by outcome, out of the router's `/metrics`.

    Raises:
        ValueError: `text` is not in the Prometheus text format.
    """
    weights: dict[tuple[str, str], float] = {}
    copies: dict[str, int] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = sample.labels
            if sample.name == "pointsman_variant_weight":
                weights[labels["route"], labels["variant"]] = sample.value
            elif sample.name == "pointsman_shadow_requests_total":
                outcome = labels["outcome"]
                copies[outcome] = copies.get(outcome, 0) + int(sample.value)
    return weights, copies


class Instruments:
    """Where readings are taken: the router's admin API and the shadow's own model server."""

    def __init__(self, session: aiohttp.ClientSession, admin: str, shadow: str) -> None:
        """`admin` and `shadow` are `http://host:port`."""
        self._session = session
        self._admin = admin
        self._shadow_stats = f"{shadow}/v2/models/{ANIMALS.name}/stats"

    async def read(self) -> Reading:
        """One reading.

        Raises:
            DemoError: one of them does not answer, or not in the expected form.
        """
        status = await self._get(f"{self._admin}/status")
        metrics = await self._get(f"{self._admin}/metrics")
        stats = await self._get(self._shadow_stats)
        try:
            weights, copies = read_metrics(metrics.decode())
            generation: int = orjson.loads(status)["generation"]
            received: int = orjson.loads(stats)["model_stats"][0]["inference_count"]
        except (ValueError, LookupError, TypeError) as error:
            raise DemoError(f"a reading is not in the expected form: {error!r}") from error
        return Reading(generation, weights, copies, received)

    async def _get(self, url: str) -> bytes:
        try:
            async with self._session.get(url) as response:
                body = await response.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise DemoError(f"{url} does not answer: {error!r}") from error
        if response.status != 200:
            raise DemoError(f"{url} answers with status {response.status}")
        return body
