"""Sides that stop taking bytes in the middle: some clock runs, and memory is bounded."""

import asyncio

import pytest

from tests.data.harness import Lab, Wire, document, eventually, request, response, soon

SMALL_BUFFER = 16 * 1024
LONG_BYTES = 30_000_000


@pytest.mark.parametrize(
    "framing", [b"content-length: %d" % LONG_BYTES, b"transfer-encoding: chunked"]
)
async def test_an_endpoint_that_stops_taking_an_upload_is_given_up(
    lab: Lab, framing: bytes
) -> None:
    stopped = asyncio.Event()

    async def script(wire: Wire) -> None:
        await wire.head()
        await stopped.wait()

    origin = await lab.origin(script, send_buffer=SMALL_BUFFER)
    await lab.start(document(origin, timeout={"idle": "200ms"}))
    client = await lab.client()
    body = bytes(LONG_BYTES)
    if b"chunked" in framing:
        body = b"%x\r\n" % LONG_BYTES + body
    client.send(request(b"POST", b"/", None, framing), body)
    got = await client.message()
    assert (got.status, got.problem()) == (504, "upstream-idle-timeout")
    stopped.set()
    client.reset()


async def test_a_client_that_takes_nothing_while_its_endpoint_takes_nothing_is_given_up(
    lab: Lab,
) -> None:
    """Each waits for the other: the endpoint answers while it is sent to, and nobody reads that."""
    is_over = asyncio.Event()

    async def script(wire: Wire) -> None:
        await wire.head()
        wire.send(response(bytes(LONG_BYTES)))
        await is_over.wait()

    origin = await lab.origin(script, send_buffer=SMALL_BUFFER)
    config = document(origin)
    router = await lab.start({**config, "downstream": {"body_timeout": "200ms"}})
    client = await lab.client(receive_buffer=SMALL_BUFFER)
    client.send(request(b"POST", b"/", None, b"content-length: %d" % LONG_BYTES), bytes(LONG_BYTES))
    await eventually(lambda: router.worker.in_flight == 1)
    await eventually(lambda: router.worker.in_flight == 0)
    is_over.set()


async def test_a_client_that_took_nothing_before_its_endpoint_was_found_stops_that_too(
    lab: Lab,
) -> None:
    """It stopped between two of its requests, when there was no connection to stop."""

    async def script(wire: Wire) -> None:
        await wire.message()
        wire.send(response(bytes(LONG_BYTES)))

    origin = await lab.origin(script, send_buffer=SMALL_BUFFER)
    router = await lab.start(document(origin))
    client = await lab.client(receive_buffer=SMALL_BUFFER)
    await eventually(lambda: router.connections)
    (connection,) = router.connections
    for _ in range(100):
        connection.write(bytes(60_000))  # more than the kernel takes, and not sent at once
    connection.data_received(request())  # read in the same batch of events
    await eventually(lambda: connection.handler and connection.handler.upstream)  # type: ignore[union-attr, attr-defined]  # an exchange
    upstream = connection.handler.upstream  # type: ignore[union-attr]  # as above
    await eventually(lambda: not upstream.transport.is_reading())
    assert upstream.transport.get_write_buffer_size() == 0
    assert connection.transport.get_write_buffer_size() < 100 * 60_000 + 1_000_000
    client.reset()


async def test_a_client_that_sends_on_after_its_last_request_gets_the_answer_whole(
    lab: Lab,
) -> None:
    """A close with unread bytes would reset the connection and take the answer away."""
    body = bytes(200_000)
    config = document(await lab.answering(response(body)))
    await lab.start({**config, "downstream": {"requests": 2}})
    client = await lab.client(receive_buffer=SMALL_BUFFER)
    client.send(request() * 100_000)
    for _ in range(2):
        got = await client.message()
        assert got.body == body
    assert got.field("connection") == "close"
    assert await soon(client.end()) == b""
