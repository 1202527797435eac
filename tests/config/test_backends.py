"""Rules within one backend."""

from typing import Any

import pytest
from pydantic import ValidationError

from router.config.backends import Backend

URL = "http://a:1"


def backend(**settings: Any) -> Backend:
    return Backend.model_validate({"endpoints": [URL], **settings})


def test_outliers_are_ejected_by_default_and_null_turns_that_off() -> None:
    assert backend().outlier is not None
    assert backend(outlier=None).outlier is None


def test_an_empty_mapping_turns_the_adaptive_limit_on() -> None:
    assert backend().limits.adaptive is None
    assert backend(limits={"adaptive": {}}).limits.adaptive is not None


def test_the_bounds_of_the_adaptive_limit_are_in_order() -> None:
    with pytest.raises(ValidationError, match=r"max \(2\) is less than min \(4\)"):
        backend(limits={"adaptive": {"max": 2}})
