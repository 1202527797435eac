"""The demo's command line."""

import argparse
import subprocess
import sys

import pytest

from router import demo


def parse(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    demo.add_arguments(parser)
    return parser.parse_args(arguments)


def test_by_default_it_takes_twenty_seconds_and_ends_by_itself() -> None:
    assert vars(parse()) == {"seconds": 20.0, "plain": False, "stay": False}


@pytest.mark.parametrize("seconds", ["3", "-1", "nan", "inf", "3601", "soon"])
def test_a_duration_that_makes_no_sense_is_refused(
    seconds: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parse("--seconds", seconds)
    assert seconds in capsys.readouterr().err


def test_without_scikit_learn_it_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert demo.run(parse()) == 1
    assert "pip install 'pointsman[demo]'" in capsys.readouterr().err


def test_declaring_the_options_imports_nothing_heavy() -> None:
    code = "import sys, router.demo; print({'sklearn', 'numpy', 'aiohttp'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
