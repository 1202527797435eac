"""The table, the summary, and the screen they are written on."""

import io
import os

import pytest

from router.demo.checks import Check
from router.demo.readings import Reading
from router.demo.routes import ROUTES, VARIANTS
from router.demo.tally import Answer, Tally
from router.demo.view import Scene, Screen, sparkline, summary, table


def scene() -> Scene:
    tally = Tally(["animals"], window=10)
    for number in range(10):
        variant, is_correct = ("cat-dog-koala", True) if number < 3 else ("cat-dog", number < 7)
        tally.answered(Answer("animals", f"user-{number}", variant, is_correct, 0.001 * number))
    tally.answered(Answer("animals", "user-0", "cat-dog-koala", True, 0.002))
    tally.failed("animals: status 503")
    weights = {("animals", "cat-dog"): 0.7, ("animals", "cat-dog-koala"): 0.3}
    reading = Reading(2, weights, {"answered": 1234}, 1235)
    return Scene(12.0, 20.0, tally, reading, [0.5, 0.75, 0.98])


def test_the_table_shows_what_was_seen() -> None:
    assert table(scene()) == [
        " 12.0 of 20 s   12 requests   1 failed   generation 2",
        "",
        "route    policy  variant       weight  share requests correct      p50      p99",
        "animals  canary  cat-dog        70.0%  70.0%        7     57%   6.0 ms   9.0 ms",
        "animals  canary  cat-dog-koala  30.0%  30.0%        4    100%   2.0 ms   2.0 ms",
        "ab       ab      cat-dog         0.0%   0.0%        0       -   0.0 ms   0.0 ms",
        "ab       ab      cat-dog-koala   0.0%   0.0%        0       -   0.0 ms   0.0 ms",
        "bandit   bandit  cat-dog         0.0%   0.0%        0       -   0.0 ms   0.0 ms",
        "bandit   bandit  cat-dog-koala   0.0%   0.0%        0       -   0.0 ms   0.0 ms",
        "",
        "sticky   0 violations in 1 answers to returning users",
        "shadow   1,235 copies reached cat-dog-next",
        "bandit   cat-dog-koala: 50% ▅▇█ 98%",
    ]


def test_before_anything_was_learned_the_table_shows_the_weight_that_stands() -> None:
    empty = Scene(
        0.0, 20.0, Tally([], 10), Reading(1, {("bandit", "cat-dog-koala"): 0.5}, {}, 0), []
    )
    assert table(empty)[-1] == "bandit   cat-dog-koala: 50% ▅ 50%"
    assert len(table(empty)) == 7 + len(ROUTES) * len(VARIANTS)


@pytest.mark.parametrize(
    ("shares", "width", "expected"),
    [
        ([], 8, ""),
        ([0.0, 0.5, 1.0], 8, "▁▅█"),
        ([0.0, 0.0, 0.0, 1.0], 2, "▁█"),
        ([0.0, 0.0, 0.0, 0.0, 1.0], 2, "▁█"),
    ],
)
def test_a_sparkline_is_thinned_and_ends_with_the_last_share(
    shares: list[float], width: int, expected: str
) -> None:
    assert sparkline(shares, width) == expected


def test_the_summary_marks_what_failed() -> None:
    assert summary([Check(True, "one"), Check(False, "two")]) == ["  ok  one", "FAIL  two"]


def test_a_terminal_shows_one_table_below_everything_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.get_terminal_size", lambda: os.terminal_size((8, 24)))
    output = io.StringIO()
    screen = Screen(output, is_plain=False)
    screen.draw(["one", "a line that is too long"])
    screen.say("said")
    screen.draw(["two", "2"])
    screen.draw(["three", "3"])
    screen.keep()
    screen.say("end")
    assert output.getvalue() == (
        "one\na line \n\x1b[2A\x1b[Jsaid\ntwo\n2\n\x1b[2A\x1b[Jthree\n3\nend\n"
    )


def test_plain_output_has_no_control_sequences_and_cuts_nothing() -> None:
    output = io.StringIO()
    screen = Screen(output, is_plain=True)
    screen.draw(["x" * 300])
    screen.say("said")
    screen.draw(["y"])
    assert output.getvalue() == "x" * 300 + "\n\nsaid\ny\n\n"
