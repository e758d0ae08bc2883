"""`runwell`: the group of all commands, and how errors are told."""

import os
import sys
import traceback
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import click

from runwell._version import __version__
from runwell.cli.access import access_tokens, keys
from runwell.cli.dev import dev
from runwell.cli.env import env
from runwell.cli.envvars import envvars
from runwell.cli.init import init
from runwell.cli.output import print_error
from runwell.cli.queues import queues
from runwell.cli.runs import runs
from runwell.cli.schedules import schedules
from runwell.cli.serve import server, worker
from runwell.cli.trigger import trigger
from runwell.client.transport import ApiError
from runwell.core.errors import RunwellError

_INTERRUPTED = 130


class _Commands(click.Group):
    """A group that tells every error as one sentence and an exit status."""

    def invoke(self, ctx: click.Context) -> object:
        """Run the command that was asked for."""
        with _telling_errors():
            return super().invoke(ctx)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the arguments in front of the command."""
        with _telling_errors():
            return super().parse_args(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's interface
        """The commands in the order in which one needs them."""
        return list(self.commands)


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["--help", "-h"], "max_content_width": 100},
    epilog="""\b
Start here:
  runwell init                               a project with a first task
  runwell dev                                a server and a worker for it
  runwell trigger hello-world --follow       a run, in a second terminal

Every command has --help with examples, and --json for programs.
""",
)
@click.version_option(__version__, "--version", "-v", message="runwell %(version)s")
@click.option(
    "--traceback",
    is_flag=True,
    expose_value=False,
    help="Show where in Runwell an error comes from.",
)
def main() -> None:
    """Background tasks and durable runs for Python, on one PostgreSQL.

    Commands talk to the server of TRIGGER_API_URL and TRIGGER_SECRET_KEY, or without these to the
    local server of this folder.
    """


for _command in (
    init,
    dev,
    trigger,
    runs,
    schedules,
    queues,
    env,
    envvars,
    keys,
    access_tokens,
    server,
    worker,
):
    main.add_command(_command)


@contextmanager
def _telling_errors() -> Generator[None]:
    is_json, wants_traceback = "--json" in sys.argv, "--traceback" in sys.argv
    try:
        yield
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        sys.exit(2)
    except click.UsageError as error:
        _print_usage_error(error, is_json=is_json)
        sys.exit(2)
    except click.ClickException as error:
        print_error(error.format_message(), is_json=is_json)
        sys.exit(error.exit_code)
    except (click.exceptions.Exit, click.Abort):
        raise
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
    except BrokenPipeError:
        # Whoever read our output has enough; Python would complain at its own end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:  # noqa: BLE001 - nobody is shown a traceback unasked
        if wants_traceback:
            traceback.print_exc()
        print_error(_sentence(error), is_json=is_json)
        sys.exit(1)


def _sentence(error: Exception) -> str:
    if isinstance(error, ApiError) and isinstance(error.body, dict):
        # What the server has said, without the request that it was said to.
        said = error.body.get("error")
        if isinstance(said, str) and said:
            return said
    if isinstance(error, RunwellError | OSError):
        return str(error)
    place = traceback.extract_tb(error.__traceback__)[-1]
    return (
        f"Runwell has failed, which is a bug: {type(error).__name__}: {error} "
        f"({Path(place.filename).name}:{place.lineno}). `runwell --traceback ...` shows more"
    )


def _print_usage_error(error: click.UsageError, *, is_json: bool) -> None:
    message = error.format_message()
    if error.ctx is not None and not is_json:
        message = f"{message.rstrip('.')}\nSee: {error.ctx.command_path} --help"
    print_error(message, is_json=is_json)


if __name__ == "__main__":
    main()
