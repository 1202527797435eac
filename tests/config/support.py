"""Short configs and what is wrong with them."""

from collections.abc import Mapping

from router.config import ConfigError, Loaded, load_text

VALID = "backends: {v1: {endpoints: [http://a:1]}}\nroutes: [{name: r, backend: v1}]\n"
"""Two lines that are a whole config; put what a test is about before them."""


def load(text: str | bytes, env: Mapping[str, str] | None = None) -> Loaded:
    """Load `text` under the name `f`."""
    return load_text(text.encode() if isinstance(text, str) else text, "f", env or {})


def mistakes(text: str | bytes, env: Mapping[str, str] | None = None) -> list[str]:
    """The lines that say what is wrong with `text`; none when it loads."""
    try:
        load(text, env)
    except ConfigError as error:
        return [str(problem) for problem in error.problems]
    return []


def warnings(text: str) -> list[str]:
    """The warnings of a valid config."""
    return [str(warning) for warning in load(text).warnings]
