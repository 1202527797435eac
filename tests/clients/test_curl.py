"""curl through the router: HTTP/1.0, Expect, HEAD, ranges of bodies, many transfers at once."""

import os
import shutil
import subprocess
import zlib
from pathlib import Path

import pytest

from tests.clients.model_server import PIECE

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed"),
]
MIB = 1024 * 1024


def curl(*arguments: str) -> tuple[bytes, str]:
    """Body, and the conversation as curl tells it. An error of curl's fails the test."""
    command = ["curl", "--silent", "--show-error", "--verbose", "--max-time", "30", *arguments]
    done = subprocess.run(command, capture_output=True)
    told = done.stderr.decode()
    assert done.returncode == 0, told
    return done.stdout, told


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A file of 3 MiB; curl sends `expect` for what is longer than 1 MiB."""
    path = tmp_path / "large"
    path.write_bytes(os.urandom(3 * MIB))
    return path


def test_an_upload_waits_for_100_continue(url: str, large: Path) -> None:
    body, told = curl("--data-binary", f"@{large}", f"{url}/echo")
    assert body == large.read_bytes()
    assert "< HTTP/1.1 100 Continue" in told
    assert "Done waiting for 100-continue" not in told


def test_an_upload_that_the_server_does_not_want_is_not_sent(url: str, large: Path) -> None:
    body, told = curl("--data-binary", f"@{large}", f"{url}/unwanted")
    assert body == b"not wanted"
    assert "100 Continue" not in told
    assert "< HTTP/1.1 403" in told


def test_an_upload_of_unknown_length_is_chunked(url: str, large: Path) -> None:
    upload = ["--upload-file", str(large), "--header", "transfer-encoding: chunked"]
    body, told = curl(*upload, f"{url}/echo")
    assert body == large.read_bytes()
    assert "> transfer-encoding: chunked" in told


@pytest.mark.parametrize("kind", ["n=40", "n=40&chunked=1"])
def test_http_1_0_gets_a_whole_body_and_a_close(url: str, kind: str) -> None:
    body, told = curl("--http1.0", f"{url}/bytes?{kind}")
    assert zlib.crc32(body) == zlib.crc32(PIECE * 40)
    assert "transfer-encoding" not in told.lower()
    assert "Closing connection" in told


def test_http_1_0_posts(url: str) -> None:
    assert curl("--http1.0", "--data-binary", "old", f"{url}/echo")[0] == b"old"


def test_head_tells_the_length(url: str) -> None:
    body, _ = curl("--head", f"{url}/bytes?n=2")
    assert b"content-length: %d\r\n" % (2 * len(PIECE)) in body.lower()


def test_one_connection_serves_several_requests(url: str) -> None:
    body, told = curl(*[f"{url}/bytes?n=1&i={i}" for i in range(10)])
    assert body == PIECE * 10
    assert told.count("Re-using existing connection") == 9


def test_a_redirect_is_followed_with_the_body(url: str) -> None:
    assert curl("--location", "--data-binary", "again", f"{url}/moved")[0] == b"again"


def test_cookies_come_back(url: str, tmp_path: Path) -> None:
    jar = str(tmp_path / "jar")
    body, _ = curl("--cookie-jar", jar, "--cookie", jar, f"{url}/cookies", f"{url}/seen")
    assert b'"one": "1"' in body


def test_compressed_answers_are_understood(url: str) -> None:
    assert curl("--compressed", f"{url}/gzip")[0] == b'{"text": "%b"}' % (b"compressed " * 1000)


def test_a_proxy_request_names_its_target_in_full(url: str) -> None:
    """RFC 9112 section 3.2.2: a client that takes the router for a proxy sends absolute-form."""
    body, _ = curl("--proxy", url, "http://models.test:81/seen?a=1")
    assert b'"target": "/seen?a=1"' in body
    assert b'"host": "models.test:81"' in body


def test_fifty_transfers_at_once(url: str, tmp_path: Path) -> None:
    files = str(tmp_path / "#1")
    parallel = ["--parallel", "--parallel-immediate", "--parallel-max", "50"]
    curl(*parallel, "--output", files, f"{url}/bytes?n=16&i=[1-50]")
    found = list(tmp_path.iterdir())
    assert len(found) == 50
    assert {zlib.crc32(path.read_bytes()) for path in found} == {zlib.crc32(PIECE * 16)}


def test_an_upgrade_to_http_2_is_not_passed_on(url: str) -> None:
    """RFC 9110 section 7.8: an ordinary answer in HTTP/1.1, and the server is not asked."""
    body, told = curl("--http2", f"{url}/seen")
    assert "> Upgrade: h2c" in told
    assert "< HTTP/1.1 200" in told
    for name in (b'"upgrade"', b'"http2-settings"', b'"connection"'):
        assert name not in body
