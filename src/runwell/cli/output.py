"""The one place that commands print through: text for people, or JSON for programs.

Results go to standard output, what is said on the way and errors go to standard error. With
`--json` a command prints one JSON document, or one a line where there are many over time.
"""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import wraps
from typing import Concatenate, NoReturn, ParamSpec, TypeVar, cast

import click
from pydantic import BaseModel
from rich.color import ColorSystem
from rich.console import COLOR_SYSTEMS, Console
from rich.control import strip_control_codes
from rich.table import Table
from rich.text import Text

from runwell.core.timing import format_duration

P = ParamSpec("P")
R = TypeVar("R")

#: How a status, or the level of a line, looks.
STYLES: dict[str, str] = {
    "COMPLETED": "green",
    "EXECUTING": "blue",
    "DEQUEUED": "blue",
    "QUEUED": "cyan",
    "DELAYED": "cyan",
    "FROZEN": "cyan",
    "WAITING_FOR_DEPLOY": "yellow",
    "REATTEMPTING": "yellow",
    "CANCELED": "yellow",
    "EXPIRED": "yellow",
    "FAILED": "red",
    "CRASHED": "red",
    "TIMED_OUT": "red",
    "INTERRUPTED": "red",
    "SYSTEM_FAILURE": "red",
    "DEBUG": "dim",
    "TRACE": "dim",
    "WARN": "yellow",
    "ERROR": "red",
}
# A pipe has no width: nothing is cut for it.
_PIPE_WIDTH = 500


class Output:
    """Prints for one command."""

    def __init__(self, *, is_json: bool = False) -> None:
        """Print text, or JSON."""
        self.is_json = is_json
        self.console = _console(is_error=False)
        self._errors = _console(is_error=True)

    def line(self, *parts: str | Text) -> None:
        """Print a line of a result, for people; parts that are Text bring their style."""
        if not self.is_json:
            _print(self.console, parts)

    def note(self, *parts: str | Text) -> None:
        """Say something on the way, for people: it is no part of the result."""
        if not self.is_json:
            _print(self._errors, parts)

    def raw(self, text: str) -> None:
        """Print a text as it is, with a line break, whatever the mode."""
        sys.stdout.write(text + "\n")
        sys.stdout.flush()

    def json(self, value: object) -> None:
        """Print a value as JSON on one line."""
        self.raw(json.dumps(to_jsonable(value), ensure_ascii=False))

    def document(self, value: object) -> None:
        """Print a value as a JSON document for programs; nothing in text mode."""
        if self.is_json:
            self.raw(json.dumps(to_jsonable(value), ensure_ascii=False, indent=2))

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str | Text]]) -> None:
        """Print a table, for people. Columns whose name begins with `#` hold numbers."""
        if self.is_json:
            return
        shown = Table(box=None, pad_edge=False, header_style="dim")
        for column in columns:
            is_number = column.startswith("#")
            shown.add_column(
                column.removeprefix("#"),
                justify="right" if is_number else "left",
                no_wrap=True,
                overflow="ignore",
            )
        for row in rows:
            shown.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in row))
        self.console.print(shown, soft_wrap=True, crop=False)

    def facts(self, facts: Mapping[str, str | Text | None]) -> None:
        """Print names and values under each other, for people; those of None are left out."""
        width = max((len(name) for name in facts), default=0)
        for name, value in facts.items():
            if value is not None:
                self.line(styled(name.ljust(width), "dim"), "  ", value)


def to_jsonable(value: object) -> object:
    """A model, or what is made of models, as JSON knows it; absent fields are left out."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True, exclude_unset=True)
    if isinstance(value, list):
        return [to_jsonable(item) for item in cast("list[object]", value)]
    return value


def styled(text: str, style: str) -> Text:
    """A part of a line with a style."""
    return Text(text, style=style)


def status_text(status: str) -> Text:
    """A status in its colour."""
    return Text(status, style=STYLES.get(status, ""))


def duration_text(milliseconds: float) -> str:
    """A length of time, for people."""
    return format_duration(milliseconds / 1000)


def time_text(instant: datetime | None, *, now: datetime | None = None) -> str:
    """An instant in the local time zone: the time, and the day unless that is today."""
    if instant is None:
        return ""
    local = instant.astimezone()
    today = (now or datetime.now(UTC)).astimezone().date()
    return local.strftime("%H:%M:%S" if local.date() == today else "%Y-%m-%d %H:%M:%S")


def print_error(message: str, *, is_json: bool = False) -> None:
    """Say on standard error what went wrong."""
    if is_json:
        sys.stderr.write(json.dumps({"error": message}, ensure_ascii=False) + "\n")
        return
    _print(_console(is_error=True), (styled("error: ", "bold red"), message))


def with_output(command: Callable[Concatenate[Output, P], R]) -> Callable[P, R]:
    """Give a command `--json`, and an Output as its first argument."""

    @click.option("--json", "is_json", is_flag=True, help="Print JSON, for programs.")
    @wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        is_json = bool(kwargs.pop("is_json", False))
        return command(Output(is_json=is_json), *args, **kwargs)

    return cast("Callable[P, R]", wrapped)


def end(status: int) -> NoReturn:
    """End the command with an exit status."""
    raise click.exceptions.Exit(status)


def _print(console: Console, parts: Sequence[str | Text]) -> None:
    """Write a line; a busy worker prints two for each run, which rich's layout is too slow for."""
    if console.legacy_windows:
        console.print(Text.assemble(*parts), soft_wrap=True)
        return
    system = COLOR_SYSTEMS[console.color_system] if console.color_system else None
    line = "".join(_rendered(console, part, system) for part in parts)
    try:
        console.file.write(line + "\n")
        console.file.flush()
    except BrokenPipeError:
        console.on_broken_pipe()


def _rendered(console: Console, part: str | Text, system: ColorSystem | None) -> str:
    # Brackets in what users wrote are no markup, and control characters don't reach the terminal.
    if isinstance(part, str):
        return strip_control_codes(part)
    if system is None or not part.plain:
        return part.plain
    style = console.get_style(part.style)
    if console.no_color:
        style = style.without_color
    return style.render(part.plain, color_system=system)


def _console(*, is_error: bool) -> Console:
    stream = sys.stderr if is_error else sys.stdout
    width = None if stream.isatty() else _PIPE_WIDTH
    return Console(stderr=is_error, highlight=False, width=width)
