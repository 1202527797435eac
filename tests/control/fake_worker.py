"""A data process for tests: speaks the channel, writes down what it is told, answers connections.

A backend's name in the config makes it misbehave on `Prepare`: `refuse-me`, `hang`, `die`.
`--die-at-start` exits with status 7 before saying anything; `--deaf` does not leave when drained.
It reports every 0.1 s unless `--mute`.
"""

import argparse
import asyncio
import os
import socket
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson

from router.channel import Channel, Message, receive
from router.messages import (
    Commit,
    Committed,
    Drain,
    Drained,
    FeedbackRequest,
    FlushStats,
    Hello,
    Prepare,
    Prepared,
    Stats,
    TakeSlot,
)


class FakeWorker:
    def __init__(self, options: argparse.Namespace, end: socket.socket, slot: int) -> None:
        self.options = options
        self.end = end
        self.slot = slot
        listeners = [socket.socket(fileno=number) for number in options.listeners]
        self.listener = listeners.pop(slot)
        for other in listeners:
            other.close()
        self.journal = Path(options.journal) / f"{slot}.jsonl"
        self.channel: Channel | None = None
        self.server: asyncio.Server | None = None
        self.generation = 0
        self.ended = asyncio.Event()

    async def run(self) -> None:
        self.channel = await Channel.open(self.end, self.on_message, self.ended.set)
        self.channel.send(Hello(self.slot, os.getpid()))
        self.report()
        await self.ended.wait()

    def report(self) -> None:
        if not self.options.mute and self.channel is not None:
            self.channel.send(Stats(self.slot, 0))
            asyncio.get_running_loop().call_later(0.1, self.report)

    def on_message(self, message: Message) -> None:
        record: Any = message
        if not isinstance(message, FlushStats):
            with self.journal.open("ab") as journal:
                journal.write(orjson.dumps([type(message).__name__, asdict(record)]) + b"\n")
        asyncio.get_running_loop().create_task(self.act(message))

    async def act(self, message: Message) -> None:
        channel = self.channel
        assert channel is not None
        if isinstance(message, Prepare):
            backends = message.document["backends"]
            if "die" in backends:
                os._exit(9)
            if "hang" not in backends:
                error = "cannot build refuse-me" if "refuse-me" in backends else None
                channel.send(Prepared(message.generation, error))
        elif isinstance(message, Commit):
            self.generation = message.generation
            if self.server is None:
                self.server = await asyncio.start_server(self.greet, sock=self.listener)
            channel.send(Committed(message.generation))
        elif isinstance(message, FlushStats):
            counters: list[list[Any]] = [["pointsman_refused_total", ["no-route"], 2]]
            gauges = {"pointsman_requests_in_flight": 3.0}
            channel.send(Stats(self.slot, message.ticket, [], counters, gauges))
        elif isinstance(message, Drain) and not self.options.deaf:
            channel.send(Drained(self.slot, 1))
            channel.close()

    async def greet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = await reader.readline()
        if line == b"ask\n" and self.channel is not None:
            self.channel.send(FeedbackRequest(5, "application/json", "{}"))
        writer.write(b"%d %d\n" % (os.getpid(), self.generation))
        writer.close()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--journal", required=True)
    parser.add_argument("--die-at-start", action="store_true")
    parser.add_argument("--deaf", action="store_true")
    parser.add_argument("--mute", action="store_true")
    parser.add_argument("--channel", type=int, required=True)
    parser.add_argument("--listeners", type=_descriptors, required=True)
    parser.add_argument("--log-format", required=True)
    parser.add_argument("--log-level", required=True)
    options = parser.parse_args()
    if options.die_at_start:
        sys.exit(7)
    end = socket.socket(fileno=options.channel)
    message = receive(end)
    if isinstance(message, TakeSlot):
        asyncio.run(FakeWorker(options, end, message.worker).run())


def _descriptors(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


if __name__ == "__main__":
    main()
