"""Certificates for tests: made when asked for, by a CA of their own."""

import ssl
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme

EC = trustme.KeyType.ECDSA
"""RSA keys take a hundred times longer to make."""


@dataclass
class Files:
    """A certificate with its key, on disk."""

    cert: Path
    key: Path

    def as_yaml(self) -> dict[str, str]:
        return {"cert": str(self.cert), "key": str(self.key)}

    def texts(self) -> dict[str, str]:
        """What the router reads of it: path -> content."""
        return {str(path): path.read_text() for path in (self.cert, self.key)}


@dataclass
class Authority:
    """A CA whose files lie in `directory`."""

    directory: Path
    ca: trustme.CA = field(default_factory=lambda: trustme.CA(key_type=EC))

    @property
    def path(self) -> Path:
        """The PEM file of the CA itself."""
        path = self.directory / "ca.pem"
        if not path.exists():
            self.ca.cert_pem.write_to_path(path)
        return path

    def issue(
        self,
        *names: str,
        file: str = "",
        days: float = 30,
        common_name: str | None = None,
        organization: str | None = None,
    ) -> Files:
        """A certificate for `names` that is valid for so many days more.

        With a negative number it has expired.
        """
        now = datetime.now(UTC)
        made = self.ca.issue_cert(
            *names,
            common_name=common_name,
            organization_name=organization,
            not_before=now - timedelta(days=max(2, -2 * days)),
            not_after=now + timedelta(days=days),
            key_type=EC,
        )
        file = file or names[0].replace("*", "any").replace("/", "_")
        files = Files(self.directory / f"{file}.crt", self.directory / f"{file}.key")
        made.private_key_pem.write_to_path(files.key)
        files.cert.write_bytes(b"".join(part.bytes() for part in made.cert_chain_pems))
        return files

    def client(self, identity: Files | None = None) -> ssl.SSLContext:
        """What a client of somebody with our certificate connects with."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(self.path)
        if identity is not None:
            context.load_cert_chain(identity.cert, identity.key)
        return context


def server(files: Files) -> ssl.SSLContext:
    """What a server with this certificate accepts with."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.cert, files.key)
    return context
