"""What only the kernel knows or can do about a connection (Linux)."""

import asyncio
import ctypes
import errno
import fcntl
import select
import socket
import struct
import sys
import termios
from typing import Final

EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""Errors of a new socket that say nothing about the peer: something is lacking here."""


def unread_bytes(transport: asyncio.Transport) -> int:
    """Bytes that the peer has not acknowledged: the transport's, and those in the kernel.

    The kernel takes from us in strides of a megabyte; a slow peer may need minutes for one.
    """
    descriptor = transport.get_extra_info("socket").fileno()
    queued = fcntl.ioctl(descriptor, termios.TIOCOUTQ, bytes(4))
    return transport.get_write_buffer_size() + int.from_bytes(queued, sys.byteorder)


UNSENT_MAX_BYTES: Final = 256 * 1024
"""As much as one reading of the loop brings. More helps nobody: what the path and the peer's window
take is not counted. The kernel's own bound, 4 MB, is what a stalled peer would cost it each way."""


def bound_unsent(transport: asyncio.Transport) -> None:
    """Have the kernel keep no more than `UNSENT_MAX_BYTES` that it cannot send yet; see tcp(7)."""
    sock = transport.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_MAX_BYTES)


def reset(transport: asyncio.Transport) -> None:
    """Close with RST, so that the peer cannot mistake what it has for the whole."""
    sock = transport.get_extra_info("socket")
    if sock is not None and not transport.is_closing():
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


_ESTABLISHED: Final = 1
"""`TCP_ESTABLISHED` in netinet/tcp.h; the first byte of `TCP_INFO` is the state."""


def has_left(transport: asyncio.Transport) -> bool:
    """Whether the peer closed or broke off, also while we do not read."""
    sock = transport.get_extra_info("socket")
    if transport.is_closing():
        return False
    return bool(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != _ESTABLISHED)


_NO_SYN: Final = struct.pack(
    "HBBI" * 5,
    *(0x30, 0, 0, 13),  # ldb [13]: the flags of the TCP header
    *(0x54, 0, 0, 0x12),  # and SYN | ACK
    *(0x15, 0, 1, 0x02),  # SYN alone?
    *(0x06, 0, 0, 0),  # yes: drop it
    *(0x06, 0, 0, 0xFFFFFFFF),  # no: take it whole
)
"""A classic BPF program (linux/filter.h). A listening socket's filter sees every segment that is
meant for it, from its TCP header on (`tcp_filter` in net/ipv4/tcp_ipv4.c)."""
_SO_ATTACH_FILTER: Final = 26


def refuse_newcomers(listener: socket.socket) -> None:
    """From now on no connection begins on `listener`; those that have begun can still be accepted.

    Closing a listening socket resets what waits in its queue, and what has not finished its
    handshake: with this, the queue can be emptied first. A newcomer's SYN gets no answer; its
    repetition, a second later, is refused when the socket is closed by then.
    """
    program = ctypes.create_string_buffer(_NO_SYN)
    header = struct.pack("HP", len(_NO_SYN) // 8, ctypes.addressof(program))
    listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, header)


def has_waiting(sock: socket.socket) -> bool:
    """Whether `sock` has something to read, or a connection to accept."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))
