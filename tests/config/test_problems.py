"""How a problem is written."""

from router.config.problems import ConfigError, Problem, render_path


def test_a_problem_is_one_line_with_place_path_message_and_hint() -> None:
    problem = Problem("r.yaml", 3, 7, "routes[0].name", "no", "yes")
    assert str(problem) == "r.yaml:3:7: routes[0].name: no (yes)"


def test_a_problem_of_the_whole_file_has_no_line_and_one_of_the_root_no_path() -> None:
    assert str(Problem("r.yaml", 0, 0, "", "cannot be read")) == "r.yaml: cannot be read"
    assert str(Problem("r.yaml", 1, 1, "", "empty")) == "r.yaml:1:1: empty"


def test_a_message_is_safe_for_a_terminal_and_of_bounded_length() -> None:
    assert str(Problem("f", 1, 1, "", "a\x1b[2J\nb")) == "f:1:1: a\\x1b[2J\\nb"
    assert len(str(Problem("f", 1, 1, "", "x" * 5000))) < 500


def test_an_error_is_all_its_problems() -> None:
    problems = (Problem("f", 1, 1, "", "one"), Problem("f", 2, 1, "", "two"))
    error = ConfigError(problems)
    assert error.problems == problems
    assert str(error) == "f:1:1: one\nf:2:1: two"


def test_a_key_that_is_no_plain_word_is_quoted_in_a_path() -> None:
    assert render_path(("backends", "v1.2", "endpoints", 0, "url")) == (
        'backends."v1.2".endpoints[0].url'
    )
    assert render_path(()) == ""
