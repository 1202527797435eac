"""What the demo shows: a table of text, and the screen it is drawn on.

`table` and `summary` are pure. `Screen` redraws the table in place with plain ANSI sequences on a
terminal, and otherwise prints it from time to time.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TextIO

from router.demo.checks import Check
from router.demo.readings import Reading
from router.demo.routes import BANDIT, CANARY, ROUTES, SHADOW, VARIANTS
from router.demo.tally import Tally

REDRAW_S: Final = 0.5
PLAIN_PERIOD_S: Final = 5.0
_BARS: Final = "▁▂▃▄▅▆▇█"
_HEADER: Final = (
    f"{'route':<8} {'policy':<7} {'variant':<13} {'weight':>6} {'share':>6} "
    f"{'requests':>8} {'correct':>7} {'p50':>8} {'p99':>8}"
)


@dataclass(frozen=True, slots=True)
class Scene:
    """One moment of the demo. `learned`: the better model's bandit weight, reading by reading."""

    elapsed_s: float
    seconds: float
    tally: Tally
    reading: Reading
    learned: Sequence[float]


def sparkline(shares: Sequence[float], width: int) -> str:
    """A bar per share (0..1), thinned to at most `width` of them, the last one always shown."""
    step = -(-len(shares) // width) or 1
    kept = list(shares)[::-1][::step][::-1]
    return "".join(_BARS[min(int(share * len(_BARS)), len(_BARS) - 1)] for share in kept)


def _row(scene: Scene, route: str, policy: str, variant: str) -> str:
    seen = scene.tally.variant(route, variant)
    weight = scene.reading.weights.get((route, variant), 0.0)
    correct = f"{seen.correct / seen.requests:.0%}" if seen.requests else "-"
    p50, p99 = (f"{seen.latency_s(quantile) * 1000:.1f} ms" for quantile in (0.5, 0.99))
    share = scene.tally.share(route, variant)
    return (
        f"{route:<8} {policy:<7} {variant:<13} {weight:>6.1%} {share:>6.1%} "
        f"{seen.requests:>8,} {correct:>7} {p50:>8} {p99:>8}"
    )


def table(scene: Scene) -> list[str]:
    """The lines of the live table."""
    tally, reading, seen = scene.tally, scene.reading, scene.tally.stickiness
    rows = [
        _row(scene, route.name, route.policy, variant) for route in ROUTES for variant in VARIANTS
    ]
    learned = scene.learned or (reading.weights.get((BANDIT.name, CANARY), 0.0),)
    return [
        f"{min(scene.elapsed_s, scene.seconds):5.1f} of {scene.seconds:.0f} s   "
        f"{tally.requests:,} requests   {tally.failures.total()} failed   "
        f"generation {reading.generation}",
        "",
        _HEADER,
        *rows,
        "",
        f"sticky   {seen.violations} violations in {seen.returns:,} answers to returning users",
        f"shadow   {reading.received:,} copies reached {SHADOW}",
        f"bandit   {CANARY}: {learned[0]:.0%} {sparkline(learned, 40)} {learned[-1]:.0%}",
    ]


def summary(checks: Sequence[Check]) -> list[str]:
    """The lines of the summary."""
    return [f"{'  ok' if check.is_held else 'FAIL'}  {check.text}" for check in checks]


class Screen:
    """Where the demo speaks. On a terminal one table stays below everything said."""

    def __init__(self, output: TextIO, is_plain: bool) -> None:
        self._output = output
        self._is_plain = is_plain
        self._drawn = 0
        """Lines of the table that stand at the bottom of the terminal."""

    @property
    def period_s(self) -> float:
        """How often to draw."""
        return PLAIN_PERIOD_S if self._is_plain else REDRAW_S

    def say(self, text: str = "") -> None:
        """Print `text` for good."""
        self._erase()
        print(text, file=self._output, flush=True)

    def draw(self, lines: Sequence[str]) -> None:
        """Show the table, over the one before. Lines are cut so that none wraps."""
        self._erase()
        if self._is_plain:
            print(*lines, "", sep="\n", file=self._output, flush=True)
            return
        columns = shutil.get_terminal_size().columns
        print(*(line[: columns - 1] for line in lines), sep="\n", file=self._output, flush=True)
        self._drawn = len(lines)

    def keep(self) -> None:
        """Leave the table that is drawn where it is; what follows goes below."""
        self._drawn = 0

    def _erase(self) -> None:
        if self._drawn:
            self._output.write(f"\x1b[{self._drawn}A\x1b[J")
            self._drawn = 0
