from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from router.policies.override import AllowedClients, Override
from tests.policies.requests import Head, built

CANARY: dict[str, Any] = {
    "type": "canary",
    "stable": "old",
    "canary": "new",
    "weight": 0,
    "sticky": {"header": "x-user-id"},
}


def forced(value: bytes, client: str = "127.0.0.1", **override: Any) -> str:
    assignment = built(**CANARY, override={"header": "x-canary", **override})
    decision = assignment.assign(Head({b"x-canary": value}, client=client), 0.0)
    assert decision.propensity == 1.0
    return f"{decision.variant} {decision.reason}"


@pytest.mark.parametrize(
    ("value", "outcome"),
    [
        (b"always", "new override"),
        (b"never", "old override"),
        (b"new", "new override"),
        (b"old", "old override"),
        (b"Always", "old no_unit"),
        (b"", "old no_unit"),
        (b"\xff\x00", "old no_unit"),
        (b"other", "old no_unit"),
    ],
)
def test_known_values_choose_and_others_are_as_if_absent(value: bytes, outcome: str) -> None:
    assert forced(value) == outcome


@pytest.mark.parametrize(
    ("client", "allow_from", "is_allowed"),
    [
        ("127.0.0.1", ["loopback"], True),
        ("::1", ["loopback"], True),
        ("::ffff:127.0.0.1", ["loopback"], True),
        ("10.1.2.3", ["loopback"], False),
        ("10.1.2.3", ["private"], True),
        ("172.31.255.255", ["private"], True),
        ("172.32.0.0", ["private"], False),
        ("fd00::1", ["private"], True),
        ("8.8.8.8", ["loopback", "private"], False),
        ("8.8.8.8", ["8.8.8.0/24"], True),
        ("8.8.8.8", ["2001:db8::/32", "8.8.8.8"], True),
        ("2001:db8::7", ["2001:db8::/32"], True),
        ("not an address", ["loopback", "0.0.0.0/0"], False),
        ("", ["private"], False),
        ("not an address", ["any"], True),
    ],
)
def test_it_is_honoured_only_from_where_the_config_allows(
    client: str, allow_from: list[str], is_allowed: bool
) -> None:
    outcome = "new override" if is_allowed else "old no_unit"

    assert forced(b"always", client, allow_from=allow_from) == outcome


def test_by_default_it_is_honoured_from_loopback_and_private_networks() -> None:
    assert Override.model_validate({"header": "x"}).allow_from == ("loopback", "private")


@given(st.lists(st.text(max_size=20), max_size=50))
def test_no_address_raises_and_asking_twice_agrees(clients: list[str]) -> None:
    allowed = AllowedClients(["private"])

    assert [c in allowed for c in clients] == [c in allowed for c in clients]


def test_what_is_remembered_of_clients_is_bounded() -> None:
    allowed = AllowedClients(["10.0.0.0/8"])
    for i in range(10_000):
        assert f"10.0.{i // 256}.{i % 256}" in allowed

    assert len(allowed._known) <= 4096


@pytest.mark.parametrize("source", ["everywhere", "10.0.0.1/8", "10.0.0", ""])
def test_a_source_that_is_no_network_is_refused(source: str) -> None:
    with pytest.raises(ValidationError, match="is not a source"):
        Override.model_validate({"header": "x", "allow_from": [source]})


def test_an_empty_list_of_sources_is_refused() -> None:
    with pytest.raises(ValidationError, match="at least 1 item"):
        Override.model_validate({"header": "x", "allow_from": []})
