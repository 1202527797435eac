"""The long runs: `python -m tests.fuzz KIND --inputs N --seed S`.

Prints what was tried, how much of it was accepted and how long it took. Fails at the first input
that breaks an invariant and prints it.
"""

import argparse
import asyncio
import time
from pathlib import Path
from tempfile import TemporaryDirectory

KINDS = ["pure", "guided", "requests", "responses", "interleavings"]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    if options.kind == "guided":
        from tests.fuzz import guided  # first: it instruments what it imports

        guided.main(options.inputs, options.seed)
        return
    from tests.fuzz import interleavings, pure, sockets
    from tests.raw.harness import standing

    began_s = time.monotonic()
    if options.kind == "pure":
        counted = pure.run(options.inputs, options.seed)
    elif options.kind == "interleavings":
        counted = asyncio.run(interleavings.run(options.inputs, options.seed))
    else:
        run = sockets.requests if options.kind == "requests" else sockets.responses
        with TemporaryDirectory() as name, standing(Path(name), {}) as stand:
            counted = run(stand, options.inputs, options.seed)
    took_s = time.monotonic() - began_s
    found = ", ".join(f"{count} {what}" for what, count in sorted(counted.items()))
    print(f"{options.kind}: {options.inputs} inputs, seed {options.seed}, {took_s:.0f} s: {found}")


if __name__ == "__main__":
    main()
