"""TLS of the whole program: real clients, renewals under load, mistakes that change nothing."""

import asyncio
import io
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import pytest
import requests
from websockets.asyncio.client import connect

from tests.certificates import Authority, Files, server
from tests.clients.websocket_server import websocket_server
from tests.serve.harness import Router, call, document, poll, serving, total
from tests.serve.origins import Origin, Servers, origins
from tests.serve.traffic import Steady

pytestmark = pytest.mark.process


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """With a certificate for where the router listens, in the file `server`."""
    (tmp_path / "tls").mkdir()
    authority = Authority(tmp_path / "tls")
    authority.issue("127.0.0.1", "localhost", file="server")
    return authority


def secured(authority: Authority, config: dict[str, Any], *more: Files, **tls: Any) -> Any:
    directory = authority.directory
    first = {"cert": str(directory / "server.crt"), "key": str(directory / "server.key")}
    certificates = [first, *(one.as_yaml() for one in more)]
    return {**config, "tls": {"certificates": certificates, **tls}}


def shown(router: Router, authority: Authority, name: str = "127.0.0.1") -> int:
    """The serial number of the certificate that a new client gets."""
    host, _, port = router.listen.rpartition(":")
    with (
        socket.create_connection((host, int(port))) as sock,
        authority.client().wrap_socket(sock, server_hostname=name) as wrapped,
    ):
        certificate = wrapped.getpeercert()
    assert certificate is not None
    return int(str(certificate["serialNumber"]), 16)


# clients


def test_real_clients_are_served(tmp_path: Path, authority: Authority, servers: Servers) -> None:
    with websocket_server() as websocket:
        config = document([*servers, ("websocket", websocket.url)])
        config["routes"].append(
            {"name": "websocket", "match": {"path": "/ws/"}, "backend": "websocket"}
        )
        with serving(tmp_path, secured(authority, config)) as router:
            url = f"https://{router.listen}"
            body = os.urandom(3 * 1024 * 1024)
            with requests.Session() as session:
                session.trust_env = False  # a machine may name CAs of its own
                session.verify = str(authority.path)
                for _ in range(3):
                    assert session.get(f"{url}/plain/x").text == "v1"
                assert session.post(f"{url}/plain/echo", data=body).content == body
            with httpx.Client(verify=authority.client()) as client:
                assert client.post(f"{url}/plain/echo", content=body).content == body
            asyncio.run(_with_aiohttp(url, authority, body))
            asyncio.run(_with_websockets(url, authority))
            served = servers[0].served
            assert {one.headers["x-forwarded-proto"] for one in served} == {"https"}
            outcomes = total(router.metrics(), "pointsman_tls_handshakes_total")
            assert (
                total(router.metrics(), "pointsman_tls_handshakes_total", outcome="ok") == outcomes
            )
            router.stop()


async def _with_aiohttp(url: str, authority: Authority, body: bytes) -> None:
    connector = aiohttp.TCPConnector(ssl=authority.client())
    async with aiohttp.ClientSession(connector=connector) as session:
        async with session.post(f"{url}/plain/echo", data=io.BytesIO(body)) as answer:
            assert await answer.read() == body
        async with session.get(f"{url}/plain/x") as answer:
            assert await answer.text() == "v1"


async def _with_websockets(url: str, authority: Authority) -> None:
    target = url.replace("https:", "wss:") + "/ws/echo"
    async with connect(target, ssl=authority.client()) as connection:
        for message in ("short", "long " * 100_000):
            await connection.send(message)
            assert await connection.recv() == message
    assert connection.close_code == 1000


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_is_served_over_each_version_and_with_its_certificate(
    tmp_path: Path, authority: Authority, servers: Servers
) -> None:
    mine = authority.issue("batch.example", common_name="batch")
    match = {"client_cert": {"san": "DNS:batch.example"}}
    config = secured(
        authority,
        document(servers, routes=[{"name": "batch", "match": match, "backend": "v1"}]),
        client_ca=str(authority.path),
        client_auth="optional",
    )
    certificate = ["--cert", str(mine.cert), "--key", str(mine.key)]
    with serving(tmp_path, config) as router:

        def curl(*arguments: str) -> tuple[int, str]:
            url, ca = f"https://{router.listen}/plain/x", str(authority.path)
            command = ["curl", "--silent", "--show-error", "--cacert", ca, "--max-time", "30"]
            form = "%{http_version} %{http_code}"
            done = subprocess.run(
                [*command, "-o", str(tmp_path / "body"), "-w", form, *arguments, url],
                capture_output=True,
                text=True,
            )
            return done.returncode, done.stdout

        assert curl(*certificate) == (0, "1.1 200")
        assert curl(*certificate, "--tls-max", "1.2") == (0, "1.1 200")
        assert curl() == (0, "1.1 404")
        status, _ = curl("--tls-max", "1.1", "--ciphers", "ALL:@SECLEVEL=0")
        assert status == 35  # no handshake
        (seen, *_) = servers[0].served
        assert seen.headers["x-client-cert-subject"].startswith("CN=batch,")
        assert router.events("unhandled") == []
        assert "Traceback" not in router.log.read_text()


def test_the_name_selects_the_certificate_in_every_worker(
    tmp_path: Path, authority: Authority, servers: Servers
) -> None:
    other = authority.issue("*.models.example")
    config = secured(authority, document(servers, workers=2), other)
    with serving(tmp_path, config) as router:
        first = {shown(router, authority, "localhost") for _ in range(12)}
        second = {shown(router, authority, "v7.models.example") for _ in range(12)}
        assert len(first) == len(second) == 1
        assert first != second


# renewal


def test_a_renewal_under_load_fails_nothing(
    tmp_path: Path, authority: Authority, servers: Servers
) -> None:
    config = secured(authority, document(servers, workers=2))
    context = authority.client()
    with serving(tmp_path, config) as router:
        kept = Steady(router.listen, tls=context)
        fresh = Steady(router.listen, tls=context, is_kept=False)
        with kept, fresh:
            for _ in range(3):
                before = shown(router, authority)
                expiry = total(router.metrics(), "pointsman_tls_certificate_expiry_seconds")
                authority.issue("127.0.0.1", "localhost", file="server", days=60)
                poll(lambda b=before: shown(router, authority) != b, "renewed")
                kept.more(20)
                fresh.more(20)
        assert kept.failed == fresh.failed == []
        assert total(router.metrics(), "pointsman_tls_certificate_expiry_seconds") >= expiry
        assert total(router.metrics(), "pointsman_tls_reload_failures_total") == 0
        accepted = total(router.metrics(), "pointsman_downstream_connections_accepted_total")
        assert accepted >= len(fresh.answered)
        router.stop()


def test_a_secret_that_kubernetes_swaps_is_taken_in(tmp_path: Path, servers: Servers) -> None:
    mount = tmp_path / "mount"
    mount.mkdir()
    made = Authority(tmp_path)

    def write(version: str) -> None:
        (mount / version).mkdir()
        pair = made.issue("127.0.0.1")
        pair.cert.rename(mount / version / "tls.crt")
        pair.key.rename(mount / version / "tls.key")
        (mount / "..data_tmp").symlink_to(version)
        os.replace(mount / "..data_tmp", mount / "..data")

    write("..1")
    for name in ("tls.crt", "tls.key"):
        (mount / name).symlink_to(f"..data/{name}")
    pair = {"cert": str(mount / "tls.crt"), "key": str(mount / "tls.key")}
    config = {**document(servers), "tls": {"certificates": [pair]}}
    with serving(tmp_path, config) as router:
        before = shown(router, made)
        write("..2")
        poll(lambda: shown(router, made) != before, "renewed")


def test_a_bad_renewal_leaves_the_last_good_even_to_a_new_worker(
    tmp_path: Path, authority: Authority, servers: Servers
) -> None:
    config = secured(authority, document(servers))
    key = authority.directory / "server.key"
    with serving(tmp_path, config) as router:
        before = shown(router, authority)
        good = key.read_text()
        key.write_text("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
        (event,) = poll(lambda: router.events("certificates_refused"), "refused")
        assert event["errors"] == [f"tls.certificates[0].key: the key in {key} cannot be read"]
        poll(lambda: total(router.metrics(), "pointsman_tls_reload_failures_total") == 1, "counted")
        assert shown(router, authority) == before
        (pid,) = router.worker_pids()
        os.kill(pid, signal.SIGKILL)
        poll(lambda: router.worker_pids() not in ([], [pid]), "replaced")
        assert shown(router, authority) == before
        key.write_text(good)  # the same as in force: nothing to renew
        authority.issue("127.0.0.1", "localhost", file="server")
        poll(lambda: shown(router, authority) != before, "renewed")
        assert len(router.events("certificates_refused")) == 1
        assert total(router.metrics(), "pointsman_tls_reload_failures_total") == 1


def test_a_file_that_is_gone_leaves_the_last_good(
    tmp_path: Path, authority: Authority, servers: Servers
) -> None:
    with serving(tmp_path, secured(authority, document(servers))) as router:
        before = shown(router, authority)
        (authority.directory / "server.crt").unlink()
        (event,) = poll(lambda: router.events("certificates_refused"), "refused")
        assert "cannot be read: No such file or directory" in event["errors"][0]
        assert shown(router, authority) == before


@pytest.mark.parametrize("how", ["signal", "api"])
def test_asking_for_a_reload_reads_the_files_too(
    tmp_path: Path, authority: Authority, servers: Servers, how: str
) -> None:
    with serving(tmp_path, secured(authority, document(servers))) as router:
        before = shown(router, authority)
        authority.issue("127.0.0.1", "localhost", file="server")
        if how == "api":
            assert call(router.admin, "POST", "/reload").status == 200
        else:
            router.signal(signal.SIGHUP)
        poll(lambda: shown(router, authority) != before, "renewed")


def test_a_config_with_a_bad_certificate_is_refused_and_nothing_changes(
    tmp_path: Path, authority: Authority, servers: Servers
) -> None:
    good = secured(authority, document(servers))
    other = authority.issue("other.example")
    other.key.write_text((authority.directory / "server.key").read_text())
    with serving(tmp_path, good) as router:
        before = shown(router, authority)
        router.write(secured(authority, document(servers), other))
        (event,) = poll(lambda: router.events("reload_refused"), "refused")
        (error,) = event["errors"]
        assert error.startswith(f"{router.path}:1:")
        assert error.endswith(
            f"tls.certificates[1].key: the key in {other.key} does not belong to the certificate"
            f" in {other.cert}"
        )
        assert shown(router, authority) == before
        with Steady(router.listen, tls=authority.client()) as steady:
            steady.more(20)
        assert steady.failed == []


# endpoints


@contextmanager
def https_origin(context: ssl.SSLContext) -> Iterator[Origin]:
    origin = Origin("v1")
    origin.speak_tls(context)
    origin.start()
    try:
        yield origin
    finally:
        origin.stop()


def test_https_endpoints_are_checked_and_used(tmp_path: Path, authority: Authority) -> None:
    pair = Files(authority.directory / "server.crt", authority.directory / "server.key")
    with https_origin(server(pair)) as origin:
        config = document([origin])
        config["backends"]["v1"] |= {
            "tls": {"ca": str(authority.path)},
            "health": {"path": "/health", "interval": "100ms", "unhealthy_after": 1},
        }
        with serving(tmp_path, config) as router:
            with Steady(router.listen) as steady:
                steady.more(50)
                poll(lambda: any(one.path == "/health" for one in origin.served), "checked")
                steady.more(50)
            assert steady.failed == []
            assert total(router.metrics(), "pointsman_endpoint_up") == 1
            opened = total(router.metrics(), "pointsman_upstream_connections_opened_total")
            assert opened <= 4
            router.stop()


def test_an_https_backend_that_a_reload_adds_is_met_with_its_own_ca(
    tmp_path: Path, authority: Authority, servers: Servers
) -> None:
    pair = Files(authority.directory / "server.crt", authority.directory / "server.key")
    with https_origin(server(pair)) as origin, serving(tmp_path, document(servers)) as router:
        config = document(servers)
        config["backends"]["secured"] = {
            **document([origin])["backends"]["v1"],
            "tls": {"ca": str(authority.path)},
            "health": {"path": "/health", "interval": "1h", "unhealthy_after": 1},
        }
        config["routes"].append(
            {"name": "secured", "match": {"path": "/secured/"}, "backend": "secured"}
        )
        router.write_and_wait(config)
        assert total(router.metrics(), "pointsman_endpoint_up") == 1
        assert call(router.listen, "GET", "/secured/x").status == 200


def test_an_https_endpoint_with_another_name_is_refused_and_down(
    tmp_path: Path, authority: Authority
) -> None:
    with https_origin(server(authority.issue("other.example"))) as origin:
        config = document([origin])
        config["backends"]["v1"] |= {"tls": {"ca": str(authority.path)}}
        with serving(tmp_path, config) as router:
            answer = call(router.listen, "GET", "/plain/x")
            assert answer.status == 502
            assert "certificate verify failed: ip address mismatch" in answer.json()["detail"]
            failures = total(router.metrics(), "pointsman_upstream_failures_total", reason="tls")
            assert failures >= 1
            checked = {"path": "/health", "interval": "100ms", "unhealthy_after": 1}
            config["backends"]["v1"] |= {"health": checked}
            router.write_and_wait(config)
            poll(lambda: total(router.metrics(), "pointsman_endpoint_up") == 0, "down")
        assert origin.served == []


# check


def check(path: Path) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "router", "check", str(path)], capture_output=True, text=True
    )
    return done.returncode, done.stdout, done.stderr


def test_check_looks_into_the_files(tmp_path: Path, authority: Authority) -> None:
    path = tmp_path / "router.yaml"
    with origins("v1") as servers:
        path.write_text(json.dumps(secured(authority, document(servers))))
    assert check(path)[0] == 0
    authority.issue("127.0.0.1", file="server", days=-1)
    status, out, err = check(path)
    assert (status, out) == (0, f"{path}: 1 routes, 1 backends\n")
    assert err.startswith(f"warning: {path}:1:")
    assert "server.crt expired on 20" in err
    (authority.directory / "server.key").write_text("no key\n")
    status, _, err = check(path)
    assert status == 2
    key = authority.directory / "server.key"
    assert err.endswith(f"tls.certificates[0].key: {key} holds no PEM private key\n")
