import io
import json
import logging
from collections.abc import Iterator

import pytest

from router import logs

log = logging.getLogger("router.test")


@pytest.fixture(autouse=True)
def _restore_root_logger() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


def lines(format: logs.Format, level: str = "info") -> io.StringIO:
    stream = io.StringIO()
    logs.configure(format, level, process="worker-3", stream=stream)
    return stream


def test_a_json_line_is_one_object_with_time_level_process_event_and_fields() -> None:
    stream = lines("json")
    logs.event(log, "ready", listen="127.0.0.1:1", workers=2)
    line = json.loads(stream.getvalue())
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "info",
        "process": "worker-3",
        "event": "ready",
        "listen": "127.0.0.1:1",
        "workers": 2,
    }


def test_a_readable_line_has_fields_as_pairs_and_quotes_where_needed() -> None:
    stream = lines("readable")
    logs.event(log, "worker_died", severity=logging.ERROR, pid=7, reason='exited "badly"', none="")
    assert stream.getvalue().split(" ", 1)[1] == (
        'error   worker-3 worker_died pid=7 reason="exited \\"badly\\"" none=""\n'
    )


@pytest.mark.parametrize("format", ["json", "readable"])
@pytest.mark.parametrize("hostile", ["a\nb", "a\r\nINFO fake", "\x1b[2J", "\x7f\x9b", "a\u2028b"])
def test_no_value_can_end_a_line_or_steer_a_terminal(format: logs.Format, hostile: str) -> None:
    stream = lines(format)
    logs.event(log, "access", path=hostile)
    log.warning("a library says %s", hostile)
    text = stream.getvalue()
    assert text.count("\n") == 2
    assert all(part.isprintable() for part in text.split("\n"))


def test_json_escapes_keep_the_value_readable_back() -> None:
    stream = lines("json")
    logs.event(log, "access", path="\x7f\x9b\n")
    assert json.loads(stream.getvalue())["path"] == "\x7f\x9b\n"


def test_a_field_cannot_replace_the_level_or_the_event() -> None:
    stream = lines("json")
    logs.event(log, "ready", level="error", event="fake")
    line = json.loads(stream.getvalue())
    assert (line["level"], line["event"]) == ("info", "ready")


def test_lines_below_the_level_are_not_written() -> None:
    stream = lines("json", "warning")
    logs.event(log, "ready")
    assert stream.getvalue() == ""


@pytest.mark.parametrize("format", ["json", "readable"])
def test_a_traceback_follows_its_event(format: logs.Format) -> None:
    stream = lines(format)
    try:
        raise ValueError("bad\nvalue")
    except ValueError:
        log.exception("task_failed")
    text = stream.getvalue()
    assert "Traceback" in text
    if format == "json":
        assert text.count("\n") == 1
    else:
        assert all(line.startswith("    ") for line in text.splitlines()[1:])


def test_configuring_again_replaces_the_earlier_lines() -> None:
    earlier = lines("json")
    later = lines("readable")
    logs.event(log, "ready")
    assert earlier.getvalue() == ""
    assert later.getvalue().count("\n") == 1
