"""PEM files of a config: every mistake in them at its place, nothing of a key in any message."""

import time
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from router.config import ConfigError, load_text
from router.config.model import Config
from router.tls import files
from tests.certificates import Authority

_TEXT = """\
tls:
  certificates:
    - cert: @a/a.example.crt
      key: @a/a.example.key
    - {cert: @a/b.example.crt, key: @a/b.example.key}
  client_auth: optional
  client_ca: @a/ca.pem
backends:
  v1:
    endpoints: [https://a:1]
    tls: {ca: @a/ca.pem, cert: @a/a.example.crt, key: @a/a.example.key}
routes: [{name: r, backend: v1}]
"""


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """With everything that `_TEXT` names."""
    authority = Authority(tmp_path)
    authority.issue("a.example")
    authority.issue("b.example")
    assert authority.path.exists()
    return authority


def problems(directory: Path, text: str = _TEXT) -> list[str]:
    """What `check` prints, with `@a` for the directory."""
    try:
        whole = text.replace("@a", str(directory)).encode()
        found = load_text(whole, "f", {}, files.look).warnings
    except ConfigError as error:
        found = error.problems
    return [str(problem).replace(str(directory), "@a") for problem in found]


def test_good_files_are_read_once_and_given_on(authority: Authority) -> None:
    text = _TEXT.replace("@a", str(authority.directory)).encode()
    loaded = load_text(text, "f", {}, files.look)
    assert loaded.warnings == ()
    names = ["a.example.crt", "a.example.key", "b.example.crt", "b.example.key", "ca.pem"]
    paths = [authority.directory / name for name in names]
    assert loaded.pem == {str(path): path.read_text() for path in paths}


def test_nobody_reads_files_unasked() -> None:
    loaded = load_text(_TEXT.replace("@a", "/nowhere").encode(), "f", {})
    assert loaded.pem == {}


def test_files_that_are_not_there_are_told_each_at_its_place(tmp_path: Path) -> None:
    told = [problem.partition(": No such file")[0] for problem in problems(tmp_path)]
    assert told == [
        "f:3:13: tls.certificates[0].cert: @a/a.example.crt cannot be read",
        "f:4:12: tls.certificates[0].key: @a/a.example.key cannot be read",
        "f:5:14: tls.certificates[1].cert: @a/b.example.crt cannot be read",
        f"f:5:{14 + len(f'{tmp_path}/b.example.crt, key: ')}: tls.certificates[1].key:"
        " @a/b.example.key cannot be read",
        "f:7:14: tls.client_ca: @a/ca.pem cannot be read",
        *(problem for problem in told if problem.startswith("f:11:")),
    ]
    assert len(told) == 8


def _unreadable(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _encrypt(path: Path) -> None:
    key = serialization.load_pem_private_key(path.read_bytes(), None)
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )


def _encrypt_as_of_old(path: Path) -> None:
    path.write_text(
        "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\n"
        "AAAA\n-----END RSA PRIVATE KEY-----\n"
    )


def _other_key(path: Path) -> None:
    key = rsa.generate_private_key(65537, 2048)
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
    )


def _garbled(path: Path) -> None:
    lines = path.read_text().splitlines(keepends=True)
    path.write_text(lines[0] + "A" * 64 + "\n" + lines[-1])


def _empty(path: Path) -> None:
    path.write_text("\n")


def _cut(path: Path) -> None:
    path.write_text(path.read_text()[:200])


@pytest.mark.parametrize(
    ("name", "change", "mistake"),
    [
        ("a.example.crt", _unreadable, "cert: @a/a.example.crt cannot be read: Is a directory"),
        ("a.example.crt", _empty, "cert: @a/a.example.crt holds no PEM certificate"),
        ("a.example.crt", _cut, "cert: @a/a.example.crt holds no PEM certificate"),
        (
            "a.example.crt",
            _garbled,
            "cert: @a/a.example.crt holds a certificate that cannot be read",
        ),
        (
            "a.example.crt",
            lambda p: p.write_bytes(b"x" * (files.FILE_MAX_BYTES + 1)),
            "cert: @a/a.example.crt is larger than 1048576 bytes",
        ),
        ("a.example.key", _empty, "key: @a/a.example.key holds no PEM private key"),
        ("a.example.key", _garbled, "key: the key in @a/a.example.key cannot be read"),
        (
            "a.example.key",
            _encrypt,
            "key: the key in @a/a.example.key is encrypted, nobody could type its password"
            " (write it without a password, readable by the router only)",
        ),
        (
            "a.example.key",
            _encrypt_as_of_old,
            "key: the key in @a/a.example.key is encrypted, nobody could type its password"
            " (write it without a password, readable by the router only)",
        ),
        (
            "a.example.key",
            _other_key,
            "key: the key in @a/a.example.key does not belong to the certificate in"
            " @a/a.example.crt",
        ),
    ],
)  # fmt: skip
def test_a_bad_pair_is_told_at_its_place(
    authority: Authority, name: str, change: Any, mistake: str
) -> None:
    change(authority.directory / name)
    line, column = (3, 13) if name.endswith("crt") else (4, 12)
    first, second = problems(authority.directory)
    assert first == f"f:{line}:{column}: tls.certificates[0].{mistake}"
    assert second.startswith("f:11:")
    assert second.endswith(f"backends.v1.tls.{mistake}")


def test_a_key_of_another_kind_or_certificate_is_no_match(authority: Authority) -> None:
    (authority.directory / "a.example.key").write_bytes(
        (authority.directory / "b.example.key").read_bytes()
    )
    assert "does not belong to the certificate" in problems(authority.directory)[0]


@pytest.mark.parametrize(
    ("content", "mistake"),
    [
        ("", "@a/ca.pem holds no PEM certificate"),
        (
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "@a/ca.pem holds a certificate that cannot be read",
        ),
    ],
)
def test_bad_cas_are_told_at_their_places(authority: Authority, content: str, mistake: str) -> None:
    authority.path.write_text(content)
    client, upstream = problems(authority.directory)
    assert client == f"f:7:14: tls.client_ca: {mistake}"
    assert upstream == f"f:11:15: backends.v1.tls.ca: {mistake}"


def test_what_is_not_valid_today_is_a_warning(authority: Authority) -> None:
    authority.issue("a.example", days=-1)
    first, second = problems(authority.directory)
    assert first.startswith("f:3:13: tls.certificates[0].cert: @a/a.example.crt expired on 20")
    assert second.startswith("f:11:")


def test_a_certificate_of_tomorrow_is_a_warning(tmp_path: Path) -> None:
    pair = Authority(tmp_path).issue("a.example", days=1)
    config = Config.model_validate(
        {
            "tls": {"certificates": [pair.as_yaml()]},
            "backends": {"v1": {"endpoints": ["http://a:1"]}},
            "routes": [{"name": "r", "backend": "v1"}],
        }
    )
    day_s = 86400.0
    for ago_days, expected in ((0, []), (3, ["is not valid before"]), (-2, ["expired on"])):
        _, found = files.read(config, time.time() - ago_days * day_s)
        assert [one.is_warning for one in found] == [True] * len(expected)
        assert all(words in one.message for words, one in zip(expected, found, strict=True))


def test_a_name_in_two_certificates_is_a_warning(authority: Authority) -> None:
    authority.issue("c.example", "a.example", file="b.example")
    assert problems(authority.directory) == [
        "f:5:14: tls.certificates[1].cert: a.example is served by tls.certificates[0] already"
    ]


def test_no_message_shows_a_key(authority: Authority) -> None:
    for path in authority.directory.glob("*.key"):
        secret = path.read_text().splitlines()[1]
        authority.directory.joinpath(path.stem + ".crt").write_text(path.read_text())
        assert secret not in "".join(problems(authority.directory))


def test_expiries_are_by_the_first_name(authority: Authority) -> None:
    text = _TEXT.replace("@a", str(authority.directory)).encode()
    loaded = load_text(text, "f", {}, files.look)
    found = files.expiries(loaded.config, loaded.pem)
    assert set(found) == {"a.example", "b.example"}
    assert 29 < (found["a.example"] - time.time()) / 86400 <= 30
