"""What the demo routes: the names of its models, its routes, and the YAML the router is given.

Pure, and free of scikit-learn, so that it can be read before anything is trained.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

STABLE: Final = "cat-dog"
CANARY: Final = "cat-dog-koala"
SHADOW: Final = "cat-dog-next"
BACKENDS: Final = (STABLE, CANARY, SHADOW)

CANARY_PERCENT_AT_FIRST: Final = 10
CANARY_PERCENT_LATER: Final = 30


@dataclass(frozen=True, slots=True)
class DemoRoute:
    """A route of the demo. On a sticky one a user keeps their variant; both answer on each."""

    name: str
    policy: str
    is_sticky: bool

    @property
    def target(self) -> str:
        """Where clients send an inference request."""
        return f"/v2/models/{self.name}/infer"


ANIMALS: Final = DemoRoute("animals", "canary", is_sticky=True)
AB: Final = DemoRoute("ab", "ab", is_sticky=True)
BANDIT: Final = DemoRoute("bandit", "bandit", is_sticky=False)
ROUTES: Final = (ANIMALS, AB, BANDIT)
VARIANTS: Final = (STABLE, CANARY)


def config_text(urls: Mapping[str, str], state: Path, canary_percent: int) -> str:
    """The router's YAML. `urls`: backend -> its endpoint; `state`: the state store's file."""
    backends = "\n".join(
        f"  {name}: {{endpoints: [{urls[name]}], health: {{path: /v2/health/ready, interval: 1s}}}}"
        for name in BACKENDS
    )
    return f"""\
listen: 127.0.0.1:0 # port 0 takes a free one
admin: {{listen: 127.0.0.1:0}}
workers: 2
state: sqlite://{state}
drain_timeout: 5s
logging: {{format: json}}

backends:
{backends}

routes:
  - name: {ANIMALS.name}
    match: {{path: /v2/models/{ANIMALS.name}/}}
    policy:
      type: canary
      stable: {STABLE}
      canary: {CANARY}
      weight: {canary_percent}%
      sticky: {{header: x-user-id}}
      override: {{header: x-canary}} # always | never
    shadow:
      - {{backend: {SHADOW}, sample: 100%}}
  - name: {AB.name}
    match: {{path: /v2/models/{AB.name}/}}
    policy:
      type: ab
      variants: [{{backend: {STABLE}, weight: 50%}}, {{backend: {CANARY}, weight: 50%}}]
      sticky: {{header: x-user-id}}
  - name: {BANDIT.name}
    match: {{path: /v2/models/{BANDIT.name}/}}
    policy:
      type: bandit
      algorithm: thompson
      variants: [{{backend: {STABLE}}}, {{backend: {CANARY}}}]
      reward: correct # clients report 1 for a right answer, 0 for a wrong one
"""
