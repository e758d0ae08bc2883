"""`runwell runs cancel`, `replay` and `reschedule`: what is done to runs from outside."""

import click

from runwell.cli.api import Api
from runwell.cli.bulk_actions import BulkChoice, run_bulk_action, with_bulk_choice
from runwell.cli.following import follow_run, print_end
from runwell.cli.options import read_json_option, with_api
from runwell.cli.output import Output, end, print_error, status_text, time_text, with_output
from runwell.client.transport import ApiError
from runwell.core.schemas import RunObject


@click.command(
    epilog="""\b
Examples:
  runwell runs cancel run_1234 run_5678
  runwell runs cancel --task hello --status QUEUED --yes
"""
)
@click.argument("run_ids", metavar="RUN...", nargs=-1)
@with_bulk_choice
@with_output
@with_api
def cancel(
    output: Output,
    api: Api,
    run_ids: tuple[str, ...],
    chosen: BulkChoice,
) -> None:
    """Cancel runs: those named, or all that pass filters.

    One that waits is canceled at once, one that executes is told to stop, and so is what they have
    triggered. A run that has ended already stays as it is.
    """
    if chosen.filters:
        run_bulk_action(output, api, "cancel", chosen)
    has_failed = False
    done: list[RunObject] = []
    for run_id in run_ids:
        try:
            run = api.retrieve(api.cancel(run_id))
        except ApiError as error:
            if len(run_ids) == 1:
                raise
            has_failed = True
            print_error(f"{run_id}: {error}", is_json=output.is_json)
            continue
        done.append(run)
        has_ended = "" if run.is_cancelled else " (it had ended already)"
        output.line(run.id, "  ", status_text(run.status), has_ended)
    output.document([{"id": run.id, "status": run.status} for run in done])
    end(1 if has_failed else 0)


@click.command(
    epilog="""\b
Examples:
  runwell runs replay run_1234
  runwell runs replay run_1234 --payload '{"name": "Ada"}' --follow
  runwell runs replay --status FAILED --period 1d
"""
)
@click.argument("run_ids", metavar="RUN...", nargs=-1)
@click.option("--payload", "-p", metavar="JSON", help="Another payload; @FILE or - as in trigger.")
@click.option("--follow", "-f", is_flag=True, help="Follow the new run until it has ended.")
@with_bulk_choice
@with_output
@with_api
def replay(
    output: Output,
    api: Api,
    run_ids: tuple[str, ...],
    payload: str | None,
    follow: bool,
    chosen: BulkChoice,
) -> None:
    """Run runs again: copies of those named, or of all that pass filters, on the latest version.

    With --follow the exit status is 0 when the new run completed, else 1.
    """
    if chosen.filters and (payload is not None or follow):
        raise click.UsageError("--payload and --follow are for runs that are named")
    if chosen.filters:
        run_bulk_action(output, api, "replay", chosen)
    if follow and len(run_ids) > 1:
        raise click.UsageError("--follow follows one run: give one id")
    text = None if payload is None else read_json_option(payload, "--payload")
    has_failed = False
    done: list[dict[str, str]] = []
    for run_id in run_ids:
        try:
            new_id = api.replay(run_id, text)
        except ApiError as error:
            if len(run_ids) == 1:
                raise
            has_failed = True
            print_error(f"{run_id}: {error}", is_json=output.is_json)
            continue
        if follow:
            run = follow_run(output, api, new_id)
            print_end(output, run)
            end(0 if run.is_success else 1)
        done.append({"id": new_id, "replayOf": run_id})
        output.line(new_id)
    output.document(done)
    end(1 if has_failed else 0)


@click.command(
    epilog="""\b
Examples:
  runwell runs reschedule run_1234 2h
  runwell runs reschedule run_1234 2030-01-31T09:00:00Z
"""
)
@click.argument("run_id", metavar="RUN")
@click.argument("delay", metavar="DELAY")
@with_output
@with_api
def reschedule(output: Output, api: Api, run_id: str, delay: str) -> None:
    """Give a delayed run another delay: a duration from now, or a date."""
    run = api.reschedule(run_id, delay)
    output.document(run)
    output.line(run.id, "  ", status_text(run.status), " until ", time_text(run.delayed_until))
