"""`runwell runs trace`: the tree of a run."""

import click
from rich.text import Text

from runwell.cli.api import Api
from runwell.cli.options import with_api
from runwell.cli.output import STYLES, Output, duration_text, styled, with_output
from runwell.core.trace_schemas import TraceSpan

_NANOSECONDS_PER_MS = 1_000_000


@click.command(
    epilog="""\b
Examples:
  runwell runs trace run_1234
  runwell runs trace run_1234 --limit 5000
"""
)
@click.argument("run_id", metavar="RUN")
@click.option(
    "--limit",
    type=click.IntRange(1, 5_000),
    default=1_000,
    show_default=True,
    help="Spans and lines at most.",
)
@with_output
@with_api
def trace(output: Output, api: Api, run_id: str, limit: int) -> None:
    """Show the trace of a run: attempts, waits, triggers, spans and lines as a tree."""
    found = api.read_trace(run_id, limit)
    if output.is_json:
        output.document(found.model_dump(mode="json", by_alias=True))
        return
    _print(output, found.root_span, "", "")
    if found.is_truncated:
        output.note(styled(f"there is more than {limit:,} spans and lines: --limit", "dim"))


def _print(output: Output, span: TraceSpan, first: str, rest: str) -> None:
    output.line(styled(first, "dim"), *_describe(span))
    for number, child in enumerate(span.children, 1):
        is_last = number == len(span.children)
        _print(
            output,
            child,
            f"{rest}{'└─ ' if is_last else '├─ '}",
            f"{rest}{'   ' if is_last else '│  '}",
        )


def _describe(span: TraceSpan) -> list[Text | str]:
    data = span.data
    if data.level != "SPAN":
        return [styled(data.level.ljust(5), STYLES.get(data.level, "dim")), " ", data.message]
    parts: list[Text | str] = [styled(data.message, "bold"), " "]
    if data.is_partial:
        parts.append(styled("goes on", "cyan"))
    else:
        parts.append(styled(duration_text(data.duration / _NANOSECONDS_PER_MS), "dim"))
    if data.is_cancelled:
        parts.append(styled(" canceled", "yellow"))
    elif data.is_error:
        parts.append(styled(" failed", "red"))
    if data.task_slug is not None and data.kind == "SERVER":
        parts.append(styled(f" {span.run_id}", "dim"))
    for event in data.events:
        if event.name == "exception":
            message = str(event.attributes.get("exception.message", "")).partition("\n")[0]
            parts.append(styled(f" {event.attributes.get('exception.type')}: {message}", "red"))
    return parts
