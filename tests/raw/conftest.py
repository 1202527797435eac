"""The stands of the raw suite: started when first needed, shared by a session."""

from collections.abc import Iterator

import pytest

from tests.raw.harness import Stand, standing


@pytest.fixture(scope="session")
def _plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    with standing(tmp_path_factory.mktemp("plain"), {}, trusted_proxies=["127.0.0.9/32"]) as stand:
        yield stand


@pytest.fixture(scope="session")
def _small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    downstream = {
        "head_bytes": 1024,
        "request_line": 256,
        "headers": 8,
        "body_bytes": 1000,
        "trailers": 64,
        "requests": 3,
    }
    limits = {"head_bytes": 1024, "headers": 8}
    with standing(
        tmp_path_factory.mktemp("small"), {"limits": limits}, downstream=downstream
    ) as stand:
        yield stand


@pytest.fixture(scope="session")
def _hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    downstream = {
        "head_timeout": "300ms",
        "body_timeout": "300ms",
        "idle_timeout": "300ms",
        "body_rate": 1000,
    }
    timeout = {"first_byte": "300ms", "idle": "300ms", "tunnel": "300ms"}
    with standing(
        tmp_path_factory.mktemp("hasty"), {"timeout": timeout}, downstream=downstream
    ) as stand:
        yield stand


@pytest.fixture(scope="session")
def _crowded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    downstream = {"connections": 6, "connections_per_client": 3, "in_flight": 2}
    with standing(
        tmp_path_factory.mktemp("crowded"),
        {"limits": {"connections": 2, "pending": 1}},
        downstream=downstream,
    ) as stand:
        yield stand


def _used(stand: Stand) -> Iterator[Stand]:
    """Nothing malformed may reach an origin, whatever the test is about."""
    yield stand
    stand.origin.script_all()
    violations, stand.origin.violations = stand.origin.violations, []
    assert violations == []


@pytest.fixture
def stand(_plain: Stand) -> Iterator[Stand]:
    """Default settings; 127.0.0.9 is a trusted proxy."""
    yield from _used(_plain)


@pytest.fixture
def small(_small: Stand) -> Iterator[Stand]:
    """Small bounds."""
    yield from _used(_small)


@pytest.fixture
def hasty(_hasty: Stand) -> Iterator[Stand]:
    """Short times, for tests in which they run out."""
    yield from _used(_hasty)


@pytest.fixture
def crowded(_crowded: Stand) -> Iterator[Stand]:
    """Few connections and few requests at a time."""
    yield from _used(_crowded)
