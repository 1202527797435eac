"""The asyncio tests of `websockets` themselves, with every connection sent through the router.

`python -m tests.clients.conformance CHECKOUT`, with a checkout of its repository (its distributions
hold no tests). They run twice, directly and through a router, and must end alike: prints what does
not, and fails when that is more than `EXPECTED`. By hand, some 15 seconds.

Each test starts a server of its own. Here all listen on one port, the router's endpoint; a test
that needs two at once cannot run, either way. What uses TLS or a Unix socket stays direct.
"""

import argparse
import asyncio
import errno
import json
import os
import socket
import subprocess
import sys
import unittest
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

SUITES = ("tests.asyncio.test_client", "tests.asyncio.test_server", "tests.asyncio.test_router")
DIRECT = "-"
DEADLINE_S = 300.0
EXPECTED = {
    "ClientTests.test_connection_closed_during_handshake": "502 instead of a closed connection",
    "ServerTests.test_close_stops_accepting_connections": "502 instead of a refused connection",
}
"""What a reverse proxy answers in the place of an endpoint that does not."""


def run_suites(port: int, router: str) -> dict[str, Any]:
    """Run `SUITES` of the checkout in the current directory, in this process."""
    sys.path.insert(0, os.getcwd())
    server = __import__("tests.asyncio.server", fromlist=["server"])
    direct_uri = server.get_uri

    def get_uri(running: Any, secure: bool | None = None) -> str:
        uri: str = direct_uri(running, secure)
        return f"ws://{router}" if router != DIRECT and uri.startswith("ws://") else uri

    create_server = asyncio.BaseEventLoop.create_server

    async def create_when_free(self: Any, *args: Any, **options: Any) -> asyncio.Server:
        for _ in range(50):  # the server of the test before may still be closing
            try:
                return await create_server(self, *args, **options)
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
            await asyncio.sleep(0.02)
        return await create_server(self, *args, **options)

    asyncio.BaseEventLoop.create_server = create_when_free  # type: ignore[assignment, method-assign]  # in a process of its own
    server.get_uri = get_uri
    server.args = server.handler, "localhost", port
    suite = unittest.defaultTestLoader.loadTestsFromNames(SUITES)
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        result = unittest.TextTestRunner(stream=nowhere, verbosity=0).run(suite)
    failed = {
        test.id().removeprefix("tests.asyncio.").partition(".")[2]: trace.strip().splitlines()[-1]
        for test, trace in (*result.failures, *result.errors)
    }
    return {"run": result.testsRun - len(result.skipped), "failed": failed}


def print_result(port: int, router: str) -> None:
    """What the child does."""
    print(json.dumps(run_suites(port, router)))


def in_checkout(checkout: Path, port: int, router: str) -> dict[str, Any]:
    """The result of `run_suites` in a process of its own: both sides have a package `tests`."""
    program = (
        "import runpy; "
        f"it = runpy.run_path({str(Path(__file__).resolve())!r}); "
        f"it['print_result']({port}, {router!r})"
    )
    environment = {**os.environ, "PYTHONPATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=checkout,
        env=environment,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> int:
    from tests.serve.harness import document, serving  # not in the child: see `in_checkout`

    parser = argparse.ArgumentParser(prog="python -m tests.clients.conformance")
    parser.add_argument("checkout", type=Path)
    checkout = parser.parse_args().checkout.resolve()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    direct = in_checkout(checkout, port, DIRECT)
    config = document([("origin", f"http://127.0.0.1:{port}")])
    config["routes"] = [{"name": "all", "backend": "origin"}]
    config["backends"]["origin"]["retry"] = {"attempts": 1}  # a 503 is the test's to see
    with TemporaryDirectory() as name, serving(Path(name), config) as router:
        routed = in_checkout(checkout, port, router.listen)
    cannot_run = len(direct["failed"])
    differ = {name: why for name, why in routed["failed"].items() if name not in direct["failed"]}
    for name, why in differ.items():
        print(f"{name}: {why} ({EXPECTED.get(name, 'NOT EXPECTED')})")
    alike = routed["run"] - cannot_run - len(differ)
    print(f"{alike} alike, {len(differ)} differ, {cannot_run} fail either way")
    return 1 if differ.keys() - EXPECTED.keys() or direct["run"] != routed["run"] else 0


if __name__ == "__main__":
    sys.exit(main())
