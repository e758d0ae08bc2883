"""Each field of each body with each value that no column holds: refused or mended, never a failure.

The fields are those of the operations' own models: a new one is tried from its first day on.
"""

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from runwell.server.application import OPERATIONS
from runwell.server.operations import Operation
from tests.server.serving import WORKER_ACTIONS, Served, error_of, serving

_NOW = "2026-03-01T12:00:00Z"
_ODD_TEXTS = (
    r'"\u0000"',
    r'"a\ud800"',
    '""',
    '"' + "x" * 3_000 + '"',
    '"2026-03-01T12:00:00"',
    '"0001-01-01T00:00:00+14:00"',
    '"9999-12-31T23:59:59-14:00"',
    '"99999999999999w"',
    '"2147483647w"',
)
# As written in JSON, since most of them have no form in Python's.
_ODD_NUMBERS = (
    "NaN",
    "-Infinity",
    "1e999",
    "1e300",
    "1" + "0" * 400,
    "9223372036854775808",
    "2147483648",
    "-1",
    "0",
    "1.5",
)
_ODD_VALUES = ("null", "true", "[]", r'{"\u0000": 1}', r'{"a": ["\u0000", NaN]}')
_MARK = "THE ODD ONE"
# What must make sense for the rest to matter; the test adds the ids of what is there.
_KNOWN: dict[str, object] = {
    "cron": "0 5 * * *",
    "timezone": "UTC",
    "contentHash": "hash-of-2",
    "delay": "1h",
    "task": "hello",
    "taskIdentifier": "hello",
}
_PATH_PARTS = {"{taskId:path}": "hello", "{ref}": "~"}

Schema = dict[str, Any]


class Place(NamedTuple):
    """A place in a body, what may be there, and a body with a mark in that place."""

    path: str
    kind: str
    body: object


class Fields:
    """The fields of a model, from its JSON schema."""

    def __init__(self, schema: Schema, known: dict[str, object]) -> None:
        self._schema = schema
        self._known = known

    def places(self) -> Iterator[Place]:
        """All places of a body; around the mark is only what must be there."""
        return self._places(self._schema, "")

    def _places(self, schema: Schema, path: str) -> Iterator[Place]:
        schema = self._resolve(schema)
        kinds = [self._resolve(each) for each in schema.get("anyOf", schema.get("oneOf", [schema]))]
        kinds = [kind for kind in kinds if kind.get("type") != "null"]
        if path:
            types = {kind.get("type", "any") for kind in kinds}
            yield Place(path, types.pop() if len(types) == 1 else "any", _MARK)
        for kind in kinds:
            if "items" in kind:
                for place in self._places(kind["items"], f"{path}[]"):
                    yield place._replace(body=[place.body])
            for name, part in kind.get("properties", {}).items():
                if "const" in self._resolve(part):
                    continue
                around = self._least(kind)
                assert isinstance(around, dict)
                for place in self._places(part, f"{path}.{name}"):
                    yield place._replace(body={**around, name: place.body})

    def _least(self, schema: Schema, name: str = "") -> object:
        """The smallest value that fits."""
        schema = self._resolve(schema)
        if name in self._known:
            return self._known[name]
        if "const" in schema or "enum" in schema:
            return schema.get("const", schema.get("enum", [None])[0])
        options = schema.get("anyOf", schema.get("oneOf"))
        if options:
            return self._least(options[0])
        match schema.get("type"):
            case "object":
                parts = schema.get("properties", {})
                wanted = {*schema.get("required", ()), *(n for n in parts if "const" in parts[n])}
                return {each: self._least(parts[each], each) for each in parts if each in wanted}
            case "array":
                return [self._least(schema["items"])] if schema.get("minItems") else []
            case "string":
                is_instant = schema.get("format") == "date-time"
                return _NOW if is_instant else "x" * max(schema.get("minLength", 1), 1)
            case "integer" | "number":
                return max(1, schema.get("minimum", 1))
            case "boolean":
                return False
            case _:
                return {"a": 1}

    def _resolve(self, schema: Schema) -> Schema:
        if "$ref" in schema:
            return self._schema["$defs"][schema["$ref"].rpartition("/")[2]]
        return schema


def _odd_values(kind: str) -> tuple[str, ...]:
    match kind:
        case "string":
            return (*_ODD_TEXTS, *_ODD_VALUES, "1")
        case "integer" | "number":
            return (*_ODD_NUMBERS, *_ODD_VALUES, '"1"')
        case "boolean" | "object" | "array":
            return (*_ODD_VALUES, '"1"', "1")
        case _:
            return (*_ODD_TEXTS, *_ODD_NUMBERS, *_ODD_VALUES)


async def _hold_a_run(served: Served, *, is_started: bool = True) -> dict[str, object]:
    """Have a worker take a run; returns the names by which bodies mean them."""
    version = await served.register("hello")
    await served.trigger()
    worker_id = await served.connect()
    answer = await served.act(
        "dequeue", workerId=worker_id, requestId="r", backgroundWorkerIds=[version], maxRuns=1
    )
    run = answer["runs"][0]
    if is_started:
        report = {"type": "start", "runId": run["runId"], "snapshotId": run["snapshotId"]}
        await served.act("report", workerId=worker_id, reports=[report | {"startedAt": _NOW}])
    return {
        "workerId": worker_id,
        "runId": run["runId"],
        "snapshotId": run["snapshotId"],
        "backgroundWorkerIds": [version],
        "lockToVersion": run["version"],
    }


def _url(operation: Operation, known: dict[str, object]) -> str:
    parts = {**_PATH_PARTS, "{runId}": str(known["runId"])}
    return "/".join(
        parts.get(part, "x" if part.startswith("{") else part) for part in operation.path.split("/")
    )


@pytest.mark.parametrize(
    "operation",
    [operation for operation in OPERATIONS if operation.body is not None],
    ids=lambda operation: operation.name,
)
async def test_a_body_with_an_odd_field_is_refused_or_carried_out(
    database_url: str, operation: Operation
) -> None:
    async with serving(database_url) as served:
        known = await _hold_a_run(served)
        assert operation.body is not None
        schema = operation.body.model_json_schema()
        for place in Fields(schema, {**_KNOWN, **known}).places():
            for value in _odd_values(place.kind):
                body = json.dumps(place.body).replace(f'"{_MARK}"', value)
                answer = await served.client.request(
                    operation.method, _url(operation, known), content=body
                )
                assert answer.status_code < 500, (place, value, answer.text)
                if answer.status_code >= 400:
                    assert error_of(answer), (place, value)
        # All that was stored can be read.
        runs = await served.get("/api/v1/runs", **{"page[size]": "100"})
        assert runs["data"]
        await served.get(f"/api/v3/runs/{known['runId']}")
        await served.get(f"/api/v1/runs/{known['runId']}/logs")


def test_the_fields_of_a_body_are_found_in_its_parts_too() -> None:
    [report] = [operation for operation in OPERATIONS if operation.name == "report"]
    assert report.body is not None
    places = {place.path: place for place in Fields(report.body.model_json_schema(), {}).places()}
    assert {".workerId", ".reports", ".reports[].lines[].time", ".reports[].error.message"} <= set(
        places
    )
    assert places[".reports[].startedAt"].kind == "string"
    assert places[".reports[].retryAt"].body == {
        "workerId": "x",
        "reports": [
            {
                "runId": "x",
                "snapshotId": 1,
                "type": "fail",
                "error": {"type": "BUILT_IN_ERROR", "name": "x", "message": "x", "stackTrace": "x"},
                "retryAt": _MARK,
                "startedAt": _NOW,
                "finishedAt": _NOW,
                "durationMs": 1,
            }
        ],
    }


_TIMES = {"startedAt": _NOW, "finishedAt": _NOW, "durationMs": 5}
_ERROR = {"type": "BUILT_IN_ERROR", "name": "E", "message": "m", "stackTrace": "s"}
_LINE = {"seq": 1, "time": _NOW, "level": "INFO", "message": "m"}
_REPORTS: dict[str, dict[str, Any]] = {
    "start": {"startedAt": _NOW},
    "logs": {"attemptNumber": 1, "lines": [_LINE]},
    "complete": _TIMES,
    "fail": {**_TIMES, "error": _ERROR, "retryAt": _NOW},
}


@pytest.mark.parametrize(
    ("kind", "field"),
    [
        ("start", "startedAt"),
        ("logs", "time"),
        ("complete", "startedAt"),
        ("complete", "finishedAt"),
        ("fail", "startedAt"),
        ("fail", "finishedAt"),
        ("fail", "retryAt"),
    ],
)
async def test_an_instant_of_a_report_says_its_zone_or_is_refused(
    database_url: str, kind: str, field: str
) -> None:
    async with serving(database_url) as served:
        known = await _hold_a_run(served, is_started=False)
        for instant, words in (
            ("2026-03-01T12:00:00", "should have timezone info"),
            ("0001-01-01T00:00:00+14:00", "outside the years 1 to 9999"),
        ):
            report: dict[str, Any] = json.loads(json.dumps(_REPORTS[kind]))
            report |= {"type": kind, "runId": known["runId"], "snapshotId": known["snapshotId"]}
            (report["lines"][0] if field == "time" else report)[field] = instant
            answer = await served.client.post(
                f"{WORKER_ACTIONS}/report",
                json={"workerId": known["workerId"], "reports": [report]},
            )
            assert answer.status_code == 400
            assert field in error_of(answer)
            assert words in error_of(answer)
        assert (await served.get(f"/api/v3/runs/{known['runId']}"))["attempts"] == []
