"""The worker process: started with inherited descriptors, as control does."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from router.channel import Channel
from router.messages import (
    Commit,
    Committed,
    Drain,
    Drained,
    Hello,
    Prepare,
    Prepared,
    TakeSlot,
)
from tests.data.harness import Lab, Wire, document, eventually, request


class Process:
    """`python -m router.data`, and its control, played by the test."""

    def __init__(self) -> None:
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        listener.listen(16)
        self.port: int = listener.getsockname()[1]
        self.ours, theirs = socket.socketpair()
        with closing(listener), closing(theirs):
            descriptors = (theirs.fileno(), listener.fileno())
            command = [sys.executable, "-m", "router.data"]
            command += ["--channel", str(descriptors[0]), "--listeners", str(descriptors[1])]
            self.popen = subprocess.Popen(command, pass_fds=descriptors)
        self.messages: list[Any] = []

    async def serve(self, config: dict[str, Any]) -> Channel:
        channel = await Channel.open(self.ours, self.messages.append, lambda: None)
        channel.send(TakeSlot(0))
        await self.came(Hello)
        channel.send(Prepare(1, config, {}, {}, ""))
        await self.came(Prepared)
        channel.send(Commit(1))
        await self.came(Committed)
        return channel

    async def came(self, kind: type[Any]) -> Any:
        await eventually(lambda: any(isinstance(item, kind) for item in self.messages))
        return next(item for item in self.messages if isinstance(item, kind))

    async def ended(self) -> int:
        await eventually(lambda: self.popen.poll() is not None)
        return self.popen.returncode


@pytest.fixture
def process() -> Iterator[Process]:
    process = Process()
    yield process
    process.popen.kill()
    process.popen.wait()
    process.ours.close()


@pytest.mark.process
@pytest.mark.parametrize("by", ["Drain", "SIGTERM"])
async def test_a_worker_process_serves_and_leaves_when_told(
    lab: Lab, process: Process, by: str
) -> None:
    channel = await process.serve(document(await lab.answering()))
    assert (await process.came(Hello)) == Hello(0, process.popen.pid)
    wire = Wire(*await asyncio.open_connection("127.0.0.1", process.port))
    wire.send(request())
    assert (await wire.message()).body == b"ok"
    if by == "Drain":
        channel.send(Drain(0.0, 5.0))
    else:
        os.kill(process.popen.pid, signal.SIGTERM)
    assert await wire.end() == b""
    assert await process.came(Drained) == Drained(0, 0)
    assert await process.ended() == 0
    wire.close()
    channel.close()
