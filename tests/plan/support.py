"""Small configs."""

import json
from typing import Any

from router.config.model import Config
from tests.config.support import load

BACKENDS: dict[str, Any] = {
    "v1": {"endpoints": ["http://127.0.0.1:1"]},
    "v2": {"endpoints": ["http://127.0.0.1:2"]},
}


def config(*routes: dict[str, Any], backends: dict[str, Any] = BACKENDS) -> Config:
    """A config of these routes; JSON is YAML."""
    return load(json.dumps({"backends": backends, "routes": routes})).config
