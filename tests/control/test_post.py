"""POSTs over real sockets: what is answered, what is said when nobody does."""

import asyncio
import socket

import pytest
from aiohttp import web

from router.control.post import ANSWER_MAX_BYTES, Answer, Poster, Unanswered
from tests.control.receiver import receiver


async def posted(url: str, timeout_s: float = 5.0) -> Answer:
    post = Poster("test")
    try:
        return await post(url, b"{}", {"content-type": "application/json"}, timeout_s)
    finally:
        await post.close()


async def test_a_body_is_posted_and_the_answer_comes_back() -> None:
    async with receiver() as there:
        there.answers = [web.Response(status=429, body=b"later", headers={"retry-after": "7"})]
        answer = await posted(f"{there.url}/a?b=c")
        assert answer == Answer(429, b"later", False, 7.0)
        [got] = there.posted
        assert (got.path, got.body) == ("/a", b"{}")
        assert got.headers["content-type"] == "application/json"
        assert got.headers["user-agent"].startswith("pointsman/")


async def test_a_long_answer_is_cut() -> None:
    async with receiver() as there:
        there.answers = [web.Response(body=b"x" * (ANSWER_MAX_BYTES + 1))]
        answer = await posted(there.url)
    assert (len(answer.body), answer.is_cut) == (ANSWER_MAX_BYTES, True)


async def test_redirects_are_not_followed() -> None:
    async with receiver() as there:
        there.answers = [web.Response(status=302, headers={"location": "/elsewhere"})]
        assert (await posted(there.url)).status == 302
        assert len(there.posted) == 1


@pytest.mark.parametrize("date", ["Fri, 31 Dec 1999 23:59:59 GMT", "-1", "1e9", "9" * 20])
async def test_a_retry_after_that_is_no_short_number_of_seconds_counts_as_none(date: str) -> None:
    async with receiver() as there:
        there.answers = [web.Response(status=503, headers={"retry-after": date})]
        assert (await posted(there.url)).retry_after_s == 0.0


async def test_a_silent_server_is_given_up_in_time() -> None:
    async def never(request: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    async with receiver() as there:
        there.answers = [never]
        with pytest.raises(Unanswered, match=r"^no answer within 0\.05 s$"):
            await posted(there.url, 0.05)


@pytest.mark.parametrize("path", ["/SECRET", "/?token=SECRET"])
async def test_an_error_never_shows_the_url(path: str, unused_tcp_port: int) -> None:
    with pytest.raises(Unanswered, match=r"^connection refused$") as caught:
        await posted(f"http://127.0.0.1:{unused_tcp_port}{path}")
    assert caught.value.__cause__ is None
    with pytest.raises(Unanswered, match=r"^no answer \(\w+\)$"):
        await posted(f"http://127.0.0.1:99999{path}")


async def test_a_connection_that_is_cut_is_no_answer() -> None:
    async def cut(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async with receiver() as there:
        there.answers = [cut]
        with pytest.raises(Unanswered):
            await posted(there.url)


async def test_a_broken_handshake_is_not_told_as_an_error_of_the_system() -> None:
    def answer(_: asyncio.StreamReader, to: asyncio.StreamWriter) -> None:
        to.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        to.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(Unanswered, match=r"^TLS failed \([A-Z_]+\)$"):
            await posted(f"https://127.0.0.1:{port}")


async def test_a_name_without_an_address_is_told_as_that(monkeypatch: pytest.MonkeyPatch) -> None:
    async def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "not known")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", unknown)
    with pytest.raises(Unanswered, match=r"^its name cannot be resolved$"):
        await posted("http://nobody.invalid")
