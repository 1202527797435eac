"""`tls:` in the YAML: what is taken, what is refused, and where."""

from typing import Any

import orjson
import pytest

from router.config.tls import ServerTls, UpstreamTls
from tests.config.support import VALID, load, mistakes, warnings

_PAIR = "{cert: /c.pem, key: /k.pem}"


def with_tls(tls: str) -> str:
    return f"tls: {tls}\n{VALID}"


def with_backend(**backend: Any) -> str:
    document = {
        "backends": {"v1": {"endpoints": ["https://a:1"], **backend}},
        "routes": [{"name": "r", "backend": "v1"}],
    }
    return orjson.dumps(document).decode()


def test_a_listener_needs_a_certificate_and_no_more() -> None:
    tls = load(with_tls(f"{{certificates: [{_PAIR}]}}")).config.tls
    assert tls == ServerTls(certificates=({"cert": "/c.pem", "key": "/k.pem"},))  # type: ignore[arg-type]  # as in YAML
    assert (tls.min_version, tls.client_auth, tls.client_ca) == ("1.2", "none", None)
    assert load(VALID).config.tls is None


@pytest.mark.parametrize("version", ["1.2", '"1.2"', "1.3", '"1.3"'])
def test_a_version_may_stand_without_quotes(version: str) -> None:
    tls = load(with_tls(f"{{certificates: [{_PAIR}], min_version: {version}}}")).config.tls
    assert tls is not None
    assert tls.min_version == version.strip('"')


@pytest.mark.parametrize(
    ("tls", "mistake"),
    [
        ("{}", "f:1:6: tls: the key 'certificates' is missing"),
        ("{certificates: []}", "f:1:21: tls.certificates: expected at least 1 entry, found 0"),
        (
            "{certificates: [{cert: /c.pem}]}",
            "f:1:22: tls.certificates[0]: the key 'key' is missing",
        ),
        (
            "{certificates: [{cert: c.pem, key: /k}]}",
            "f:1:29: tls.certificates[0].cert: 'c.pem' is not an absolute path",
        ),
        (
            f"{{certificates: [{_PAIR}], min_version: 1.1}}",
            "f:1:65: tls.min_version: expected '1.2' or '1.3', found 1.1",
        ),
        (
            f"{{certificates: [{_PAIR}], client_auth: required}}",
            "f:1:6: tls: client_auth: required needs client_ca",
        ),
        (
            f"{{certificates: [{_PAIR}], client_ca: /ca.pem}}",
            "f:1:6: tls: client_ca is not used, set client_auth to optional or required",
        ),
        (
            f"{{certificates: [{_PAIR}], client_ca: /ca.pem, client_auth: maybe}}",
            "f:1:85: tls.client_auth: expected 'none', 'optional' or 'required', found 'maybe'",
        ),
        (
            f"{{certificates: [{_PAIR}], ciphers: all}}",
            "f:1:52: tls.ciphers: unknown key 'ciphers' (known: client_auth, client_ca,"
            " min_version)",
        ),
    ],
)
def test_a_mistake_is_told_with_its_place(tls: str, mistake: str) -> None:
    assert mistakes(with_tls(tls)) == [mistake]


def test_an_endpoint_may_be_https_with_the_system_s_cas() -> None:
    backend = load(with_backend()).config.backends["v1"]
    assert (backend.endpoints[0].url, backend.has_tls, backend.tls) == ("https://a:1", True, None)
    assert UpstreamTls().verify


@pytest.mark.parametrize(
    ("tls", "mistake"),
    [
        ({"cert": "/c"}, "v1.tls: cert and key go together, one is missing"),
        ({"key": "/k"}, "v1.tls: cert and key go together, one is missing"),
        (
            {"ca": "/ca", "verify": False},
            "v1.tls: with verify: false the ca is not used, remove one of the two",
        ),
        (
            {"server_name": "*.a"},
            "v1.tls.server_name: '*.a' is not a name that a certificate can have,"
            " write api.internal",
        ),
        ({"verify": "no"}, "v1.tls.verify: expected true or false, found 'no'"),
    ],
)
def test_a_mistake_about_endpoints_is_told(tls: dict[str, Any], mistake: str) -> None:
    (found,) = mistakes(with_backend(tls=tls))
    assert found.partition(": backends.")[2] == mistake


def test_tls_without_an_https_endpoint_is_a_mistake() -> None:
    (found,) = mistakes(with_backend(endpoints=["http://a:1"], tls={"server_name": "b"}))
    assert found.endswith("v1: tls is for https endpoints, this backend has none")


def test_not_verifying_is_a_warning() -> None:
    (found,) = warnings(with_backend(tls={"verify": False}))
    assert found.endswith(
        "backends.v1.tls.verify: anyone on the way to these endpoints can read and change what is"
        " sent"
    )


@pytest.mark.parametrize(
    ("route", "place"),
    [
        ("backend: v1, match: {client_cert: {subject: CN=a}}", "routes[0].match.client_cert"),
        (
            "policy: {type: ab, variants: [{backend: v1}], sticky: {client_cert: true}}",
            "routes[0].policy.sticky.client_cert",
        ),
    ],
)
def test_asking_for_certificates_that_nobody_shows_is_a_mistake(route: str, place: str) -> None:
    text = VALID.replace("backend: v1", route)
    (found,) = mistakes(text)
    assert found.endswith(
        f"{place}: clients show no certificate (set tls.client_auth to optional or required)"
    )
    tls = f"{{certificates: [{_PAIR}], client_ca: /ca, client_auth: optional}}"
    assert mistakes(f"tls: {tls}\n{text}") == []


@pytest.mark.parametrize("condition", ["{}", "{subject: null}"])
def test_a_match_on_a_certificate_has_a_condition(condition: str) -> None:
    text = VALID.replace("backend: v1", f"backend: v1, match: {{client_cert: {condition}}}")
    tls = f"{{certificates: [{_PAIR}], client_ca: /ca, client_auth: optional}}"
    (found,) = mistakes(f"tls: {tls}\n{text}")
    assert found.endswith("client_cert has a condition on subject, on san, or both")
