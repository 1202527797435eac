import resource

import pytest

from router.control.files import check_open_files, raise_open_files
from router.errors import StartError

UNLIMITED = resource.RLIM_INFINITY


@pytest.mark.parametrize(
    ("limits", "raised"),
    [
        ((1024, 4096), 4096),
        ((1024, 1024), None),
        ((1024, UNLIMITED), 1024 * 1024),
        ((1024, 10**9), 1024 * 1024),
        ((2 * 1024 * 1024, 10**9), None),
        ((UNLIMITED, UNLIMITED), None),
    ],
)
def test_the_limit_is_raised_as_far_as_it_may(
    monkeypatch: pytest.MonkeyPatch, limits: tuple[int, int], raised: int | None
) -> None:
    set_to: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits)
    monkeypatch.setattr(resource, "setrlimit", lambda _, wanted: set_to.append(wanted))
    allowed = raise_open_files()
    if raised is None:
        assert set_to == []
        assert allowed == (limits[0] if limits[0] != UNLIMITED else 1024 * 1024)
    else:
        assert set_to == [(raised, limits[1])]
        assert allowed == raised


def test_too_few_open_files_are_told_before_anything_is_opened() -> None:
    check_open_files(72, 2)
    with pytest.raises(StartError, match="only 71 open files are allowed, expected at least 72"):
        check_open_files(71, 2)
