"""When an endpoint is suspected, for how long it goes, and how many may go at a time."""

from random import Random

import pytest

from router.config.health import Outlier
from router.data.outlier import Suspicion, ejectable


class Endpoint:
    """Answers and failures of one endpoint, a hundredth of a second apart."""

    def __init__(self, **options: object) -> None:
        self.suspicion = Suspicion(Outlier.model_validate(options))
        self.answers = 0
        self.failures = 0
        self.now = 1000.0

    def answer(self, count: int = 1) -> None:
        self.answers += count
        self.now += 0.01 * count

    def fail(self) -> str | None:
        self.now += 0.01
        self.failures += 1
        return self.suspicion.observe_failure(self.answers, self.now)


def until_ejected(endpoint: Endpoint, failing: float, seed: int, most: int = 100_000) -> int:
    """Requests until this endpoint, failing at random, is ejected; `most` when it is not."""
    random = Random(seed)
    for request in range(1, most):
        if random.random() >= failing:
            endpoint.answer()
        elif endpoint.fail() is not None:
            return request
    return most


def test_so_many_failures_in_a_row_eject() -> None:
    endpoint = Endpoint(consecutive_failures=5)
    assert [endpoint.fail() for _ in range(5)] == [None] * 4 + ["consecutive-failures"]


def test_an_answer_ends_the_row() -> None:
    endpoint = Endpoint(consecutive_failures=3, failure_share="100%")
    for _ in range(50):
        assert endpoint.fail() is None
        assert endpoint.fail() is None
        endpoint.answer()


def test_an_endpoint_that_fails_every_other_request_is_ejected_by_its_share() -> None:
    endpoint = Endpoint(failure_share="30%", min_requests=20)
    reasons = []
    while not any(reasons):
        endpoint.answer()
        reasons.append(endpoint.fail())
    assert reasons[-1] == "failure-share"
    # each pair adds 0.7 - 0.3 to what 20 requests of twice the share add, 0.3 * 20
    assert endpoint.failures == 15


def test_what_went_well_before_does_not_dilute_what_goes_wrong_now() -> None:
    fresh, proven = Endpoint(consecutive_failures=1000), Endpoint(consecutive_failures=1000)
    proven.answer(1_000_000)
    assert until_ejected(fresh, 0.5, seed=1) == until_ejected(proven, 0.5, seed=1)


def test_half_of_requests_failing_is_noticed_within_a_hundred_of_them() -> None:
    took = [until_ejected(Endpoint(), 0.5, seed) for seed in range(200)]
    assert sorted(took)[100] <= 30
    assert max(took) <= 100


def test_a_tenth_of_requests_failing_is_let_be() -> None:
    took = [until_ejected(Endpoint(consecutive_failures=1000), 0.1, seed) for seed in range(20)]
    assert min(took) == 100_000


def test_failures_are_forgotten_a_window_after_the_last() -> None:
    endpoint = Endpoint(consecutive_failures=1000, failure_share="30%", window="10s")
    for _ in range(100):  # eight are one too few: 8 * 0.7 < 6
        assert [endpoint.fail() for _ in range(8)] == [None] * 8
        endpoint.now += 10.1
    assert endpoint.fail() is None
    endpoint.now += 9.9
    assert [endpoint.fail() for _ in range(8)] == [None] * 7 + ["failure-share"]


def test_the_whole_share_ejects_nobody() -> None:
    endpoint = Endpoint(consecutive_failures=1000, failure_share="100%", min_requests=1)
    assert [endpoint.fail() for _ in range(999)] == [None] * 999


def test_a_loss_after_the_head_takes_the_answer_back() -> None:
    endpoint = Endpoint(consecutive_failures=3)
    reasons = []
    for _ in range(3):
        endpoint.answers += 1  # the head
        endpoint.answers -= 1  # and the connection breaks
        reasons.append(endpoint.fail())
    assert reasons == [None, None, "consecutive-failures"]


def test_each_ejection_takes_twice_as_long_up_to_the_longest() -> None:
    endpoint = Endpoint(eject_for="30s", max_eject_for="5m")
    took = []
    for _ in range(6):
        took.append(endpoint.suspicion.eject(endpoint.now))
        endpoint.now += took[-1]
        endpoint.suspicion.on_return(endpoint.now)
    assert took == [30.0, 60.0, 120.0, 240.0, 300.0, 300.0]


def test_time_in_use_takes_the_doubling_back() -> None:
    endpoint = Endpoint(eject_for="30s", max_eject_for="5m")
    for _ in range(4):
        endpoint.suspicion.eject(endpoint.now)
        endpoint.suspicion.on_return(endpoint.now)
    endpoint.now += 65.0
    assert endpoint.suspicion.eject(endpoint.now) == 120.0  # 480 without those two
    endpoint.suspicion.on_return(endpoint.now)
    endpoint.now += 3600.0
    assert endpoint.suspicion.eject(endpoint.now) == 30.0


def test_a_return_begins_anew() -> None:
    endpoint = Endpoint(consecutive_failures=3)
    assert [endpoint.fail() for _ in range(3)][-1] is not None
    endpoint.suspicion.eject(endpoint.now)
    endpoint.suspicion.on_return(endpoint.now)
    assert [endpoint.fail() for _ in range(2)] == [None, None]


@pytest.mark.parametrize(
    ("max_ejected", "endpoints", "expected"),
    [
        ("50%", 1, 0),  # never the last
        ("50%", 2, 1),
        ("50%", 3, 1),
        ("50%", 10, 5),
        ("10%", 3, 1),  # one, where there is any other
        ("100%", 4, 3),
        ("0%", 10, 0),
    ],
)
def test_how_many_may_be_ejected(max_ejected: str, endpoints: int, expected: int) -> None:
    assert ejectable(Outlier.model_validate({"max_ejected": max_ejected}), endpoints) == expected
