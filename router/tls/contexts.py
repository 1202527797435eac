"""Texts of PEM files to `ssl` contexts: what is spoken, and who is believed.

1. TLS 1.2 and 1.3 with OpenSSL's and Python's choice of ciphers; no compression, no renegotiation.
2. ALPN offers `http/1.1` and nothing else.
3. A listener has a context for each certificate. The first one begins every handshake; the name
   that the client asks for selects another (RFC 6066 section 3).
4. A key goes into a context through a file of the kernel's memory: `ssl` takes paths only.
"""

import os
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from router.config.backends import Backend
from router.config.model import Config
from router.config.tls import ServerTls, UpstreamTls
from router.tls import x509

_ALPN: Final = ["http/1.1"]
_VERSIONS: Final = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
_AUTH: Final = {
    "none": ssl.CERT_NONE,
    "optional": ssl.CERT_OPTIONAL,
    "required": ssl.CERT_REQUIRED,
}


@dataclass(frozen=True, slots=True)
class Contexts:
    """What a config needs, made from `texts`. `upstream`: by settings, for backends share them."""

    tls: ServerTls | None
    texts: Mapping[str, str]
    listener: ssl.SSLContext | None
    upstream: Mapping[UpstreamTls, ssl.SSLContext]

    def of(self, backend: Backend) -> ssl.SSLContext | None:
        """The context that connects to a backend; None: it has no `https` endpoint."""
        return self.upstream[backend.tls or UpstreamTls()] if backend.has_tls else None


NO_CONTEXTS: Final = Contexts(None, {}, None, {})


def build(config: Config, texts: Mapping[str, str], earlier: Contexts = NO_CONTEXTS) -> Contexts:
    """The contexts of `config`. What did not change is that of `earlier`, with its sessions.

    Cost: about 1 ms a certificate, and see `upstream_context`.

    Raises:
        ssl.SSLError, KeyError: `texts` are not what `files.read` gives for `config`.
    """
    tls, is_same = config.tls, dict(texts) == dict(earlier.texts)
    if tls is None:
        listener = None
    elif is_same and tls == earlier.tls:
        listener = earlier.listener
    else:
        listener = listener_context(tls, texts)
    known = earlier.upstream if is_same else {}
    wanted = {one.tls or UpstreamTls() for one in config.backends.values() if one.has_tls}
    upstream = {one: known.get(one) or upstream_context(one, texts) for one in wanted}
    return Contexts(tls, texts, listener, upstream)


_Choose = Callable[[ssl.SSLObject, str | None, ssl.SSLContext], None]


def listener_context(tls: ServerTls, texts: Mapping[str, str]) -> ssl.SSLContext:
    """The context that handshakes with clients begin with. `texts` has every file of `tls`.

    Raises:
        ssl.SSLError: a text is not what `files.read` accepts.
    """
    first, *others = (_server_context(tls, texts, one.cert, one.key) for one in tls.certificates)
    by_name: dict[str, ssl.SSLContext | None] = {}
    # None: the first one, which must not know itself, or nothing would free the two
    for one, context in zip(tls.certificates, (None, *others), strict=True):
        for name in x509.parse(x509.blocks(texts[one.cert])[0]).names:
            by_name.setdefault(name, context)
    if others:
        first.sni_callback = _chooser(by_name)
    return first


def upstream_context(tls: UpstreamTls, texts: Mapping[str, str]) -> ssl.SSLContext:
    """The context that endpoints are connected to with. `texts` has every file of `tls`.

    Cost: 10 to 50 ms for the CAs of the system.

    Raises:
        ssl.SSLError: a text is not what `files.read` accepts.
    """
    context = _context(ssl.PROTOCOL_TLS_CLIENT)
    if not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif tls.ca is not None:
        _believe(context, texts[tls.ca])
    else:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    if tls.cert is not None and tls.key is not None:
        load_pair(context, texts[tls.cert], texts[tls.key])
    return context


def load_pair(context: ssl.SSLContext, cert: str, key: str) -> None:
    """Put a certificate and its key, both PEM, into `context`.

    Raises:
        ssl.SSLError: they cannot be read, or do not belong together.
    """
    with _in_memory(cert) as cert_path, _in_memory(key) as key_path:
        context.load_cert_chain(cert_path, key_path, password="")


def _server_context(
    tls: ServerTls, texts: Mapping[str, str], cert: str, key: str
) -> ssl.SSLContext:
    context = _context(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _VERSIONS[tls.min_version]
    load_pair(context, texts[cert], texts[key])
    context.verify_mode = _AUTH[tls.client_auth]
    if tls.client_ca is not None:
        _believe(context, texts[tls.client_ca])
    return context


def _context(kind: int) -> ssl.SSLContext:
    context = ssl.SSLContext(kind)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(_ALPN)
    return context


def _believe(context: ssl.SSLContext, cas: str) -> None:
    """Believe who is in the file, whether that is a root or not."""
    context.load_verify_locations(cadata="\n".join(x509.blocks(cas)))
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN


def _chooser(by_name: Mapping[str, ssl.SSLContext | None]) -> _Choose:
    def choose(connection: ssl.SSLObject, asked: str | None, _: ssl.SSLContext) -> None:
        if asked is None:
            return
        name = asked.lower().rstrip(".")
        if name not in by_name:
            name = "*." + name.partition(".")[2]
        context = by_name.get(name)
        if context is not None:
            connection.context = context

    return choose


@contextmanager
def _in_memory(text: str) -> Iterator[str]:
    """The path of a file that holds `text` and is on no disk."""
    descriptor = os.memfd_create("pem", os.MFD_CLOEXEC)
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(text.encode())
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
