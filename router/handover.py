"""Listening sockets handed from a program to the one that follows it on the same address.

Whoever keeps listening sockets (control; a worker whose control is gone) is a `Holder` and answers
questions. A program that starts asks all holders for their sockets (`take`) instead of binding its
own: so the kernel's queue outlives whoever leaves first. When it serves, it says so
(`announce_ready`), and orphans leave. Strategy:

1. A holder is a datagram socket in Linux' abstract namespace, named by user, address and process,
   and found in `/proc/net/unix`. Nothing is left to clean up, and nothing is waited for when there
   is no holder.
2. An answer comes soon or not at all (`PATIENCE_S`); without one the socket is bound anew.
3. The kernel says whose process a message is from: those of other users are not listened to.
"""

import asyncio
import ipaddress
import os
import secrets
import socket
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Final

PATIENCE_S: Final = 0.5
SOCKETS_MAX: Final = 250
"""In one answer: the kernel passes 253 descriptors at most (`SCM_MAX_FD`)."""
_ASK: Final = b"listeners"
_READY: Final = b"ready"
_NAMES: Final = Path("/proc/net/unix")
_CREDENTIALS: Final = struct.Struct("3i")  # struct ucred: pid, uid, gid


class Holder:
    """Answers for the listening sockets that this process keeps on `address`."""

    def __init__(
        self,
        address: str,
        listeners: Callable[[], Sequence[socket.socket]],
        on_ready: Callable[[], None],
    ) -> None:
        """`on_ready` is called when a program that follows says that it serves."""
        self.name = f"{_prefix(address)}{os.getpid()}-{secrets.token_hex(4)}"
        self.has_given = False
        """Whether another process got the sockets: they live on without this one."""
        self._listeners = listeners
        self._on_ready = on_ready
        self._sock: socket.socket | None = None

    def open(self) -> None:
        """Answer from now on, in the running loop."""
        self._sock = sock = _datagram_socket()
        sock.bind(f"\0{self.name}")
        asyncio.get_running_loop().add_reader(sock.fileno(), self._on_question, sock)

    def close(self) -> None:
        """Answer no more."""
        if self._sock is not None:
            asyncio.get_running_loop().remove_reader(self._sock.fileno())
            self._sock.close()
            self._sock = None

    def _on_question(self, sock: socket.socket) -> None:
        try:
            question, ancillary, _, sender = sock.recvmsg(64, socket.CMSG_SPACE(_CREDENTIALS.size))
        except OSError:  # nothing there after all
            return
        if not _is_own(ancillary):
            return
        if question == _READY:
            self._on_ready()
        elif question == _ASK and sender:
            descriptors = [listener.fileno() for listener in self._listeners()][:SOCKETS_MAX]
            rights = struct.pack(f"{len(descriptors)}i", *descriptors)
            with suppress(OSError):  # it did not wait
                sock.sendmsg([_ASK], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)], 0, sender)
                self.has_given = True


def take(address: str, count: int) -> tuple[socket.socket, ...]:
    """Up to `count` listening sockets that other programs hold on `address`, each once.

    Takes up to `PATIENCE_S` when one of them does not answer.
    """
    holders = _holders(address)
    if not holders:
        return ()
    with closing(_datagram_socket()) as sock:
        sock.bind("")  # a name of the kernel's choice, for the answers
        asked = sum(_send(sock, _ASK, name) for name in holders)
        known: dict[int, socket.socket] = {}
        for answer in _answers(sock, asked):
            for listener in answer:
                if len(known) < count and _is_listening(listener):
                    known.setdefault(os.fstat(listener.fileno()).st_ino, listener)
                if listener not in known.values():
                    listener.close()
    return tuple(known.values())


def announce_ready(address: str) -> None:
    """Tell whoever holds `address` besides this process that this program serves."""
    with closing(_datagram_socket()) as sock:
        for name in _holders(address):
            _send(sock, _READY, name)


def has_others(address: str) -> bool:
    """Whether a process besides this one holds listening sockets on `address`."""
    return bool(_holders(address))


def address_of(sock: socket.socket) -> str:
    """`host:port` of a bound socket, brackets round an IPv6 host."""
    host, port = sock.getsockname()[:2]
    return f"[{host}]:{port}" if sock.family == socket.AF_INET6 else f"{host}:{port}"


def _prefix(address: str) -> str:
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    ip = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
    return f"pointsman/{os.getuid()}/{ip}/{port}/"


def _holders(address: str) -> list[str]:
    """The names of other processes' holders."""
    prefix = f"@{_prefix(address)}"
    own = f"{prefix}{os.getpid()}-"
    try:
        rows = _NAMES.read_text("utf-8", "replace").splitlines()
    except OSError:
        return []
    names = (row.rpartition(" ")[2] for row in rows)
    return [name[1:] for name in names if name.startswith(prefix) and not name.startswith(own)]


def _datagram_socket() -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    return sock


def _send(sock: socket.socket, word: bytes, name: str) -> bool:
    try:
        sock.sendto(word, f"\0{name}")
    except OSError:  # it left, or has too much to read
        return False
    return True


def _answers(sock: socket.socket, count: int) -> Iterator[list[socket.socket]]:
    """The sockets in each of `count` answers, as far as they come in time."""
    room = socket.CMSG_SPACE(_CREDENTIALS.size) + socket.CMSG_SPACE(4 * SOCKETS_MAX)
    end_s = time.monotonic() + PATIENCE_S
    for _ in range(count):
        sock.settimeout(max(0.001, end_s - time.monotonic()))
        try:
            _, ancillary, _, _ = sock.recvmsg(64, room, socket.MSG_CMSG_CLOEXEC)
        except OSError:
            return
        descriptors = [
            number
            for level, kind, data in ancillary
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)
            for (number,) in struct.iter_unpack("i", data[: len(data) // 4 * 4])
        ]
        if _is_own(ancillary):
            yield [socket.socket(fileno=number) for number in descriptors]
        else:
            for number in descriptors:
                os.close(number)


def _is_own(ancillary: Iterable[tuple[int, int, bytes]]) -> bool:
    """Whether the message is from a process of the same user, as the kernel says."""
    return any(
        (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS)
        and _CREDENTIALS.unpack(data[: _CREDENTIALS.size])[1] == os.getuid()
        for level, kind, data in ancillary
    )


def _is_listening(sock: socket.socket) -> bool:
    try:
        return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    except OSError:
        return False
