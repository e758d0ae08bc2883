"""`runwell runs`: list, show, logs; others are in `run_changes` and `traces`."""

import click
from rich.text import Text

from runwell.cli.api import Api
from runwell.cli.bulk_actions import abort
from runwell.cli.following import (
    elapsed_ms,
    error_summary,
    follow_run,
    print_end,
    print_line,
)
from runwell.cli.options import with_api
from runwell.cli.output import (
    Output,
    duration_text,
    end,
    status_text,
    styled,
    time_text,
    with_output,
)
from runwell.cli.run_changes import cancel, replay, reschedule
from runwell.cli.traces import trace
from runwell.core.explanations import ExplanationReason
from runwell.core.payloads import Json, encode_json
from runwell.core.schemas import AttemptObject, RunObject
from runwell.core.statuses import RunStatus

# A difference that a person would wonder about.
_SHOWN_WAIT_MS = 100
_STATUSES = [status.value for status in RunStatus]


@click.group()
def runs() -> None:
    """Look at runs, cancel them, and run them again."""


@runs.command(
    "list",
    epilog="""\b
Examples:
  runwell runs list
  runwell runs list --status FAILED --status CRASHED --period 1d
  runwell runs list --task hello --tag user_1 --limit 100
  runwell runs list --json | jq -r '.[].id'
""",
)
@click.option(
    "--status",
    "statuses",
    multiple=True,
    metavar="STATUS",
    help=f"Only with this status; may be repeated. One of {', '.join(_STATUSES)}.",
)
@click.option("--task", "tasks", multiple=True, metavar="ID", help="Only of this task.")
@click.option("--tag", "tags", multiple=True, metavar="TAG", help="Only with this tag.")
@click.option("--version", "versions", multiple=True, metavar="VERSION", help="Only on this one.")
@click.option("--period", metavar="DURATION", help="Only those of the last 1d, 2h30m, ...")
@click.option("--limit", "-n", default=25, show_default=True, type=click.IntRange(1, 10_000))
@with_output
@with_api
def list_(
    output: Output,
    api: Api,
    statuses: tuple[str, ...],
    tasks: tuple[str, ...],
    tags: tuple[str, ...],
    versions: tuple[str, ...],
    period: str | None,
    limit: int,
) -> None:
    """List runs, newest first."""
    filters = {
        "filter[status]": ",".join(statuses).upper(),
        "filter[taskIdentifier]": ",".join(tasks),
        "filter[tag]": ",".join(tags),
        "filter[version]": ",".join(versions),
        "filter[createdAt][period]": period or "",
    }
    filters = {name: value for name, value in filters.items() if value}
    found = list(api.list_runs(filters, limit))
    output.document(found)
    if not found:
        what = "no run matches" if filters else "there are no runs yet: `runwell trigger TASK`"
        output.note(styled(what, "dim"))
        return
    output.table(
        ["RUN", "TASK", "STATUS", "CREATED", "#DURATION", "VERSION", "TAGS"],
        [
            [
                run.id,
                run.task_identifier,
                status_text(run.status),
                time_text(run.created_at),
                duration_text(run.duration_ms) if run.started_at else "",
                run.version or "",
                " ".join(run.tags),
            ]
            for run in found
        ],
    )
    if len(found) == limit:
        output.note(styled(f"the newest {limit}: --limit shows more", "dim"))


@runs.command(epilog="Example: runwell runs show run_1234")
@click.argument("run_id", metavar="RUN")
@with_output
@with_api
def show(output: Output, api: Api, run_id: str) -> None:
    """Show a run with its attempts, payload, output and error."""
    run = api.load(api.retrieve(run_id))
    output.document(run)
    output.facts(
        {
            "run": run.id,
            "task": run.task_identifier,
            "status": status_text(run.status),
            "because": _why(run),
            "version": run.version,
            "tags": " ".join(run.tags) or None,
            "idempotency key": run.idempotency_key,
            "created": time_text(run.created_at),
            "delayed until": time_text(run.delayed_until) or None,
            "ttl": run.ttl,
            "started": time_text(run.started_at) or None,
            "finished": time_text(run.finished_at) or None,
            "duration": _duration(run),
            "replay of": run.replay_of,
            "parent": run.related_runs.parent.id if run.related_runs.parent else None,
            "children": " ".join(child.id for child in run.related_runs.children) or None,
            "payload": _json_text(run.payload),
            "metadata": _json_text(run.metadata) if run.metadata else None,
            "output": _json_text(run.output),
            "error": styled(error_summary(run), "red") if run.error else None,
        }
    )
    if run.attempts:
        output.line()
        output.table(
            ["ATTEMPT", "STATUS", "STARTED", "#DURATION", "ERROR"],
            [_attempt_row(number, attempt) for number, attempt in enumerate(run.attempts, start=1)],
        )
    if run.error is not None and run.error.stack_trace:
        output.line()
        output.line(styled(run.error.stack_trace.rstrip(), "dim"))


@runs.command(
    epilog="""\b
Examples:
  runwell runs logs run_1234
  runwell runs logs run_1234 --follow
"""
)
@click.argument("run_id", metavar="RUN")
@click.option("--follow", "-f", is_flag=True, help="Go on until the run has ended.")
@with_output
@with_api
def logs(output: Output, api: Api, run_id: str, follow: bool) -> None:
    """Show what a run wrote: print, logging, logger, in their order.

    With --follow the exit status is 0 when the run completed, else 1.
    """
    if follow:
        run = follow_run(output, api, run_id)
        print_end(output, run)
        end(0 if run.is_success else 1)
    lines, _ = api.read_log(run_id, None)
    for line in lines:
        print_line(output, line)
    if not lines:
        output.note(styled("the run has written nothing", "dim"))


for _command in (cancel, replay, reschedule, abort, trace):
    runs.add_command(_command)


def _duration(run: RunObject) -> str | None:
    if run.started_at is None:
        return None
    executed = duration_text(run.duration_ms)
    waited = elapsed_ms(run) if run.finished_at else run.duration_ms
    if waited - run.duration_ms < _SHOWN_WAIT_MS:
        return executed
    if not run.duration_ms:
        # Nobody was told how long a canceled run executed.
        return duration_text(waited)
    return f"{executed} of execution, {duration_text(waited)} from start to end"


def _why(run: RunObject) -> str | None:
    found = run.explanation
    if found is None or found.reason is ExplanationReason.FINISHED:
        # Its end, and its error, have lines of their own.
        return None
    return found.message


def _json_text(value: Json) -> str | None:
    return None if value is None else encode_json(value)


def _attempt_row(number: int, attempt: AttemptObject) -> list[str | Text]:
    duration = ""
    if attempt.started_at and attempt.completed_at:
        length = attempt.completed_at - attempt.started_at
        duration = duration_text(length.total_seconds() * 1000)
    error = ""
    if attempt.error is not None:
        name = f"{attempt.error.name}: " if attempt.error.name else ""
        error = (f"{name}{attempt.error.message}".splitlines() or [""])[0]
    return [
        str(number),
        status_text(attempt.status),
        time_text(attempt.started_at),
        duration,
        error,
    ]
