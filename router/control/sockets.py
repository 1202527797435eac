"""Listening sockets: bound in control before anything else runs, and kept.

Every worker gets a `SO_REUSEPORT` socket of its own, so the kernel spreads connections over them.
Control keeps a copy: when a worker dies, connections waiting in its queue wait for its replacement.
The admin socket is exclusive; so a second program started on the same config by mistake fails on
it, instead of quietly taking a share of the first one's connections.
"""

import socket
from collections.abc import Sequence
from typing import Final

from router.errors import StartError
from router.handover import address_of

_ADMIN_BACKLOG: Final = 128


def bind_listeners(
    address: str, count: int, taken: Sequence[socket.socket] = ()
) -> tuple[socket.socket, ...]:
    """`count` sockets on `address`: those `taken` over from an earlier program, and new ones that
    do not listen yet. Port 0 chooses one port for all.

    Raises:
        StartError: the address cannot be bound; says which and why.
    """
    sockets = list(taken)
    try:
        while len(sockets) < count:
            known = address_of(sockets[0]) if sockets else address
            sockets.append(_bind(known, share=True))
    except StartError:
        for sock in sockets:
            sock.close()
        raise
    return tuple(sockets)


def bind_admin(address: str) -> socket.socket:
    """The admin API's socket, listening.

    Raises:
        StartError: the address cannot be bound or another program listens on it.
    """
    sock = _bind(address, share=False)
    try:
        sock.listen(_ADMIN_BACKLOG)
    except OSError as error:
        sock.close()
        raise StartError(f"cannot listen on {address}: {error.strerror}") from error
    return sock


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
