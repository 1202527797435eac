import socket

import pytest

from router.control.sockets import bind_admin, bind_listeners
from router.errors import StartError
from router.handover import address_of


def test_all_listeners_share_the_one_port_that_was_chosen() -> None:
    listeners = bind_listeners("127.0.0.1:0", 3)
    assert len({address_of(listener) for listener in listeners}) == 1
    for listener in listeners:
        listener.close()


def test_listeners_refuse_connections_until_a_worker_listens() -> None:
    (listener,) = bind_listeners("localhost:0", 1)
    with listener, pytest.raises(ConnectionRefusedError):
        socket.create_connection(listener.getsockname(), timeout=1)


def test_a_second_program_on_the_same_admin_address_is_told_so() -> None:
    with bind_admin("127.0.0.1:0") as first:
        address = address_of(first)
        with pytest.raises(StartError, match=f"cannot listen on {address}: Address already in use"):
            bind_admin(address)


def test_an_ipv6_address_keeps_its_brackets() -> None:
    with bind_admin("[::1]:0") as sock:
        host, _, port = address_of(sock).rpartition(":")
        assert host == "[::1]"
        assert int(port) > 0


def test_an_address_of_another_host_is_refused_by_name() -> None:
    with pytest.raises(StartError, match=r"cannot listen on 192\.0\.2\.1:80: "):
        bind_listeners("192.0.2.1:80", 1)
