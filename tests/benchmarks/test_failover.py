import asyncio
from collections import Counter
from types import SimpleNamespace
from typing import cast

import pytest
import yaml

from benchmarks.errors import BenchmarkError
from benchmarks.failover import load, main, stops
from benchmarks.failover.bench import Bench, bad, p99_s, steady_after_s
from benchmarks.failover.endpoint import Endpoint
from benchmarks.failover.load import ANSWERED, FAILED, Load, Outcome, Reply
from benchmarks.failover.main import OF_ALL, OURS, PEERS, Figures, measure, text
from benchmarks.failover.stand import CONFIGS, Stand, total
from benchmarks.faults.rig import Figure, eventually
from benchmarks.machine import Cores
from benchmarks.peers import POINTSMAN, Peer, select


def outcome(due_s: float, took_s: float = 0.001, *, status: int = 200) -> Outcome:
    return Outcome(f"G1-{due_s}", ANSWERED, status, due_s, took_s, "a")


@pytest.mark.parametrize(
    "pieces",
    [
        [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n", b"X-Id: G1\r\n\r\no", b"k"],
        [
            b"HTTP/1.1 200 OK\r\nx-id: G1\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n",
            b"0\r\n\r\n",
        ],
    ],
)
def test_a_reply_is_whole_with_its_last_byte_and_not_before(pieces: list[bytes]) -> None:
    reply = Reply()
    for piece in pieces:
        assert not reply.is_whole
        reply.feed(piece)
    assert reply.is_whole
    assert (reply.status, reply.fields[b"x-id"]) == (200, b"g1")


def test_garbage_is_a_reply_without_status_and_not_waited_for() -> None:
    reply = Reply()
    reply.feed(b"\x16\x03garbage\r\n\r\n")
    assert reply.is_whole
    assert reply.status == 0


def test_what_was_delivered_twice_counts_posts_alone() -> None:
    assert load.twice(Counter({"P1-1": 3, "P1-3": 1, "G1-2": 2})) == 2


async def _load_on(endpoint: Endpoint, mode: str, argument: float = 0) -> Load:
    await endpoint.up()
    endpoint.behave(mode, argument)
    work = Load(f"127.0.0.1:{endpoint.port}", connections=4, rate=400)
    await work.run(0.1)
    await endpoint.down()
    return work


async def test_every_request_ends_as_one_outcome_with_an_id_of_its_own() -> None:
    endpoint = Endpoint("a")
    work = await _load_on(endpoint, "ok")
    assert work.sent == len(work.outcomes) > 10
    assert not bad(work.outcomes)
    assert endpoint.delivered == Counter(outcome.id for outcome in work.outcomes)
    assert {outcome.is_post for outcome in work.outcomes} == {True, False}


@pytest.mark.parametrize("mode", ["reset-head", "reset-body", "cut-chunks"])
async def test_an_answer_that_breaks_off_is_a_failed_request(mode: str) -> None:
    work = await _load_on(Endpoint("a"), mode)
    assert work.sent == len(work.outcomes) > 0
    assert load.kinds(work.outcomes).keys() == {FAILED}


async def test_a_share_of_errors_is_evenly_spread() -> None:
    work = await _load_on(Endpoint("a"), "errors", 0.5)
    statuses = Counter(outcome.status for outcome in work.outcomes)
    assert abs(statuses[200] - statuses[500]) <= 1


async def test_an_endpoint_that_is_down_refuses_and_comes_back_at_its_port() -> None:
    endpoint = Endpoint("a")
    await endpoint.up()
    port = endpoint.port
    await endpoint.down()
    work = Load(f"127.0.0.1:{port}", connections=1, rate=100)
    await work.run(0.02)
    assert {outcome.detail.partition(":")[0] for outcome in work.outcomes} == {"connect"}
    await endpoint.up()
    assert endpoint.port == port
    await endpoint.down()


@pytest.mark.parametrize(("is_cut", "is_whole"), [(False, True), (True, False)])
async def test_a_websocket_is_whole_when_all_came_back_until_the_client_ended_it(
    is_cut: bool, is_whole: bool
) -> None:
    endpoint = Endpoint("a")
    await endpoint.up()
    it = cast(Stand, SimpleNamespace(port=endpoint.port))
    talk = asyncio.create_task(stops._talk(it, b"W1", 3))
    await eventually(lambda: endpoint.delivered["W1"], "the upgrade to arrive")
    if is_cut:
        await endpoint.down()
    assert await talk is is_whole
    await endpoint.down()


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="no mode 'sulk'"):
        Endpoint("a").behave("sulk")


def test_the_time_to_steady_p99_ends_when_a_second_of_windows_is_good() -> None:
    slow = [outcome(3 + n / 100, 0.05) for n in range(60)]
    quick = [outcome(n / 100) for n in (*range(300), *range(360, 600))]
    assert p99_s(quick) == 0.001
    assert steady_after_s([*quick, *slow], 3.0, 6.0) == 0.75
    assert steady_after_s(quick, 3.0, 6.0) == 0
    never = [outcome(3 + n / 100, 0.05) for n in range(300)]
    assert steady_after_s([*quick[:300], *never], 3.0, 6.0) == 3.0


def test_series_are_summed_by_the_labels_they_have() -> None:
    metrics = {'m{a="1",b="x"}': 1.0, 'm{a="1",b="y"}': 2.0, 'm{a="2",b="x"}': 4.0, "n": 8.0}
    assert total(metrics, "m") == 7
    assert total(metrics, "m", 'a="1"') == 3


def test_the_table_puts_what_others_did_beside_our_figures() -> None:
    ours = [Figure("x", "<= 1", "1", True), Figure("y", "0", "2", False)]
    lines = text({"pointsman": ours, "nginx": [Figure("y", "0", "5", False)]}).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[2] == ["x", "<= 1", "1", "met", "-"]
    assert cells[3] == ["y", "0", "2", "MISSED", "5"]


async def test_what_a_scenario_found_is_taken_when_it_ends_also_by_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scenario(bench: Bench, peer: Peer) -> list[Figure]:
        if len(taken) == 1 and peer is nginx:
            raise BenchmarkError("it died")
        return [Figure("x", "0", peer.name, True)]

    nginx = select(["nginx"])[0]
    taken: list[Figures] = []
    monkeypatch.setattr(main, "OF_ALL", {"one": scenario, "two": scenario, "three": scenario})
    monkeypatch.setattr(main, "_SETTLE_S", 0)
    work = measure(
        Bench(Cores(0, 1), True), [POINTSMAN, nginx], [], lambda line: None, taken.append
    )
    with pytest.raises(BenchmarkError, match="it died"):
        await work
    assert [{name: len(found) for name, found in one.items()} for one in taken] == [
        {"pointsman": 1, "nginx": 1},
        {"pointsman": 1, "nginx": 0},
    ]


def test_every_proxy_has_a_config_before_three_endpoints() -> None:
    for peer in (POINTSMAN, *select(list(PEERS))):
        names = [a.rpartition("/")[2] for a in peer.arguments if "@DIR@/" in a]
        config = (CONFIGS / names[0]).read_text()
        assert all(f"@{name}@" in config for name in ("PORT", "A_PORT", "B_PORT", "C_PORT"))


def test_no_two_scenarios_have_the_same_name() -> None:
    assert not OF_ALL.keys() & OURS.keys()


def test_our_config_is_valid_yaml_whose_keys_are_text() -> None:
    """A bare `on` is a truth value to other YAML readers than ours."""
    config = yaml.safe_load((CONFIGS / "pointsman.yaml").read_text().replace("@", ""))
    assert "on" in config["backends"]["models"]["retry"]
