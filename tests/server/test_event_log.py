"""The log: one line for each event."""

import io
import json
import logging
from collections.abc import Generator

import pytest

from runwell.server.event_log import LogFormat, configure_logging


@pytest.fixture(autouse=True)
def _restored_logging() -> Generator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    levels = {name: logging.getLogger(name).level for name in ("uvicorn.error", "asyncio")}
    raise_exceptions = logging.raiseExceptions
    yield
    root.handlers, root.level = handlers, level
    logging.raiseExceptions = raise_exceptions
    root.setLevel(level)
    for name, least in levels.items():
        logging.getLogger(name).setLevel(least)


def _written(log_format: LogFormat, level: str = "info") -> io.StringIO:
    stream = io.StringIO()
    configure_logging(level, log_format, stream)
    return stream


def test_an_event_is_one_json_object_with_its_fields() -> None:
    stream = _written("json")
    fields = {"run_id": "run_1", "path": None, "text": "two\nlines \u00e9"}
    logging.getLogger("runwell.x").info("run_canceled", extra={"fields": fields})
    [line] = stream.getvalue().splitlines()
    parsed = json.loads(line)
    assert parsed.pop("time").endswith("Z")
    assert parsed == {"level": "info", "event": "run_canceled", **fields}


def test_an_event_is_one_line_of_text_with_quoted_values() -> None:
    stream = _written("text")
    fields = {"run_id": "run_1", "text": 'two\nlines "quoted"'}
    logging.getLogger("runwell.x").warning("run_canceled", extra={"fields": fields})
    [line] = stream.getvalue().splitlines()
    assert line.endswith(r'warning run_canceled run_id=run_1 text="two\nlines \"quoted\""')


def test_a_traceback_is_a_field_in_json_and_lines_below_in_text() -> None:
    for log_format in ("json", "text"):
        stream = _written("json" if log_format == "json" else "text")
        try:
            raise ValueError("no")
        except ValueError:
            logging.getLogger("runwell.x").exception("loop_failed")
        lines = stream.getvalue().splitlines()
        if log_format == "json":
            assert json.loads(lines[0])["traceback"].endswith("ValueError: no")
        else:
            assert lines[0].endswith("loop_failed")
            assert lines[-1] == "ValueError: no"


def test_sentences_of_libraries_become_fields() -> None:
    stream = _written("json")
    logging.getLogger("other").warning("It is %d o'clock", 3)
    parsed = json.loads(stream.getvalue())
    assert (parsed["event"], parsed["logger"]) == ("log", "other")
    assert parsed["message"] == "It is 3 o'clock"


def test_what_is_below_the_level_is_left_out() -> None:
    stream = _written("json", "warning")
    logging.getLogger("runwell.x").info("run_canceled")
    logging.getLogger("uvicorn.error").info("Shutting down")
    assert stream.getvalue() == ""
