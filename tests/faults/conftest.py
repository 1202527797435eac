"""Failed assertions of the shared rule are explained, like those of tests."""

import pytest

pytest.register_assert_rewrite("tests.faults.load")
