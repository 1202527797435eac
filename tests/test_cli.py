import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]  # it publishes no types
import pytest

from router import __version__, cli
from router.control import overview, status
from tests.control.support import BANDIT, PLAIN, document, idle_plane, loaded
from tests.control.test_client import Answering
from tests.control.test_client import server as server  # the fixture


def write(path: Path, **changes: Any) -> str:
    path.write_text(json.dumps(document(**changes)))
    return str(path)


def test_a_good_config_is_checked_with_status_0(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["check", write(tmp_path / "a.yaml")]) == 0
    assert capsys.readouterr().out.endswith("1 routes, 2 backends\n")


def test_all_problems_of_a_bad_config_are_shown_with_status_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = write(tmp_path / "a.yaml", workers=0, routes=[{**PLAIN, "backend": "v3"}])
    for command in ("check", "serve", "explain"):
        assert cli.main([command, bad]) == 2
        output = capsys.readouterr()
        assert output.out == ""
        assert "a.yaml:1:" in output.err
        assert "workers" in output.err
        assert "v3" in output.err
        assert "Traceback" not in output.err


@pytest.mark.parametrize("name", ["missing.yaml", "."])
def test_a_file_that_cannot_be_read_is_status_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    assert cli.main(["check", str(tmp_path / name)]) == 2
    assert str(tmp_path) in capsys.readouterr().err


def test_a_diff_says_what_would_change(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = write(tmp_path / "old.yaml")
    new = write(tmp_path / "new.yaml", workers=3, routes=[PLAIN, BANDIT])
    assert cli.main(["check", "--diff", old, new]) == 0
    output = capsys.readouterr().out
    assert "workers" in output
    assert "restart" in output
    assert "learner" in output


RAMP: dict[str, Any] = {
    "name": "ramp",
    "policy": {
        "type": "canary",
        "stable": "v1",
        "canary": "v2",
        "sticky": {"header": "x-user-id"},
        "steps": [{"weight": "5%"}],
        "guard": {},
    },
}


def ramp(**changes: Any) -> dict[str, Any]:
    return {**RAMP, "policy": {**RAMP["policy"], **changes}}


def test_a_diff_says_what_becomes_of_rollouts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = write(tmp_path / "old.yaml", routes=[RAMP])
    new = write(tmp_path / "new.yaml", routes=[ramp(bake="1m")])
    assert cli.main(["check", "--diff", old, new]) == 0
    changes = capsys.readouterr().out.splitlines()
    assert changes[:3] == [
        "~ routes[ramp].policy.bake changes from 0s to 1m",
        "",
        "ramp: its rollout starts over (or stays promoted, if it is): "
        "routes[ramp].policy.bake changes from 0s to 1m",
    ]
    assert not any("if it is promoted: " in change for change in changes)  # then nobody moves


def test_a_plan_asks_the_running_router_where_its_rollouts_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], server: Answering
) -> None:
    document = status.status(idle_plane(loaded(routes=[RAMP])))
    rollout = {"phase": "paused", "at": "step 1 of 1 (5%)\x1b[31m", "digest": "another"}
    rollout |= {"old": "v1", "new": "v2"}
    document["routes"][0]["rollout"] = rollout
    for variant, weight in zip(document["routes"][0]["variants"], (0.0, 1.0), strict=True):
        variant["weight"] = weight
    server.body = json.dumps(document).encode()
    new = write(tmp_path / "new.yaml", routes=[RAMP])

    assert cli.main(["plan", new, "--admin", server.address]) == 0
    text = capsys.readouterr().out
    assert server.asked[0][0] == "/status"
    assert text.startswith("ramp: its rollout starts over (paused, at step 1 of 1 (5%)")
    assert "100% of units move: 100% v2 -> v1" in text
    assert "\x1b" not in text

    assert cli.main(["plan", new, "--admin", server.address, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["fate"] == "starts over"


def test_a_plan_without_a_router_compares_two_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = write(tmp_path / "old.yaml", routes=[RAMP])
    assert cli.main(["plan", old, "--offline", old]) == 0
    assert capsys.readouterr().out == (
        "ramp: its rollout goes on: its policy stays\n  no unit moves\n"
    )
    bad = write(tmp_path / "bad.yaml", routes=[ramp(steps=[])])
    assert cli.main(["plan", bad, "--offline", old]) == 2
    assert "routes[0].policy.steps" in capsys.readouterr().err


def test_a_plan_that_finds_no_router_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], server: Answering
) -> None:
    server.body = b'{"routes": [{"name": "r"}]}'
    new = write(tmp_path / "new.yaml", routes=[RAMP])
    assert cli.main(["plan", new, "--admin", server.address]) == 1
    error = capsys.readouterr().err
    assert "--offline OLD.yaml" in error
    assert error.count("\n") == 1


def test_the_schema_accepts_what_is_accepted(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["schema"]) == 0
    jsonschema.validate(document(), json.loads(capsys.readouterr().out))


def test_explain_names_the_variant(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write(tmp_path / "a.yaml")
    assert cli.main(["explain", config, "--path", "/plain/x"]) == 0
    assert "v1" in capsys.readouterr().out
    assert cli.main(["explain", config, "--path", "/plain/x", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["variant"] == "v1"


def test_explain_of_an_unknown_route_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["explain", write(tmp_path / "a.yaml"), "--route", "plane"]) == 1
    error = capsys.readouterr().err
    assert "'plain'" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("admin", ["ftp://x", "http://", "http://127.0.0.1:99999"])
def test_an_admin_address_that_is_none_is_one_line(
    capsys: pytest.CaptureFixture[str], admin: str
) -> None:
    assert cli.main(["status", "--admin", admin]) == 1
    error = capsys.readouterr().err
    assert "is not an admin API's address" in error
    assert error.count("\n") == 1


def test_a_router_that_does_not_answer_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound and not listening: refuses
        address = f"http://127.0.0.1:{unused.getsockname()[1]}"
        assert cli.main(["status", "--admin", address]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"pointsman: no router answers at {address}: ")
    assert error.count("\n") == 1


def test_status_is_a_table_for_people() -> None:
    plane = idle_plane(loaded(routes=[PLAIN, BANDIT]))
    text = overview.render(json.loads(json.dumps(status.status(plane))))
    rows = [line.split() for line in text.splitlines()]
    assert ["learner", "bandit", "v2", "active", "50%", "-", "0", "-", "-"] in rows
    assert ["v1", "http://127.0.0.1:1", "up,", "not", "checked", "-", "-", "-"] in rows


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit:
        cli.main(["--version"])
    assert exit.value.code == 0
    assert capsys.readouterr().out == f"pointsman {__version__}\n"


def test_a_wrong_command_line_is_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit:
        cli.main(["serves"])
    assert exit.value.code == 2
    assert "invalid choice: 'serves'" in capsys.readouterr().err


def test_the_command_line_alone_imports_nothing_heavy() -> None:
    script = (
        "import sys; import router.cli; "
        "print([m for m in ('aiohttp', 'pydantic', 'sklearn', 'uvloop') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert done.stdout == b"[]\n"


def test_a_reader_that_leaves_early_gets_no_traceback() -> None:
    command = f"{sys.executable} -m router schema | head -c 1"
    done = subprocess.run(["sh", "-c", command], capture_output=True, check=True)
    assert (done.stdout, done.stderr) == (b"{", b"")
