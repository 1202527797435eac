"""Hot reload under traffic: every way a file changes, and every way a change is refused."""

import http.client
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.serve.harness import DEADLINE_S, Router, bandit, call, canary, document, poll, serving
from tests.serve.origins import Servers
from tests.serve.traffic import Steady

pytestmark = pytest.mark.process

Change = Callable[[Router, dict[str, Any]], None]


def in_place(router: Router, config: dict[str, Any]) -> None:
    router.path.write_text(json.dumps(config))


def rename(router: Router, config: dict[str, Any]) -> None:
    router.write(config)


def configmap(router: Router, config: dict[str, Any]) -> None:
    """As the kubelet does: a new directory, and `..data` swapped to it by a rename."""
    mount = router.path.parent
    fresh = mount / f"..version-{len(list(mount.iterdir()))}"
    fresh.mkdir()
    (fresh / "router.yaml").write_text(json.dumps(config))
    link = mount / "..data_tmp"
    link.symlink_to(fresh.name)
    os.replace(link, mount / "..data")


def hang_up(router: Router, config: dict[str, Any]) -> None:
    in_place(router, config)
    router.signal(signal.SIGHUP)


def ask(router: Router, config: dict[str, Any]) -> None:
    in_place(router, config)
    assert call(router.admin, "POST", "/reload").status == 200


def weighted(servers: Servers, weight_percent: int) -> dict[str, Any]:
    """`ab`, random per request, so that what is routed tells the weights."""
    variants = [
        {"backend": "v1", "weight": f"{100 - weight_percent}%"},
        {"backend": "v2", "weight": f"{weight_percent}%"},
    ]
    policy = {"type": "ab", "variants": variants}
    route = {"name": "plain", "match": {"path": "/plain/"}, "policy": policy}
    return document(servers, workers=2, routes=[route])


@pytest.mark.parametrize("change", [in_place, rename, configmap, hang_up, ask])
def test_a_changed_file_takes_effect_and_no_request_fails(
    tmp_path: Path, servers: Servers, change: Change
) -> None:
    path = tmp_path / "mount" / "router.yaml"
    path.parent.mkdir()
    if change is configmap:
        path.symlink_to("..data/router.yaml")
        first = path.parent / "..version-0"
        first.mkdir()
        (path.parent / "..data").symlink_to(first.name)
    path.write_text(json.dumps(weighted(servers, 0)))
    with serving(tmp_path, "", path) as router, Steady(router.listen) as steady:
        assert set(steady.variants()) == {"v1"}
        change(router, weighted(servers, 100))
        poll(lambda: router.generation() == 2, "reloaded")
        steady.more(20)  # those in flight at the swap
        assert set(steady.variants()) == {"v2"}
        change(router, weighted(servers, 50))
        poll(lambda: router.generation() == 3, "reloaded again")
        steady.more(20)
        assert 60 <= steady.variants(200)["v2"] <= 140  # 5.6 standard deviations
    assert not steady.failed


@pytest.mark.parametrize(
    ("trigger", "force"),
    [
        ("signal", lambda router: router.signal(signal.SIGHUP)),
        ("api", lambda router: call(router.admin, "POST", "/reload")),
    ],
)
def test_a_reload_can_be_forced_when_the_file_itself_did_not_change(
    tmp_path: Path, servers: Servers, trigger: str, force: Callable[[Router], None]
) -> None:
    state = tmp_path / "volume"
    state.write_text("a file where a directory should be")
    base = document(servers, state=f"sqlite://{state}/state.db")
    with serving(tmp_path, base) as router:
        router.write(base | {"routes": [bandit()]})
        poll(lambda: router.events("reload_refused"), "refused")
        state.unlink()
        state.mkdir()
        force(router)
        assert poll(lambda: router.events("reloaded"), "reloaded")[0]["trigger"] == trigger
        assert call(router.listen, "GET", "/learner/x").status == 200


def test_equal_content_is_not_a_reload(tmp_path: Path, servers: Servers) -> None:
    config = document(servers)
    with serving(tmp_path, config) as router:
        in_place(router, config)
        router.write(config)
        assert call(router.admin, "POST", "/reload").json()["result"] == "unchanged"
        router.signal(signal.SIGHUP)
        unchanged = 'pointsman_reloads_total{result="unchanged"}'
        poll(lambda: router.metrics().get(unchanged, 0) >= 2, "looked at twice")
        assert router.generation() == 1
        assert not router.events("reloaded")


def test_a_broken_file_changes_nothing_and_says_where_until_it_is_mended(
    tmp_path: Path, servers: Servers
) -> None:
    good = document(servers)
    with serving(tmp_path, good) as router, Steady(router.listen) as steady:
        router.write("listen: 127.0.0.1:0\nbackends:\n  v1: {endpoints: [\n")
        (line,) = poll(lambda: router.events("reload_refused"), "refused")
        assert line["level"] == "error"
        assert line["errors"][0].startswith(f"{router.path}:4:1: ")
        reload = router.status()["last_reload"]
        assert (reload["success"], reload["errors"]) == (False, line["errors"])
        assert router.metrics()["pointsman_config_last_reload_success"] == 0
        assert router.generation() == 1
        steady.more()

        router.write(good)  # what is in force already
        poll(lambda: router.status()["last_reload"]["success"], "mended")
        assert router.metrics()["pointsman_config_last_reload_success"] == 1
        router.write(good | {"drain_timeout": "9s"})
        poll(lambda: router.generation() > 1, "reloaded")
    assert not steady.failed


def test_every_mistake_of_a_file_is_told_at_once(tmp_path: Path, servers: Servers) -> None:
    good = document(servers)
    with serving(tmp_path, good) as router:
        router.write(good | {"wrokers": 2, "drain_timeout": 5, "routes": []})
        (line,) = poll(lambda: router.events("reload_refused"), "refused")
        assert line["problems"] == 3
        assert all(error.startswith(f"{router.path}:1:") for error in line["errors"])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("listen", "127.0.0.1:1"),
        ("admin", {"listen": "127.0.0.1:1"}),
        ("workers", 3),
        ("state", "sqlite:///elsewhere/state.db"),
    ],
)
def test_what_cannot_change_while_running_is_refused_by_its_name(
    tmp_path: Path, servers: Servers, key: str, value: object
) -> None:
    config = document(servers)
    with serving(tmp_path, config) as router:
        router.path.write_text(json.dumps(config | {key: value}))
        answer = call(router.admin, "POST", "/reload")
        assert answer.status == 422
        (error,) = answer.json()["errors"]
        assert error.startswith(f"{key} ")
        assert "needs a restart" in error
        assert router.generation() == 1
        assert call(router.listen, "GET", "/plain/x").status == 200


def test_twenty_reloads_of_two_hundred_routes_fail_no_request(
    tmp_path: Path, servers: Servers
) -> None:
    routes = [{"name": f"r{n}", "match": {"path": f"/r{n}/"}, "backend": "v1"} for n in range(199)]

    def version(number: int) -> dict[str, Any]:
        backend = ("v1", "v2")[number % 2]
        plain = {"name": "plain", "match": {"path": "/plain/"}, "backend": backend}
        return document(servers, workers=2, routes=[*routes, plain])

    with serving(tmp_path, version(0)) as router, Steady(router.listen) as steady:
        for number in range(1, 21):
            router.path.write_text(json.dumps(version(number)))
            answer = call(router.admin, "POST", "/reload").json()
            assert answer["generation"] == number + 1
            steady.more(10)
        assert set(steady.variants()) == {"v1"}
    assert not steady.failed


def test_a_worker_that_dies_during_a_reload_comes_back_on_the_newest_config(
    tmp_path: Path, servers: Servers
) -> None:
    def version(number: int) -> dict[str, Any]:
        backend = ("v1", "v2")[number % 2]
        plain = {"name": "plain", "match": {"path": "/plain/"}, "backend": backend}
        return document(servers, workers=2, routes=[plain])

    with serving(tmp_path, version(0)) as router, Steady(router.listen) as steady:
        for number in range(1, 4):
            victim = router.worker_pids()[number % 2]
            router.path.write_text(json.dumps(version(number)))
            os.kill(victim, signal.SIGKILL)
            assert call(router.admin, "POST", "/reload").status == 200
            poll(lambda: len(router.worker_pids()) == 2, "replaced")
            assert router.status()["generation"] == number + 1
            poll(lambda: router.generation() == router.status()["generation"], "on the newest")
        steady.more(20)
        assert set(steady.variants(200)) == {"v2"}
    assert len(steady.failed) <= 3 * 4  # deaths, and the clients that each may have had


def test_a_request_in_flight_finishes_on_the_config_it_began_with(
    tmp_path: Path, servers: Servers
) -> None:
    v1, v2 = servers
    with serving(tmp_path, document(servers, routes=[canary("0%")])) as router:
        connection = http.client.HTTPConnection(router.listen, timeout=DEADLINE_S)
        connection.request("GET", "/canary/held")
        poll(lambda: v1.served, "in flight")
        route = {"name": "canary", "match": {"path": "/canary/"}, "backend": "v2"}
        router.write_and_wait(document([v2], routes=[route]))  # v1 is gone from it
        assert call(router.listen, "GET", "/canary/x").body == b"v2"
        v1.let()
        assert connection.getresponse().read() == b"v1"
        connection.close()
