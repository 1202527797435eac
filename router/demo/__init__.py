"""`pointsman demo`: real classifiers behind a real router, with real images, in about 20 seconds.

Owns the command's options and nothing else: importing this package is cheap, and what needs
scikit-learn is imported when the demo runs.
"""

import argparse
import importlib.util
import sys
from typing import Final

SECONDS_DEFAULT: Final = 20.0
SECONDS_MIN: Final = 4.0
"""Below this no user would come back often enough to show anything."""
SECONDS_MAX: Final = 3600.0


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds") from None
    if not SECONDS_MIN <= seconds <= SECONDS_MAX:
        raise argparse.ArgumentTypeError(
            f"{text} seconds, expected {SECONDS_MIN:.0f} to {SECONDS_MAX:.0f}"
        )
    return seconds


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the demo's options on `parser`."""
    parser.add_argument(
        "--seconds",
        type=_seconds,
        default=SECONDS_DEFAULT,
        metavar="N",
        help=f"how long to send traffic (default {SECONDS_DEFAULT:.0f})",
    )
    parser.add_argument(
        "--plain",
        action="store_true",
        help="print a table every few seconds instead of redrawing one (so when not on a terminal)",
    )
    parser.add_argument(
        "--stay",
        action="store_true",
        help="afterwards keep everything running until Ctrl-C, and print what to try",
    )


def run(arguments: argparse.Namespace) -> int:
    """Run the demo and return the exit status: 0 when every check of its summary held."""
    if importlib.util.find_spec("sklearn") is None:
        print("the demo needs scikit-learn: pip install 'pointsman[demo]'", file=sys.stderr)
        return 1
    from router.demo.scenario import play

    return play(
        seconds=arguments.seconds,
        is_plain=arguments.plain or not sys.stdout.isatty(),
        stay=arguments.stay,
    )
