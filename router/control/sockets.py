"""Listening sockets: bound in control before anything else runs, and kept.

Every worker gets a `SO_REUSEPORT` socket of its own, so the kernel spreads connections over them.
Control keeps a copy: when a worker dies, connections waiting in its queue wait for its replacement.
The admin socket is exclusive; so a second program started on the same config by mistake fails on
it, instead of quietly taking a share of the first one's connections.
"""

import socket
from typing import Final

from router.errors import StartError

BACKLOG: Final = 4096
"""Connections waiting to be accepted, per worker; the kernel caps it at `net.core.somaxconn`."""


def bind_listeners(address: str, count: int) -> tuple[socket.socket, ...]:
    """`count` sockets on `address`, not yet listening. Port 0 chooses one port for all.

    Raises:
        StartError: the address cannot be bound; says which and why.
    """
    first = _bind(address, share=True)
    rest = [_bind(address_of(first), share=True) for _ in range(count - 1)]
    return (first, *rest)


def bind_admin(address: str) -> socket.socket:
    """The admin API's socket, listening.

    Raises:
        StartError: the address cannot be bound or another program listens on it.
    """
    sock = _bind(address, share=False)
    try:
        sock.listen(128)
    except OSError as error:
        sock.close()
        raise StartError(f"cannot listen on {address}: {error.strerror}") from error
    return sock


def address_of(sock: socket.socket) -> str:
    """`host:port` of a bound socket, brackets round an IPv6 host."""
    host, port = sock.getsockname()[:2]
    return f"[{host}]:{port}" if sock.family == socket.AF_INET6 else f"{host}:{port}"


def _bind(address: str, *, share: bool) -> socket.socket:
    host, _, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if host == "localhost":
        host = "127.0.0.1"
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if share:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            # `[::]` serves IPv4 too, whatever net.ipv6.bindv6only says
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind((host, int(port)))
    except OSError as error:
        sock.close()
        raise StartError(f"cannot listen on {address}: {error.strerror}") from error
    return sock
