"""What a worker tells, as lines: versions, runs starting and ending, problems."""

import asyncio
import dataclasses
import os
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Final, assert_never, cast

from pydantic import BaseModel

from runwell.cli.api import Api, run_url
from runwell.cli.connection import Connection
from runwell.cli.output import STYLES, Output, duration_text, print_error, styled
from runwell.client.transport import ApiError
from runwell.core.errors import TaskRunError, serialize_error
from runwell.worker import events
from runwell.worker.events import WorkerEvent
from runwell.worker.messages import Problem
from runwell.worker.program import Companion, StopRequests, run_worker
from runwell.worker.records import now
from runwell.worker.settings import WorkerSettings

_SHOWN_TASKS = 8
_SHOWN_ERROR_LINES = 3
# The server may hear of an attempt's end some milliseconds after we do.
_LOOKS: Final = 20
_LOOK_SECONDS: Final = 0.1


async def run_shown_worker(
    output: Output,
    settings: WorkerSettings,
    requests: StopRequests,
    companions: tuple[Companion, ...] = (),
) -> int:
    """Run a worker in this process until it was asked to stop, printing what it tells.

    Returns the exit status.
    """
    screen = Screen(output, settings)
    try:
        return await run_worker(settings, screen.show, requests, companions)
    finally:
        await screen.close()


class Screen:
    """Prints the events of one worker."""

    def __init__(self, output: Output, settings: WorkerSettings) -> None:
        """Print to `output`; the server is asked what follows a failed attempt."""
        self._output = output
        self._settings = settings
        self._api = Api(Connection(url=settings.url, secret_key=settings.secret_key))
        self._looking: set[asyncio.Task[None]] = set()
        self.version: str | None = None

    async def close(self) -> None:
        """Wait for the lines that are still to come."""
        if self._looking:
            await asyncio.wait(self._looking)

    def show(self, event: WorkerEvent) -> None:
        """Print one event."""
        if self._output.is_json:
            self._output.json(_event_json(event))
        else:
            self._show(event)

    def _show(self, event: WorkerEvent) -> None:  # noqa: C901 - one arm per event
        match event:
            case events.WorkerConnected():
                self._line("connected", f"to {self._settings.url}, {event.environment_slug}")
            case events.VersionRegistered():
                self._show_version(event)
            case events.ImportProblems():
                self._show_problems(event)
            case events.VersionUnusable():
                self._line("problem", f"version {event.version}: {event.message}", style="red")
            case events.ForkFailed():
                self._line("problem", f"no process for a run: {event.message}", style="red")
            case events.VersionRetired():
                self._line("retired", f"version {event.version}: its last run has ended")
            case events.ImportOutput():
                self._output.line(styled("  | ", "dim"), event.text.rstrip("\n"))
            case events.RunStarted():
                self._run_line("EXECUTING", event, self._attempt(event))
            case events.RunEnded():
                self._show_end(event)
            case events.RunLogged():
                style = STYLES.get(event.level, "")
                self._output.line(
                    styled(f"  {event.run_id} | ", "dim"), styled(event.message, style)
                )
            case events.ServerUnreachable():
                text = f"{event.message}; runs go on, and results are kept"
                self._line("problem", text, style="yellow")
            case events.ServerReachable():
                away = duration_text(event.seconds_away * 1000)
                self._line("connected", f"again, after {away}")
            case events.ReportRefused():
                self._line("problem", f"{event.run_id}: {event.message}", style="red")
            case events.OutputKeptInline():
                text = f"{event.run_id}: its large output goes into the database: {event.message}"
                self._line("problem", text, style="yellow")
            case events.OutboxFull():
                text = f"{event.size_bytes:,} bytes of results wait for the server: no more runs"
                self._line("problem", text, style="red")
            case events.Stopping():
                self._show_stopping(event)
            case _:
                assert_never(event)

    def _show_version(self, event: events.VersionRegistered) -> None:
        self.version = event.version
        ids = [task.id for task in event.metadata.tasks]
        shown = ", ".join(ids[:_SHOWN_TASKS]) + (", ..." if len(ids) > _SHOWN_TASKS else "")
        tasks = "1 task" if len(ids) == 1 else f"{len(ids)} tasks"
        how = f"  (imported in {duration_text(event.import_seconds * 1000)}"
        how += ")" if event.mode == self._settings.mode else f", mode {event.mode})"
        self._output.line(
            _moment(),
            styled("version      ", "magenta"),
            styled(event.version, "bold"),
            f"  {tasks}: {shown or 'none: write one in trigger/'}",
            styled(how, "dim"),
        )

    def _show_problems(self, event: events.ImportProblems) -> None:
        for problem in event.problems:
            print_error(describe_problem(problem, event.folder))
        if event.kept_version is not None:
            self._line("version", f"{event.kept_version} stays until this is mended")
        else:
            self._line("problem", "nothing of these files can run until this is mended")

    def _show_end(self, event: events.RunEnded) -> None:
        match event.result:
            case "completed":
                self._show_result("COMPLETED", event)
            case "canceled":
                self._show_result("CANCELED", event)
            case "handed-back":
                self._run_line("QUEUED", event, "handed back: it starts again elsewhere")
            case "lost":
                self._run_line("QUEUED", event, "was taken from this worker")
            case "failed":
                looking = asyncio.create_task(self._show_failure(event))
                self._looking.add(looking)
                looking.add_done_callback(self._looking.discard)
            case _:
                assert_never(event.result)

    async def _show_failure(self, event: events.RunEnded) -> None:
        status = "FAILED"
        for _ in range(_LOOKS):
            try:
                run = await asyncio.to_thread(self._api.retrieve, event.run_id)
            except ApiError:
                break
            if run.status != "EXECUTING" or run.attempt_count > event.attempt_number:
                status = run.status if run.is_completed else "REATTEMPTING"
                break
            await asyncio.sleep(_LOOK_SECONDS)
        self._show_result(status, event)

    def _show_result(self, status: str, event: events.RunEnded) -> None:
        duration = duration_text(event.duration_seconds * 1000)
        attempt = self._attempt(event)
        detail = f"{duration}  {attempt}".rstrip()
        self._run_line(status, event, detail)
        if event.error is not None and status != "CANCELED":
            self._output.line(" " * 22, styled(describe_error(event.error), "red"))

    def _run_line(
        self, status: str, event: events.RunStarted | events.RunEnded, detail: str
    ) -> None:
        url = run_url(self._settings.url, event.run_id)
        self._output.line(
            _moment(),
            styled(status.ljust(13), STYLES.get(status, "")),
            styled(event.task_id, "bold"),
            f"  {detail}" if detail else "",
            styled(f"  {url}", "dim"),
        )

    def _attempt(self, event: events.RunStarted | events.RunEnded) -> str:
        attempt = f"attempt {event.attempt_number}" if event.attempt_number > 1 else ""
        version = f"on {event.version}" if event.version != self.version else ""
        return f"{attempt}  {version}".strip()

    def _show_stopping(self, event: events.Stopping) -> None:
        if event.running:
            runs = "one run" if event.running == 1 else f"{event.running} runs"
            seconds = f"{event.grace_seconds:g}"
            self._line("stopping", f"{runs} may finish within {seconds} s; Ctrl-C again: at once")
        else:
            self._line("stopping", "no run is executing")

    def _line(self, word: str, text: str, *, style: str = "dim") -> None:
        self._output.line(_moment(), styled(word.ljust(13), style), text)


def describe_problem(problem: Problem, folder: Path) -> str:
    """Where an import failed and why: `trigger/hello.py:3: SyntaxError: ...`."""
    if not problem.file:
        # Of the config file; the message says where.
        return problem.message
    file = os.path.relpath(problem.file, folder) if Path(problem.file).is_absolute() else ""
    place = problem.file if not file or file.startswith("..") else file
    line = f":{problem.line}" if problem.line is not None else ""
    trace = problem.traceback.rstrip()
    shown = f"{place}{line}: {problem.message}"
    # A syntax error is told by its line; of others one wants to see how it came to that.
    return f"{shown}\n{trace}" if trace and "SyntaxError" not in problem.message else shown


def describe_error(error: TaskRunError) -> str:
    """The name and the message of an error, on one line."""
    shown = serialize_error(error)
    name = f"{shown['name']}: " if shown.get("name") else ""
    lines = f"{name}{shown['message']}".strip().splitlines()[:_SHOWN_ERROR_LINES]
    return " ".join(line.strip() for line in lines)


def _moment() -> str:
    return _moment_of(int(now()))


@lru_cache(maxsize=1)
def _moment_of(second: int) -> str:
    # The time zone's file is looked at each time, and a busy worker prints hundreds of lines.
    return datetime.fromtimestamp(second, UTC).astimezone().strftime("%H:%M:%S ")


def _event_json(event: WorkerEvent) -> dict[str, object]:
    name = type(event).__name__
    fields = {field.name: _plain(getattr(event, field.name)) for field in dataclasses.fields(event)}
    return {"event": name[0].lower() + name[1:], **fields}


def _plain(value: object) -> object:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, list):
        return [_plain(item) for item in cast("list[object]", value)]
    return value.model_dump(mode="json", by_alias=True) if isinstance(value, BaseModel) else value
