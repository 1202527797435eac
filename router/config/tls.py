"""`tls:` of the listener and of backends: certificates, and who is believed.

Only what the YAML says. Whether the files are there and what is in them is looked at elsewhere
(`router.tls.files`), for reading them is not a config's business.
"""

import re
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, model_validator

from router.config.values import Flag
from router.strict import Model

_SERVER_NAME: Final = r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?|[0-9A-Fa-f:.]{2,45}"


def _pem_path(value: str) -> str:
    if not value.startswith("/"):
        raise ValueError(f"{value!r} is not an absolute path")
    return value


def _server_name(value: str) -> str:
    if not re.fullmatch(_SERVER_NAME, value):
        raise ValueError(f"{value!r} is not a name that a certificate can have, write api.internal")
    return value.lower()


def _version(value: object) -> object:
    return str(value) if isinstance(value, float) else value


PemPath = Annotated[
    str, AfterValidator(_pem_path), WithJsonSchema({"type": "string", "pattern": "^/"})
]
"""Absolute path of a PEM file."""
ServerName = Annotated[
    str,
    AfterValidator(_server_name),
    WithJsonSchema({"type": "string", "pattern": f"^(?:{_SERVER_NAME})$"}),
]
MinVersion = Annotated[
    Literal["1.2", "1.3"],
    BeforeValidator(_version),
    WithJsonSchema({"enum": ["1.2", "1.3", 1.2, 1.3]}),
]


class Certificate(Model):
    """A certificate with its key, both PEM files."""

    cert: PemPath
    """The certificate, followed by those that lead to its CA."""
    key: PemPath
    """Its private key, without a password."""


class ServerTls(Model):
    """TLS towards clients."""

    certificates: Annotated[tuple[Certificate, ...], Field(min_length=1, max_length=1000)]
    """Chosen by the name that a client asks for; the first serves all other names."""
    min_version: MinVersion = "1.2"
    """Oldest version of TLS that is spoken: 1.2 or 1.3."""
    client_ca: PemPath | None = None
    """PEM file of the CAs that sign clients' certificates."""
    client_auth: Literal["none", "optional", "required"] = "none"
    """Whether clients show a certificate; one that `client_ca` did not sign is always refused."""

    @model_validator(mode="after")
    def _ca_goes_with_auth(self) -> "ServerTls":
        if self.client_auth != "none" and self.client_ca is None:
            raise ValueError(f"client_auth: {self.client_auth} needs client_ca")
        if self.client_auth == "none" and self.client_ca is not None:
            raise ValueError("client_ca is not used, set client_auth to optional or required")
        return self


class UpstreamTls(Model):
    """TLS towards the `https` endpoints of a backend."""

    ca: PemPath | None = None
    """PEM file of the CAs that sign endpoints' certificates; by default those of the system."""
    server_name: ServerName | None = None
    """The name to ask for and to expect in the certificate; by default the endpoint's host."""
    cert: PemPath | None = None
    """The router's own certificate, for endpoints that ask for one."""
    key: PemPath | None = None
    """The private key of `cert`."""
    verify: Flag = True
    """false: take any certificate. Then anyone on the way can read and change what is sent."""

    @model_validator(mode="after")
    def _fits_together(self) -> "UpstreamTls":
        if (self.cert is None) != (self.key is None):
            raise ValueError("cert and key go together, one is missing")
        if not self.verify and self.ca is not None:
            raise ValueError("with verify: false the ca is not used, remove one of the two")
        return self
