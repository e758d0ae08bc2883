"""`runwell server` and `runwell worker`: the two processes of a platform, each on its own.

This is the one module of the user's side that may load the server, when it is asked to.
"""

import asyncio
import dataclasses
import socket
from pathlib import Path
from typing import cast

import click

from runwell.cli.connection import DATA_FOLDER
from runwell.cli.lifetime import with_until_stdin_closes
from runwell.cli.options import FOLDER, choose_connection, with_data_dir
from runwell.cli.output import Output, end, styled, with_output
from runwell.cli.screen import run_shown_worker
from runwell.core.errors import ConfigurationError
from runwell.sdk.project import find_project_folder
from runwell.worker.program import catch_stop_signals
from runwell.worker.settings import Mode, WorkerSettings, default_mode


@dataclasses.dataclass(frozen=True, kw_only=True)
class _ServerOptions:
    """What the command line says, where it says something; else the environment does."""

    host: str | None
    port: int | None
    data_dir: Path | None
    log_level: str | None
    log_format: str | None


@click.command(
    short_help="Run the server.",
    epilog="""\b
Examples:
  runwell server
  runwell server --port 0 --data-dir /var/lib/my-runwell
  DATABASE_URL=postgresql://runwell:secret@db/runwell runwell server --host 0.0.0.0
""",
)
@click.option("--host", help="The address to listen on. [default: 127.0.0.1, this machine only]")
@click.option("--port", type=click.IntRange(0, 65_535), help="0: any free one. [default: 3030]")
@click.option("--data-dir", type=FOLDER, help="Where the data is. [default: .runwell]")
@click.option(
    "--log-level", type=click.Choice(["debug", "info", "warning", "error"]), help="[default: info]"
)
@click.option("--log-format", type=click.Choice(["text", "json"]), help="[default: text]")
@with_until_stdin_closes
@with_output
def server(
    output: Output,
    host: str | None,
    port: int | None,
    data_dir: Path | None,
    log_level: str | None,
    log_format: str | None,
) -> None:
    """Run the server, on an embedded PostgreSQL or on that of DATABASE_URL.

    Ctrl-C or SIGTERM stops it gracefully. With --json it prints its URL and keys as one line of
    JSON when it is ready.
    """
    _serve(
        output,
        _ServerOptions(
            host=host,
            port=port,
            data_dir=data_dir,
            log_level=log_level,
            log_format=log_format,
        ),
    )


@click.command(
    short_help="Run a worker for a project.",
    epilog="""\b
Examples:
  runwell worker
  runwell worker --project my-project --concurrency 20
  TRIGGER_API_URL=https://runwell.example.com TRIGGER_SECRET_KEY=tr_prod_... runwell worker
""",
)
@click.option(
    "--project",
    type=FOLDER,
    default=Path(),
    show_default="the current folder",
    help="The folder of trigger_config.py, or one below it.",
)
@click.option(
    "--concurrency",
    "--capacity",
    "capacity",
    default=10,
    show_default=True,
    type=click.IntRange(1, 10_000),
    help="Runs at once.",
)
@click.option("--name", help="What the server calls it. [default: the machine's name]")
@click.option("--region", help="Take the runs that are for this region, too.")
@click.option(
    "--state-folder", type=FOLDER, help="Where unsent results are. [default: .runwell/worker]"
)
@click.option(
    "--grace",
    default=30.0,
    show_default=True,
    type=click.FloatRange(min=0),
    help="Seconds that runs get to finish when it is stopped; then they go elsewhere.",
)
@click.option(
    "--mode",
    type=click.Choice(["fork", "spawn"]),
    default=default_mode(),
    show_default=True,
    help="How a run gets its process.",
)
@click.option("--logs", is_flag=True, help="Print what runs write, too.")
@with_until_stdin_closes
@with_output
@with_data_dir
def worker(
    output: Output,
    project: Path,
    capacity: int,
    data_dir: Path | None,
    state_folder: Path | None,
    name: str | None,
    logs: bool,
    **process: object,
) -> None:
    """Run a worker: it takes runs of a project's tasks and gives each a process of its own.

    Ctrl-C or SIGTERM: it takes no more, and lets those that it has finish; a second one hands them
    back at once.
    """
    folder = find_project_folder(project)
    connection = choose_connection(data_dir)
    settings = WorkerSettings(
        url=connection.url,
        secret_key=connection.secret_key,
        project_folder=folder,
        state_folder=state_folder or folder / DATA_FOLDER / "worker",
        capacity=capacity,
        name=name or socket.gethostname(),
        grace_seconds=cast("float", process["grace"]),
        mode=cast("Mode", process["mode"]),
        region=cast("str | None", process["region"]),
        wants_run_logs=logs,
        is_local=connection.data_dir is not None,
    )
    end(asyncio.run(_work(output, settings)))


async def _work(output: Output, settings: WorkerSettings) -> int:
    with catch_stop_signals() as requests:
        return await run_shown_worker(output, settings, requests)


def _serve(output: Output, options: _ServerOptions) -> None:
    try:
        # The server side is an extra: a machine that only triggers or works has none.
        from runwell import app  # noqa: PLC0415
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if missing.partition(".")[0] == "runwell":
            raise
        raise ConfigurationError(
            f"the server's parts are not installed ({missing} is missing): "
            'pip install "runwell[server]"'
        ) from None

    settings = app.read_settings()
    given = {
        name: value for name, value in dataclasses.asdict(options).items() if value is not None
    }
    settings = dataclasses.replace(settings, **given)
    app.configure_logging(settings.log_level, settings.log_format)

    def on_ready(address: app.ServerAddress) -> None:
        if output.is_json:
            output.json(
                {
                    "event": "ready",
                    "url": address.url,
                    "secretKeys": address.secret_keys,
                    "isFirstStart": address.is_first_start,
                }
            )
        output.line(styled("server  ", "dim"), styled(address.url, "bold"))
        output.note(styled("Ctrl-C stops it; `runwell env` prints how to reach it", "dim"))

    try:
        app.run(settings, announce=output.line, on_ready=on_ready)
    except app.EmbeddedPostgresError as error:
        raise ConfigurationError(str(error)) from error
