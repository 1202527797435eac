"""Listening sockets between processes: the other one is a child, forked by the test."""

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from router import handover
from router.handover import Holder, address_of

HOLDER = """
import asyncio, socket, sys
from router.handover import Holder
listeners = []
for _ in range(int(sys.argv[2])):
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    host, port = sys.argv[1].split(":")
    sock.bind((host, int(port)))
    sock.listen(16)
    listeners.append(sock)

async def main():
    over = asyncio.Event()
    holder = Holder(sys.argv[1], lambda: listeners, over.set)
    holder.open()
    print("holds", flush=True)
    await over.wait()
    print("told, gave" if holder.has_given else "told", flush=True)

asyncio.run(main())
"""


def free_address() -> str:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return address_of(sock)


@contextmanager
def holder(address: str, listeners: int = 1) -> Iterator[Callable[[], str]]:
    """Another process that holds sockets on `address`; yields what reads its next line."""
    command = [sys.executable, "-c", HOLDER, address, str(listeners)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "holds\n"
        try:
            yield process.stdout.readline
        finally:
            process.kill()


def test_without_a_holder_nothing_is_taken_and_nothing_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(handover, "PATIENCE_S", 1000.0)
    address = free_address()
    assert handover.take(address, 4) == ()
    assert not handover.has_others(address)


def test_connections_in_a_queue_outlive_the_process_that_held_it() -> None:
    address = free_address()
    host, _, port = address.partition(":")
    with holder(address):
        queued = socket.create_connection((host, int(port)))
        (taken,) = handover.take(address, 1)
    accepted, _ = taken.accept()
    accepted.sendall(b"served")
    assert queued.recv(16) == b"served"
    assert not taken.get_inheritable()
    for sock in (queued, taken, accepted):
        sock.close()


def test_no_more_is_taken_than_wanted_and_nothing_twice() -> None:
    address = free_address()
    with holder(address, 3), holder(address, 2):
        for wanted, expected in ((2, 2), (9, 5)):
            taken = handover.take(address, wanted)
            assert len({os.fstat(sock.fileno()).st_ino for sock in taken}) == expected
            assert len(taken) == expected
            for sock in taken:
                sock.close()


def test_a_socket_that_two_processes_hold_is_taken_once() -> None:
    address = free_address()

    async def take_twice() -> None:
        with holder(address):
            (mine,) = handover.take(address, 1)
            second = Holder(address, lambda: [mine], lambda: None)
            second.name = second.name.replace(f"/{os.getpid()}-", "/1-")  # as if of another process
            second.open()
            taken = await asyncio.to_thread(handover.take, address, 4)
            assert len(taken) == 1
            second.close()
            for sock in (mine, *taken):
                sock.close()

    asyncio.run(take_twice())


def test_a_holder_is_told_when_the_next_program_serves() -> None:
    address = free_address()
    with holder(address) as line:
        for sock in handover.take(address, 1):
            sock.close()
        handover.announce_ready(address)
        assert line() == "told, gave\n"


def test_a_holder_that_was_not_asked_knows_that_its_sockets_are_its_own() -> None:
    address = free_address()
    with holder(address) as line:
        handover.announce_ready(address)
        assert line() == "told\n"


def test_names_of_one_address_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    address = free_address()
    port = address.partition(":")[2]
    with holder(address):
        assert handover.has_others(f"localhost:{port}")
        assert not handover.has_others(f"127.0.0.2:{port}")
        assert not handover.has_others(f"[::1]:{port}")


def test_a_holder_that_does_not_answer_is_not_waited_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(handover, "PATIENCE_S", 0.05)
    address = free_address()
    mute = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    mute.bind(f"\0{Holder(address, list, lambda: None).name.replace(str(os.getpid()), '1')}")
    with mute:
        assert handover.has_others(address)
        before_s = time.monotonic()
        assert handover.take(address, 1) == ()
        assert time.monotonic() - before_s < 5


def test_processes_of_other_users_are_not_listened_to(monkeypatch: pytest.MonkeyPatch) -> None:
    address = free_address()
    monkeypatch.setattr(handover, "PATIENCE_S", 0.05)
    with holder(address) as line:
        name = handover._holders(address)[0]
        if os.getuid() != 0:
            pytest.skip("needs a second user to speak as")
        code = (
            "import os, socket, sys; os.setuid(65534);"
            "sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); sock.bind('');"
            "sock.sendto(b'ready', '\\0' + sys.argv[1]);"
            "sock.sendto(b'listeners', '\\0' + sys.argv[1]);"
            "sock.settimeout(0.3); sock.recv(16)"
        )
        stranger = subprocess.run(
            [sys.executable, "-c", code, name], capture_output=True, check=False, text=True
        )
        assert "TimeoutError" in stranger.stderr
        handover.announce_ready(address)
        assert line() == "told\n"  # neither the stranger's word nor its question did anything
