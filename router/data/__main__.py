"""A worker process: `python -m router.data --worker N --channel FD --listener FD`.

Started by control, which holds the other end of the channel and a copy of the listener.
"""

import argparse
import asyncio
import gc
import signal
import socket

import uvloop

from router import logs
from router.data.worker import Worker


def main() -> None:
    """Run one worker until it is drained."""
    parser = argparse.ArgumentParser(prog="router.data")
    parser.add_argument("--worker", type=int, required=True)
    parser.add_argument("--channel", type=int, required=True)
    parser.add_argument("--listener", type=int, required=True)
    parser.add_argument("--log-format", default="readable")
    parser.add_argument("--log-level", default="info")
    options = parser.parse_args()
    logs.configure(options.log_format, options.log_level, process=f"worker-{options.worker}")
    # a terminal's Ctrl-C reaches every process of the group: only control acts on it
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    # what was imported never becomes garbage; requests make no cycles, so collect rarely
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    listener = socket.socket(fileno=options.listener)
    channel_end = socket.socket(fileno=options.channel)
    uvloop.run(_serve(options.worker, listener, channel_end))


async def _serve(number: int, listener: socket.socket, channel_end: socket.socket) -> None:
    worker = Worker(number, listener, channel_end)
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, lambda: worker.start_drain(0.0, 30.0))
    await worker.run()


if __name__ == "__main__":
    main()
