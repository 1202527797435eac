"""Readings of the router and the shadow."""

from collections.abc import AsyncIterator

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer

from router.demo.processes import DemoError
from router.demo.readings import Instruments, Reading, read_metrics

METRICS = """\
# HELP pointsman_variant_weight Weight.
# TYPE pointsman_variant_weight gauge
pointsman_variant_weight{route="animals",variant="cat-dog"} 0.9
pointsman_variant_weight{route="animals",variant="cat-dog-koala"} 0.1
# HELP pointsman_shadow_requests_total Mirrored requests by outcome.
# TYPE pointsman_shadow_requests_total counter
pointsman_shadow_requests_total{route="animals",backend="cat-dog-next",outcome="answered"} 41.0
pointsman_shadow_requests_total{route="animals",backend="other",outcome="answered"} 1.0
pointsman_shadow_requests_total{route="animals",backend="cat-dog-next",outcome="failed"} 2.0
# HELP other_total Other.
# TYPE other_total counter
other_total 7.0
"""
WEIGHTS = {("animals", "cat-dog"): 0.9, ("animals", "cat-dog-koala"): 0.1}
COPIES = {"answered": 42, "failed": 2}


def test_weights_and_copies_are_read_from_the_metrics() -> None:
    assert read_metrics(METRICS) == (WEIGHTS, COPIES)


class Pages:
    """What the admin API and the shadow answer, by path."""

    def __init__(self) -> None:
        self.texts = {
            "/status": '{"generation": 3}',
            "/metrics": METRICS,
            "/v2/models/animals/stats": '{"model_stats": [{"inference_count": 44}]}',
        }

    async def answer(self, request: web.Request) -> web.Response:
        text = self.texts.get(request.path)
        return web.Response(status=503) if text is None else web.Response(text=text)


@pytest.fixture
def pages() -> Pages:
    return Pages()


@pytest.fixture
async def instruments(pages: Pages) -> AsyncIterator[Instruments]:
    application = web.Application()
    application.router.add_get("/{path:.*}", pages.answer)
    async with TestServer(application) as server, ClientSession() as session:
        url = str(server.make_url("")).rstrip("/")
        yield Instruments(session, url, url)


async def test_a_reading_takes_all_sources_together(instruments: Instruments) -> None:
    reading = await instruments.read()
    assert reading == Reading(3, WEIGHTS, COPIES, 44)
    assert reading.answered == 42


@pytest.mark.parametrize("path", ["/status", "/metrics", "/v2/models/animals/stats"])
async def test_a_source_that_fails_is_named(
    instruments: Instruments, pages: Pages, path: str
) -> None:
    del pages.texts[path]
    with pytest.raises(DemoError, match=f"{path} answers with status 503"):
        await instruments.read()


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/status", "[]"),
        ("/status", "{}"),
        ("/status", "<html>"),
        ("/metrics", "{"),
        ("/v2/models/animals/stats", '{"model_stats": []}'),
    ],
)
async def test_a_source_that_says_something_else_is_an_error(
    instruments: Instruments, pages: Pages, path: str, text: str
) -> None:
    pages.texts[path] = text
    with pytest.raises(DemoError, match="not in the expected form"):
        await instruments.read()


async def test_a_source_that_is_not_there_is_named(unused_tcp_port: int) -> None:
    url = f"http://127.0.0.1:{unused_tcp_port}"
    async with ClientSession() as session:
        with pytest.raises(DemoError, match=f"{url}/status does not answer"):
            await Instruments(session, url, url).read()
