"""Bodies of bulk actions, queues, tokens and waits, as they are on the wire."""

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError

from runwell.core.bulk_schemas import BulkActionBody
from runwell.core.errors import (
    BuiltInError,
    ErrorCode,
    InternalError,
    StringError,
    is_out_of_memory,
    is_retried,
)
from runwell.core.event_filters import matches
from runwell.core.ids import earliest_id, make_id, make_run_ids
from runwell.core.metadata import SetOperation
from runwell.core.payloads import Json
from runwell.core.protocol import MachineName, MetadataUpdate, QueueManifest
from runwell.core.queue_schemas import OverrideBody, PauseBody
from runwell.core.timing import (
    Instant,
    OutOfMemoryRetry,
    RetryOptions,
    format_instant,
    larger_machine,
)
from runwell.core.token_schemas import CreateTokenBody, EventBody
from runwell.core.waits import DateWait, ResumeBody, RunsWait, TokenWait, WaitBody

_WAIT: dict[str, Any] = {
    "workerId": "worker_1",
    "runId": "run_1",
    "snapshotId": 1,
    "startedAt": "2026-03-01T12:00:00Z",
}


def _parse(model: type[BaseModel], **fields: Any) -> Any:
    return model.model_validate_json(json.dumps(fields))


def test_waits_are_told_apart_by_their_type() -> None:
    waits = [
        {"type": "runs", "waitId": "a", "runIds": ["run_2"]},
        {"type": "date", "waitId": "b", "date": "2026-03-01T12:00:00Z"},
        {"type": "token", "waitId": "c", "tokenId": "waitpoint_1"},
    ]
    body = _parse(WaitBody, **_WAIT, waits=waits, isBlocked=True)
    assert [type(wait) for wait in body.waits] == [RunsWait, DateWait, TokenWait]
    assert body.is_blocked
    assert _parse(ResumeBody, workerId="worker_1").received == []


_MISFITS: list[tuple[type[BaseModel], dict[str, Any]]] = [
    (WaitBody, {**_WAIT, "waits": [{"type": "runs", "waitId": "a", "runIds": []}]}),
    (WaitBody, {**_WAIT, "waits": [{"type": "soon", "waitId": "a"}]}),
    (WaitBody, {**_WAIT, "received": ["no spaces"]}),
    (BulkActionBody, {"action": "delete"}),
    (PauseBody, {"action": "stop"}),
    (OverrideBody, {"concurrencyLimit": -1}),
    (EventBody, {"name": ""}),
    (CreateTokenBody, {"event": {"filter": {}}}),
]


@pytest.mark.parametrize(("model", "fields"), _MISFITS)
def test_what_does_not_fit_is_refused(model: type[BaseModel], fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        _parse(model, **fields)


@pytest.mark.parametrize(
    ("wanted", "payload", "is_match"),
    [
        ({}, {"a": 1}, True),
        ({"a": 1}, {"a": 1, "b": 2}, True),
        ({"a": 1}, {"b": 2}, False),
        ({"a": {"b": 1}}, {"a": 1}, False),
        ({"a": [1, {"b": 2}]}, {"a": {"b": 2}}, True),
        ({"a": True}, {"a": 1}, False),
        ({"a": None}, {"a": None}, True),
    ],
)
def test_a_filter_wants_what_it_names(wanted: Json, payload: Json, is_match: bool) -> None:
    assert matches(wanted, payload) is is_match


def test_a_filter_of_endless_depth_matches_nothing() -> None:
    wanted: Json = 1
    for _ in range(60):
        wanted = {"a": wanted}
    assert not matches(wanted, wanted)


def test_which_errors_are_retried_and_which_are_of_memory() -> None:
    raised = BuiltInError(name="ValueError", message="no", stack_trace="")
    out = InternalError(code=ErrorCode.TASK_PROCESS_OOM_KILLED)
    assert is_retried(raised)
    assert is_retried(StringError(raw="no"))
    assert not is_retried(InternalError(code=ErrorCode.RECURSIVE_WAIT_DEADLOCK))
    assert [is_out_of_memory(error) for error in (raised, out)] == [False, True]


def test_ids_of_an_instant_sort_behind_the_earliest_one_of_it() -> None:
    now = datetime(2026, 3, 1, tzinfo=UTC)
    assert make_id("run", now - timedelta(seconds=1)) < earliest_id("run", now)
    ids = make_run_ids(5, now)
    assert ids == sorted(ids)
    assert earliest_id("run", now) < ids[0]


def test_a_queue_has_one_rate_limit_of_a_kind() -> None:
    limit = {"limit": 1, "windowSeconds": 60}
    assert _parse(QueueManifest, name="q", rateLimits=[limit, {**limit, "per": "key"}])
    with pytest.raises(ValidationError, match="one rate limit of its own"):
        _parse(QueueManifest, name="q", rateLimits=[limit, limit])


def test_an_update_of_metadata_knows_whom_it_is_about() -> None:
    change = SetOperation(key="a", value=1)
    assert not MetadataUpdate(seq=1, operations=[change]).changes_relatives
    assert MetadataUpdate(seq=1, root_operations=[change]).changes_relatives


def test_an_instant_is_kept_in_utc_and_within_its_years() -> None:
    adapter: TypeAdapter[datetime] = TypeAdapter(Instant)
    assert adapter.validate_python("2026-03-01T12:00:00+02:00").utcoffset() == timedelta()
    there = datetime(2026, 3, 1, 14, tzinfo=timezone(timedelta(hours=2)))
    assert format_instant(there) == "2026-03-01T12:00:00.000Z"
    with pytest.raises(ValidationError, match="outside the years"):
        adapter.validate_python(datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14))))


def test_a_run_out_of_memory_goes_on_on_a_larger_machine_only() -> None:
    large = RetryOptions(out_of_memory=OutOfMemoryRetry(machine=MachineName.LARGE_1X))
    assert larger_machine(RetryOptions(), MachineName.MICRO) is None
    assert larger_machine(large, MachineName.MICRO) is MachineName.LARGE_1X
    assert larger_machine(large, MachineName.LARGE_2X) is None
