"""What only the kernel knows or can do about a connection (Linux)."""

import asyncio
import fcntl
import socket
import struct
import sys
import termios


def unread_bytes(transport: asyncio.Transport) -> int:
    """Bytes that the peer has not acknowledged: the transport's, and those in the kernel.

    The kernel takes from us in strides of a megabyte; a slow peer may need minutes for one.
    """
    descriptor = transport.get_extra_info("socket").fileno()
    queued = fcntl.ioctl(descriptor, termios.TIOCOUTQ, bytes(4))
    return transport.get_write_buffer_size() + int.from_bytes(queued, sys.byteorder)


def reset(transport: asyncio.Transport) -> None:
    """Close with RST, so that the peer cannot mistake what it has for the whole."""
    sock = transport.get_extra_info("socket")
    if sock is not None and not transport.is_closing():
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
