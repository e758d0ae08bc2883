"""`logger`: structured lines in the log of the current run, or on stderr outside of a run."""

import logging
import sys
from collections.abc import Mapping
from typing import Final, Literal

from runwell.core.payloads import Json, encode_json
from runwell.sdk.runtime import LogLevel, find_runtime
from runwell.sdk.tracing import TracedBlock
from runwell.sdk.values import to_json_value

#: What `log_level` in the config file takes: lines of `logger` above it are not sent.
LogThreshold = Literal["none", "error", "warn", "log", "info", "debug"]

_SHOWN: Final[dict[LogThreshold, frozenset[LogLevel]]] = {
    "none": frozenset(),
    "error": frozenset({"ERROR"}),
    "warn": frozenset({"ERROR", "WARN"}),
    "log": frozenset({"ERROR", "WARN", "LOG"}),
    "info": frozenset({"ERROR", "WARN", "LOG", "INFO"}),
    "debug": frozenset({"ERROR", "WARN", "LOG", "INFO", "DEBUG"}),
}
_LOGGING_LEVELS: Final[dict[LogLevel, int]] = {
    "DEBUG": logging.DEBUG,
    "INFO": logging.INFO,
    "LOG": logging.INFO,
    "WARN": logging.WARNING,
    "ERROR": logging.ERROR,
}
_OUTSIDE = logging.getLogger("runwell.logger")


class Logger:
    """Writes structured lines: a message, and attributes by which the lines can be searched.

    In a run they go into its log; elsewhere they go to the standard `logging` module, and to stderr
    when no handler is set up there. Attributes may be any value; what has no JSON form is written
    as its text. Writing a line never raises.

    Example:
        >>> from runwell import logger
        >>> logger.info("page fetched", url="https://example.com/", status=200)
    """

    __slots__ = ()

    def debug(self, message: str, /, **attributes: object) -> None:
        """Write a line that helps to find faults; not sent unless `log_level` is "debug"."""
        _write("DEBUG", message, attributes)

    def log(self, message: str, /, **attributes: object) -> None:
        """Write a line at the level of plain output."""
        _write("LOG", message, attributes)

    def info(self, message: str, /, **attributes: object) -> None:
        """Write a line about what happens as it should."""
        _write("INFO", message, attributes)

    def warn(self, message: str, /, **attributes: object) -> None:
        """Write a line about what is not as it should be and does no harm yet."""
        _write("WARN", message, attributes)

    def error(self, message: str, /, **attributes: object) -> None:
        """Write a line about what went wrong."""
        _write("ERROR", message, attributes)

    def trace(self, name: str, /, **attributes: object) -> TracedBlock:
        """A block of code as a span of the run's trace: `with logger.trace("fetch user") as span:`.

        `async with` works too, and blocks nest, across tasks and threads. On `span`,
        `set_attribute(name, value)` and `add_event(name, ...)` say more.
        """
        return TracedBlock(name, attributes)


logger = Logger()


def is_logged(level: LogLevel, threshold: LogThreshold) -> bool:
    """Whether a line of `logger` at this level is sent under the project's `log_level`.

    >>> is_logged("DEBUG", "info"), is_logged("ERROR", "info")
    (False, True)
    """
    return level in _SHOWN[threshold]


def _write(level: LogLevel, message: str, attributes: Mapping[str, object]) -> None:
    runtime = find_runtime()
    shown = _to_json(attributes)
    if runtime is not None:
        runtime.emit_line(level, str(message), shown)
        return
    text = f"{message} {encode_json(shown)}" if shown else str(message)
    if _OUTSIDE.hasHandlers():
        _OUTSIDE.log(_LOGGING_LEVELS[level], "%s", text, stacklevel=3)
    else:
        sys.stderr.write(f"{level} {text}\n")


def _to_json(attributes: Mapping[str, object]) -> dict[str, Json]:
    return {key: to_json_value(value) for key, value in attributes.items()}
