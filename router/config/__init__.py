"""The configuration: YAML text -> a frozen Config, or every mistake in it with its place.

`model.py` says what a config is, `load.py` makes one, `diff.py` compares two, `schema.py` describes
them to editors. Pure but for reading one file; only `watch.py` waits for anything.
"""

from router.config.diff import Change, compare, render_changes
from router.config.load import Loaded, load_file, load_text
from router.config.model import Config
from router.config.problems import ConfigError, Problem
from router.config.schema import json_schema

__all__ = [
    "Change",
    "Config",
    "ConfigError",
    "Loaded",
    "Problem",
    "compare",
    "json_schema",
    "load_file",
    "load_text",
    "render_changes",
]
