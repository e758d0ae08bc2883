"""What the demo shows: progress, a summary, the log of a run, and what to try next."""

import os
from collections import Counter
from pathlib import Path
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, TimeElapsedColumn
from rich.progress import Progress as ProgressBar
from rich.table import Table
from trigger.analyse import Analysis

from runwell import Run
from runwell.core.schemas import LogLine

FINAL = ("COMPLETED", "FAILED", "CRASHED", "CANCELED", "TIMED_OUT", "SYSTEM_FAILURE", "EXPIRED")
SHOWN = 5
SHOWN_LINES = 12

_console = Console(highlight=False)


class Progress:
    """How many runs have which status: a bar in a terminal, a line now and then in a file."""

    def __init__(self, count: int) -> None:
        """Progress of so many runs."""
        self._count = count
        self._last = ""
        self._bar = ProgressBar(BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._task = self._bar.add_task("runs", total=count)
        self._live = Live(console=_console, refresh_per_second=8, transient=True)

    def __enter__(self) -> Self:
        """Begin."""
        if _console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        """End; the bar goes, and what follows takes its place."""
        if _console.is_terminal:
            self._live.stop()

    def show(self, statuses: Counter[str]) -> None:
        """Show how many runs have which status now."""
        ended = sum(statuses[status] for status in FINAL)
        shown = "  ".join(f"{status} {count}" for status, count in sorted(statuses.items()))
        if not _console.is_terminal:
            # A line for each tenth of the way, not for each look.
            tenth = f"{10 * ended // self._count}"
            if tenth != self._last:
                _console.print(f"progress {ended}/{self._count}  {shown}", soft_wrap=True)
            self._last = tenth
            return
        self._bar.update(self._task, completed=ended)
        table = Table.grid()
        table.add_row(self._bar)
        table.add_row(shown)
        self._live.update(table)


def show_summary(ended: list[Run[Analysis]], seconds: float) -> None:
    """Statuses, the slowest runs, the most complex functions, and what failed."""
    counts = Counter(run.status for run in ended)
    retried = sum(run.attempt_count > 1 for run in ended)
    found = [run.output for run in ended if run.output is not None]
    _console.print(
        f"\n[bold]{len(ended)} runs in {seconds:.1f} s[/] ({len(ended) / seconds:.0f} a second), "
        f"{sum(analysis.lines for analysis in found):,} lines of Python read, "
        f"{retried} runs retried"
    )
    _print_table(
        ("status", "#runs"), [(status, str(count)) for status, count in counts.most_common()]
    )
    slowest = sorted(ended, key=lambda run: run.duration_ms, reverse=True)[:SHOWN]
    _print_table(
        ("slowest", "run", "#duration"),
        [(_module_of(run), run.id, f"{run.duration_ms} ms") for run in slowest],
    )
    most_complex = sorted(found, key=lambda analysis: analysis.complexity, reverse=True)[:SHOWN]
    _print_table(
        ("most complex function", "module", "#ways through it"),
        [(a.most_complex, a.module, str(a.complexity)) for a in most_complex],
    )
    failed = [run for run in ended if not run.is_success]
    _print_table(
        ("failed", "run", "status", "#attempts", "error"),
        [
            (_module_of(run), run.id, run.status, str(run.attempt_count), _error_of(run))
            for run in failed
        ],
    )


def show_log(run: Run[Analysis], lines: list[LogLine]) -> None:
    """What one run wrote, in all of its attempts."""
    _console.print(f"\n[bold]log of {run.id}[/] ({_module_of(run)}), {run.attempt_count} attempts")
    for line in lines[:SHOWN_LINES]:
        moment = line.time.astimezone().strftime("%H:%M:%S.%f")[:-3]
        _console.print(
            f"  {moment}  attempt {line.attempt}  {line.level:<5}  {line.message.rstrip()}",
            markup=False,
            soft_wrap=True,
        )
    if len(lines) > SHOWN_LINES:
        _console.print(f"  and {len(lines) - SHOWN_LINES} lines more")


def show_next(project: Path, data_dir: Path, tag: str, run_id: str) -> None:
    """What one may try now."""
    folder = os.path.relpath(project)
    _console.print(
        "\n[bold]Next[/], to keep the platform running and look at these runs:\n"
        "  make dev\n"
        "and in a second terminal:\n"
        f"  cd {folder} && ../../.venv/bin/runwell runs list --tag {tag}\n"
        f"  ../../.venv/bin/runwell runs show {run_id}\n"
        "  ../../.venv/bin/runwell runs list --status FAILED\n"
        f"The data is in {os.path.relpath(data_dir)}.",
        soft_wrap=True,
    )


def _print_table(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    if not rows:
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        is_number = name.startswith("#")
        table.add_column(name.removeprefix("#"), justify="right" if is_number else "left")
    for row in rows:
        table.add_row(*row)
    _console.print()
    _console.print(table)


def _module_of(run: Run[Analysis]) -> str:
    match run.payload:
        case {"name": str(name)}:
            return name
        case _:
            return run.id


def _error_of(run: Run[Analysis]) -> str:
    if run.error is None:
        return ""
    return f"{run.error.name}: {run.error.message}" if run.error.name else run.error.message
