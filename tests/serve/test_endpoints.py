"""Endpoints that come, go, drain and move, under traffic."""

import http.client
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.serve.harness import DEADLINE_S, Router, call, document, poll, serving
from tests.serve.origins import Origin, origins
from tests.serve.traffic import Steady

pytestmark = pytest.mark.process

CHECK = {"path": "/health/held", "interval": "100ms", "timeout": "200ms"}


@pytest.fixture
def replicas() -> Iterator[tuple[Origin, Origin]]:
    """Two servers of one backend."""
    with origins("v1", "v1") as (first, second):
        yield first, second


def backend(*replicas: Origin | str, **settings: Any) -> dict[str, Any]:
    """The config of one backend, `v1`, with these endpoints."""
    urls = [item if isinstance(item, str) else item.url for item in replicas]
    config = document([("v1", urls[0])], workers=2)
    return {**config, "backends": {"v1": {"endpoints": urls, **settings}}}


def order(router: Router, *words: str) -> subprocess.Popen[str]:
    """The command line, as an operator calls it."""
    return subprocess.Popen(
        [sys.executable, "-m", "router", *words, "--admin", router.admin],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def done(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit status, and all that was said."""
    out, err = process.communicate(timeout=DEADLINE_S)
    return process.returncode, out + err


def endpoint(router: Router, origin: Origin | str) -> dict[str, Any]:
    url = origin if isinstance(origin, str) else origin.url
    rows = router.status()["backends"]["v1"]["endpoints"]
    (row,) = [row for row in rows if row["url"] == url]
    return dict(row)


def asked(origin: Origin) -> int:
    """Requests that were no checks."""
    return sum(not item.path.startswith("/health/") for item in origin.served)


def test_drain_waits_for_what_is_in_flight_and_no_request_fails(
    tmp_path: Path, replicas: tuple[Origin, Origin]
) -> None:
    first, second = replicas
    with (
        serving(tmp_path, backend(first)) as router,
        closing(http.client.HTTPConnection(router.listen, timeout=DEADLINE_S)) as held,
    ):
        held.request("GET", "/plain/held")
        poll(lambda: first.served, "in flight")
        router.write_and_wait(backend(first, second))
        with Steady(router.listen) as steady:
            poll(lambda: asked(first) > 10, "in use")
            waiting = order(router, "drain", first.url, "--wait")
            poll(lambda: endpoint(router, first)["in_flight"] == 1, "idle but for one")
            before = asked(first)
            steady.more(200)
            assert asked(first) == before
            assert waiting.poll() is None
            first.let()
            assert held.getresponse().read() == b"v1"
            status, said = done(waiting)
            assert (status, said.splitlines()[-1]) == (0, "nothing is in flight")

            router.write_and_wait(backend(first, second, keep_alive="9s"))
            os.kill(router.worker_pids()[0], signal.SIGKILL)
            poll(lambda: len(router.worker_pids()) == 2, "replaced")
            failed = len(steady.failed)  # by the kill
            steady.more(200)
            assert asked(first) == before  # neither the reload nor the new worker forgot it

            assert done(order(router, "undrain", first.url))[0] == 0
            poll(lambda: asked(first) > before, "in use again")
            steady.more(100)
            assert len(steady.failed) == failed
    assert failed <= 4  # connections there were


def test_drain_says_what_it_cannot_do(tmp_path: Path, replicas: tuple[Origin, Origin]) -> None:
    first, second = replicas
    with (
        serving(tmp_path, backend(first, second)) as router,
        closing(http.client.HTTPConnection(router.listen, timeout=DEADLINE_S)) as held,
    ):
        assert done(order(router, "drain", second.url)) == (0, f"{second.url} of v1: draining\n")
        held.request("GET", "/plain/held")
        poll(lambda: first.served, "in flight")
        status, said = done(order(router, "drain", first.url))
        assert (status, said.count("\n")) == (1, 1)
        assert "v1 would have no other endpoint" in said
        words = ("drain", first.url, "--force", "--wait", "--timeout", "100ms")
        status, said = done(order(router, *words))
        assert status == 1
        assert f"after 100ms: 1 requests are in flight on {first.url} of v1" in said
        assert call(router.listen, "GET", "/plain/x").status == 503
        first.let()
        held.getresponse().read()
        status, said = done(order(router, "drain", first.url.replace("127", "128")))
        assert (status, "did you mean" in said) == (1, True)
        assert done(order(router, "drain", first.url, "--timeout", "1"))[0] == 2


def test_an_added_endpoint_gets_nothing_before_a_check_was_good(
    tmp_path: Path, replicas: tuple[Origin, Origin]
) -> None:
    first, second = replicas
    first.open_gate()
    with (
        serving(tmp_path, backend(first, health=CHECK)) as router,
        Steady(router.listen) as steady,
    ):
        router.write_and_wait(backend(first, second, health=CHECK))
        row = endpoint(router, second)
        assert (row["state"], bool(row["reason"])) == ("down", True)
        poll(lambda: len(second.served) >= 2, "checked")
        steady.more(200)
        assert asked(second) == 0
        second.open_gate()
        poll(lambda: asked(second) > 10, "in use")
        assert endpoint(router, second)["state"] == "up"
    assert not steady.failed


def test_a_route_that_moves_to_a_new_backend_fails_no_request(
    tmp_path: Path, replicas: tuple[Origin, Origin]
) -> None:
    first, _ = replicas
    with origins("v2") as (other,), serving(tmp_path, document([first], workers=2)) as router:
        check = {"path": "/health/ready", "timeout": "10s"}
        moved = document([other], workers=2)
        moved["backends"]["v2"]["health"] = check
        with Steady(router.listen) as steady:
            router.write_and_wait(moved)
            assert set(steady.variants()) == {"v2"}
        assert not steady.failed
        assert other.served[0].path == "/health/ready"


def test_a_name_is_followed_to_its_new_addresses_and_kept_when_it_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts = names(tmp_path, monkeypatch)
    hosts.write_text("127.0.0.1")
    old = Origin("v1")
    new = Origin("v1", "127.0.0.2", old.port)
    for server in (old, new):
        server.start()
    url = f"http://replicas.test:{old.port}"
    try:
        with serving(tmp_path, backend(url, resolve="100ms")) as router:
            poll(lambda: endpoint(router, url)["addresses"] == ["127.0.0.1"], "resolved")
            with Steady(router.listen) as steady:
                hosts.write_text("127.0.0.2")
                poll(lambda: endpoint(router, url)["addresses"] == ["127.0.0.2"], "moved")
                steady.more(20)  # workers have been told, what was in flight is over
                before = len(old.served)
                steady.more(100)
                assert len(old.served) == before

                hosts.write_text("")
                poll(lambda: endpoint(router, url)["resolve_failure"], "failing")
                steady.more(100)
                assert endpoint(router, url)["addresses"] == ["127.0.0.2"]
                failures = 'pointsman_resolve_failures_total{host="replicas.test"}'
                poll(lambda: router.metrics()[failures] >= 3, "counted")
                assert len(router.events("not_resolved")) == 1
                hosts.write_text("127.0.0.1")
                poll(lambda: len(old.served) > before, "back")
            assert not steady.failed
            assert len(router.events("resolved_again")) == 1
    finally:
        for server in (old, new):
            server.stop()


def names(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file with the addresses of `*.test`, for programs started from now on."""
    hosts = directory / "hosts"
    (directory / "sitecustomize.py").write_text(
        f"""\
import pathlib, socket
real = socket.getaddrinfo
def getaddrinfo(host, *rest, **others):
    if not str(host).endswith(".test"):
        return real(host, *rest, **others)
    found = pathlib.Path({str(hosts)!r}).read_text().split()
    if not found:
        raise socket.gaierror(-2, "Name or service not known")
    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, 0)) for one in found]
socket.getaddrinfo = getaddrinfo
"""
    )
    monkeypatch.setenv("PYTHONPATH", str(directory))
    return hosts
