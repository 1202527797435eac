"""Who gets what, end to end: shares near the weights, users that stay where they are."""

import http.client
from math import sqrt
from pathlib import Path

import pytest

from tests.serve.harness import (
    DEADLINE_S,
    Router,
    call,
    canary,
    document,
    poll,
    read_answer,
    serving,
)
from tests.serve.origins import Servers

pytestmark = pytest.mark.process

USERS = [f"user-{number}" for number in range(300)]


def assignment(router: Router, rounds: int = 1) -> dict[str, str]:
    """User -> variant, ten users to a connection; the same in every round."""
    found: dict[str, str] = {}
    for start in range(0, rounds * len(USERS), 10):
        connection = http.client.HTTPConnection(router.listen, timeout=DEADLINE_S)
        for number in range(start, start + 10):
            user = USERS[number % len(USERS)]
            connection.request("GET", "/canary/x", headers={"x-user-id": user})
            answer = read_answer(connection.getresponse())
            variant = answer.headers["x-router-variant"]
            assert (answer.status, answer.body.decode()) == (200, variant)
            assert found.setdefault(user, variant) == variant
        connection.close()
    return found


def near(count: int, share: float) -> bool:
    """Within 4.5 standard deviations of a binomial: one in 150,000 by chance."""
    deviation = sqrt(len(USERS) * share * (1 - share))
    return abs(count - len(USERS) * share) <= 4.5 * deviation


def on_canary(found: dict[str, str]) -> set[str]:
    return {user for user, variant in found.items() if variant == "v2"}


def test_users_keep_their_variant_across_workers_weights_and_restarts(
    tmp_path: Path, servers: Servers
) -> None:
    config = document(servers, workers=2, routes=[canary("20%")])
    with serving(tmp_path, config) as router:
        first = assignment(router, rounds=3)
        assert near(len(on_canary(first)), 0.2)
        workers = {
            call(router.listen, "GET", "/canary/x").headers["x-request-id"][:16] for _ in range(40)
        }
        assert len(workers) == 2

        router.path.write_text(router.path.read_text().replace("20%", "40%"))
        poll(lambda: router.generation() == 2, "reloaded")
        raised = assignment(router)
        assert near(len(on_canary(raised)), 0.4)
        assert on_canary(first) < on_canary(raised)
        router.stop()
    with serving(tmp_path, config | {"routes": [canary("40%")]}) as router:
        assert assignment(router) == raised


def test_without_a_unit_a_canary_sends_to_stable(tmp_path: Path, servers: Servers) -> None:
    with serving(tmp_path, document(servers, routes=[canary("50%")])) as router:
        answers = {call(router.listen, "GET", "/canary/x").body for _ in range(40)}
        assert answers == {b"v1"}


def test_an_override_chooses_and_everyone_else_is_not_touched(
    tmp_path: Path, servers: Servers
) -> None:
    route = canary("0%")
    route["policy"]["override"] = {"header": "x-canary"}
    with serving(tmp_path, document(servers, routes=[route])) as router:
        for value, expected in (("always", b"v2"), ("never", b"v1"), ("v2", b"v2")):
            headers = {"x-user-id": "7", "x-canary": value}
            assert call(router.listen, "GET", "/canary/x", headers=headers).body == expected
        assert call(router.listen, "GET", "/canary/x", headers={"x-user-id": "7"}).body == b"v1"


def test_an_issued_cookie_is_kept_to(tmp_path: Path, servers: Servers) -> None:
    route = canary("50%")
    route["policy"]["sticky"] = {"cookie": "uid"}
    with serving(tmp_path, document(servers, routes=[route])) as router:
        for _ in range(10):
            answer = call(router.listen, "GET", "/canary/x")
            cookie = answer.headers["set-cookie"].partition(";")[0]
            again = {
                call(router.listen, "GET", "/canary/x", headers={"cookie": cookie}).body
                for _ in range(5)
            }
            assert again == {answer.body}
