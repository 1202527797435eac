"""New content of PEM files: taken when it is good, told once when it is bad, never half-read."""

import time
from pathlib import Path
from typing import Any

import orjson
import pytest

from router.config import Loaded, load_text
from router.control.certificates import Certificates
from router.messages import PemFiles
from router.tls import files
from tests.certificates import Authority
from tests.control.support import Pushed, document


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    authority = Authority(tmp_path)
    authority.issue("a.example")
    return authority


def load(authority: Authority, **tls: Any) -> Loaded:
    """A config with a listener's certificate, and a backend that has a CA."""
    pair = {name: str(authority.directory / f"a.example.{name[:3]}") for name in ("crt", "key")}
    backends = {
        "v1": {
            "endpoints": ["https://127.0.0.1:1"],
            "tls": {"ca": str(authority.path), "server_name": "model.internal"},
        },
        "v2": {"endpoints": ["https://127.0.0.1:2"]},
    }
    certificates = [{"cert": pair["crt"], "key": pair["key"]}]
    text = orjson.dumps(document(backends=backends, tls={"certificates": certificates, **tls}))
    return load_text(text, "router.yaml", {}, files.look)


async def test_unchanged_files_are_nothing_new(authority: Authority) -> None:
    pushed = Pushed()
    certificates = Certificates(pushed, load(authority))
    await certificates.look()
    (authority.directory / "a.example.crt").touch()
    await certificates.look()
    assert pushed == []
    assert certificates.reload_failures == 0
    assert 29 < (certificates.expiries["a.example"] - time.time()) / 86400 <= 30


async def test_good_content_is_told_to_the_workers_once(authority: Authority) -> None:
    pushed = Pushed()
    certificates = Certificates(pushed, load(authority))
    authority.issue("a.example", days=90)
    await certificates.look()
    await certificates.look()
    assert pushed == [PemFiles(certificates.pem)]
    assert certificates.pem == dict(load(authority).pem)
    assert (certificates.expiries["a.example"] - time.time()) / 86400 > 89


async def test_bad_content_is_believed_at_the_second_look_and_told_once(
    authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    pushed = Pushed()
    certificates = Certificates(pushed, load(authority))
    before = dict(certificates.pem)
    (authority.directory / "a.example.key").write_text("half of a ")
    await certificates.look()
    assert certificates.reload_failures == 0
    for _ in range(3):
        await certificates.look()
    assert certificates.reload_failures == 1
    assert [one.message for one in caplog.records].count("certificates_refused") == 1
    assert (pushed, certificates.pem) == ([], before)


async def test_a_pair_that_is_whole_by_the_second_look_was_never_wrong(
    authority: Authority,
) -> None:
    pushed = Pushed()
    certificates = Certificates(pushed, load(authority))
    new = authority.issue("a.example", file="new")
    (authority.directory / "a.example.crt").write_text(new.cert.read_text())
    await certificates.look()
    (authority.directory / "a.example.key").write_text(new.key.read_text())
    await certificates.look()
    assert certificates.reload_failures == 0
    assert len(pushed) == 1


async def test_other_bad_content_is_another_failure(authority: Authority) -> None:
    certificates = Certificates(Pushed(), load(authority))
    for number, text in enumerate(("one", "another mistake"), 1):
        (authority.directory / "a.example.key").write_text(text)
        for _ in range(3):
            await certificates.look()
        assert certificates.reload_failures == number


def test_content_that_a_reload_brought_is_taken_if_it_is_new(authority: Authority) -> None:
    pushed = Pushed()
    certificates = Certificates(pushed, load(authority))
    assert not certificates.take(load(authority).pem)
    authority.issue("a.example")
    assert certificates.take(load(authority).pem)
    assert len(pushed) == 1


def test_health_checks_are_told_how_to_meet_endpoints(authority: Authority) -> None:
    certificates = Certificates(Pushed(), load(authority))
    context, name = certificates.of_backend("v1")
    assert context is not None
    assert name == "model.internal"
    assert certificates.of_backend("v1")[0] is context
    assert certificates.of_backend("v2") == certificates.of_backend("gone") == (None, None)
    authority.issue("a.example")
    certificates.take(load(authority).pem)
    assert certificates.of_backend("v1")[0] is not context


def test_a_backend_that_is_offered_is_met_as_the_offer_says_until_it_is_withdrawn(
    authority: Authority,
) -> None:
    plain = load_text(orjson.dumps(document()), "router.yaml", {}, files.look)
    certificates = Certificates(Pushed(), plain)
    certificates.offer(load(authority))
    assert certificates.of_backend("v1") == (None, None)  # in force, without TLS
    offered = load_text(
        orjson.dumps(
            document(
                backends={
                    **document()["backends"],
                    "added": {
                        "endpoints": ["https://127.0.0.1:1"],
                        "tls": {"ca": str(authority.path), "server_name": "model.internal"},
                    },
                }
            )
        ),
        "router.yaml",
        {},
        files.look,
    )
    certificates.offer(offered)
    assert certificates.of_backend("added")[1] == "model.internal"
    certificates.offer(plain)
    assert certificates.of_backend("added") == (None, None)
