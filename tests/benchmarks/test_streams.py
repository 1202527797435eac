import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress

import pytest

from benchmarks.errors import BenchmarkError
from benchmarks.origin import Origin
from benchmarks.probe import ask
from benchmarks.streams import Client
from benchmarks.workload import load

_RECEIVED = 64 * 1024


@pytest.fixture
def origin_port() -> Iterator[int]:
    """`benchmarks.origin`, in a thread."""
    is_over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        origin = Origin([listener])

        def serve() -> None:
            while not is_over.is_set():
                origin.step(0.01)

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        is_over.set()
        thread.join(10)
        origin.close()


@contextmanager
def _between(port: int, change: Callable[[bytes], Iterable[bytes]]) -> Iterator[int]:
    """A relay to `port` whose answers pass through `change`, which says what is sent for them."""

    def pump(source: socket.socket, target: socket.socket, is_answer: bool) -> None:
        with suppress(OSError):
            target.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while content := source.recv(_RECEIVED):
                for piece in change(content) if is_answer else (content,):
                    target.sendall(piece)
        with suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)

    sockets: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def accept(listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", port))
            sockets.extend((client, server))
            for pair in ((client, server, False), (server, client, True)):
                threads.append(threading.Thread(target=pump, args=pair))
                threads[-1].start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        accepting = threading.Thread(target=accept, args=(listener,))
        accepting.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            accepting.join(10)
            for sock in sockets:
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
            for thread in threads:
                thread.join(10)
            for sock in sockets:
                sock.close()


@pytest.mark.parametrize("kind", ["sse", "websocket"])
def test_every_unit_of_every_stream_comes_in_order(kind: str, origin_port: int) -> None:
    with closing(
        Client(kind, origin_port, connections=4, rate=400, seconds=0.2, warm_up_s=0.2)
    ) as client:
        result = client.measure()
    assert 0 < result.requests <= 100
    assert result.failed == 0
    assert 0 < result.p50_us <= result.p99_us <= result.max_us
    assert 0 <= result.late_p99_us <= result.late_max_us


@pytest.mark.parametrize("kind", ["sse", "websocket"])
def test_units_may_be_cut_anywhere_on_their_way(kind: str, origin_port: int) -> None:
    def cut(content: bytes) -> list[bytes]:
        return [content[at : at + 37] for at in range(0, len(content), 37)]

    with (
        _between(origin_port, cut) as port,
        closing(Client(kind, port, connections=2, rate=100, seconds=0.2, warm_up_s=0.2)) as client,
    ):
        assert client.measure().requests > 0


@pytest.mark.parametrize("kind", ["sse", "websocket"])
def test_a_changed_unit_ends_the_measurement(kind: str, origin_port: int) -> None:
    def change(content: bytes) -> list[bytes]:
        return [content.replace(b"00000003 ", b"00000004 ")]

    with (
        _between(origin_port, change) as port,
        closing(Client(kind, port, connections=2, rate=100, seconds=0.2, warm_up_s=0.2)) as client,
        pytest.raises(BenchmarkError, match="expected unit 3 of a stream, found 4"),
    ):
        client.measure()


@pytest.mark.parametrize("kind", ["sse", "websocket"])
def test_a_stream_that_ends_too_early_ends_the_measurement(kind: str, origin_port: int) -> None:
    def change(content: bytes) -> list[bytes]:
        if b"00000003 " in content:
            raise ConnectionResetError
        return [content]

    with (
        _between(origin_port, change) as port,
        closing(Client(kind, port, connections=1, rate=50, seconds=0.2, warm_up_s=0.2)) as client,
        pytest.raises(BenchmarkError, match=r"a stream ended after [0-3] of"),
    ):
        client.measure()


def test_a_refused_stream_ends_the_measurement(origin_port: int) -> None:
    def refuse(content: bytes) -> list[bytes]:
        return [content.replace(b"HTTP/1.1 200 OK", b"HTTP/1.1 503 No")]

    with (
        _between(origin_port, refuse) as port,
        closing(Client("sse", port, connections=1, rate=50, seconds=0.2, warm_up_s=0.2)) as client,
        pytest.raises(BenchmarkError, match="503 No"),
    ):
        client.measure()


def _ask(port: int, request: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as sock:
        return ask(sock, request)


def test_the_origin_answers_an_upload_when_it_is_whole(origin_port: int) -> None:
    request = load("upload-1MiB").requests()[0]
    with socket.create_connection(("127.0.0.1", origin_port), timeout=5) as sock:
        sock.sendall(request[:-1])
        sock.settimeout(0.05)
        with pytest.raises(TimeoutError):
            sock.recv(1)
        sock.settimeout(5)
        assert ask(sock, request[-1:]).startswith(b"HTTP/1.1 200 OK\r\n")
        assert ask(sock, request).endswith(b"\r\n\r\nok")


def test_the_origin_sends_a_whole_download(origin_port: int) -> None:
    answer = _ask(origin_port, load("download-1MiB").requests()[0])
    assert answer.partition(b"\r\n\r\n")[2] == b"x" * 1024 * 1024


@pytest.mark.parametrize("name", ["upload-1MiB", "sse"])
def test_the_origin_is_ready_at_once(name: str, origin_port: int) -> None:
    assert _ask(origin_port, load(name).ready_request()).startswith(b"HTTP/1.1 200 OK\r\n")
