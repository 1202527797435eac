"""A seeded run of mutants through the parsers; any number of inputs, always the same ones."""

import faulthandler
from collections import Counter
from collections.abc import Callable
from random import Random

from tests.fuzz.mutate import BODIES, REQUESTS, RESPONSES, Mutator
from tests.fuzz.properties import Properties

HANG_S = 20.0
"""A batch takes well under a second; one that takes longer than this is a hang."""
_BATCH = 1000


def run(inputs: int, seed: int) -> Counter[str]:
    """How many inputs each parser accepted.

    Raises:
        AssertionError: an invariant is broken; the note holds the input.
    """
    random = Random(seed)
    properties = Properties()
    targets: tuple[tuple[str, Mutator, Callable[[bytes], bool]], ...] = (
        ("request", Mutator(random, REQUESTS), properties.request),
        ("response", Mutator(random, RESPONSES), properties.response),
        ("chunked", Mutator(random, BODIES), properties.chunked),
    )
    accepted: Counter[str] = Counter()
    try:
        for number in range(inputs):
            if number % _BATCH == 0:
                faulthandler.dump_traceback_later(HANG_S, exit=True)
            name, mutator, check = targets[number % 3]
            data = mutator.mutant()
            if name == "chunked":
                data = random.randbytes(2) + data
            try:
                accepted[name] += check(data)
            except Exception as error:
                error.add_note(f"{name}: input {number} of seed {seed}: {data!r}")
                raise
    finally:  # or the watchdog would end whatever this process does next
        faulthandler.cancel_dump_traceback_later()
    return accepted
