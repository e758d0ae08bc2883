"""`logger`: lines of the current run, or of the `logging` module outside of one."""

import logging
import subprocess
import sys
from datetime import UTC, datetime
from decimal import Decimal
from typing import Literal

import pytest

from runwell import logger
from runwell.sdk.logger import LogThreshold, is_logged
from runwell.sdk.runtime import LogLevel, activate
from tests.sdk.contexts import KeepingRuntime

Method = Literal["debug", "log", "info", "warn", "error"]


@pytest.mark.parametrize("level", ["DEBUG", "LOG", "INFO", "WARN", "ERROR"])
def test_a_line_goes_to_the_run_with_its_level_and_attributes(level: LogLevel) -> None:
    runtime = KeepingRuntime()
    with activate(runtime):
        getattr(logger, level.lower())("said", user="a", n=[1, None])
    assert runtime.lines == [(level, "said", {"user": "a", "n": [1, None]})]


def test_an_attribute_may_have_any_name() -> None:
    runtime = KeepingRuntime()
    with activate(runtime):
        logger.info("said", message="m", self=1, level="x")
    assert runtime.lines == [("INFO", "said", {"message": "m", "self": 1, "level": "x"})]


def test_attributes_of_any_kind_become_json() -> None:
    class Odd:
        def __repr__(self) -> str:
            return "<odd>"

    circle: list[object] = []
    circle.append(circle)
    runtime = KeepingRuntime()
    with activate(runtime):
        logger.info(
            "said",
            at=datetime(2025, 1, 1, tzinfo=UTC),
            price=Decimal("1.5"),
            odd=Odd(),
            inside={"odd": Odd()},
            nan=float("nan"),
            data=b"\xff",
            circle=circle,
            lone="\ud800",
        )
    assert runtime.lines[0][2] == {
        "at": "2025-01-01T00:00:00Z",
        "price": "1.5",
        "odd": "<odd>",
        "inside": {"odd": "<odd>"},
        "nan": "NaN",
        "data": "_w==",
        "circle": ["..."],
        "lone": "'\\ud800'",
    }


def test_outside_of_a_run_a_line_goes_to_logging(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    logger.debug("plain")
    logger.warn("careful %s", n=1)
    shown = [(r.name, r.levelname, r.getMessage(), r.filename) for r in caplog.records]
    assert shown == [
        ("runwell.logger", "DEBUG", "plain", "test_logger.py"),
        ("runwell.logger", "WARNING", 'careful %s {"n":1}', "test_logger.py"),
    ]


def test_outside_of_a_run_and_without_handlers_a_line_goes_to_stderr() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from runwell import logger; logger.info('said \\ud800', n=1)"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stderr == 'INFO said \\ud800 {"n":1}\n'
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("threshold", "shown"),
    [
        ("none", ""),
        ("error", "ERROR"),
        ("warn", "ERROR WARN"),
        ("log", "ERROR WARN LOG"),
        ("info", "ERROR WARN LOG INFO"),
        ("debug", "ERROR WARN LOG INFO DEBUG"),
    ],
)
def test_the_log_level_of_a_project_hides_what_is_less_urgent(
    threshold: LogThreshold, shown: str
) -> None:
    levels: tuple[LogLevel, ...] = ("ERROR", "WARN", "LOG", "INFO", "DEBUG")
    assert [level for level in levels if is_logged(level, threshold)] == shown.split()


def test_a_traced_block_is_told_to_the_run_and_does_nothing_outside_of_one() -> None:
    runtime = KeepingRuntime()
    with activate(runtime), logger.trace("block", n=1) as span:
        span.set_attribute("user", {1})
        span.add_event("halfway", at=2)
    assert runtime.spans == ["block"]
    with logger.trace("nowhere") as span:
        span.set_attribute("user", 1)
        span.add_event("halfway")


async def test_a_traced_block_may_be_entered_by_async_with() -> None:
    runtime = KeepingRuntime()
    with activate(runtime):
        async with logger.trace("block"):
            pass
    assert runtime.spans == ["block"]
