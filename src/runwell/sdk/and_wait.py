"""Trigger and wait: what the `..._and_wait` functions of tasks and batches do."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Generic, TypeVar, cast

from runwell.client.batching import BatchEntry, BatchHandle, BatchOptions, batch_flow
from runwell.client.management import trigger_flow
from runwell.client.packets import load_results_flow
from runwell.client.triggering import TriggerOptions
from runwell.core.payloads import Json
from runwell.core.waits import RunsWait, WaitResult
from runwell.sdk.client import default_client
from runwell.sdk.subtasks import Failed, Ok, PendingResult, make_result
from runwell.sdk.waiting import block_for_outcome, find_current, wait_for_outcome

OutputT = TypeVar("OutputT")

_SINGLE = "trigger_and_wait"
_BATCH = "batch_trigger_and_wait"


@dataclass(frozen=True, kw_only=True)
class BatchResult(Generic[OutputT]):
    """The results of a batch that was waited for, in the order of its items.

    Example:
        >>> from runwell import BatchResult, Ok
        >>> run = Ok(output=3, run_id="run_1", task_id="add")
        >>> result = BatchResult(batch_id="batch_1", runs=[run])
        >>> [run.output for run in result.runs if run.ok]
        [3]
    """

    batch_id: str
    runs: "list[Ok[OutputT] | Failed]"


def trigger_and_wait(
    task_id: str,
    encode: Callable[[], str | None],
    options: TriggerOptions,
    parse_output: Callable[[Json], OutputT],
) -> PendingResult[OutputT]:
    """Trigger a run when this is awaited, and let the current run wait for it."""

    async def act() -> "Ok[OutputT] | Failed":
        locked = _lock_to_version(options, _SINGLE)
        flow = trigger_flow(
            default_client, task_id, encode(), locked, parse_output, is_awaited=True
        )
        handle = await default_client.run(flow)
        found = await wait_for_outcome(partial(_runs_wait, [handle.id]), what=_SINGLE)
        results = await default_client.run(load_results_flow(default_client, found))
        return make_result(results[0], parse_output)

    return PendingResult(act)


def trigger_and_block(
    task_id: str,
    payload: str | None,
    options: TriggerOptions,
    parse_output: Callable[[Json], OutputT],
) -> "Ok[OutputT] | Failed":
    """Trigger a run and let the current run wait for it, blocking the caller."""
    locked = _lock_to_version(options, _SINGLE)
    flow = trigger_flow(default_client, task_id, payload, locked, parse_output, is_awaited=True)
    handle = default_client.run_blocking(flow)
    found = block_for_outcome(partial(_runs_wait, [handle.id]), what=_SINGLE)
    results = default_client.run_blocking(load_results_flow(default_client, found))
    return make_result(results[0], parse_output)


async def batch_and_wait(
    entries: Sequence[BatchEntry], options: BatchOptions
) -> BatchResult[object]:
    """Trigger a batch and let the current run wait for all of it."""
    locked = _lock_entries(entries)
    handle = await default_client.run(batch_flow(default_client, locked, options, is_awaited=True))
    run_ids = [run.id for run in handle.runs]
    found = await wait_for_outcome(partial(_runs_wait, run_ids), what=_BATCH)
    results = await default_client.run(load_results_flow(default_client, found))
    return _batch_result(handle, locked, results)


def batch_and_block(entries: Sequence[BatchEntry], options: BatchOptions) -> BatchResult[object]:
    """Trigger a batch and let the current run wait for all of it, blocking the caller."""
    locked = _lock_entries(entries)
    handle = default_client.run_blocking(
        batch_flow(default_client, locked, options, is_awaited=True)
    )
    run_ids = [run.id for run in handle.runs]
    found = block_for_outcome(partial(_runs_wait, run_ids), what=_BATCH)
    results = default_client.run_blocking(load_results_flow(default_client, found))
    return _batch_result(handle, locked, results)


def _runs_wait(run_ids: list[str], wait_id: str) -> RunsWait:
    return RunsWait(wait_id=wait_id, run_ids=run_ids)


def _lock_to_version(options: TriggerOptions, what: str) -> TriggerOptions:
    # What is waited for is of the version that waits, whatever is deployed meanwhile.
    version = find_current(what).ctx.run.version
    return cast("TriggerOptions", {"version": version, **options}) if version else options


def _lock_entries(entries: Sequence[BatchEntry]) -> list[BatchEntry]:
    return [replace(entry, options=_lock_to_version(entry.options, _BATCH)) for entry in entries]


def _batch_result(
    handle: BatchHandle[object], entries: Sequence[BatchEntry], results: Sequence[WaitResult]
) -> BatchResult[object]:
    runs: list[Ok[object] | Failed] = []
    for index, result in enumerate(results):
        parse: Callable[[Json], object] = _as_it_is
        # A batch that was there already may have had other items.
        if index < len(entries) and entries[index].task_id == result.task_id:
            parse = entries[index].parse_output or _as_it_is
        runs.append(make_result(result, parse))
    return BatchResult(batch_id=handle.batch_id, runs=runs)


def _as_it_is(value: Json) -> object:
    return value
