"""News for systemd, in its notify protocol (sd_notify(3)): datagrams to `$NOTIFY_SOCKET`.

Without that variable every call does nothing. What is sent is a few lines of `NAME=value`; nothing
is waited for, and a service manager that does not listen is no reason to fail.
"""

import asyncio
import logging
import os
import socket
import time
from collections.abc import Mapping
from typing import Final

_MICROSECONDS: Final = 1_000_000

log = logging.getLogger(__name__)


class Notifier:
    """Speaks to the service manager named in `env`, if there is one."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._address = _address(env.get("NOTIFY_SOCKET", ""))
        self.watchdog_s = _watchdog_s(env) if self._address else 0.0
        """Within this time it must hear from us, or it kills us; 0: it does not watch."""

    def ready(self, status: str) -> None:
        """It serves: after the start, and after each reload."""
        self._send(f"READY=1\nMAINPID={os.getpid()}\nSTATUS={status}")

    def reloading(self) -> None:
        """A new config is looked at; `ready` follows."""
        now_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send(f"RELOADING=1\nMONOTONIC_USEC={now_us}\nSTATUS=reloading")

    def stopping(self, within_s: float) -> None:
        """It drains, which may take `within_s`."""
        extend_us = round(within_s * _MICROSECONDS)
        self._send(f"STOPPING=1\nEXTEND_TIMEOUT_USEC={extend_us}\nSTATUS=draining")

    async def watch(self) -> None:
        """Say twice in each watchdog's time that this loop runs. Returns when nobody watches."""
        while self.watchdog_s > 0:
            self._send("WATCHDOG=1")
            await asyncio.sleep(self.watchdog_s / 2)

    def _send(self, text: str) -> None:
        if not self._address:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            try:
                sock.sendto(text.encode(), self._address)
            except OSError as error:
                log.warning("notify_failed: %s", error)


def _address(text: str) -> str:
    """A path, or a name in the abstract namespace (`@name`); anything else is not for us."""
    if text.startswith("@"):
        return "\0" + text[1:]
    return text if text.startswith("/") else ""


def _watchdog_s(env: Mapping[str, str]) -> float:
    if env.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0.0
    try:
        return max(0, int(env.get("WATCHDOG_USEC", "0"))) / _MICROSECONDS
    except ValueError:
        return 0.0
