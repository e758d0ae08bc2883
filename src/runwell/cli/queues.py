"""`runwell queues`: list, pause, resume, limit; and the same for the whole environment."""

import click
from rich.text import Text

from runwell.cli.api import Api
from runwell.cli.options import with_api
from runwell.cli.output import Output, styled, with_output
from runwell.core.queue_schemas import MAX_CONCURRENCY_LIMIT, EnvironmentObject, QueueObject
from runwell.core.timing import format_duration

_ALL = click.option("--all", "is_all", is_flag=True, help="The whole environment.")


@click.group()
def queues() -> None:
    """Look at queues, hold them, limit them."""


@queues.command("list", epilog="Example: runwell queues list")
@with_output
@with_api
def list_(output: Output, api: Api) -> None:
    """List queues by their names, with what runs and waits in each."""
    environment, found = api.show_environment(), list(api.list_queues())
    output.document(found)
    output.table(
        ["QUEUE", "#RUNNING", "#QUEUED", "#LIMIT", "RATE LIMIT", "STATUS"],
        [_row(queue) for queue in found],
    )
    if not found:
        output.note(styled("there are no queues yet: a task that is registered has one", "dim"))
    output.note(_environment_text(environment))


@queues.command(
    epilog="""\b
Examples:
  runwell queues pause mail task/hello
  runwell queues pause --all
"""
)
@click.argument("names", metavar="QUEUE...", nargs=-1)
@_ALL
@with_output
@with_api
def pause(output: Output, api: Api, names: tuple[str, ...], is_all: bool) -> None:
    """Let no more runs of a queue start; those that execute go on.

    A queue is named as in `runwell queues list`, or by its id.
    """
    _set_paused(output, api, names, is_all=is_all, is_paused=True)


@queues.command(
    epilog="""\b
Examples:
  runwell queues resume mail
  runwell queues resume --all
"""
)
@click.argument("names", metavar="QUEUE...", nargs=-1)
@_ALL
@with_output
@with_api
def resume(output: Output, api: Api, names: tuple[str, ...], is_all: bool) -> None:
    """Let runs of a paused queue start again.

    With --all the environment goes on; a queue that was paused by its name stays so.
    """
    _set_paused(output, api, names, is_all=is_all, is_paused=False)


@queues.command(
    epilog="""\b
Examples:
  runwell queues limit mail 5
  runwell queues limit mail --reset
  runwell queues limit --all 50
"""
)
@click.argument("words", metavar="[QUEUE] [LIMIT]", nargs=-1, required=True)
@click.option("--reset", "is_reset", is_flag=True, help="Let the limit of the code hold again.")
@_ALL
@with_output
@with_api
def limit(output: Output, api: Api, words: tuple[str, ...], is_reset: bool, is_all: bool) -> None:
    """Put another concurrency limit over a queue's own, through deploys, until it is reset.

    With --all the limit is the environment's.
    """
    expected = 1 if is_all or is_reset else 2
    if len(words) != expected or (is_all and is_reset):
        raise click.UsageError(
            "give a queue and a limit, a queue and --reset, or --all and a limit"
        )
    number = None if is_reset else _read_limit(words[-1])
    if is_all:
        environment = api.change_environment("concurrency", {"concurrencyLimit": number})
        output.document(environment)
        output.line(_environment_text(environment))
        return
    queue = api.limit_queue(words[0], number)
    output.document(queue)
    output.line(_queue_text(queue))


def _set_paused(
    output: Output, api: Api, names: tuple[str, ...], *, is_all: bool, is_paused: bool
) -> None:
    if is_all == bool(names):
        raise click.UsageError("give the names of queues, or --all")
    if is_all:
        action = "pause" if is_paused else "resume"
        environment = api.change_environment("pause", {"action": action})
        output.document(environment)
        output.line(_environment_text(environment))
        return
    changed: list[QueueObject] = []
    for name in names:
        queue = api.set_queue_paused(name, is_paused=is_paused)
        changed.append(queue)
        output.line(_queue_text(queue))
    output.document(changed)


def _read_limit(text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or int(text) > MAX_CONCURRENCY_LIMIT:
        raise click.UsageError(
            f"{text!r} is no limit: it takes a whole number from 0 to {MAX_CONCURRENCY_LIMIT:,}"
        )
    return int(text)


def _name(queue: QueueObject) -> str:
    return f"task/{queue.name}" if queue.type == "task" else queue.name


def _queued(found: QueueObject | EnvironmentObject) -> str:
    return f"{found.queued:,}{'+' if found.has_more_queued else ''}"


def _limit(queue: QueueObject) -> str:
    text = "" if queue.concurrency_limit is None else f"{queue.concurrency_limit:,}"
    is_overridden = queue.concurrency is not None and queue.concurrency.overridden_at is not None
    return f"{text} (override)" if is_overridden else text


def _rates(queue: QueueObject) -> str:
    return ", ".join(
        f"{rate.limit:,} in {format_duration(rate.window_seconds)}"
        + (" per key" if rate.per == "key" else "")
        for rate in queue.rate_limits
    )


def _status(is_paused: bool) -> Text:
    return styled("paused", "yellow") if is_paused else Text("")


def _row(queue: QueueObject) -> list[str | Text]:
    return [
        _name(queue),
        f"{queue.running:,}",
        _queued(queue),
        _limit(queue),
        _rates(queue),
        _status(queue.paused),
    ]


def _queue_text(queue: QueueObject) -> str:
    limit = _limit(queue)
    parts = [
        "paused" if queue.paused else "not paused",
        f"limit {limit}" if limit else "no limit of its own",
        f"{queue.running:,} running",
        f"{_queued(queue)} queued",
    ]
    return f"{_name(queue)}: {', '.join(parts)}"


def _environment_text(environment: EnvironmentObject) -> str:
    return (
        f"environment {environment.name}: {'paused, ' if environment.paused else ''}"
        f"{environment.running:,} of {environment.concurrency_limit:,} running, "
        f"{_queued(environment)} queued"
    )
