"""Each field of each body with each value that no column holds: refused or mended, never a failure.

The bodies here name every field of their model, which a test checks, so that a new field is tried
from its first day on.
"""

import contextlib
import itertools
import json
from collections.abc import AsyncGenerator, Iterator
from typing import Any, cast

import pytest
from pydantic import BaseModel

from runwell.core.protocol import (
    CanceledReport,
    CompleteReport,
    ConnectBody,
    DequeueBody,
    DisconnectBody,
    FailReport,
    HandBackReport,
    HeartbeatBody,
    LogsReport,
    MetadataReport,
    RegisterBody,
    StartReport,
)
from runwell.core.schemas import TriggerBody
from runwell.core.unbuilt import UNBUILT_OPTIONS
from tests.server.serving import WORKER_ACTIONS, Served, error_of, serving

_NOW = "2026-03-01T12:00:00Z"
#: As written in JSON, since most of them have no form in Python's.
_ODD = (
    r'"\u0000"',
    r'"a\ud800"',
    r'"\udc00b"',
    "NaN",
    "-Infinity",
    "1e999",
    "1" + "0" * 400,
    "9223372036854775808",
    "2147483648",
    "-1",
    "1.5",
    "true",
    "[]",
    r'{"\u0000": 1}',
    r'{"a": ["\u0000", NaN]}',
    '""',
    '"' + "x" * 3_000 + '"',
    '"2026-03-01T12:00:00"',
    '"2026-03-01"',
    '"0001-01-01T00:00:00+14:00"',
    '"9999-12-31T23:59:59-14:00"',
    '"100 years"',
    '"99999999999999w"',
    '"2147483647w"',
)

TRIGGER: dict[str, Any] = {
    "payload": {"a": 1},
    "context": {"a": 1},
    "options": {
        "payloadType": "application/json",
        "queue": {"name": "q", "concurrencyLimit": 3},
        "concurrencyKey": "k",
        "idempotencyKey": "i",
        "idempotencyKeyTTL": "1h",
        "delay": "1h",
        "debounce": {"key": "k", "delay": "1m", "mode": "trailing", "maxDelay": "1h"},
        "ttl": "1h",
        "tags": ["t"],
        "maxAttempts": 1,
        "metadata": {"a": 1},
        "metadataType": "application/json",
        "maxDuration": 60,
        "machine": "micro",
        "test": False,
        "lockToVersion": "20260301.1",
        "parentAttempt": "attempt_1",
        "parentRunId": "run_1",
        "priority": 1,
        "idempotencyKeyOptions": {"key": "i", "scope": "run"},
        "parentBatch": "batch_1",
        "payloadSize": 1,
        "externalDeploymentId": "e",
    },
}
MANIFEST: dict[str, Any] = {
    "localOnly": False,
    "metadata": {
        "packageVersion": "1",
        "contentHash": "hash-of-1",
        "projectRef": "proj_a",
        "queues": [{"name": "q", "concurrencyLimit": 1}],
        "tasks": [
            {
                "id": "hello",
                "description": "d",
                "filePath": "trigger/t.py",
                "exportName": "t",
                "queue": {"name": "q", "concurrencyLimit": 1},
                "retry": {
                    "maxAttempts": 1,
                    "factor": 2,
                    "minTimeoutInMs": 1,
                    "maxTimeoutInMs": 1,
                    "randomize": False,
                    "outOfMemory": {"machine": "large-1x"},
                },
                "machine": {"preset": "micro"},
                "maxDuration": 60,
                "ttl": "1h",
                "payloadSchema": {"type": "object"},
                "keepProcess": False,
            }
        ],
    },
}
CONNECT = {"name": "w", "capacity": 1, "packageVersion": "1", "previousWorkerId": "worker_1"}
DEQUEUE = {
    "workerId": "worker_1",
    "requestId": "r",
    "backgroundWorkerIds": ["worker_1"],
    "maxRuns": 1,
    "waitMs": 0,
}
HEARTBEAT = {"workerId": "worker_1", "runs": [{"runId": "run_1", "snapshotId": 1}], "waitMs": 0}
DISCONNECT = {"workerId": "worker_1"}

_KEYED = [
    {"type": kind, "key": "k", "value": 1} for kind in ("set", "append", "remove", "increment")
]
_METADATA = {
    "seq": 1,
    "operations": [*_KEYED, {"type": "delete", "key": "k"}, {"type": "update", "value": {"a": 1}}],
    "parentOperations": [],
    "rootOperations": [],
}
_LEASE = {"runId": "run_1", "snapshotId": 1}
_TIMES = {"startedAt": _NOW, "finishedAt": _NOW, "durationMs": 5}
REPORTS: dict[type[BaseModel], dict[str, Any]] = {
    StartReport: {"type": "start", **_LEASE, "startedAt": _NOW},
    LogsReport: {
        "type": "logs",
        **_LEASE,
        "attemptNumber": 1,
        "lines": [
            {"seq": 1, "time": _NOW, "level": "INFO", "message": "m", "attributes": {"a": "b"}}
        ],
    },
    CompleteReport: {
        "type": "complete",
        **_LEASE,
        **_TIMES,
        "output": "1",
        "outputType": "application/json",
    },
    FailReport: {
        "type": "fail",
        **_LEASE,
        **_TIMES,
        "error": {"type": "BUILT_IN_ERROR", "name": "E", "message": "m", "stackTrace": "s"},
        "skipRetrying": True,
        "retryAt": _NOW,
    },
    HandBackReport: {"type": "hand-back", **_LEASE, "reason": "r"},
    CanceledReport: {"type": "canceled", **_LEASE},
    MetadataReport: {"type": "metadata", **_LEASE, "metadata": _METADATA},
}


def _leaves(value: object, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The places of a body, those of its parts first."""
    if isinstance(value, dict):
        for key, part in cast("dict[str, object]", value).items():
            yield from _leaves(part, (*path, key))
    elif isinstance(value, list):
        for index, part in enumerate(cast("list[object]", value)):
            yield from _leaves(part, (*path, index))
    if path:
        yield path


def _written(body: dict[str, Any], path: tuple[str | int, ...], value: str) -> bytes:
    """The body as JSON, with a value that is JSON already at one place."""
    copy = json.loads(json.dumps(body))
    at = copy
    for part in path[:-1]:
        at = at[part]
    at[path[-1]] = "THE ODD ONE"
    return json.dumps(copy).replace('"THE ODD ONE"', value).encode()


async def _send_each(served: Served, url: str, body: dict[str, Any], *taken: int) -> None:
    for path, value in itertools.product(_leaves(body), _ODD):
        answer = await served.client.post(url, content=_written(body, path, value))
        assert answer.status_code in (200, 400, 409, 422, *taken), (path, value, answer.text)
        if answer.status_code != 200:
            assert error_of(answer), (path, value)


@contextlib.asynccontextmanager
async def _holding(served: Served) -> AsyncGenerator[tuple[str, dict[str, Any]]]:
    """A worker, and a run that it has started."""
    version = await served.register("hello")
    await served.trigger()
    worker_id = await served.connect()
    answer = await served.act(
        "dequeue", workerId=worker_id, requestId="r", backgroundWorkerIds=[version], maxRuns=1
    )
    yield worker_id, answer["runs"][0]


@pytest.mark.parametrize("option", sorted(TRIGGER["options"]))
async def test_a_trigger_with_an_odd_option_is_refused_or_makes_a_run(
    database_url: str, option: str
) -> None:
    async with serving(database_url) as served:
        await served.register("hello")
        given = TRIGGER["options"][option]
        await _send_each(served, "/api/v1/tasks/hello/trigger", {"options": {option: given}})
        assert (await served.client.get("/api/v1/runs")).status_code == 200


@pytest.mark.parametrize("field", ["payload", "context"])
async def test_a_trigger_with_an_odd_payload_is_refused_or_makes_a_run(
    database_url: str, field: str
) -> None:
    async with serving(database_url) as served:
        await served.register("hello")
        await _send_each(served, "/api/v1/tasks/hello/trigger", {field: TRIGGER[field]})


async def test_a_manifest_with_an_odd_field_is_refused_or_registered(database_url: str) -> None:
    async with serving(database_url) as served:
        await _send_each(served, "/api/v1/projects/~/background-workers", MANIFEST)


@pytest.mark.parametrize(
    ("action", "body"),
    [
        ("connect", CONNECT),
        ("dequeue", DEQUEUE),
        ("heartbeat", HEARTBEAT),
        ("disconnect", DISCONNECT),
    ],
)
async def test_a_worker_action_with_an_odd_field_is_refused_or_carried_out(
    database_url: str, action: str, body: dict[str, Any]
) -> None:
    async with serving(database_url) as served:
        await _send_each(served, f"{WORKER_ACTIONS}/{action}", body)


@pytest.mark.parametrize("kind", REPORTS)
async def test_a_report_with_an_odd_field_is_refused_or_applied(
    database_url: str, kind: type[BaseModel]
) -> None:
    async with serving(database_url) as served, _holding(served) as (worker_id, run):
        lease = {"runId": run["runId"], "snapshotId": run["snapshotId"]}
        reports = [REPORTS[kind] | lease]
        await _send_each(
            served, f"{WORKER_ACTIONS}/report", {"workerId": worker_id, "reports": reports}
        )
        found = await served.client.get(f"/api/v3/runs/{run['runId']}")
        assert found.status_code == 200, found.text


@pytest.mark.parametrize(
    ("kind", "field"),
    [
        (StartReport, "startedAt"),
        (LogsReport, "time"),
        (CompleteReport, "startedAt"),
        (CompleteReport, "finishedAt"),
        (FailReport, "startedAt"),
        (FailReport, "finishedAt"),
        (FailReport, "retryAt"),
    ],
)
@pytest.mark.parametrize(
    ("instant", "words"),
    [
        ("2026-03-01T12:00:00", "should have timezone info"),
        ("0001-01-01T00:00:00+14:00", "outside the years 1 to 9999"),
    ],
)
async def test_an_instant_of_a_report_says_its_zone_or_is_refused(
    database_url: str, kind: type[BaseModel], field: str, instant: str, words: str
) -> None:
    async with serving(database_url) as served, _holding(served) as (worker_id, run):
        lease = {"runId": run["runId"], "snapshotId": run["snapshotId"]}
        report: dict[str, Any] = json.loads(json.dumps(REPORTS[kind] | lease))
        (report["lines"][0] if field == "time" else report)[field] = instant
        answer = await served.client.post(
            f"{WORKER_ACTIONS}/report", json={"workerId": worker_id, "reports": [report]}
        )
        assert answer.status_code == 400
        assert field in error_of(answer)
        assert words in error_of(answer)
        assert (await served.get(f"/api/v3/runs/{run['runId']}"))["attempts"] == []


def _named(value: object) -> set[str]:
    """All keys of a body."""
    if isinstance(value, list):
        return {name for part in cast("list[object]", value) for name in _named(part)}
    if not isinstance(value, dict):
        return set()
    parts = cast("dict[str, object]", value)
    return set(parts).union(*(_named(part) for part in parts.values()))


def _required(schema: dict[str, Any]) -> set[str]:
    """All fields of the objects in a JSON schema."""
    objects = [schema, *schema.get("$defs", {}).values()]
    return {name for found in objects for name in found.get("properties", {})}


@pytest.mark.parametrize(
    ("model", "body"),
    [
        (TriggerBody, TRIGGER),
        (RegisterBody, MANIFEST),
        (ConnectBody, CONNECT),
        (DequeueBody, DEQUEUE),
        (HeartbeatBody, HEARTBEAT),
        (DisconnectBody, DISCONNECT),
        *(
            (model, {**body, "metadata": _METADATA})
            for model, body in REPORTS.items()
            if model is not FailReport
        ),
    ],
)
def test_the_bodies_here_have_every_field(model: type[BaseModel], body: dict[str, Any]) -> None:
    assert _required(model.model_json_schema()) - set(UNBUILT_OPTIONS) <= _named(body)
