"""Fixtures of the process tests."""

from collections.abc import Iterator

import pytest

from tests.serve.origins import Servers, origins


@pytest.fixture
def servers() -> Iterator[Servers]:
    """Model servers v1 and v2."""
    with origins("v1", "v2") as (v1, v2):
        yield v1, v2
