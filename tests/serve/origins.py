"""Model servers for tests: threads of the test process that name themselves in every answer.

What a server does is told by the last segment of the path; a `Gate` lets a test say when. Whatever
was asked is kept in `served`, so that a test can account for every request.
"""

import ssl
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

GATE_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Served:
    """A request as the server saw it. Header names are in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body_bytes: int


class Origin:
    """A running model server.

    | last segment | what it does |
    |---|---|
    | `held` | answers once the gate lets it |
    | `stream` | `?events=N` server-sent events, each once the gate lets it |
    | `echo` | answers with the request's body |
    | `status` | answers `?code=N` |
    | `switch` | answers 101, then says back what it hears until the other side ends |
    | anything | answers with its name |
    """

    def __init__(self, name: str, host: str = "127.0.0.1", port: int = 0) -> None:
        self.name = name
        self.served: list[Served] = []
        self._gate = threading.Semaphore(0)
        self._is_open = False
        self._server = _Server((host, port), _Handler)
        self._server.origin = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self.port = self._server.server_port
        self.url = f"http://{host}:{self.port}"

    def speak_tls(self, context: ssl.SSLContext, host: str = "127.0.0.1") -> None:
        """Before `start`: be an `https` endpoint."""
        self._server.socket = context.wrap_socket(
            self._server.socket, server_side=True, do_handshake_on_connect=False
        )
        self.url = f"https://{host}:{self._server.server_port}"

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self.open_gate()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def let(self, count: int = 1) -> None:
        """Let so many held answers or events go."""
        self._gate.release(count)

    def open_gate(self) -> None:
        """Hold nothing any more."""
        self._is_open = True
        self._gate.release(1000)

    def wait_at_gate(self) -> bool:
        return self._is_open or self._gate.acquire(timeout=GATE_TIMEOUT_S)


Servers = tuple[Origin, Origin]
"""Model servers v1 and v2: what the fixture `servers` is."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    origin: Origin

    def handle_error(self, *_: object) -> None:
        """A router that was killed or that cut an exchange: tests look at it from the other end."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def do_GET(self) -> None:
        origin = self.server.origin
        target = urlsplit(self.path)
        body = self._read_body()
        headers = {name.lower(): value for name, value in self.headers.items()}
        origin.served.append(Served(self.command, target.path, headers, len(body)))
        last = target.path.rpartition("/")[2]
        query = {name: int(values[0]) for name, values in parse_qs(target.query).items()}
        if last == "held":
            origin.wait_at_gate()
            self._answer(200, origin.name.encode())
        elif last == "stream":
            self._stream(query["events"])
        elif last == "echo":
            self._answer(200, body)
        elif last == "status":
            self._answer(query["code"], origin.name.encode())
        elif last == "switch":
            self.wfile.write(
                b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\n"
                b"upgrade: websocket\r\n\r\n"
            )
            while heard := self.connection.recv(65536):
                self.wfile.write(heard)
            self.close_connection = True
        else:
            self._answer(200, origin.name.encode())

    do_POST = do_PUT = do_DELETE = do_GET

    def _read_body(self) -> bytes:
        if "chunked" not in self.headers.get("transfer-encoding", ""):
            return self.rfile.read(int(self.headers.get("content-length", 0)))
        body = bytearray()
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return bytes(body)

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _stream(self, events: int) -> None:
        origin = self.server.origin
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for number in range(events):
            origin.wait_at_gate()
            event = f"data: {origin.name} {number}\n\n".encode()
            self.wfile.write(b"%x\r\n%b\r\n" % (len(event), event))
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def origins(*names: str) -> Iterator[tuple[Origin, ...]]:
    """Running servers of these names."""
    with ExitStack() as stack:
        servers = []
        for name in names:
            server = Origin(name)
            server.start()
            stack.callback(server.stop)
            servers.append(server)
        yield tuple(servers)
