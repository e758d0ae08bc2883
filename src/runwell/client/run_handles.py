"""Runs as callers hold them: as retrieved, as the handle of a trigger, or named by an id."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar
from urllib.parse import quote

from runwell.core.payloads import Json
from runwell.core.schemas import RunObject, RunSummary

OutputT = TypeVar("OutputT")
OutputT_co = TypeVar("OutputT_co", covariant=True)


class Run(RunObject, Generic[OutputT]):
    """A run as it was when it was retrieved.

    `output` is what the task returned, once the run `is_success`: as the type that the task's
    function returns when the run was asked for by the handle of that task's trigger, and as plain
    JSON values when it was asked for by its id.

    Example:
        >>> from runwell import Run, runs
        >>> async def show(run_id: str) -> None:
        ...     run = await runs.retrieve(run_id)
        ...     print(run.status, run.output, run.error)
    """

    # A task's own type in place of JSON: the reading of it is `RunHandle.parse_output`.
    output: OutputT | None = None  # pyright: ignore[reportIncompatibleVariableOverride]


# No slots: `RunHandle[int](...)` sets an attribute, which a frozen class with slots can't take.
@dataclass(frozen=True)
class RunHandle(Generic[OutputT_co]):
    """A run that was triggered: what `.trigger()` returns, and what `runs.*` take.

    `is_cached`: the run was there before, with the same idempotency key. `public_access_token` lets
    a browser read the run, for an hour.

    Example:
        >>> from runwell import RunHandle, runs
        >>> async def wait_for(handle: RunHandle[str]) -> str | None:
        ...     return (await runs.poll(handle)).output
    """

    id: str
    public_access_token: str | None = field(default=None, repr=False, compare=False)
    is_cached: bool = False
    parse_output: Callable[[Json], OutputT_co] | None = field(
        default=None, repr=False, compare=False, kw_only=True
    )


#: How a run is named: its id, the handle of its trigger, or the run from a retrieve or a list.
RunReference = str | RunSummary | RunHandle[object]


def id_of(run: RunReference) -> str:
    """The id of a run; raises ValueError for what names none."""
    run_id: object = run if isinstance(run, str) else getattr(run, "id", None)
    if not isinstance(run_id, str) or not run_id.strip("."):
        raise ValueError(f"{run!r} names no run: give its id ('run_...'), or a handle of it")
    return run_id


def path_id(run: RunReference) -> str:
    """The id of a run as a part of a URL; raises ValueError for what names none."""
    return quote(id_of(run), safe="")
