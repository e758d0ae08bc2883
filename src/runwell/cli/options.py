"""Options that several commands have, and how their texts are read."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar, cast

import click

from runwell.cli.api import Api
from runwell.cli.connection import Connection, find_connection, read_local
from runwell.cli.output import Output
from runwell.core.errors import ConfigurationError, InvalidPayloadError
from runwell.core.payloads import parse_json

P = ParamSpec("P")
R = TypeVar("R")

FOLDER = click.Path(path_type=Path, file_okay=False)


def with_data_dir(command: Callable[P, R]) -> Callable[P, R]:
    """Give a command `--data-dir`: which local server is meant."""
    return click.option(
        "--data-dir",
        type=FOLDER,
        help="The data directory of the local server. [default: the nearest .runwell, upward]",
    )(command)


def with_api(
    command: Callable[Concatenate[Output, Api, P], R],
) -> Callable[Concatenate[Output, P], R]:
    """Give a command the API of the server that is meant, as its second argument."""

    def wrapped(output: Output, /, *args: P.args, **kwargs: P.kwargs) -> R:
        data_dir = cast("Path | None", kwargs.pop("data_dir", None))
        return command(output, Api(choose_connection(data_dir)), *args, **kwargs)

    wrapped.__doc__ = command.__doc__
    wrapped.__name__ = command.__name__
    # What click's decorators have noted on the command so far.
    wrapped.__dict__.update(command.__dict__)
    return with_data_dir(wrapped)


def choose_connection(data_dir: Path | None) -> Connection:
    """The server on a data directory, or without one the configured or nearest one."""
    if data_dir is None:
        return find_connection(Path.cwd())
    found = read_local(data_dir)
    if found is None:
        raise ConfigurationError(
            f"no server runs on {data_dir}: start one with `runwell server --data-dir {data_dir}`"
        )
    return found


def read_json_option(text: str, option: str) -> str:
    """The JSON text of an option: written out, `@file`, or `-` for standard input; checked."""
    try:
        if text == "-":
            text = sys.stdin.buffer.read().decode()
        elif text.startswith("@"):
            text = Path(text[1:]).expanduser().read_bytes().decode()
        parse_json(text, what=option)
    except OSError as error:
        raise click.UsageError(f"{option}: can't read {text[1:]}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise click.UsageError(
            f"{option} is not valid UTF-8: bad byte at position {error.start}"
        ) from None
    except InvalidPayloadError as error:
        raise click.UsageError(f"{error}. {_hint(text, option)}") from None
    return text


def _hint(text: str, option: str) -> str:
    if not text.strip():
        return f"It is empty: leave {option} out to send none"
    example = """'{"name": "Ada"}'"""
    quoted = f"""'"{text}"'"""
    if text.isprintable() and text[0] not in '{["' and len(text) < 40:
        return f"For a text write {option} {quoted}, for an object {option} {example}"
    return f"Write it in single quotes, so that the shell leaves it alone: {option} {example}"
