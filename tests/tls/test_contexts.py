"""Contexts in a handshake without a network: names, versions, who is believed."""

import gc
import ssl
import warnings
import weakref
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509 as reference

from router.config.model import Config
from router.tls.contexts import NO_CONTEXTS, Contexts, build
from tests.certificates import Authority, Files, server


def config_of(tls: dict[str, Any] | None = None, **backends: Any) -> Config:
    return Config.model_validate(
        {
            "tls": tls,
            "backends": {"v1": {"endpoints": ["http://a:1"]}, **backends},
            "routes": [{"name": "r", "backend": "v1"}],
        }
    )


def texts_of(*files: Files | Path) -> dict[str, str]:
    """What the router is given of these files."""
    found: dict[str, str] = {}
    for one in files:
        found |= one.texts() if isinstance(one, Files) else {str(one): one.read_text()}
    return found


def listener(authority: Authority, *pairs: Files, **tls: Any) -> ssl.SSLContext:
    certificates = [pair.as_yaml() for pair in pairs]
    config = config_of({"certificates": certificates, **tls})
    context = build(config, texts_of(*pairs, authority.path)).listener
    assert context is not None
    return context


def shake(
    client: ssl.SSLContext, server: ssl.SSLContext, name: str | None
) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """Both ends of a finished handshake.

    Raises:
        ssl.SSLError: that of whoever gave up first.
    """
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        client.wrap_bio(to_client, to_server, server_hostname=name),
        server.wrap_bio(to_server, to_client, server_side=True),
    )
    for _ in range(4):
        for end in ends:
            with suppress(ssl.SSLWantReadError):
                end.do_handshake()
    for end in ends:
        with suppress(ssl.SSLWantReadError):
            end.read(1)
    return ends


def shown(client: ssl.SSLObject) -> str:
    """The first name of the certificate that the server showed."""
    der = client.getpeercert(binary_form=True)
    assert der is not None
    known = reference.load_der_x509_certificate(der).extensions.get_extension_for_class(
        reference.SubjectAlternativeName
    )
    return known.value.get_values_for_type(reference.DNSName)[0]


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ("a.example", "a.example"),
        ("b.example", "b.example"),
        ("B.EXAMPLE", "b.example"),
        ("x.b.example", "*.b.example"),
        ("own.b.example", "own.b.example"),
        ("y.x.b.example", "a.example"),
        ("second.example", "b.example"),
        ("z.a.example", "a.example"),
        ("unknown.example", "a.example"),
        (None, "a.example"),
    ],
)
def test_the_name_that_is_asked_for_selects_the_certificate(
    tmp_path: Path, asked: str | None, name: str
) -> None:
    authority = Authority(tmp_path)
    context = listener(
        authority,
        authority.issue("a.example", "own.a.example"),
        authority.issue("*.a.example", "a.example", file="late"),
        authority.issue("b.example", "second.example"),
        authority.issue("*.b.example"),
        authority.issue("own.b.example"),
    )
    if asked == "z.a.example":
        name = "*.a.example"
    client = authority.client()
    client.check_hostname = False
    assert shown(shake(client, context, asked)[0]) == name


def test_of_one_name_the_first_certificate_stays_the_one(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    first = authority.issue("own.b.example")
    context = listener(authority, first, authority.issue("*.b.example"))
    assert shown(shake(authority.client(), context, "own.b.example")[0]) == "own.b.example"


@pytest.mark.parametrize(
    ("least", "most", "is_spoken"),
    [
        ("1.2", ssl.TLSVersion.TLSv1_1, False),
        ("1.2", ssl.TLSVersion.TLSv1_2, True),
        ("1.3", ssl.TLSVersion.TLSv1_2, False),
        ("1.3", ssl.TLSVersion.TLSv1_3, True),
    ],
)
def test_old_versions_are_not_spoken(
    tmp_path: Path, least: str, most: ssl.TLSVersion, is_spoken: bool
) -> None:
    authority = Authority(tmp_path)
    context = listener(authority, authority.issue("a.example"), min_version=least)
    client = authority.client()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that old they are is the point
        client.minimum_version = ssl.TLSVersion.TLSv1
        client.maximum_version = most
    client.set_ciphers("ALL:@SECLEVEL=0")
    if is_spoken:
        assert shake(client, context, "a.example")[0].version() == most.name.replace("_", ".")
    else:
        with pytest.raises(ssl.SSLError, match=r"(?i)protocol|version"):
            shake(client, context, "a.example")


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [(["h2", "http/1.1"], "http/1.1"), (["h2"], None), (["http/1.1"], "http/1.1")],
)
def test_http_1_1_is_all_that_is_offered(
    tmp_path: Path, offered: list[str], chosen: str | None
) -> None:
    authority = Authority(tmp_path)
    context = listener(authority, authority.issue("a.example"))
    client = authority.client()
    client.set_alpn_protocols(offered)
    assert shake(client, context, "a.example")[0].selected_alpn_protocol() == chosen


@pytest.mark.parametrize(
    ("auth", "whose", "is_taken"),
    [
        ("none", None, True),
        ("none", "ours", True),
        ("optional", None, True),
        ("optional", "ours", True),
        ("optional", "another's", False),
        ("optional", "expired", False),
        ("required", None, False),
        ("required", "ours", True),
        ("required", "another's", False),
        ("required", "expired", False),
    ],
)
def test_clients_certificates_are_believed_when_the_ca_signed_them(
    tmp_path: Path, auth: str, whose: str | None, is_taken: bool
) -> None:
    authority = Authority(tmp_path)
    (tmp_path / "other").mkdir()
    issuer = Authority(tmp_path / "other") if whose == "another's" else authority
    pair = issuer.issue("batch.example", common_name="batch", days=-1 if whose == "expired" else 1)
    client = authority.client(pair if whose is not None else None)
    tls = {"client_auth": auth, **({} if auth == "none" else {"client_ca": str(authority.path)})}
    context = listener(authority, authority.issue("a.example"), **tls)
    if not is_taken:
        with pytest.raises(ssl.SSLError, match=r"(?i)certificate"):
            shake(client, context, "a.example")
        return
    _, end = shake(client, context, "a.example")
    assert bool(end.getpeercert()) is (whose == "ours" and auth != "none")


def upstream(authority: Authority, pairs: tuple[Files, ...] = (), **tls: Any) -> ssl.SSLContext:
    config = config_of(v2={"endpoints": ["https://a.example"], "tls": tls or None})
    context = build(config, texts_of(authority.path, *pairs)).of(config.backends["v2"])
    assert context is not None
    return context


def test_an_endpoint_is_believed_by_its_ca_and_its_name(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    accept = server(authority.issue("a.example", "127.0.0.1"))
    own = upstream(authority, ca=str(authority.path))
    assert shake(own, accept, "a.example")[0].version() == "TLSv1.3"
    assert shake(own, accept, "127.0.0.1")[0].version() == "TLSv1.3"
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        shake(own, accept, "b.example")
    with pytest.raises(ssl.SSLCertVerificationError, match="IP address mismatch"):
        shake(own, accept, "127.0.0.2")
    with pytest.raises(ssl.SSLCertVerificationError, match="local issuer"):
        shake(upstream(authority), accept, "a.example")
    with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
        shake(own, server(authority.issue("a.example", days=-1)), "a.example")
    assert shake(upstream(authority, verify=False), accept, "b.example")


def test_a_certificate_given_as_ca_is_believed_as_it_is(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair = authority.issue("a.example")
    leaf = tmp_path / "leaf.pem"
    leaf.write_text(pair.cert.read_text())
    config = config_of(v2={"endpoints": ["https://a.example"], "tls": {"ca": str(leaf)}})
    context = build(config, texts_of(leaf)).of(config.backends["v2"])
    assert context is not None
    assert shake(context, server(pair), "a.example")


def test_an_endpoint_that_asks_gets_our_certificate(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    accept = server(authority.issue("a.example"))
    accept.verify_mode = ssl.CERT_REQUIRED
    accept.load_verify_locations(authority.path)
    pair = authority.issue("router.example", common_name="router")
    own = upstream(authority, (pair,), ca=str(authority.path), **pair.as_yaml())
    _, end = shake(own, accept, "a.example")
    assert end.getpeercert()["subject"][-1] == (("commonName", "router"),)  # type: ignore[index]  # there is one
    with pytest.raises(ssl.SSLError, match=r"(?i)certificate"):
        shake(upstream(authority, ca=str(authority.path)), accept, "a.example")


def test_what_does_not_change_is_kept(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair = authority.issue("a.example")
    https = {"endpoints": ["https://a.example"], "tls": {"ca": str(authority.path)}}
    config = config_of({"certificates": [pair.as_yaml()]}, v2=https, v3=https)
    texts = texts_of(pair, authority.path)
    first = build(config, texts)
    assert first.of(config.backends["v1"]) is None
    assert first.of(config.backends["v2"]) is first.of(config.backends["v3"])
    again = build(config, texts, first)
    assert (again.listener, again.upstream) == (first.listener, first.upstream)
    authority.issue("a.example")
    renewed = build(config, texts_of(pair, authority.path), first)
    assert renewed.listener is not first.listener
    assert renewed.of(config.backends["v2"]) is not first.of(config.backends["v2"])
    off = build(config_of(), {}, renewed)
    assert off == Contexts(None, {}, None, {}) == NO_CONTEXTS


def test_contexts_that_were_replaced_are_freed_at_once(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    context = listener(authority, authority.issue("a.example"), authority.issue("b.example"))
    gc.collect()
    gc.disable()
    try:
        known = weakref.ref(context)
        del context
        assert known() is None
    finally:
        gc.enable()
