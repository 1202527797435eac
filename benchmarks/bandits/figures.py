"""What must be, and what would be good: mean regret, in rewards, over 20,000 exposures."""

from typing import Final

MUST_GOOD: Final[dict[tuple[str, int], tuple[float, float]]] = {
    ("b2", 0): (45, 36),
    ("b3", 0): (60, 50),
    ("b5", 0): (125, 97),
    ("b5hi", 0): (300, 205),
    ("b2", 500): (50, 39),
    ("b3", 500): (65, 54),
    ("b5", 500): (130, 104),
    ("b5hi", 500): (340, 270),
    ("sw2", 0): (180, 140),
    ("sw2big", 0): (300, 215),
    ("sw3break", 0): (320, 242),
    ("sw2big", 500): (400, 308),
    ("sw3break", 500): (600, 482),
}
"""(environment, delay) -> most regret that may be, and that would be good."""
P95_B2: Final = (100.0, 78.0)
"""The same for the 95th percentile of b2, delay 0."""
BETTER: Final = 0.7
"""Where something changes: most of plain Thompson's regret."""
ERRORS: Final = 2.0
"""Standard errors (of both means together) within which a steady environment is a draw."""
ROUTES: Final = 1000
ARMS: Final = 5
CPU_MAX_S: Final = 0.25
"""Most CPU time for the weights of `ROUTES` routes of `ARMS` arms; all have new rewards."""
ONE_S: Final = (0.010, 0.002)
"""One recompute, must and good."""
