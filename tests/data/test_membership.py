"""Which endpoints get requests: what control says, what requests met, and both together."""

import asyncio

import pytest

from router.data.endpoint import EndpointPool
from router.messages import Ejection, EndpointState
from tests.data.harness import Lab, Wire, document, eventually, request, response
from tests.data.scripted import Bench, Call, Clock, transport_of

URLS = ["http://127.0.0.1:1", "http://127.0.0.1:2", "http://127.0.0.1:3", "http://127.0.0.1:4"]
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def used(bench: Bench) -> list[int]:
    """Indexes of the endpoints that get requests."""
    return [bench.pool.endpoints.index(target) for target in bench.pool.targets]


def fail(endpoint: EndpointPool, times: int = 5) -> None:
    for _ in range(times):
        endpoint.on_failure()


def pass_time(bench: Bench, clock: Clock, seconds: float) -> None:
    clock.now += seconds
    bench.loop.turn()


# drain


def test_a_draining_endpoint_finishes_what_it_has_and_gets_nothing_new(clock: Clock) -> None:
    bench = Bench(URLS[:2])
    first, second = bench.pool.endpoints
    call = Call()
    idle, busy = bench.connect(first), bench.connect(first, call)
    bench.connect(second)
    bench.pool.set_state(URLS[0], "drain")
    assert used(bench) == [1]
    assert (transport_of(idle).state, transport_of(busy).state) == ("closed", "open")
    busy.data_received(OK)
    assert call.events == [("response", 200, b"", True)]
    assert transport_of(busy).state == "closed"


def test_an_endpoint_may_come_back_from_its_drain(clock: Clock) -> None:
    bench = Bench(URLS[:2])
    bench.pool.set_state(URLS[0], "drain")
    bench.pool.set_state(URLS[0], "up")
    assert used(bench) == [0, 1]
    connection = bench.connect(bench.pool.endpoints[0])
    assert list(bench.pool.endpoints[0].idle) == [connection]


def test_when_all_drain_or_are_down_requests_are_refused_at_once(clock: Clock) -> None:
    bench = Bench(URLS[:2], panic_below="100%")
    bench.pool.set_state(URLS[0], "drain")
    bench.pool.set_state(URLS[1], "drain")
    call = Call()
    bench.pool.submit(call)
    assert call.events == [("refused", "no-healthy-endpoint")]


def test_a_state_of_an_unknown_endpoint_changes_nothing(clock: Clock) -> None:
    bench = Bench(URLS[:2])
    bench.pool.set_state("http://gone:1", "down")
    assert used(bench) == [0, 1]


# waiting calls


def test_calls_that_wait_are_told_when_their_endpoint_goes_down(clock: Clock) -> None:
    bench = Bench(URLS[:2])
    first, second = bench.pool.endpoints
    waiting, sending, reading, elsewhere = Call(), Call(), Call(), Call()
    bench.connect(first, waiting)
    sending.is_request_complete = False
    bench.connect(first, sending)
    bench.connect(first, reading).data_received(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nab")
    bench.connect(first)
    bench.connect(second, elsewhere)
    bench.pool.set_state(URLS[0], "down")
    bench.pool.set_state(URLS[0], "down")
    assert waiting.events == [("down",)]
    assert sending.events == elsewhere.events == []
    assert reading.events == [("response", 200, b"ab", False)]


# ejection


def test_an_endpoint_whose_requests_fail_is_out_for_a_while(clock: Clock) -> None:
    bench = Bench(URLS, outlier={"eject_for": "30s"})
    fail(bench.pool.endpoints[1])
    fail(bench.pool.endpoints[1], 50)  # what was in flight
    assert used(bench) == [0, 2, 3]
    assert repr(bench.pool.endpoints[1]).startswith(f"<EndpointPool {URLS[1]} [ejected |")
    pass_time(bench, clock, 29.0)
    assert used(bench) == [0, 2, 3]
    pass_time(bench, clock, 1.2)
    assert used(bench) == [0, 1, 2, 3]
    assert bench.told == [
        (URLS[1], True, "consecutive-failures", 30.0),
        (URLS[1], False, "", 0.0),
    ]
    assert bench.counted("ejections", "consecutive-failures") == 1


def test_only_so_many_are_ejected_at_a_time(clock: Clock) -> None:
    bench = Bench(URLS, outlier={"max_ejected": "50%"})
    for endpoint in bench.pool.endpoints:
        fail(endpoint)
    assert used(bench) == [2, 3]
    assert bench.counted("ejections", "consecutive-failures") == 2


def test_the_last_endpoint_in_use_is_never_ejected(clock: Clock) -> None:
    bench = Bench(URLS[:3], outlier={"max_ejected": "100%"})
    bench.pool.set_state(URLS[0], "down")
    bench.pool.set_state(URLS[1], "drain")
    fail(bench.pool.endpoints[2], 50)
    assert used(bench) == [2]
    assert bench.told == []


def test_an_ejected_endpoint_is_used_when_checks_took_all_others(clock: Clock) -> None:
    bench = Bench(URLS[:2])
    fail(bench.pool.endpoints[0])
    assert used(bench) == [1]
    bench.pool.set_state(URLS[1], "down")
    assert used(bench) == [0]
    bench.pool.set_state(URLS[1], "up")
    assert used(bench) == [1]


def test_a_failed_check_outlives_the_ejection(clock: Clock) -> None:
    bench = Bench(URLS)
    fail(bench.pool.endpoints[0])
    bench.pool.set_state(URLS[0], "down")
    pass_time(bench, clock, 31.0)
    assert used(bench) == [1, 2, 3]


def test_a_check_that_recovers_ends_the_ejection(clock: Clock) -> None:
    bench = Bench(URLS)
    fail(bench.pool.endpoints[0])
    bench.pool.set_state(URLS[0], "down")
    bench.pool.set_state(URLS[0], "up")
    assert used(bench) == [0, 1, 2, 3]
    assert bench.told[-1] == (URLS[0], False, "", 0.0)


def test_a_check_that_passed_all_the_while_does_not(clock: Clock) -> None:
    bench = Bench(URLS)
    fail(bench.pool.endpoints[0])
    bench.pool.set_state(URLS[0], "up", ["127.0.0.1"])
    assert used(bench) == [1, 2, 3]


def test_without_outlier_nobody_is_ejected(clock: Clock) -> None:
    bench = Bench(URLS, outlier=None)
    fail(bench.pool.endpoints[0], 100)
    assert used(bench) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("head", "is_ejected"),
    [
        (b"HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n", True),
        (b"HTTP/1.1 502 Oh\r\ncontent-length: 0\r\n\r\n", True),
        (b"HTTP/1.1 503 Oh\r\ncontent-length: 0\r\n\r\n", True),
        (b"HTTP/1.1 503 Oh\r\nRetry-After: 1\r\ncontent-length: 0\r\n\r\n", False),
        (b"HTTP/1.1 429 Oh\r\ncontent-length: 0\r\n\r\n", False),
        (b"HTTP/1.1 404 Oh\r\ncontent-length: 0\r\n\r\n", False),
        (b"garbage\r\n\r\n", True),
    ],
)
def test_which_answers_count(clock: Clock, head: bytes, is_ejected: bool) -> None:
    bench = Bench(URLS)
    endpoint = bench.pool.endpoints[0]
    for _ in range(5):
        bench.connect(endpoint, Call()).data_received(head)
    assert endpoint.is_ejected is is_ejected


@pytest.mark.parametrize("begun", [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc"])
def test_a_lost_connection_counts_before_and_amid_the_answer(clock: Clock, begun: bytes) -> None:
    bench = Bench(URLS)
    endpoint = bench.pool.endpoints[0]
    for _ in range(5):
        connection = bench.connect(endpoint, Call())
        if begun:
            connection.data_received(begun)
        connection.connection_lost(ConnectionResetError())
    assert endpoint.is_ejected


def test_a_timeout_counts(clock: Clock) -> None:
    bench = Bench(URLS, timeout={"first_byte": "2s"})
    for _ in range(5):
        bench.connect(bench.pool.endpoints[0], Call()).expect_response()
    pass_time(bench, clock, 2.2)
    assert bench.pool.endpoints[0].is_ejected


def test_what_the_client_broke_off_does_not_count(clock: Clock) -> None:
    bench = Bench(URLS)
    for _ in range(50):
        connection = bench.connect(bench.pool.endpoints[0], Call())
        connection.abort()
        connection.connection_lost(None)
    assert not bench.pool.endpoints[0].is_ejected


def test_a_connection_closed_before_the_request_left_does_not_count(clock: Clock) -> None:
    bench = Bench(URLS)
    for _ in range(50):
        connection = bench.connect(bench.pool.endpoints[0])
        connection.pool.idle.pop()
        connection.pool.in_flight += 1
        connection.begin(Call())
        connection.connection_lost(None)
    assert not bench.pool.endpoints[0].is_ejected


async def test_control_hears_of_an_ejection(lab: Lab) -> None:
    bad, good = await lab.refusing(), await lab.answering()
    router = await lab.start(document(bad, good, outlier={"consecutive_failures": 2}))
    while not router.pool().endpoints[0].is_ejected:
        await lab.ask(request())
    told = await router.received(Ejection)
    assert (told.backend, told.url, told.is_ejected) == ("v1", bad.url, True)
    assert told.reason == "consecutive-failures"
    await router.flush()
    assert router.counted("ejections", "v1", "consecutive-failures") == 1


async def test_an_ejection_outlives_a_reload(lab: Lab) -> None:
    bad, good = await lab.refusing(), await lab.answering()
    router = await lab.start(document(bad, good, outlier={"consecutive_failures": 2}))
    while not router.pool().endpoints[0].is_ejected:
        await lab.ask(request())
    former = router.pool()
    changed = document(bad, good, outlier={"consecutive_failures": 2}, limits={"pending": 7})
    await router.reload(changed)
    assert router.pool() is not former
    assert router.pool().endpoints[0].is_ejected
    assert [target.url for target in router.pool().targets] == [good.url]
    assert (await router.received(Ejection)).is_ejected
    assert not any(isinstance(message, Ejection) for message in router.messages)


async def test_a_shadow_s_endpoints_are_not_ejected(lab: Lab) -> None:
    good, bad, other = await lab.answering(), await lab.refusing(), await lab.refusing()
    config = document(good)
    config["backends"]["next"] = {"endpoints": [bad.url, other.url]}
    config["routes"][0]["shadow"] = [{"backend": "next", "sample": 1.0}]
    router = await lab.start(config)
    for _ in range(40):
        assert (await lab.ask(request())).status == 200
    await eventually(lambda: sum(mirror.in_flight for mirror in router.mirrors) == 0)
    assert not any(
        item.is_ejected for item in router.worker.snapshot.shadow_pools["next"].endpoints
    )


# panic


def test_below_the_threshold_all_but_draining_ones_are_used(clock: Clock) -> None:
    bench = Bench(URLS, panic_below="50%")
    bench.pool.set_state(URLS[0], "drain")
    bench.pool.set_state(URLS[1], "down")
    assert used(bench) == [2, 3]
    bench.pool.set_state(URLS[2], "down")  # one of three is left
    assert used(bench) == [1, 2, 3]
    for endpoint in bench.pool.endpoints * 3:
        bench.connect(endpoint)
    for _ in range(3):
        bench.pool.submit(Call())
    assert bench.counted("panic") == 3
    bench.pool.set_state(URLS[1], "up")
    assert used(bench) == [1, 3]


# slow start


def test_an_endpoint_that_comes_back_gets_its_share_little_by_little(clock: Clock) -> None:
    bench = Bench(URLS[:2], slow_start="10s")
    endpoint = bench.pool.endpoints[0]
    assert endpoint.weight == 1.0
    bench.pool.set_state(URLS[0], "down")
    bench.pool.set_state(URLS[0], "up")
    weights = []
    for _ in range(12):
        weights.append(endpoint.weight)
        pass_time(bench, clock, 1.1)
    assert weights[0] == pytest.approx(0.1)
    assert weights == sorted(weights)
    assert weights[5] < 1.0
    assert weights[-1] == 1.0
    assert used(bench) == [0, 1]


def test_one_that_is_ejected_amid_its_start_begins_anew(clock: Clock) -> None:
    bench = Bench(URLS, slow_start="10s", outlier={"eject_for": "30s"})
    endpoint = bench.pool.endpoints[0]
    bench.pool.set_state(URLS[0], "down")
    bench.pool.set_state(URLS[0], "up")
    pass_time(bench, clock, 5.0)
    fail(endpoint)
    pass_time(bench, clock, 5.0)
    assert used(bench) == [1, 2, 3]
    pass_time(bench, clock, 25.2)
    assert used(bench) == [0, 1, 2, 3]
    assert endpoint.weight == pytest.approx(0.1, abs=0.05)


async def test_an_endpoint_that_a_reload_adds_starts_slowly(lab: Lab) -> None:
    old, new = await lab.answering(), await lab.answering()
    router = await lab.start(document(old, slow_start="1h"))
    await router.reload(document(old, new, slow_start="1h"))
    assert [item.weight for item in router.pool().endpoints] == [1.0, pytest.approx(0.1, abs=0.01)]


# addresses


def test_connections_to_an_address_that_is_gone_close_when_idle(clock: Clock) -> None:
    bench = Bench(URLS[:1])
    endpoint = bench.pool.endpoints[0]
    gone, kept, busy = bench.connect(endpoint), bench.connect(endpoint), bench.connect(endpoint)
    gone.address, kept.address, busy.address = "10.0.0.1", "10.0.0.2", "10.0.0.1"
    endpoint.idle.remove(busy)
    endpoint.in_flight += 1
    busy.begin(Call())
    bench.outbox.flush()
    bench.pool.set_state(URLS[0], "up", ["10.0.0.2", "10.0.0.3"])
    assert (transport_of(gone).state, transport_of(kept).state) == ("closed", "open")
    assert transport_of(busy).state == "open"
    busy.data_received(OK)
    assert transport_of(busy).state == "closed"
    assert list(endpoint.idle) == [kept]


URL_OF_NAME = "http://model.invalid:{}"


async def test_connections_spread_over_all_addresses(lab: Lab) -> None:
    hosts: list[str | None] = []
    places: list[str] = []

    async def script(wire: Wire) -> None:
        hosts.append((await wire.message()).field("host"))
        places.append(wire.writer.get_extra_info("sockname")[0])
        wire.send(response(b"ok", b"connection: close"))

    origin = await lab.origin(script)
    second = await asyncio.start_server(origin._accept, "127.0.0.2", origin.port)
    config = document(origin)
    url = URL_OF_NAME.format(origin.port)
    config["backends"]["v1"]["endpoints"] = [url]
    await lab.start(config, endpoints={"v1": {url: ["up", ["127.0.0.1", "127.0.0.2"]]}})
    for _ in range(6):
        assert (await lab.ask(request())).status == 200
    second.close()
    assert sorted(places) == ["127.0.0.1"] * 3 + ["127.0.0.2"] * 3
    assert set(hosts) == {"model.test"}


async def test_when_one_address_refuses_the_next_attempt_takes_the_other(lab: Lab) -> None:
    origin = await lab.answering(response(b"ok", b"connection: close"))
    config = document(origin)
    url = URL_OF_NAME.format(origin.port)  # nobody listens on 127.0.0.2
    config["backends"]["v1"]["endpoints"] = [url]
    states = {"v1": {url: ["up", ["127.0.0.2", "127.0.0.1"]]}}
    router = await lab.start(config, endpoints=states)
    for _ in range(5):
        assert (await lab.ask(request(b"POST", b"/", b"x"))).status == 200
    await router.flush()
    assert router.counted("upstream_failures", "v1", "connect") == 5
    router.send(EndpointState("v1", url, "up", ["127.0.0.1"]))
    await eventually(lambda: router.pool().endpoints[0].addresses == ("127.0.0.1",))
    for _ in range(5):
        assert (await lab.ask(request(b"POST", b"/", b"x"))).status == 200
    await router.flush()
    assert router.counted("upstream_failures", "v1", "connect") == 5
