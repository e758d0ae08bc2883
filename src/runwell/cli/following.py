"""Following a run: its lines as they come, each change of its status, and its end."""

import time

from runwell.cli.api import Api
from runwell.cli.output import STYLES, Output, duration_text, status_text, styled, time_text
from runwell.core.payloads import encode_json
from runwell.core.schemas import LogLine, RunObject

#: The status of a run whose task isn't in the current version.
WAITING_FOR_DEPLOY = "WAITING_FOR_DEPLOY"

_FIRST_POLL_SECONDS = 0.05
_LAST_POLL_SECONDS = 0.5


def follow_run(output: Output, api: Api, run_id: str) -> RunObject:
    """Print a run's lines and statuses until it has ended, and return it."""
    cursor: str | None = None
    shown: tuple[str, int] | None = None
    pause = _FIRST_POLL_SECONDS
    while True:
        # The run first: what it wrote before its end is in the log when its end is.
        run = api.retrieve(run_id)
        state = (run.status, run.attempt_count)
        if not run.is_completed and state != shown:
            _print_status(output, run)
        lines, cursor = api.read_log(run_id, cursor)
        for line in lines:
            print_line(output, line)
        if run.is_completed:
            return api.load(run)
        pause = _FIRST_POLL_SECONDS if lines or state != shown else pause * 1.5
        shown = state
        time.sleep(min(pause, _LAST_POLL_SECONDS))


def print_line(output: Output, line: LogLine) -> None:
    """Print one line of a run's log."""
    if output.is_json:
        output.json({"event": "line", **line.model_dump(mode="json", by_alias=True)})
        return
    moment = line.time.astimezone().strftime("%H:%M:%S.%f")[:-3]
    style = STYLES.get(line.level, "")
    attributes = f"  {encode_json(line.attributes)}" if line.attributes else ""
    output.line(
        styled(moment, "dim"),
        " ",
        styled(line.level.ljust(5), style or "dim"),
        " ",
        styled(line.message, style if style != "dim" else ""),
        styled(attributes, "dim"),
    )


def print_end(output: Output, run: RunObject) -> None:
    """Print how a run ended: status, duration, and its output or error."""
    if output.is_json:
        output.json({"event": "end", "run": run.model_dump(mode="json", by_alias=True)})
        return
    attempts = f", {run.attempt_count} attempts" if run.attempt_count > 1 else ""
    word = "in" if run.is_success else "after"
    output.line(status_text(run.status), f" {word} {duration_text(elapsed_ms(run))}{attempts}")
    if run.output is not None:
        output.line(styled("output ", "dim"), encode_json(run.output))
    if run.error is not None:
        output.line(styled("error  ", "dim"), error_summary(run))


def unknown_task_text(run: RunObject) -> str:
    """Why a run waits for a deployment."""
    return f"no version has a task {run.task_identifier!r} yet (`runwell dev` shows what there is)"


def error_summary(run: RunObject) -> str:
    """The name and the message of a run's error, on one line."""
    if run.error is None:
        return ""
    name = f"{run.error.name}: " if run.error.name else ""
    return f"{name}{run.error.message}".strip()


def elapsed_ms(run: RunObject) -> float:
    """From the start of a run's first attempt to its end, waits between attempts included."""
    if run.started_at is None or run.finished_at is None:
        return run.duration_ms
    return (run.finished_at - run.started_at).total_seconds() * 1000


def _print_status(output: Output, run: RunObject) -> None:
    if output.is_json:
        output.json({"event": "status", "id": run.id, "status": run.status})
        return
    attempt = f" attempt {run.attempt_count}" if run.attempt_count > 1 else ""
    moment = time_text(run.updated_at)
    detail = f" on version {run.version}" if run.version and run.is_executing else ""
    if run.status == WAITING_FOR_DEPLOY:
        detail = f": {unknown_task_text(run)}"
    if run.delayed_until is not None and run.status == "DELAYED":
        detail = f" until {time_text(run.delayed_until)}"
    output.note(styled(f"{moment} ", "dim"), status_text(run.status), f"{attempt}{detail}")
