"""requests, httpx and aiohttp through the router: what they rely on besides plain requests."""

import asyncio
import gzip
import io
import os
import zlib
from collections.abc import Iterator
from typing import Any

import aiohttp
import httpx
import pytest
import requests

from tests.clients.model_server import PIECE, ModelServer

pytestmark = pytest.mark.process
MIB = 1024 * 1024


def pieces(count: int) -> Iterator[bytes]:
    for _ in range(count):
        yield PIECE


# requests


def test_requests_reuses_its_connection_and_so_does_the_router(
    url: str, model: ModelServer
) -> None:
    model.connections.clear()
    with requests.Session() as session:
        for _ in range(20):
            assert session.get(f"{url}/seen").status_code == 200
        (pool,) = session.get_adapter(url).poolmanager.pools._container.values()  # type: ignore[attr-defined]  # stubs know no pools
        assert pool.num_connections == 1
    assert len(model.connections) == 1


def test_requests_uploads_a_body_of_unknown_length(url: str) -> None:
    seen = requests.post(f"{url}/seen", data=pieces(64), timeout=30).json()
    assert seen["headers"]["transfer-encoding"] == "chunked"
    assert (seen["body_bytes"], seen["body_crc"]) == (64 * len(PIECE), zlib.crc32(PIECE * 64))


def test_requests_gets_compressed_bodies_as_they_were(url: str) -> None:
    answer = requests.get(f"{url}/gzip", timeout=30)
    assert answer.headers["content-encoding"] == "gzip"
    assert answer.json() == {"text": "compressed " * 1000}


def test_requests_keeps_two_cookies_apart_and_sends_them_back(url: str) -> None:
    with requests.Session() as session:
        session.get(f"{url}/cookies")
        seen = session.get(f"{url}/seen").json()
    assert seen["cookies"] == {"one": "1", "two": "2, with a comma"}


def test_requests_follows_a_redirect_with_method_and_body(url: str) -> None:
    answer = requests.put(f"{url}/moved", data=b"again", timeout=30)
    assert (answer.content, [old.status_code for old in answer.history]) == (b"again", [307])
    assert answer.url == f"{url}/echo"


def test_requests_posts_files_as_a_form(url: str) -> None:
    content = os.urandom(200_000)
    answer = requests.post(f"{url}/echo", files={"image": ("a.png", content)}, timeout=30)
    assert content in answer.content
    assert answer.headers["content-type"].startswith("multipart/form-data; boundary=")


@pytest.mark.parametrize("target", ["/seen?a=%2F&b=%C3%A9&c", "/seen?x=1+2;y", "/%73een"])
def test_targets_arrive_as_they_were_sent(url: str, target: str) -> None:
    with httpx.Client() as client:  # writes targets as they are
        assert client.get(url + target).json()["target"] == target


@pytest.mark.parametrize("code", [204, 304, 404, 500])
def test_an_answer_without_a_body_leaves_the_connection_usable(url: str, code: int) -> None:
    with requests.Session() as session:
        assert session.get(f"{url}/status/{code}").status_code == code
        assert session.get(f"{url}/echo", data=b"next").content == b"next"


def test_head_gets_the_length_and_no_body(url: str) -> None:
    with requests.Session() as session:
        answer = session.head(f"{url}/bytes?n=3")
        assert (answer.headers["content-length"], answer.content) == (str(3 * len(PIECE)), b"")
        assert session.get(f"{url}/bytes?n=1").content == PIECE


# httpx


@pytest.mark.parametrize("chunked", ["", "&chunked=1"])
def test_httpx_streams_32_mebibytes(url: str, chunked: str) -> None:
    crc = length = 0
    with httpx.stream("GET", f"{url}/bytes?n=512{chunked}", timeout=30) as answer:
        assert ("content-length" in answer.headers) == (not chunked)
        for piece in answer.iter_raw():
            crc = zlib.crc32(piece, crc)
            length += len(piece)
    assert (length, crc) == (32 * MIB, zlib.crc32(PIECE * 512))


def test_httpx_leaves_a_stream_early_and_goes_on(url: str) -> None:
    with httpx.Client(timeout=30) as client:
        for _ in range(5):
            with client.stream("GET", f"{url}/bytes?n=1000") as answer:
                assert next(answer.iter_raw()).startswith(PIECE[:100])
        assert client.post(f"{url}/echo", content=b"fine").content == b"fine"


async def test_httpx_makes_100_requests_at_once(url: str) -> None:
    async with httpx.AsyncClient(timeout=30, limits=httpx.Limits(max_connections=100)) as client:
        asked = [client.post(f"{url}/echo", content=b"%d" % i) for i in range(100)]
        answers = await asyncio.gather(*asked)
    assert [answer.content for answer in answers] == [b"%d" % i for i in range(100)]


def test_httpx_sends_a_compressed_body_that_the_server_understands(url: str) -> None:
    body = gzip.compress(b"x" * 100_000)
    headers = {"content-encoding": "gzip"}
    assert httpx.post(f"{url}/echo", content=body, headers=headers).content == b"x" * 100_000


# aiohttp


async def test_aiohttp_waits_for_100_continue_before_it_sends(url: str) -> None:
    async with aiohttp.ClientSession() as session:
        body = b"x" * (2 * MIB)
        async with session.post(f"{url}/echo", data=io.BytesIO(body), expect100=True) as answer:
            assert (answer.status, await answer.read()) == (200, body)


async def test_aiohttp_hears_a_refusal_instead_of_100_continue(url: str) -> None:
    async with aiohttp.ClientSession() as session:
        for _ in range(3):
            async with session.post(f"{url}/unwanted", data=b"x" * MIB, expect100=True) as answer:
                assert (answer.status, await answer.text()) == (403, "not wanted")


async def test_aiohttp_uploads_and_downloads_8_mebibytes(url: str) -> None:
    body = os.urandom(8 * MIB)
    async with (
        aiohttp.ClientSession() as session,
        session.put(f"{url}/echo", data=io.BytesIO(body)) as answer,
    ):
        assert await answer.read() == body


async def test_aiohttp_sends_500_requests_over_200_connections(url: str) -> None:
    connector = aiohttp.TCPConnector(limit=200)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def ask(number: int) -> bool:
            async with session.post(f"{url}/echo", data=b"%d" % number) as answer:
                return await answer.read() == b"%d" % number

        assert all(await asyncio.gather(*(ask(number) for number in range(500))))


async def test_aiohttp_uploads_2000_chunks_in_order(url: str) -> None:
    async def body() -> Any:
        for number in range(2000):
            yield b"%d," % number

    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{url}/echo", data=body()) as answer,
    ):
        assert await answer.read() == b"".join(b"%d," % number for number in range(2000))
