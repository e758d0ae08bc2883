"""`runwell envvars`: what runs of an environment find in their process' environment."""

import dataclasses
from pathlib import Path
from typing import Final

import click
from dotenv import dotenv_values

from runwell.cli.connection import read_keys
from runwell.cli.options import choose_connection, with_data_dir
from runwell.cli.output import Output, styled, with_output
from runwell.client.api import ApiClient
from runwell.client.transport import ClientSettings
from runwell.client.variables import BlockingEnvVars
from runwell.core.errors import ConfigurationError

_ENVIRONMENT = click.option(
    "--environment",
    "-e",
    default="dev",
    show_default=True,
    metavar="SLUG",
    help="The environment: dev, stg or prod.",
)
_SECRET = click.option(
    "--secret", "is_secret", is_flag=True, help="Show the values to nobody but runs."
)
_EXAMPLES: Final = """\b
Examples:
  runwell envvars set REGION=eu GREETING='Hello there'
  runwell envvars set --secret API_TOKEN=@token.txt -e prod
"""


@click.group()
def envvars() -> None:
    """Look at and change the environment variables that runs find."""


@envvars.command("list", epilog="Example: runwell envvars list -e prod")
@_ENVIRONMENT
@with_output
@with_data_dir
def list_(output: Output, environment: str, data_dir: Path | None) -> None:
    """List variables by name."""
    found = _open(environment, data_dir).list()
    output.document(found)
    output.table(["NAME", "VALUE"], [[variable.name, variable.value] for variable in found])
    if not found:
        output.note(styled("there are none yet: runwell envvars set NAME=VALUE", "dim"))


@envvars.command(epilog="Example: runwell envvars get REGION")
@click.argument("name")
@_ENVIRONMENT
@with_output
@with_data_dir
def get(output: Output, name: str, environment: str, data_dir: Path | None) -> None:
    """Print the value of a variable."""
    found = _open(environment, data_dir).retrieve(name)
    output.document(found)
    if not output.is_json:
        output.raw(found.value)


@envvars.command("set", epilog=_EXAMPLES)
@click.argument("pairs", metavar="NAME=VALUE...", nargs=-1, required=True)
@_SECRET
@_ENVIRONMENT
@with_output
@with_data_dir
def set_(
    output: Output,
    pairs: tuple[str, ...],
    is_secret: bool,
    environment: str,
    data_dir: Path | None,
) -> None:
    """Set variables, all or none. `NAME=@file` takes the value from a file.

    Runs that start from now on find them.
    """
    given = dict(map(_read_pair, pairs))
    _open(environment, data_dir).upload(given, override=True, is_secret=is_secret)
    output.document({"set": sorted(given)})
    output.line(", ".join(sorted(given)), styled(f" set in {environment}", "dim"))


@envvars.command("import", epilog="Example: runwell envvars import .env.production -e prod")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--override", is_flag=True, help="Replace the values of those that are there.")
@_SECRET
@_ENVIRONMENT
@with_output
@with_data_dir
def import_(
    output: Output,
    file: Path,
    override: bool,
    is_secret: bool,
    environment: str,
    data_dir: Path | None,
) -> None:
    """Set the variables of a dotenv file, all or none."""
    try:
        with file.open(encoding="utf-8") as stream:
            found = dotenv_values(stream=stream, interpolate=False)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"can't read {file}: {error}") from None
    # An empty value is no value; TRIGGER_... is where the program that has the file finds us.
    given = {
        name: value for name, value in found.items() if value and not name.startswith("TRIGGER_")
    }
    if not given:
        raise ConfigurationError(f"{file} sets no variable: write lines like NAME=value")
    _open(environment, data_dir).upload(given, override=override, is_secret=is_secret)
    output.document({"imported": sorted(given)})
    output.line(", ".join(sorted(given)), styled(f" imported to {environment}", "dim"))


@envvars.command(epilog="Example: runwell envvars delete REGION")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@_ENVIRONMENT
@with_output
@with_data_dir
def delete(output: Output, names: tuple[str, ...], environment: str, data_dir: Path | None) -> None:
    """Delete variables: runs that start from now on don't find them."""
    api = _open(environment, data_dir)
    for name in names:
        api.delete(name)
    output.document({"deleted": list(names)})
    output.line(", ".join(names), styled(f" deleted from {environment}", "dim"))


def _open(environment: str, data_dir: Path | None) -> BlockingEnvVars:
    connection = choose_connection(data_dir)
    connection = dataclasses.replace(connection, secret_key=read_keys(connection, environment))
    settings = ClientSettings(base_url=connection.url, secret_key=connection.secret_key)
    return BlockingEnvVars(ApiClient(lambda: settings))


def _read_pair(pair: str) -> tuple[str, str]:
    name, separator, value = pair.partition("=")
    if not separator or not name:
        # What came may be a secret by itself: it is not repeated.
        raise click.UsageError("write NAME=VALUE, with '=' between them and in quotes if need be")
    if value.startswith("@"):
        try:
            value = Path(value[1:]).expanduser().read_text(encoding="utf-8").rstrip("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise click.UsageError(f"{name}: can't read {value[1:]}: {error}") from None
    return name, value
