"""Rules between mappings: names that must exist, or be unique, or make sense together.

Works on the document rather than on a Config, so that these mistakes are told together with those
that keep the Config from being built. What is broken is passed over: its own mistake is told.
"""

from collections.abc import Iterator
from typing import Any, Final

from pydantic import ValidationError

from router.config.model import Admin, Config, Match
from router.config.problems import Finding, Path
from router.config.translate import nearest
from router.config.values import split_address
from router.policies import POLICIES, Options

_WILDCARDS: Final = ("0.0.0.0", "::")  # noqa: S104 - compared with, not listened on


def crosscheck(document: Any) -> list[Finding]:
    """Every finding between mappings of `document`. Cost: linear in its size."""
    if not isinstance(document, dict):
        return []
    return [*_addresses(document), *_Names(document).findings()]
