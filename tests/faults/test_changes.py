"""The config changes under load, over and over: nothing is lost and nothing is left behind."""

from collections.abc import Iterator
from contextlib import suppress
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest

from tests.faults.load import Stage, accounted, stage
from tests.serve.harness import Router, call, document, poll, serving

pytestmark = pytest.mark.process

MIB = 1024 * 1024
RELOADS = 100
RELOADS_FOR_LEAKS = 1000
GROWTH_MAX_BYTES = 5 * MIB


def turns(it: Stage) -> Iterator[dict[str, Any]]:
    """Configs by turns: another weight, another backend, one backend more and one less."""
    urls = [endpoint.url for endpoint in it.endpoints]
    base = document([("one", urls[0]), ("two", urls[1])], workers=2)

    def split(percent: int) -> dict[str, Any]:
        variants = [
            {"backend": "one", "weight": f"{100 - percent}%"},
            {"backend": "two", "weight": f"{percent}%"},
        ]
        return {"name": "all", "policy": {"type": "ab", "variants": variants}}

    more = base["backends"] | {"three": {"endpoints": urls[1:]}}
    return cycle(
        [
            base | {"routes": [split(50)]},
            base | {"routes": [split(10)]},
            base | {"routes": [{"name": "all", "backend": "one"}]},
            base | {"routes": [{"name": "all", "backend": "three"}], "backends": more},
        ]
    )


def reload(router: Router, config: dict[str, Any]) -> None:
    router.write(config)
    answer = call(router.admin, "POST", "/reload")
    assert answer.status == 200, answer


def test_a_hundred_reloads_under_load_fail_no_request(tmp_path: Path) -> None:
    with stage(2) as it:
        configs = turns(it)
        with serving(tmp_path, next(configs)) as router:
            before = router.metrics()
            with it.load(router.listen) as traffic:
                for _ in range(RELOADS):
                    reload(router, next(configs))
                traffic.more()
            assert not traffic.bad()
            accounted(it, traffic, router, before)
            assert router.generation() == RELOADS + 1


class Held:
    """What the program holds: descriptors and memory of control and of each worker."""

    def __init__(self, router: Router) -> None:
        pids = [router.process.pid, *router.worker_pids()]
        self.sockets = [_sockets(pid) for pid in pids]
        self.memory_bytes = [_memory_bytes(pid) for pid in pids]


def _sockets(pid: int) -> int:
    count = 0
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            count += str(link.readlink()).startswith("socket:")
    return count


def _memory_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


def test_a_thousand_reloads_leave_no_socket_and_no_memory(tmp_path: Path) -> None:
    with stage(2) as it:
        configs = turns(it)
        with serving(tmp_path, next(configs)) as router:
            for _ in range(RELOADS):  # what is allocated once
                reload(router, next(configs))
            call(router.listen, "GET", "/x")
            before = Held(router)
            for _ in range(RELOADS_FOR_LEAKS):
                reload(router, next(configs))
            assert router.generation() == RELOADS + RELOADS_FOR_LEAKS + 1
            # the connections of the calls above may still be closing
            poll(lambda: Held(router).sockets <= before.sockets, "no socket left behind")
            after = Held(router)
            grown = [b - a for a, b in zip(before.memory_bytes, after.memory_bytes, strict=True)]
            assert max(grown) < GROWTH_MAX_BYTES
