"""The server's log: one line for each event, as JSON or as text.

An event is a name in snake case; what it is about are fields: `log.info("run_canceled",
extra={"fields": {"run_id": ...}})`. Messages of other libraries become the event `log`.
"""

import json
import logging
import re
import sys
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Literal, TextIO

LogFormat = Literal["text", "json"]
LEVELS = ("debug", "info", "warning", "error", "critical")

# What these say below is about how, not about what; a lost connection is logged by who misses it.
_LEAST_LEVELS = {
    "uvicorn.error": logging.WARNING,
    "asyncio": logging.WARNING,
    "asyncpg.pool": logging.ERROR,
}

_EVENT = re.compile(r"[a-z][a-z0-9_]*")
_PLAIN = re.compile(r"[\w./:@+\-]+")


def configure_logging(level: str, log_format: LogFormat, stream: TextIO | None = None) -> None:
    """Send the log of the whole process to a stream (standard error), from `level` on."""
    output = logging.StreamHandler(stream or sys.stderr)
    output.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers = [output]
    root.setLevel(level.upper())
    for name, least in _LEAST_LEVELS.items():
        logging.getLogger(name).setLevel(max(least, root.level))
    # A log that can't be written must not take requests down with it.
    logging.raiseExceptions = False


class JsonFormatter(logging.Formatter):
    """One JSON object a line: `time`, `level`, `event`, and the fields."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record."""
        event, fields = _event_of(record)
        line: dict[str, object] = {
            "time": _time_of(record),
            "level": record.levelname.lower(),
            "event": event,
            **fields,
        }
        return json.dumps(line, default=str, ensure_ascii=True)


class TextFormatter(logging.Formatter):
    """A line for people: time, level, event and `name=value` fields; a traceback below it."""

    def format(self, record: logging.LogRecord) -> str:
        """The lines of a record."""
        event, fields = _event_of(record)
        stack = fields.pop("traceback", None)
        shown = "".join(f" {name}={_quote(value)}" for name, value in fields.items())
        line = f"{_time_of(record)} {record.levelname.lower():<7} {event}{shown}"
        return line if stack is None else f"{line}\n{stack}"


def _event_of(record: logging.LogRecord) -> tuple[str, dict[str, object]]:
    message = record.getMessage()
    fields: dict[str, object] = {}
    if _EVENT.fullmatch(message):
        event = message
    else:
        event = "log"
        fields |= {"logger": record.name, "message": message}
    given: object = getattr(record, "fields", None)
    if isinstance(given, Mapping):
        fields |= {str(name): value for name, value in given.items()}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    if record.exc_info:
        fields["traceback"] = "".join(traceback.format_exception(*record.exc_info)).rstrip()
    return event, fields


def _time_of(record: logging.LogRecord) -> str:
    instant = datetime.fromtimestamp(record.created, UTC)
    return instant.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _quote(value: object) -> str:
    text = str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=False)
