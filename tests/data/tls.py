"""Ends of connections that speak TLS, for the lab: what is said and unsaid is under control.

The TLS of asyncio and uvloop hides what these tests are about: an end without a farewell, a
farewell that is no end, what arrives together.
"""

import asyncio
import ssl
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from router.config.model import Config
from router.tls import files
from tests.certificates import Authority, Files, server
from tests.data.harness import OK, Gone, Lab, Origin, Router, Script, Wire, document, soon


class Cut(ConnectionError):
    """The connection ended, and nobody had said so (no `close_notify`)."""


class TlsWire(Wire):
    """A `Wire` whose bytes are encrypted. `Gone` means that the peer said farewell."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        context: ssl.SSLContext,
        server_name: str | None = None,
    ) -> None:
        """Without `server_name` it is the server's end."""
        super().__init__(reader, writer)
        self.incoming = ssl.MemoryBIO()
        self.outgoing = ssl.MemoryBIO()
        self.ssl = context.wrap_bio(
            self.incoming,
            self.outgoing,
            server_side=server_name is None,
            server_hostname=server_name,
        )
        self.is_shaken = False
        self.holds_tickets = False
        """The server's last flight stays in `outgoing`."""
        self.has_peer_ended = False

    async def shake(self) -> None:
        """Do the handshake.

        Raises:
            ssl.SSLError: it failed. Cut: the peer left.
        """
        while True:
            try:
                self.ssl.do_handshake()
            except ssl.SSLWantReadError:
                self._flush()
                raw = await soon(self.reader.read(256 * 1024))
                if not raw:
                    raise Cut from None
                self.incoming.write(raw)
            except ssl.SSLError:
                self._flush()
                raise
            else:
                break
        self.is_shaken = True
        if not self.holds_tickets:
            self._flush()

    def encrypt(self, *data: bytes) -> bytes:
        """What would be sent."""
        for piece in data:
            rest = memoryview(piece)
            while rest:
                rest = rest[self.ssl.write(rest) :]
        return self.outgoing.read()

    def send(self, *data: bytes) -> None:
        self.writer.write(self.encrypt(*data))

    def farewell(self) -> None:
        """Say that no more will come; the TCP connection stays."""
        with suppress(ssl.SSLWantReadError):
            self.ssl.unwrap()
        self._flush()

    def _flush(self) -> None:
        if data := self.outgoing.read():
            self.writer.write(data)

    async def fill(self) -> None:
        if not self.is_shaken:
            await self.shake()
        if self._decrypt():
            return
        if self.has_peer_ended:
            raise Gone
        raw = await self.reader.read(256 * 1024)
        if not raw:
            raise Cut
        self.incoming.write(raw)
        self._decrypt()
        self._flush()

    def _decrypt(self) -> bool:
        before = len(self.received)
        with suppress(ssl.SSLWantReadError):
            with suppress(ssl.SSLZeroReturnError):
                while piece := self.ssl.read(256 * 1024):
                    self.received += piece
            self.has_peer_ended = True
        return len(self.received) > before


class TlsOrigin(Origin):
    """An `https` endpoint."""

    def __init__(self, script: Script, context: ssl.SSLContext, name: str = "127.0.0.1") -> None:
        super().__init__(script)
        self.context = context
        self.name = name

    @property
    def url(self) -> str:
        return f"https://{self.name}:{self.port}"

    def meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> TlsWire:
        return TlsWire(reader, writer, self.context)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await super()._accept(reader, writer)
        # that a router does not like our certificate is what some tests are about
        self.failures = [one for one in self.failures if not isinstance(one, ssl.SSLError)]


class TlsLab:
    """A lab with a CA."""

    def __init__(self, lab: Lab, directory: Path) -> None:
        self.lab = lab
        self.authority = Authority(directory)
        self.server = self.authority.issue("localhost", "127.0.0.1")

    @property
    def router(self) -> Router:
        return self.lab.router

    def texts(self, config: dict[str, Any]) -> dict[str, str]:
        """The PEM files that a config names, as control gives them to a worker."""
        found, findings = files.read(Config.model_validate(config), time.time())
        assert not [one for one in findings if not one.is_warning]
        return found

    def listening(self, config: dict[str, Any], *more: Files, **tls: Any) -> dict[str, Any]:
        """`config` with a listener that speaks TLS."""
        certificates = [one.as_yaml() for one in (self.server, *more)]
        return {**config, "tls": {"certificates": certificates, **tls}}

    async def start(self, config: dict[str, Any]) -> Router:
        return await self.lab.start(config, pem=self.texts(config))

    async def reload(self, config: dict[str, Any]) -> None:
        await self.router.reload(config, pem=self.texts(config))

    async def origin(
        self, script: Script, context: ssl.SSLContext | None = None, **options: Any
    ) -> TlsOrigin:
        """An `https` endpoint; by default one with `server` as its certificate."""
        origin = TlsOrigin(script, context or server(self.server))
        await origin.start(**options)
        self.lab.origins.append(origin)
        return origin

    async def answering(self, context: ssl.SSLContext | None = None) -> TlsOrigin:
        """An `https` endpoint that answers every request at once and remembers it."""

        async def script(wire: Wire) -> None:
            while True:
                await origin.next_request(wire)
                wire.send(OK)

        origin = await self.origin(script, context)
        return origin

    def document(self, *origins: Origin, **tls: Any) -> dict[str, Any]:
        """A config whose endpoints are believed by our CA."""
        return document(*origins, tls={"ca": str(self.authority.path), **tls})

    async def connect(
        self, context: ssl.SSLContext | None = None, name: str = "localhost", **options: Any
    ) -> TlsWire:
        """A client before its handshake."""
        plain = await self.lab.client(**options)
        wire = TlsWire(plain.reader, plain.writer, context or self.authority.client(), name)
        self.lab.clients.append(wire)
        return wire

    async def client(
        self, context: ssl.SSLContext | None = None, name: str = "localhost", **options: Any
    ) -> TlsWire:
        """A client after its handshake.

        Raises:
            ssl.SSLError, Cut: it failed.
        """
        wire = await self.connect(context, name, **options)
        await wire.shake()
        return wire
