"""Structured log lines on standard error: one event a line, readable or JSON.

Owns the format and nothing else; every process calls `configure` once. An event is a short name
with fields: `event(logger, "ready", listen="127.0.0.1:8080")`. Values may come from outside, so
nothing in them can end a line, start another or steer a terminal: what is not printable is escaped.
"""

import json
import logging
import sys
import time
from collections.abc import Iterator, Mapping
from typing import IO, Any, Final, Literal

Format = Literal["readable", "json"]

_LEVELS: Final[Mapping[str, int]] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
_FIELDS: Final = "event_fields"


def configure(
    format: Format,
    level: str,
    process: str = "control",
    stream: IO[str] | None = None,
) -> None:
    """Send this process's log lines to `stream` (standard error); later calls replace earlier.

    `process` names the sender in each line: `control`, `worker-0`.

    Raises:
        KeyError: `level` is none of `debug info warning error`.
    """
    handler = logging.StreamHandler(stream if stream is not None else sys.stderr)
    handler.setFormatter(_Json(process) if format == "json" else _Readable(process))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(_LEVELS[level])
    # a line per batch of file events says nothing, and feeds itself when the log is watched too
    logging.getLogger("watchfiles").setLevel(logging.WARNING)


def event(
    logger: logging.Logger, name: str, /, *, severity: int = logging.INFO, **fields: object
) -> None:
    """Log the event `name` with `fields`. Nothing is formatted when the level is off."""
    if logger.isEnabledFor(severity):
        logger.log(severity, name, extra={_FIELDS: fields})


def escaped(text: str) -> str:
    """`text` with all that is not printable (controls, line ends) escaped like `\\x1b`."""
    if text.isprintable():
        return text
    return "".join(_escape(character) for character in text)


def _escape(character: str) -> str:
    if character.isprintable():
        return character
    return character.encode("unicode_escape", "backslashreplace").decode("ascii")


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    fields: dict[str, Any] | None = getattr(record, _FIELDS, None)
    if fields is not None:
        return fields
    return {"logger": record.name}  # a library's line: its message is the event


def _timestamp(record: logging.LogRecord) -> str:
    """RFC 3339, UTC, milliseconds."""
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    return f"{whole}.{int(record.msecs):03d}Z"


class _Json(logging.Formatter):
    """One JSON object a line."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": _timestamp(record),
            "level": record.levelname.lower(),
            "process": self._process,
            "event": record.getMessage(),
        }
        for name, value in _fields(record).items():
            line.setdefault(name, value)
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        # ensure_ascii escapes all but DEL, the one control character above U+001F in ASCII
        return json.dumps(line, default=str).replace("\x7f", "\\u007f")


class _Readable(logging.Formatter):
    """`time level process event key=value ...`; a traceback follows, indented."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        line = (
            f"{_timestamp(record)} {record.levelname.lower():<7} {self._process} "
            f"{escaped(record.getMessage())}{''.join(_pairs(_fields(record)))}"
        )
        if record.exc_info:
            for row in self.formatException(record.exc_info).splitlines():
                line += f"\n    {escaped(row)}"
        return line


def _pairs(fields: Mapping[str, Any]) -> Iterator[str]:
    for name, value in fields.items():
        text = value if isinstance(value, str) else json.dumps(value, default=str)
        if isinstance(value, str) and (not text or any(sign in text for sign in ' "=')):
            text = '"' + text.replace('"', '\\"') + '"'
        yield f" {name}={escaped(text)}"
