"""Processes that end with whoever started them, however that one ends."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import click

P = ParamSpec("P")
R = TypeVar("R")


def with_until_stdin_closes(command: Callable[P, R]) -> Callable[P, R]:
    """Give a command `--until-stdin-closes`."""
    return click.option(
        "--until-stdin-closes",
        is_flag=True,
        expose_value=False,
        callback=_on_option,
        help="Stop when standard input ends, so when the program that holds its other end does.",
    )(command)


def stop_at_end_of_stdin() -> None:
    """From now on, the end of standard input is a SIGTERM for this process."""
    threading.Thread(target=_wait_for_end, name="stdin", daemon=True).start()


def _on_option(_context: click.Context, _option: click.Parameter, is_given: bool) -> None:
    if is_given:
        stop_at_end_of_stdin()


def _wait_for_end() -> None:
    # Not open at all: whoever wanted this has ended already.
    with contextlib.suppress(OSError):
        while os.read(0, 65_536):
            pass
    os.kill(os.getpid(), signal.SIGTERM)
