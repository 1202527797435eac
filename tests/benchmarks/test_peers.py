import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.errors import BenchmarkError
from benchmarks.peers import Peer, before, select


def test_peers_are_selected_by_name_in_one_order() -> None:
    assert [peer.name for peer in select(["envoy", "nginx"])] == ["nginx", "envoy"]


def test_an_unknown_peer_is_refused_with_those_there_are() -> None:
    with pytest.raises(BenchmarkError, match="no peer 'iis', there are: nginx, haproxy"):
        select(["nginx", "iis"])


def test_a_missing_program_says_how_to_install_it() -> None:
    peer = Peer("ghost", "no-such-program", (), (), "apt install ghost")
    assert peer.path() is None
    with pytest.raises(BenchmarkError, match="ghost is missing: apt install ghost"):
        peer.command()


@pytest.mark.parametrize(
    ("module", "expected"), [("json", sys.executable), ("no_such.module", None)]
)
def test_a_module_is_run_by_this_python_when_it_is_there(module: str, expected: str | None) -> None:
    assert Peer("own", "", (), (), "", module=module).path() == expected


def test_a_version_is_the_first_line_with_a_digit() -> None:
    code = "print('Banner'); print('Version: 1.2')"
    peer = Peer("own", "", (), ("-c", code), "", module="json")
    assert peer.version() == "Version: 1.2"


def test_another_checkout_is_run_instead_of_this_one(tmp_path: Path) -> None:
    package = tmp_path / "router"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text("print('the other')")
    peer = before(tmp_path)
    run = subprocess.run(
        peer.command(),
        env=os.environ | dict(peer.environment),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert run.stdout == "the other\n"


def test_a_directory_without_the_router_is_no_checkout(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match="is no checkout"):
        before(tmp_path)
