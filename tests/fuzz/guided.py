"""A coverage-guided run (atheris, libFuzzer) of the same checks over the instrumented parsers.

Needs `pip install atheris`. libFuzzer ends the process by itself: with status 0 after the wanted
number of inputs, and otherwise with the input that broke something.
"""

import sys
import tempfile
from pathlib import Path

import atheris  # type: ignore[import-untyped]  # publishes no types; not in the test extra

with atheris.instrument_imports(include=["router"]):
    from tests.fuzz.properties import Properties

from tests.fuzz.mutate import BODIES, REQUESTS, RESPONSES, TOKENS

SEEDS = (REQUESTS, RESPONSES, BODIES)


def main(inputs: int, seed: int) -> None:
    properties = Properties()
    checks = (properties.request, properties.response, properties.chunked)

    def one(data: bytes) -> None:
        if data:
            checks[data[0] % 3](data[1:])

    with tempfile.TemporaryDirectory() as name:
        corpus = Path(name) / "corpus"
        corpus.mkdir()
        for kind, seeds in enumerate(SEEDS):
            for number, raw in enumerate(seeds):
                prefix = bytes((kind,)) + (b"\x40\xa0" if kind == 2 else b"")
                (corpus / f"{kind}-{number}").write_bytes(prefix + raw)
        dictionary = Path(name) / "dictionary"
        escaped = ("".join(f"\\x{byte:02x}" for byte in token) for token in TOKENS)
        dictionary.write_text("".join(f'"{token}"\n' for token in escaped))
        options = ["-max_len=768", "-timeout=20", "-rss_limit_mb=2048", "-print_final_stats=1"]
        arguments = [f"-runs={inputs}", f"-seed={seed}", f"-dict={dictionary}", *options]
        atheris.Setup([sys.argv[0], *arguments, str(corpus)], one)
        atheris.Fuzz()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
