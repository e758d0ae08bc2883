"""`runwell env`: where the server is and with which key, for other programs."""

import shlex
from pathlib import Path

import click

from runwell.cli.connection import read_keys
from runwell.cli.options import choose_connection, with_data_dir
from runwell.cli.output import Output, with_output


@click.command(
    short_help="Print the server's URL and key for other programs.",
    epilog="""\b
Examples:
  runwell env >> .env
  eval "$(runwell env --export)"
""",
)
@click.option(
    "--environment",
    "-e",
    default="dev",
    show_default=True,
    metavar="SLUG",
    help="The environment: dev, stg or prod.",
)
@click.option("--export", "is_export", is_flag=True, help="Lines for a shell's eval.")
@with_output
@with_data_dir
def env(output: Output, environment: str, is_export: bool, data_dir: Path | None) -> None:
    """Print TRIGGER_API_URL and TRIGGER_SECRET_KEY of the server, for any client.

    The Python and the JavaScript SDK read both from the environment.
    """
    connection = choose_connection(data_dir)
    key = read_keys(connection, environment)
    variables = {"TRIGGER_API_URL": connection.url, "TRIGGER_SECRET_KEY": key}
    if output.is_json:
        output.document(variables)
        return
    for name, value in variables.items():
        output.raw(f"export {name}={shlex.quote(value)}" if is_export else f"{name}={value}")
