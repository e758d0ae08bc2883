"""Bulk actions at the terminal: counted and confirmed first, then followed to their end."""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeVar, cast

import click

from runwell.cli.api import Api
from runwell.cli.options import with_api
from runwell.cli.output import Output, end, styled, with_output
from runwell.client.bulk_actions import bulk_filter
from runwell.core.bulk_schemas import BulkActionObject

R = TypeVar("R")

_POLL_SECONDS = 0.3
_FILTERS = {
    "statuses": "filter[status]",
    "tasks": "filter[taskIdentifier]",
    "tags": "filter[tag]",
    "versions": "filter[version]",
    "period": "filter[createdAt][period]",
}


@dataclass(frozen=True, kw_only=True)
class BulkChoice:
    """Which runs were chosen by filters, as the list of runs has these; none: by their ids."""

    filters: dict[str, str]
    is_confirmed: bool


def with_bulk_choice(command: Callable[..., R]) -> Callable[..., R]:
    """Give a command the filters of `runs list` and `--yes`, as `chosen`."""

    def wrapped(*args: object, **options: object) -> R:
        given = {name: options.pop(name) for name in _FILTERS}
        filters = {parameter: _text(given[name]) for name, parameter in _FILTERS.items()}
        chosen = BulkChoice(
            filters={name: value for name, value in filters.items() if value},
            is_confirmed=bool(options.pop("yes")),
        )
        if bool(options["run_ids"]) == bool(chosen.filters):
            raise click.UsageError(
                "name runs by their ids, or all that pass filters such as --status QUEUED"
            )
        return command(*args, chosen=chosen, **options)

    wrapped.__doc__ = command.__doc__
    wrapped.__name__ = command.__name__
    # What click's decorators have noted on the command so far.
    wrapped.__dict__.update(command.__dict__)
    made: Callable[..., R] = wrapped
    for option in reversed(
        (
            click.option("--status", "statuses", multiple=True, metavar="STATUS", help="Filter."),
            click.option("--task", "tasks", multiple=True, metavar="ID", help="Filter."),
            click.option("--tag", "tags", multiple=True, metavar="TAG", help="Filter."),
            click.option("--version", "versions", multiple=True, metavar="VERSION", help="Filter."),
            click.option("--period", metavar="DURATION", help="Filter: the last 1d, 2h30m, ..."),
            click.option("--yes", "-y", is_flag=True, help="Don't ask whether it is meant so."),
        )
    ):
        made = option(made)
    return made


def run_bulk_action(
    output: Output,
    api: Api,
    action: Literal["cancel", "replay"],
    chosen: BulkChoice,
) -> None:
    """Do it to all runs that pass the filters, and end with 1 when it failed for some."""
    body: dict[str, object] = {"action": action, "filter": bulk_filter(chosen.filters)}
    count = api.count_runs(body)
    if not count:
        output.document({"total": 0})
        output.note(styled("no run matches", "dim"))
        end(0)
    if not chosen.is_confirmed:
        _confirm(action, count)
    begun = api.begin_bulk_action(body)
    output.note(styled(f"{begun.id}: `runwell runs abort {begun.id}` stops it", "dim"))
    found = _follow(output, api, begun)
    output.document(found)
    output.line(describe(found))
    for failure in found.failures:
        output.line("  ", failure.run_id, "  ", styled(failure.error, "red"))
    end(1 if found.failed or found.status != "COMPLETED" else 0)


@click.command(epilog="Example: runwell runs abort bulk_1234")
@click.argument("action_id", metavar="BULK_ACTION")
@with_output
@with_api
def abort(output: Output, api: Api, action_id: str) -> None:
    """Abort a bulk action: the runs that it hasn't come to yet are left alone."""
    found = api.abort_bulk_action(action_id)
    output.document(found)
    output.line(describe(found))


def describe(found: BulkActionObject) -> str:
    """How far it is, in a sentence."""
    done = "canceled" if found.action == "cancel" else "replayed"
    parts = [f"{done} {found.succeeded:,} of {found.total:,}"]
    if found.skipped:
        parts.append(f"{found.skipped:,} had ended")
    if found.failed:
        parts.append(f"{found.failed:,} failed")
    if found.status == "ABORTED":
        parts.append("aborted")
    return ", ".join(parts)


def _text(value: object) -> str:
    if isinstance(value, tuple):
        return ",".join(cast("tuple[str, ...]", value))
    return value if isinstance(value, str) else ""


def _confirm(action: str, count: int) -> None:
    what = f"{count:,} run{'' if count == 1 else 's'}"
    if not sys.stdin.isatty():
        raise click.UsageError(f"this would {action} {what}: say --yes if that is meant")
    click.confirm(f"{action.capitalize()} {what}?", abort=True, err=True)


def _follow(output: Output, api: Api, found: BulkActionObject) -> BulkActionObject:
    shown = ""
    while found.status == "PENDING":
        time.sleep(_POLL_SECONDS)
        found = api.retrieve_bulk_action(found.id)
        if found.status == "PENDING" and describe(found) != shown:
            shown = describe(found)
            output.note(styled(shown, "dim"))
    return found
