"""Draws docs/run-lifecycle.md from the table of transitions; a test checks that it is current.

Run it after a change of `core/statuses.py`: `python docs/draw_lifecycle.py`.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from runwell.core import statuses
from runwell.core.statuses import (
    FINAL_RUN_STATUSES,
    INITIAL,
    LEASED_EXECUTION_STATUSES,
    TRANSITIONS,
    ExecutionStatus,
    RunEvent,
    RunStatus,
    Transition,
)

PAGE = Path(__file__).with_name("run-lifecycle.md")

# An attempt is under way in these: what they share is drawn once, from the box around them.
ATTEMPT = (
    ExecutionStatus.EXECUTING,
    ExecutionStatus.EXECUTING_WITH_WAITPOINTS,
    ExecutionStatus.QUEUED_EXECUTING,
)

INTRODUCTION = """\
# The life of a run

<!-- Drawn by docs/draw_lifecycle.py from src/runwell/core/statuses.py: change that, not this. -->

A run has two statuses. Its **execution status** says where it is between its queue and its end:
that is what the engine works with. Its **run status** is what you see in the API, the CLI and the
SDK. Whatever happens to a run is an **event**, and the table below says where an event leads. An
event that the table does not list for a status can't happen to a run in it: the database refuses
it.

What each status means for you as a user, and under which name which client sees it, is in
[statuses](reference/statuses.md).
"""


def draw() -> str:
    """The whole page."""
    parts = [
        INTRODUCTION,
        "## The picture\n",
        "```mermaid\n" + "\n".join(_diagram()) + "\n```\n",
        "## Execution statuses\n",
        _execution_table(),
        "## Run statuses\n",
        _run_table(),
        "## Events\n",
        _event_table(),
        "## Every transition\n",
        _transition_table(),
    ]
    return "\n".join(parts)


def _diagram() -> Iterator[str]:
    yield "stateDiagram-v2"
    yield "    direction LR"
    yield "    state attempt {"
    for start in ATTEMPT:
        for target, events in _arrows(start, without=_shared()):
            if target in ATTEMPT:
                yield f"        {start} --> {target}: {_label(events)}"
    yield "    }"
    for status in INITIAL:
        yield f"    [*] --> {status}: trigger"
    for target, events in _by_target(_shared()):
        yield f"    attempt --> {target}: {_label(events)}"
    for start in TRANSITIONS:
        for target, events in _arrows(start, without=_shared() if start in ATTEMPT else {}):
            if not (start in ATTEMPT and target in ATTEMPT):
                yield f"    {start} --> {target}: {_label(events)}"
    yield f"    {ExecutionStatus.FINISHED} --> [*]"


def _shared() -> dict[RunEvent, Transition]:
    """The transitions that every status of an attempt has."""
    first, *others = (TRANSITIONS[status] for status in ATTEMPT)
    return {
        event: moved
        for event, moved in first.items()
        if all(other.get(event) == moved for other in others)
    }


def _arrows(
    start: ExecutionStatus, *, without: dict[RunEvent, Transition]
) -> Iterator[tuple[ExecutionStatus, list[RunEvent]]]:
    kept = {event: moved for event, moved in TRANSITIONS[start].items() if event not in without}
    return _by_target(kept)


def _by_target(
    transitions: dict[RunEvent, Transition],
) -> Iterator[tuple[ExecutionStatus, list[RunEvent]]]:
    targets: dict[ExecutionStatus, list[RunEvent]] = {}
    for event, moved in transitions.items():
        targets.setdefault(moved.execution_status, []).append(event)
    return iter(targets.items())


def _label(events: list[RunEvent]) -> str:
    words = [event.lower().replace("_", " ") for event in events]
    lines = [", ".join(words[start : start + 3]) for start in range(0, len(words), 3)]
    return ",<br>".join(lines)


def _execution_table() -> str:
    rows = [
        (f"`{status}`", meaning, "yes" if status in LEASED_EXECUTION_STATUSES else "")
        for status, meaning in _meanings(ExecutionStatus)
    ]
    return _table(("execution status", "means", "a worker holds the run"), rows)


def _run_table() -> str:
    rows = [
        (f"`{status}`", _capitalize(meaning.removeprefix("Final: ")), "yes" if is_final else "")
        for status, meaning in _meanings(RunStatus)
        for is_final in [status in FINAL_RUN_STATUSES]
    ]
    return _table(("run status", "means", "final"), rows)


def _event_table() -> str:
    return _table(
        ("event", "means"), [(f"`{event}`", meaning) for event, meaning in _meanings(RunEvent)]
    )


def _transition_table() -> str:
    rows = [("(new)", "trigger", f"`{to}`", f"`{shown}`") for to, shown in INITIAL.items()]
    rows += [
        (
            f"`{start}`",
            f"`{event}`",
            f"`{moved.execution_status}`",
            f"`{moved.run_status}`" if moved.run_status else "(unchanged)",
        )
        for start, events in TRANSITIONS.items()
        for event, moved in events.items()
    ]
    return _table(("from", "event", "to", "run status"), rows)


def _meanings(
    kind: type[ExecutionStatus] | type[RunStatus] | type[RunEvent],
) -> list[tuple[str, str]]:
    """Each member with the comment above it: the table's own words."""
    source = Path(statuses.__file__).read_text(encoding="utf-8")
    body = source.partition(f"class {kind.__name__}(StrEnum):")[2].partition("\n\n\n")[0]
    found: dict[str, str] = {}
    comment: list[str] = []
    for line in body.splitlines():
        if match := re.match(r"    #: ?(.*)", line):
            comment.append(match[1])
        elif match := re.match(r"    (\w+) = ", line):
            found[match[1]] = " ".join(comment)
            comment = []
    return [(member.value, found[member.name]) for member in kind]


def _capitalize(text: str) -> str:
    return text[:1].upper() + text[1:]


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(draw(), encoding="utf-8")
    print(f"wrote {PAGE}")
