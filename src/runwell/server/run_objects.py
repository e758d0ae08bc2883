"""A run as the API shows it, in the names of the client that asks."""

from collections.abc import Callable
from typing import Any, cast

from starlette.requests import Request

from runwell.core.batch_schemas import RunResultObject, RunUsage
from runwell.core.errors import InvalidPayloadError, serialize_error
from runwell.core.payloads import STORE_TYPE, TEXT_TYPE, Json, decode_packet
from runwell.core.schedules import RunSchedule
from runwell.core.schemas import (
    AttemptObject,
    EnvironmentName,
    RelatedRun,
    RelatedRuns,
    RunError,
    RunExplanation,
    RunListItem,
    RunObject,
)
from runwell.core.statuses import RunStatus, api_status, status_flags
from runwell.engine.environments import Environment
from runwell.engine.explanations import Explanation
from runwell.engine.results import RunResult
from runwell.engine.runs import Attempt, Run
from runwell.server.schedule_objects import generator_of

_VERSION_HEADER = "x-trigger-api-version"


def is_4x(request: Request) -> bool:
    """Whether the client is of the generation that names statuses anew (`protocol.md` 3.3)."""
    return request.headers.get(_VERSION_HEADER, "") != ""


def run_object(
    run: Run,
    *,
    is_4x: bool,
    download_url: Callable[[str], str],
    explanation: Explanation | None = None,
) -> RunObject:
    """The whole of a run, with its attempts and relatives.

    `download_url` says where a packet of the object store is to be fetched, by its path.
    """
    fields = _summary(run, is_4x=is_4x)
    payload, payload_url = _show(run.payload, run.payload_type, download_url)
    output, output_url = None, None
    if run.status is RunStatus.COMPLETED:
        output, output_url = _show(run.output, run.output_type or TEXT_TYPE, download_url)
    return RunObject.model_construct(
        **fields,
        depth=run.depth,
        trigger_function=run.trigger_function,
        payload=payload,
        payload_presigned_url=payload_url,
        output=output,
        output_presigned_url=output_url,
        error=None if run.error is None else RunError(**serialize_error(run.error)),
        related_runs=RelatedRuns.model_construct(
            root=None if run.root is None else _related(run.root, is_4x=is_4x),
            parent=None if run.parent is None else _related(run.parent, is_4x=is_4x),
            children=[_related(child, is_4x=is_4x) for child in run.children],
        ),
        schedule=_schedule(run),
        attempts=[_attempt(attempt) for attempt in run.attempts],
        attempt_count=run.attempt_number,
        region=run.region,
        replay_of=run.replay_of,
        explanation=_explanation(explanation),
    )


def result_object(result: RunResult) -> RunResultObject:
    """What a run came to."""
    is_ok = result.error is None
    return RunResultObject.model_construct(
        ok=is_ok,
        id=result.run_id,
        task_identifier=result.task_id,
        output=result.output if is_ok else None,
        output_type=result.output_type if is_ok else None,
        error=result.error,
        usage=RunUsage.model_construct(duration_ms=result.duration_ms),
    )


def _explanation(found: Explanation | None) -> RunExplanation | None:
    if found is None:
        return None
    return RunExplanation.model_construct(
        reason=found.reason,
        message=found.message,
        run_ids=list(found.run_ids) or None,
        run_count=found.run_count,
        until=found.until,
        ahead=found.ahead,
    )


def run_list_item(run: Run, environment: Environment, *, is_4x: bool) -> RunListItem:
    """A run in a list."""
    return RunListItem.model_construct(
        **_summary(run, is_4x=is_4x),
        env=EnvironmentName(id=environment.public_id, name=environment.slug),
    )


def _related(run: Run, *, is_4x: bool) -> RelatedRun:
    return RelatedRun.model_construct(
        **_summary(run, is_4x=is_4x), depth=run.depth, trigger_function=run.trigger_function
    )


def _summary(run: Run, *, is_4x: bool) -> dict[str, Any]:
    flags = status_flags(run.status)
    return {
        "id": run.id,
        "status": api_status(run.status, is_4x=is_4x),
        "task_identifier": run.task_id,
        "idempotency_key": run.idempotency_key,
        "version": run.version,
        "is_queued": flags["isQueued"],
        "is_executing": flags["isExecuting"],
        "is_waiting": flags["isWaiting"],
        "is_completed": flags["isCompleted"],
        "is_success": flags["isSuccess"],
        "is_failed": flags["isFailed"],
        "is_cancelled": flags["isCancelled"],
        "is_test": run.is_test,
        "created_at": run.created_at,
        "updated_at": run.updated_at,
        "started_at": run.started_at,
        "finished_at": run.finished_at,
        "delayed_until": run.delayed_until,
        "expired_at": run.expired_at,
        "ttl": run.ttl,
        "tags": sorted(run.tags),
        "cost_in_cents": 0,
        "base_cost_in_cents": 0,
        "duration_ms": run.duration_ms,
        "batch_id": run.batch_id,
        "metadata": run.metadata,
    }


def _schedule(run: Run) -> RunSchedule | None:
    if run.schedule is None:
        return None
    return RunSchedule(
        id=run.schedule.public_id,
        external_id=run.schedule.rule.external_id,
        deduplication_key=run.schedule.deduplication_key,
        generator=generator_of(run.schedule),
    )


def _attempt(attempt: Attempt) -> AttemptObject:
    error = None if attempt.error is None else RunError(**serialize_error(attempt.error))
    return AttemptObject.model_construct(
        id=attempt.id,
        status=attempt.status.value,
        created_at=attempt.created_at,
        updated_at=attempt.updated_at,
        started_at=attempt.started_at,
        completed_at=attempt.completed_at,
        error=error,
        machine=attempt.machine,
    )


def _show(
    data: str | None, data_type: str, download_url: Callable[[str], str]
) -> tuple[Json, str | None]:
    """The value, or where to fetch it when it isn't here."""
    if data_type == STORE_TYPE and data is not None:
        return None, download_url(data)
    return _decode(data, data_type), None


def _decode(data: str | None, data_type: str) -> Json:
    try:
        return decode_packet(data, data_type)
    except InvalidPayloadError:
        # Stored by a worker that speaks another dialect: better its text than no answer.
        return cast("Json", data)
