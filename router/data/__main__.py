"""A worker process: `python -m router.data --channel FD --listeners FD,FD,...`.

Started by control, which holds the other end of the channel and copies of the listeners. Until the
first message, `TakeSlot`, it is a spare: everything is imported, and nothing runs.
"""

import argparse
import asyncio
import gc
import signal
import socket
from contextlib import suppress
from pathlib import Path
from typing import Final

import uvloop

from router import logs
from router.channel import receive
from router.data.worker import Worker
from router.messages import TakeSlot

_OOM_SCORE: Final = Path("/proc/self/oom_score_adj")
_OOM_SCORE_MORE: Final = 100
"""Out of memory, the kernel kills a worker before control. It takes this for a tenth of memory."""


def main() -> None:
    """Run one worker until it is drained."""
    parser = argparse.ArgumentParser(prog="router.data")
    parser.add_argument("--channel", type=int, required=True)
    parser.add_argument("--listeners", type=_descriptors, required=True)
    parser.add_argument("--log-format", default="readable")
    parser.add_argument("--log-level", default="info")
    options = parser.parse_args()
    # a terminal's Ctrl-C reaches every process of the group: only control acts on it
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    _offer_to_die_first()
    # what was imported never becomes garbage; requests make no cycles, so collect rarely
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    channel_end = socket.socket(fileno=options.channel)
    slot = receive(channel_end)
    if not isinstance(slot, TakeSlot):  # control is gone
        return
    number = slot.worker
    logs.configure(options.log_format, options.log_level, process=f"worker-{number}")
    listeners = [socket.socket(fileno=descriptor) for descriptor in options.listeners]
    listener = listeners.pop(number)
    for other in listeners:
        other.close()
    uvloop.run(_serve(number, listener, channel_end))


def _descriptors(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def _offer_to_die_first() -> None:
    with suppress(OSError, ValueError):  # no such file, or it may not be written
        score = int(_OOM_SCORE.read_text()) + _OOM_SCORE_MORE
        _OOM_SCORE.write_text(str(min(score, 1000)))


async def _serve(number: int, listener: socket.socket, channel_end: socket.socket) -> None:
    worker = Worker(number, listener, channel_end)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, worker.departure.leave)
    await worker.run()


if __name__ == "__main__":
    main()
