from benchmarks.verdicts import Outcome, Verdict, judged, summary

_MET = Verdict("start", Outcome.MET, "1 s", "<= 2 s")
_MISSED = Verdict("memory", Outcome.MISSED, "9 MiB", "<= 5 MiB")
_UNJUDGED = Verdict("p99", Outcome.UNJUDGED, "1 ms", "<= 2 ms", "the load was late")


def test_a_line_says_target_measurement_and_bound() -> None:
    assert _MET.line() == "met      start: 1 s, target <= 2 s"
    assert _MISSED.line() == "MISSED   memory: 9 MiB, target <= 5 MiB"


def test_a_line_says_why_there_is_no_judgement() -> None:
    assert _UNJUDGED.line() == "UNJUDGED p99: 1 ms, target <= 2 ms (the load was late)"


def test_a_summary_names_what_was_missed_and_what_was_not_judged() -> None:
    assert summary([_MET, _MET]) == "targets: 2 of 2 met"
    assert summary([_MET, _MISSED]) == "TARGETS MISSED: 1 of 2: memory"
    assert summary([_MET, _UNJUDGED]) == "targets: 1 of 2 met | not judged: p99"
    assert summary([_MISSED, _UNJUDGED]) == "TARGETS MISSED: 1 of 2: memory | not judged: p99"


def test_without_targets_there_is_no_summary() -> None:
    assert summary([]) == ""


def test_a_judgement_is_met_or_missed() -> None:
    assert (judged(True), judged(False)) == (Outcome.MET, Outcome.MISSED)
