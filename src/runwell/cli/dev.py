"""`runwell dev`: server and worker for a project, its tasks imported again at each save."""

import asyncio
import dataclasses
import socket
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import click

from runwell._version import __version__
from runwell.cli.connection import DATA_FOLDER, Connection, find_configured, find_local, read_local
from runwell.cli.options import FOLDER
from runwell.cli.output import Output, end, print_error, styled, with_output
from runwell.cli.screen import run_shown_worker
from runwell.cli.server_process import LocalServer, choose_port
from runwell.cli.watching import ProjectWatch
from runwell.core.errors import RunwellError
from runwell.sdk.project import find_project_folder
from runwell.worker.program import Companion, StopRequests, catch_stop_signals
from runwell.worker.settings import WorkerSettings
from runwell.worker.supervisor import Supervisor

_FIRST_PORT = 3030
# Long enough for what is nearly done; the rest starts again with the next `runwell dev`.
_GRACE_SECONDS = 5.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Options:
    folder: Path
    data_dir: Path | None
    host: str
    port: int | None
    capacity: int
    wants_logs: bool
    is_watching: bool


@click.command(
    short_help="Server and worker for a project, watching its files.",
    epilog="""\b
Examples:
  runwell dev
  runwell dev --project my-project --logs
  runwell dev --port 4000 --concurrency 4
""",
)
@click.option(
    "--project",
    type=FOLDER,
    default=Path(),
    show_default="the current folder",
    help="The folder of trigger_config.py, or one below it.",
)
@click.option("--data-dir", type=FOLDER, help="The server's data. [default: .runwell there]")
@click.option("--host", default="127.0.0.1", show_default=True, help="Where the server listens.")
@click.option(
    "--port", type=click.IntRange(0, 65_535), help="[default: the first free one from 3030 on]"
)
@click.option(
    "--concurrency", "capacity", default=10, show_default=True, type=click.IntRange(1, 10_000)
)
@click.option("--logs", is_flag=True, help="Print what runs write, too.")
@click.option("--watch/--no-watch", default=True, help="Import the files again at each save.")
@with_output
def dev(
    output: Output,
    project: Path,
    data_dir: Path | None,
    host: str,
    port: int | None,
    capacity: int,
    logs: bool,
    watch: bool,
) -> None:
    """Run the whole platform for a project: server, PostgreSQL and worker.

    A server that is configured (TRIGGER_API_URL, TRIGGER_SECRET_KEY) or runs here already is used;
    otherwise one is started, and ends with this command. Each save makes a new version; runs that
    execute finish on theirs. Ctrl-C ends everything in order, a second one at once.
    """
    options = _Options(
        folder=find_project_folder(project),
        data_dir=data_dir,
        host=host,
        port=port,
        capacity=capacity,
        wants_logs=logs,
        is_watching=watch,
    )
    end(asyncio.run(_develop(output, options)))


async def _develop(output: Output, options: _Options) -> int:
    output.line(styled(f"Runwell {__version__}", "bold"), f"  {options.folder}")
    starting = asyncio.current_task()
    assert starting is not None
    with catch_stop_signals() as requests:
        requests.act_with(starting.cancel)
        try:
            async with _find_server(output, options, requests) as (connection, local):
                return await _work(output, options, connection, local, requests)
        except asyncio.CancelledError:
            if not requests.count:
                raise
            return 130


@asynccontextmanager
async def _find_server(
    output: Output, options: _Options, requests: StopRequests
) -> AsyncGenerator[tuple[Connection, LocalServer | None]]:
    """The server to use, started for the length of the block unless there is one."""
    found = find_configured() if options.data_dir is None else None
    if found is None:
        found = (
            find_local(options.folder) if options.data_dir is None else read_local(options.data_dir)
        )
    if found is not None:
        which = "configured" if found.data_dir is None else f"runs already, on {found.data_dir}"
        _show_server(output, found.url, which)
        yield found, None
        return
    data_dir = options.data_dir or options.folder / DATA_FOLDER
    port = choose_port(options.host, _FIRST_PORT) if options.port is None else options.port
    is_new = not (data_dir / "postgres").exists()
    if is_new:
        output.note(styled("the first start makes a database: some seconds", "dim"))
    local = await LocalServer.start(data_dir, host=options.host, port=port)
    try:
        if options.port is None and port != _FIRST_PORT:
            output.note(styled(f"port {_FIRST_PORT} is in use by something else", "dim"))
        _show_server(output, local.connection.url, f"log in {local.log_path}")
        yield local.connection, local
    finally:
        requests.act_with(local.hasten)
        await local.stop()


def _show_server(output: Output, url: str, detail: str) -> None:
    output.line(
        styled("server  ", "dim"),
        styled(url, "bold"),
        styled(f"  dashboard and API, {detail}", "dim"),
    )


async def _work(
    output: Output,
    options: _Options,
    connection: Connection,
    local: LocalServer | None,
    requests: StopRequests,
) -> int:
    settings = WorkerSettings(
        url=connection.url,
        secret_key=connection.secret_key,
        project_folder=options.folder,
        state_folder=(options.data_dir or options.folder / DATA_FOLDER) / "worker",
        capacity=options.capacity,
        name=f"dev@{socket.gethostname()}",
        grace_seconds=_GRACE_SECONDS,
        wants_run_logs=options.wants_logs,
        is_local=True,
    )
    lost: list[str] = []
    companions: list[Companion] = [partial(_end_with_server, local, lost)]
    async with AsyncExitStack() as stack:
        if options.is_watching:
            # Before the files are imported for the first time, so that no save is missed.
            watch = await stack.enter_async_context(ProjectWatch(options.folder))
            companions.append(partial(_reload, output, watch))
        status = await run_shown_worker(output, settings, requests, tuple(companions))
    if lost:
        print_error(lost[0], is_json=output.is_json)
        return 1
    output.note(styled("stopped; what was stored is there at the next start", "dim"))
    return status


async def _reload(output: Output, watch: ProjectWatch, supervisor: Supervisor) -> None:
    while True:
        await watch.wait_for_save()
        try:
            await supervisor.add_version()
        except RunwellError as error:
            print_error(str(error), is_json=output.is_json)


async def _end_with_server(
    local: LocalServer | None, lost: list[str], supervisor: Supervisor
) -> None:
    if local is not None:
        lost.append(await local.wait())
        # There is nobody to tell of results: they stay in the outbox until the next start.
        await supervisor.stop(grace_seconds=0)
