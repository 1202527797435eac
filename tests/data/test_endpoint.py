"""One endpoint's connections when its addresses change."""

import pytest

from tests.data.scripted import Bench, Call, Clock, transport_of

URL = "http://model.invalid:1"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_each_address_keeps_its_part_of_the_connections_when_one_is_new(clock: Clock) -> None:
    bench = Bench([URL])
    endpoint = bench.pool.endpoints[0]
    idle = [bench.connect(endpoint) for _ in range(2)]
    busy = [bench.connect(endpoint, Call()) for _ in range(2)]
    for upstream in (*idle, *busy):
        upstream.address = "10.0.0.1"
    for _ in range(3):  # the same once more is no change
        bench.pool.set_state(URL, "up", ["10.0.0.1", "10.0.0.2"])
    bench.outbox.flush()
    assert [transport_of(upstream).state for upstream in busy] == ["open", "open"]
    for upstream in busy:
        upstream.data_received(OK)
    states = [transport_of(upstream).state for upstream in (*idle, *busy)]
    assert sorted(states) == ["closed", "closed", "open", "open"]


def test_every_connection_stays_when_the_addresses_do(clock: Clock) -> None:
    bench = Bench([URL])
    endpoint = bench.pool.endpoints[0]
    connections = [bench.connect(endpoint) for _ in range(4)]
    for number, upstream in enumerate(connections):
        upstream.address = f"10.0.0.{number % 2}"
    for state in ("up", "down", "up"):
        bench.pool.set_state(URL, state, ["10.0.0.0", "10.0.0.1"])
    assert [transport_of(upstream).state for upstream in connections] == ["open"] * 4
