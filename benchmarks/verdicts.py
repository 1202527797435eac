"""Targets met and missed, said so that none is overlooked: a line each, one at the end. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum


class Outcome(Enum):
    """What became of a target. UNJUDGED: the measurement does not carry a judgement."""

    MET = "met"
    MISSED = "MISSED"
    UNJUDGED = "UNJUDGED"


@dataclass(frozen=True, slots=True)
class Verdict:
    """`words` name the target, `measured` and `bound` are as shown; `why` it was not judged."""

    words: str
    outcome: Outcome
    measured: str
    bound: str
    why: str = ""

    def line(self) -> str:
        shown = f"{self.outcome.value:<8} {self.words}: {self.measured}, target {self.bound}"
        return f"{shown} ({self.why})" if self.why else shown


def judged(is_met: bool) -> Outcome:
    return Outcome.MET if is_met else Outcome.MISSED


def summary(verdicts: Sequence[Verdict]) -> str:
    """The last line of a report; in capitals when something was missed. Empty without targets."""
    if not verdicts:
        return ""
    missed = [verdict.words for verdict in verdicts if verdict.outcome is Outcome.MISSED]
    unjudged = [verdict.words for verdict in verdicts if verdict.outcome is Outcome.UNJUDGED]
    met = len(verdicts) - len(missed) - len(unjudged)
    parts = [f"targets: {met} of {len(verdicts)} met"]
    if missed:
        parts = [f"TARGETS MISSED: {len(missed)} of {len(verdicts)}: {'; '.join(missed)}"]
    if unjudged:
        parts.append(f"not judged: {'; '.join(unjudged)}")
    return " | ".join(parts)
