import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from router.config.health import HealthCheck
from router.control.probe import BODY_MAX_BYTES, EndpointProbe, Target


class Origin:
    """A server that answers every connection with the same bytes, or never; keeps what it heard."""

    def __init__(self, answer: bytes | None) -> None:
        self.answer = answer
        self.heads: list[bytes] = []
        self.connections = 0
        self._served: list[asyncio.Task[None]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._served.append(asyncio.create_task(self._serve(reader, writer)))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            self.heads.append(await reader.readuntil(b"\r\n\r\n"))
            if self.answer is None:
                await reader.read()
            else:
                writer.write(self.answer)
        except asyncio.IncompleteReadError:
            pass  # a check that only connects
        writer.close()
        await writer.wait_closed()

    async def settle(self) -> None:
        await asyncio.gather(*self._served, return_exceptions=True)

    port = 0


@asynccontextmanager
async def origin(answer: bytes | None) -> AsyncIterator[Origin]:
    served = Origin(answer)
    server = await asyncio.start_server(served.serve, "127.0.0.1", 0)
    served.port = server.sockets[0].getsockname()[1]
    async with server:
        yield served
    await served.settle()


async def probe(url: str, **check: Any) -> str | None:
    """The result of one check."""
    target = Target("v1", url, HealthCheck.model_validate({"timeout": "1s", **check}))
    prober = EndpointProbe()
    try:
        return await prober(target)
    finally:
        await prober.close()


def answer(status: str, body: bytes = b"") -> bytes:
    return b"HTTP/1.1 %b\r\ncontent-length: %d\r\n\r\n%b" % (status.encode(), len(body), body)


@pytest.mark.parametrize(
    ("status", "expected", "failure"),
    [
        ("200 OK", None, None),
        ("302 Found", None, None),
        ("404 Not Found", None, "status 404"),
        ("503 No", None, "status 503"),
        ("204 No Content", [200], "status 204"),
        ("404 Not Found", [200, "400-404"], None),
    ],
)
async def test_the_status_decides(
    status: str, expected: list[int | str] | None, failure: str | None
) -> None:
    check = {} if expected is None else {"status": expected}
    async with origin(answer(status)) as server:
        assert await probe(server.url, path="/ready", **check) == failure
    assert server.heads[0].startswith(b"GET /ready HTTP/1.1\r\n")


@pytest.mark.parametrize(
    ("body", "failure"),
    [
        (b'{"status": "ready"}', None),
        (b"x" * (BODY_MAX_BYTES - 5) + b"ready" + b"x" * 10, None),
        (b'{"status": "loading"}', "the body is not as expected"),
        (b"", "the body is not as expected"),
        (b"x" * BODY_MAX_BYTES + b"ready", "the body is not as expected"),
    ],
)
async def test_a_body_must_hold_what_is_asked_for(body: bytes, failure: str | None) -> None:
    async with origin(answer("200 OK", body)) as server:
        assert await probe(server.url, path="/", body="rea.y") == failure


async def test_the_target_goes_out_as_it_is_written() -> None:
    async with origin(answer("200 OK")) as server:
        await probe(server.url, path="/a%2Fb//c?x=%7E&y='", host="models.example:81")
    head = server.heads[0].decode().lower()
    assert head.startswith("get /a%2fb//c?x=%7e&y=' http/1.1\r\n")
    assert "\r\nhost: models.example:81\r\n" in head
    assert "\r\naccept-encoding: identity\r\n" in head


async def test_an_endpoint_that_accepts_passes_a_check_that_only_connects() -> None:
    async with origin(None) as server:
        assert await probe(server.url, tcp=True) is None
    assert (server.connections, server.heads) == (1, [])


async def test_a_check_may_have_a_port_of_its_own() -> None:
    async with origin(answer("200 OK")) as server:
        assert await probe("http://127.0.0.1:1", path="/", port=server.port) is None
        assert await probe("http://127.0.0.1:1", tcp=True, port=server.port) is None
    assert server.connections == 2


async def test_an_answer_that_does_not_come_in_time_is_a_failure() -> None:
    async with origin(None) as server:
        assert await probe(server.url, path="/", timeout="200ms") == "no answer within 0.2 s"
    slow_body = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nread"
    async with origin(slow_body) as server:
        assert await probe(server.url, path="/", body="ready", timeout="200ms")


@pytest.mark.parametrize("garbage", [b"", b"garbage\r\n\r\n"])
async def test_what_is_no_http_fails_with_a_reason(garbage: bytes) -> None:
    async with origin(garbage) as server:
        assert await probe(server.url, path="/")


@pytest.mark.parametrize("check", [{"path": "/ready"}, {"tcp": True}])
async def test_a_refused_connection_fails_with_a_reason(check: dict[str, Any]) -> None:
    assert await probe("http://127.0.0.1:1", **check) == "connection refused"
    assert await probe("http://nobody.invalid", **check)
