"""The PEM files that a config names: read, and looked at before anybody connects with them.

1. Files are read once, here, for all workers: those get the texts. What was looked at is what is
   used, and a worker that starts later has what the others have, whatever is on disk by then.
2. A mistake is told at the place in the YAML that names the file, in the operator's words. What
   is in a key is never told.
3. A certificate that has expired, or is not valid yet, is a warning: one that is about to be
   renewed must not keep the router from starting.
"""

import ssl
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from router.config.model import Config
from router.config.problems import Finding, Path, render_path
from router.tls import x509
from router.tls.contexts import load_pair

FILE_MAX_BYTES: Final = 1024 * 1024
"""The CAs of a Debian system take 220 KiB."""

_KEY_BEGIN: Final = "PRIVATE KEY-----"
_ENCRYPTED: Final = ("BEGIN ENCRYPTED PRIVATE KEY", "Proc-Type: 4,ENCRYPTED")
_NOT_A_PAIR: Final = ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED")
"""OpenSSL's reasons; the last is for keys of another kind, RSA beside EC."""

Texts = Mapping[str, str]
"""Path -> content of a PEM file."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its key: where the YAML names them, and their paths."""

    place: Path
    cert: str
    key: str


def pairs(config: Config) -> list[Pair]:
    """Every certificate of the router's own in `config`, the listener's first."""
    found: list[Pair] = []
    if config.tls is not None:
        for i, one in enumerate(config.tls.certificates):
            found.append(Pair(("tls", "certificates", i), one.cert, one.key))
    for name, backend in config.backends.items():
        tls = backend.tls
        if tls is not None and tls.cert is not None and tls.key is not None:
            found.append(Pair(("backends", name, "tls"), tls.cert, tls.key))
    return found


def cas(config: Config) -> list[tuple[Path, str]]:
    """Every file of CAs in `config`: where the YAML names it, and its path."""
    found: list[tuple[Path, str]] = []
    if config.tls is not None and config.tls.client_ca is not None:
        found.append((("tls", "client_ca"), config.tls.client_ca))
    for name, backend in config.backends.items():
        if backend.tls is not None and backend.tls.ca is not None:
            found.append((("backends", name, "tls", "ca"), backend.tls.ca))
    return found


def paths(config: Config) -> list[str]:
    """Every PEM file that `config` names, once."""
    named = [path for pair in pairs(config) for path in (pair.cert, pair.key)]
    return list(dict.fromkeys([*named, *(path for _, path in cas(config))]))


def read(config: Config, now_s: float) -> tuple[dict[str, str], list[Finding]]:
    """The texts of every PEM file that `config` names, and what is wrong with them.

    `now_s` is seconds since 1970. Files that could not be read are missing in the texts. Cost: that
    of the files, and about 1 ms a certificate.
    """
    texts: dict[str, str] = {}
    unread: dict[str, str] = {}
    for path in paths(config):
        try:
            texts[path] = _read(path)
        except ValueError as error:
            unread[path] = str(error)
    findings: list[Finding] = []
    for pair in pairs(config):
        parts = [((*pair.place, "cert"), pair.cert), ((*pair.place, "key"), pair.key)]
        missing = [Finding(place, unread[path]) for place, path in parts if path in unread]
        findings += missing or _look_at_pair(pair, texts, now_s)
    for place, path in cas(config):
        message = unread.get(path) or _wrong_with_cas(texts[path], path)
        if message is not None:
            findings.append(Finding(place, message))
    return texts, [*findings, *_shared_names(config, texts)]


def look(config: Config) -> tuple[dict[str, str], list[Finding]]:
    """`read`, by the clock of this machine."""
    return read(config, time.time())


def expiries(config: Config, texts: Texts) -> dict[str, float]:
    """Name (the certificate's first, or its file's) -> when it expires, in seconds since 1970."""
    found: dict[str, float] = {}
    for pair in pairs(config):
        leaf = x509.parse(x509.blocks(texts[pair.cert])[0])
        name = leaf.names[0] if leaf.names else pair.cert.rpartition("/")[2]
        found[name] = min(leaf.not_after_s, found.get(name, leaf.not_after_s))
    return found


def _read(path: str) -> str:
    """Raises ValueError, in words for the operator, when there is nothing to be read."""
    try:
        with open(path, "rb") as file:
            content = file.read(FILE_MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ValueError(f"{path} cannot be read: {reason}") from None
    if len(content) > FILE_MAX_BYTES:
        raise ValueError(f"{path} is larger than {FILE_MAX_BYTES} bytes")
    return content.decode("ascii", "replace")


def _look_at_pair(pair: Pair, texts: Texts, now_s: float) -> Iterator[Finding]:
    """What is wrong with a certificate and its key: the first mistake, or warnings."""
    cert_place, key_place = (*pair.place, "cert"), (*pair.place, "key")
    found = x509.blocks(texts[pair.cert])
    if not found:
        yield Finding(cert_place, f"{pair.cert} holds no PEM certificate")
        return
    try:
        leaf, *_ = map(x509.parse, found)
    except ValueError:
        yield Finding(cert_place, f"{pair.cert} holds a certificate that cannot be read")
        return
    key = texts[pair.key]
    if _KEY_BEGIN not in key:
        yield Finding(key_place, f"{pair.key} holds no PEM private key")
    elif any(mark in key for mark in _ENCRYPTED):
        message = f"the key in {pair.key} is encrypted, nobody could type its password"
        yield Finding(
            key_place, message, "write it without a password, readable by the router only"
        )
    else:
        try:
            load_pair(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), texts[pair.cert], key)
        except ssl.SSLError as error:
            yield _refused(pair, error)
            return
        yield from _dates(cert_place, pair.cert, leaf, now_s)


def _refused(pair: Pair, error: ssl.SSLError) -> Finding:
    """What OpenSSL found wrong with a pair whose certificate could be parsed."""
    reason = getattr(error, "reason", None) or ""
    if reason in _NOT_A_PAIR:
        message = f"the key in {pair.key} does not belong to the certificate in {pair.cert}"
        return Finding((*pair.place, "key"), message)
    if reason.startswith(("EE_", "CA_")):  # too small or too weak for OpenSSL's security level
        message = f"{pair.cert} is not accepted: {reason.replace('_', ' ').lower()}"
        return Finding((*pair.place, "cert"), message)
    return Finding((*pair.place, "key"), f"the key in {pair.key} cannot be read")


def _dates(place: Path, path: str, leaf: x509.Leaf, now_s: float) -> Iterator[Finding]:
    if leaf.not_after_s <= now_s:
        yield Finding(place, f"{path} expired on {_day(leaf.not_after_s)}", is_warning=True)
    elif leaf.not_before_s > now_s:
        message = f"{path} is not valid before {_day(leaf.not_before_s)}"
        yield Finding(place, message, is_warning=True)


def _day(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).date().isoformat()


def _wrong_with_cas(text: str, path: str) -> str | None:
    found = x509.blocks(text)
    if not found:
        return f"{path} holds no PEM certificate"
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata="\n".join(found))
    except ssl.SSLError:
        return f"{path} holds a certificate that cannot be read"
    return None


def _shared_names(config: Config, texts: Texts) -> Iterator[Finding]:
    """Of two certificates with one name the later never serves it."""
    first: dict[str, Path] = {}
    for i, one in enumerate(config.tls.certificates if config.tls is not None else ()):
        place: Path = ("tls", "certificates", i)
        try:
            leaf = x509.parse(x509.blocks(texts.get(one.cert, ""))[0])
        except (IndexError, ValueError):
            continue  # its mistake is told
        for name in dict.fromkeys(leaf.names):
            if name in first:
                message = f"{name} is served by {render_path(first[name])} already"
                yield Finding((*place, "cert"), message, is_warning=True)
            first.setdefault(name, place)
