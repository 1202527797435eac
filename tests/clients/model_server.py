"""A model server on aiohttp, for real clients: what they do besides plain requests, and two APIs.

Runs in a thread with a loop of its own. Speaks enough of the OpenAI chat API and of the Open
Inference Protocol v2 (with Triton's binary tensors) for their own clients to be content.
"""

import asyncio
import json
import threading
import zlib
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import numpy as np
from aiohttp import web

PIECE = bytes(range(256)) * 256
"""64 KiB; what large downloads are made of."""
GATE_TIMEOUT_S = 30.0


class ModelServer:
    """A running server.

    | path | what it does |
    |---|---|
    | `/echo` | answers with the request's body and its content type |
    | `/seen` | tells how the request looked, as JSON |
    | `/bytes?n=N` | answers N times `PIECE`, `&chunked=1` without a length |
    | `/gzip` | answers compressed JSON |
    | `/cookies` | sets two cookies |
    | `/moved` | redirects to `/echo`, method and body kept |
    | `/unwanted` | answers 403 instead of `100 Continue` |
    | `/status/CODE` | answers CODE, without a body |
    """

    def __init__(self) -> None:
        self.url = ""
        self.connections: set[object] = set()
        """Of requests to `/seen`: the peer's address, so that reuse can be seen."""
        self._gate = threading.Semaphore(0)

    def let(self) -> None:
        """Let the next piece of a gated stream go."""
        self._gate.release()

    def app(self) -> web.Application:
        app = web.Application(client_max_size=2**30)
        app.router.add_route("*", "/echo", _echo)
        app.router.add_route("*", "/seen", self._seen)
        app.router.add_get("/bytes", _bytes)
        app.router.add_get("/gzip", _gzip)
        app.router.add_get("/cookies", _cookies)
        app.router.add_route("*", "/moved", _moved)
        app.router.add_route("*", "/unwanted", _echo, expect_handler=_unwanted)
        app.router.add_route("*", "/status/{code}", _status)
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_get("/v2/health/live", _ok)
        app.router.add_get("/v2/models/double/ready", _ok)
        app.router.add_get("/v2/models/double", _metadata)
        app.router.add_post("/v2/models/double/infer", _infer)
        return app

    async def _seen(self, request: web.Request) -> web.Response:
        assert request.transport is not None
        self.connections.add(request.transport.get_extra_info("peername"))
        body = await request.read()
        seen = {
            "method": request.method,
            "target": request.raw_path,
            "version": f"{request.version.major}.{request.version.minor}",
            "headers": {name.lower(): value for name, value in request.headers.items()},
            "cookies": dict(request.cookies),
            "body_bytes": len(body),
            "body_crc": zlib.crc32(body),
        }
        return web.json_response(seen)

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        """Says the last message back word by word; with `stream`, each once the gate lets it."""
        asked = await request.json()
        words = asked["messages"][-1]["content"].split()
        common = {"id": "chatcmpl-1", "created": 1, "model": asked["model"]}
        if not asked.get("stream"):
            message = {"role": "assistant", "content": " ".join(words)}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            return web.json_response({**common, "object": "chat.completion", "choices": [choice]})
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        loop = asyncio.get_running_loop()
        for word in words:
            assert await loop.run_in_executor(None, self._gate.acquire, True, GATE_TIMEOUT_S)
            choice = {"index": 0, "delta": {"content": word}, "finish_reason": None}
            piece = {**common, "object": "chat.completion.chunk", "choices": [choice]}
            await response.write(b"data: %b\n\n" % json.dumps(piece).encode())
        await response.write(b"data: [DONE]\n\n")
        await response.write_eof()
        return response


async def _ok(_: web.Request) -> web.Response:
    return web.Response()


async def _echo(request: web.Request) -> web.Response:
    content_type = request.headers.get("content-type", "application/octet-stream")
    return web.Response(body=await request.read(), headers={"content-type": content_type})


async def _bytes(request: web.Request) -> web.StreamResponse:
    count = int(request.query["n"])
    response = web.StreamResponse()
    if "chunked" not in request.query:
        response.content_length = count * len(PIECE)
    await response.prepare(request)
    for _ in range(count if request.method == "GET" else 0):
        await response.write(PIECE)
    await response.write_eof()
    return response


async def _gzip(request: web.Request) -> web.Response:
    response = web.json_response({"text": "compressed " * 1000})
    response.enable_compression(web.ContentCoding.gzip)
    return response


async def _cookies(_: web.Request) -> web.Response:
    response = web.Response()
    response.set_cookie("one", "1")
    response.set_cookie("two", "2, with a comma", path="/")
    return response


async def _moved(request: web.Request) -> web.Response:
    await request.read()
    return web.Response(status=307, headers={"location": "/echo"})


async def _unwanted(_: web.Request) -> web.Response:
    return web.Response(status=403, text="not wanted")


async def _status(request: web.Request) -> web.Response:
    return web.Response(status=int(request.match_info["code"]))


async def _metadata(_: web.Request) -> web.Response:
    tensor = {"datatype": "FP32", "shape": [-1]}
    return web.json_response(
        {
            "name": "double",
            "versions": ["1"],
            "platform": "python",
            "inputs": [{"name": "IN", **tensor}],
            "outputs": [{"name": "OUT", **tensor}],
        }
    )


async def _infer(request: web.Request) -> web.Response:
    """Doubles tensor IN; JSON or binary on either side, as the client asks."""
    body = await request.read()
    length = "Inference-Header-Content-Length"
    head_bytes = int(request.headers.get(length, len(body)))
    head = json.loads(body[:head_bytes])
    (tensor,) = head["inputs"]
    if "data" in tensor:
        values = np.array(tensor["data"], dtype=np.float32)
    else:
        values = np.frombuffer(body[head_bytes:], dtype=np.float32)
    doubled = values * np.float32(2)
    asked = head.get("outputs", [{}])[0].get("parameters", {})
    is_binary = asked.get("binary_data", head.get("parameters", {}).get("binary_data_output"))
    output: dict[str, Any] = {"name": "OUT", "datatype": "FP32", "shape": tensor["shape"]}
    answer = {"model_name": "double", "model_version": "1", "outputs": [output]}
    if not is_binary:
        output["data"] = doubled.tolist()
        return web.json_response(answer)
    raw = doubled.tobytes()
    output["parameters"] = {"binary_data_size": len(raw)}
    start = json.dumps(answer).encode()
    headers = {length: str(len(start)), "content-type": "application/octet-stream"}
    return web.Response(body=start + raw, headers=headers)


@asynccontextmanager
async def _listening(server: ModelServer) -> AsyncIterator[None]:
    runner = web.AppRunner(server.app(), access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, backlog=1024)
    await site.start()
    host, port = runner.addresses[0][:2]
    server.url = f"http://{host}:{port}"
    try:
        yield
    finally:
        await runner.cleanup()


@contextmanager
def in_thread(
    serve: Callable[[threading.Event, asyncio.Event], Coroutine[Any, Any, None]],
) -> Iterator[None]:
    """Run `serve` in a thread until the end: it tells that it is ready, and awaits the end."""
    ready = threading.Event()
    ended = asyncio.Event()
    loop = asyncio.new_event_loop()

    def run() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(serve(ready, ended))

    thread = threading.Thread(target=run)
    thread.start()
    assert ready.wait(GATE_TIMEOUT_S)
    try:
        yield
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join()


@contextmanager
def model_server() -> Iterator[ModelServer]:
    """A running server."""
    server = ModelServer()

    async def serve(ready: threading.Event, ended: asyncio.Event) -> None:
        async with _listening(server):
            ready.set()
            await ended.wait()

    with in_thread(serve):
        yield server
