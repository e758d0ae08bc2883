"""What runs twice when the worker dies: a task is run again and again, and dies at each boundary.

A boundary is a moment at which the server stores something of the run: a wait that begins, a wait
that is over, the end. Between two of them nothing is kept, and a new attempt begins from the top.
"""

import linecache
from dataclasses import dataclass, field
from types import FrameType

from runwell.sdk.task import AnyTask
from runwell.testing.attempts import Attempt, Tracer


@dataclass(frozen=True, kw_only=True)
class Crash:
    """One death: where, how the run ended afterwards, and the lines that ran again."""

    where: str
    status: str
    #: Line numbers and their text, of the file of the task.
    repeated: list[tuple[int, str]]
    #: How many more child runs there were than without a crash.
    additional_children: int


@dataclass(frozen=True, kw_only=True)
class CrashReport:
    """All deaths of one task; as text it is for people."""

    task_id: str
    crashes: list[Crash] = field(default_factory=list[Crash])

    @property
    def repeated_lines(self) -> set[int]:
        """Every line that any crash let run again."""
        return {number for crash in self.crashes for number, _ in crash.repeated}

    def __str__(self) -> str:
        shown = [f"task '{self.task_id}': the worker died {len(self.crashes)} times"]
        for crash in self.crashes:
            shown.append(f"  {crash.where}: the run is {crash.status}")
            if crash.additional_children:
                shown.append(f"    {crash.additional_children} more child runs than without")
            shown += [f"    ran again: {number:>4}  {text}" for number, text in crash.repeated]
        return "\n".join(shown) + "\n"


class CrashPlan:
    """Notes the boundaries of one run and the lines of its attempts, and says where it dies."""

    def __init__(self, task: AnyTask, dies_at: int | None) -> None:
        self.run_id = ""
        self.places: list[str] = []
        self._dies_at = dies_at
        self._file = task.function.__code__.co_filename
        self._attempts: list[list[int]] = []

    def reach(self, attempt: Attempt, where: str) -> bool:
        """A boundary: whether the worker dies here."""
        if attempt.run.run_id != self.run_id:
            return False
        self.places.append(where)
        return len(self.places) - 1 == self._dies_at

    def watch(self, attempt: Attempt) -> None:
        """An attempt begins."""
        if attempt.run.run_id == self.run_id:
            lines: list[int] = []
            self._attempts.append(lines)
            attempt.tracer = _trace_into(self._file, lines)

    def list_repeated(self) -> list[tuple[int, str]]:
        """The lines of the first attempt that ran in a later one too."""
        if not self._attempts:
            return []
        first, later = self._attempts[0], {line for one in self._attempts[1:] for line in one}
        repeated = sorted(later.intersection(first))
        return [(line, linecache.getline(self._file, line).strip()) for line in repeated]


def _trace_into(file: str, lines: list[int]) -> Tracer:
    def trace(frame: FrameType, event: str, _: object, /) -> Tracer | None:
        if frame.f_code.co_filename != file:
            return None
        if event == "line":
            lines.append(frame.f_lineno)
        return trace

    return trace
