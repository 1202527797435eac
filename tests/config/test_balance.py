"""`balance:` and `slow_start:` as they stand in the YAML."""

import pytest

from router.config.balance import Balance, BalanceKey
from tests.config.support import load, mistakes


def text(balance: str) -> str:
    return (
        f"backends:\n  v1:\n    endpoints: [http://a:1]\n    balance: {balance}\n"
        "routes: [{name: r, backend: v1}]\n"
    )


def test_the_default_is_least_request_without_a_slow_start() -> None:
    backend = load(
        "backends: {v1: {endpoints: [http://a:1]}}\nroutes: [{name: r, backend: v1}]"
    ).config.backends["v1"]
    assert (backend.balance, backend.slow_start) == (Balance(type="least_request"), 0.0)


@pytest.mark.parametrize("name", ["least_request", "round_robin", "random", "peak_ewma"])
def test_a_name_is_short_for_a_mapping(name: str) -> None:
    short, long = (load(text(one)).config for one in (name, f"{{type: {name}}}"))
    assert short.backends["v1"].balance == long.backends["v1"].balance
    assert short.backends["v1"].balance.type == name


def test_a_ring_has_a_key_and_a_bound() -> None:
    balance = (
        load(text("{type: ring_hash, key: {header: X-User-Id}}")).config.backends["v1"].balance
    )
    assert balance == Balance(type="ring_hash", key=BalanceKey(header="x-user-id"), max_load=1.25)
    balance = load(text("{type: ring_hash, key: {query: u}, max_load: null}"))
    assert balance.config.backends["v1"].balance.max_load is None


@pytest.mark.parametrize(
    ("balance", "line"),
    [
        (
            "leest_request",
            "f:4:14: backends.v1.balance: expected 'least_request', 'round_robin', 'random', "
            "'peak_ewma' or 'ring_hash', found 'leest_request' (did you mean 'least_request'?)",
        ),
        ("5", "f:4:14: backends.v1.balance: expected a mapping, found a number"),
        (
            "{typ: random}",
            "f:4:15: backends.v1.balance.typ: unknown key 'typ' (did you mean 'type'?)",
        ),
        (
            "ring_hash",
            "f:4:14: backends.v1.balance: ring_hash needs a key, like key: {header: x-user-id}",
        ),
        (
            "{type: random, key: {client_ip: true}}",
            "f:4:14: backends.v1.balance: key and max_load belong to ring_hash, this is random",
        ),
        (
            "{max_load: 2}",
            "f:4:14: backends.v1.balance: key and max_load belong to ring_hash, this is "
            "least_request",
        ),
        (
            "{type: ring_hash, key: {}}",
            "f:4:37: backends.v1.balance.key: a key has exactly one of header, cookie, client_ip, "
            "query",
        ),
        (
            "{type: ring_hash, key: {header: a, query: b}}",
            "f:4:37: backends.v1.balance.key: a key has exactly one of header, cookie, client_ip, "
            "query",
        ),
        (
            "{type: ring_hash, key: {header: 'a b'}}",
            "f:4:46: backends.v1.balance.key.header: 'a b' is not a header name",
        ),
        (
            "{type: ring_hash, key: {query: a=b}}",
            "f:4:45: backends.v1.balance.key.query: 'a=b' is not a query parameter, write its name "
            "as it stands in targets: 1 to 64 characters of ASCII without '&', '=' and '#'",
        ),
        (
            "{type: ring_hash, key: {query: a}, max_load: 1}",
            "f:4:59: backends.v1.balance.max_load: expected more than 1, found 1",
        ),
    ],
)
def test_a_mistake_is_told_where_it_is(balance: str, line: str) -> None:
    assert mistakes(text(balance)) == [line]


def test_a_slow_start_is_a_duration() -> None:
    whole = text("random").replace("balance: random", "slow_start: 30s")
    assert load(whole).config.backends["v1"].slow_start == 30.0
    assert mistakes(whole.replace("30s", "-1s"))[0].startswith("f:4:17: backends.v1.slow_start: ")
