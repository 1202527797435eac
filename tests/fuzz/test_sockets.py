"""A short, seeded piece of the long differential runs, through a router that really runs."""

from collections.abc import Iterator

import pytest

from tests.fuzz import sockets
from tests.raw.harness import Stand, standing


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    with standing(tmp_path_factory.mktemp("fuzz"), {}) as stand:
        yield stand


def test_an_origin_sees_of_mutated_requests_what_was_sent_or_nothing(stand: Stand) -> None:
    counted = sockets.requests(stand, 1200, 1)
    assert counted["relayed"] > 100
    assert counted["refused"] > 300


def test_a_client_sees_of_mutated_responses_what_was_sent_or_that_it_failed(stand: Stand) -> None:
    counted = sockets.responses(stand, 1200, 1)
    assert counted["passed"] > 100
    assert counted["502"] > 300
    assert counted["cut"] > 5
