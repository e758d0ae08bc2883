"""`metadata`: changes of the current run, and nothing outside of one."""

import json
from collections.abc import Generator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import cast

import pytest

from runwell import InvalidPayloadError, MetadataChanges, configure, metadata
from runwell.client.options import Retry
from runwell.core.metadata import (
    AppendOperation,
    DeleteOperation,
    IncrementOperation,
    RemoveOperation,
    SetOperation,
    UpdateOperation,
)
from runwell.sdk.runtime import activate
from runwell.sync import metadata as blocking_metadata
from runwell.sync import runs as blocking_runs
from tests.sdk.contexts import KeepingRuntime
from tests.support.api_server import ApiServer, answer, api_server


@dataclass
class Point:
    """Something that has a JSON form."""

    x: int


@pytest.fixture
def api() -> Generator[ApiServer]:
    with api_server() as api:
        configure(base_url=api.url, secret_key="tr_dev_x", retry=Retry(max_attempts=1))
        yield api
    configure()


def test_changes_are_chained_and_seen_at_once() -> None:
    runtime = KeepingRuntime()
    with activate(runtime):
        metadata.set("a", Point(1)).append("log", datetime(2030, 1, 1, tzinfo=UTC)).increment("n")
        metadata.decrement("n", 3).remove("log", "x").delete("a")
        assert metadata.get("n") == -2
        assert metadata.current() == {"log": ["2030-01-01T00:00:00Z"], "n": -2}
        blocking_metadata.replace({"b": Point(2)})
        assert metadata.current() == {"b": {"x": 2}}
        assert metadata.get("gone") is None
    assert [operation for _, operation in runtime.changes] == [
        SetOperation(key="a", value={"x": 1}),
        AppendOperation(key="log", value="2030-01-01T00:00:00Z"),
        IncrementOperation(key="n", value=1),
        IncrementOperation(key="n", value=-3),
        RemoveOperation(key="log", value="x"),
        DeleteOperation(key="a"),
        UpdateOperation(value={"b": {"x": 2}}),
    ]


def test_what_one_gets_is_a_copy() -> None:
    runtime = KeepingRuntime()
    with activate(runtime):
        metadata.set("list", [1])
        cast("list[int]", metadata.get("list")).append(2)
        current = metadata.current()
        assert current is not None
        current["more"] = True
        assert metadata.current() == {"list": [1]}


def test_parent_and_root_are_changed_by_the_same_methods() -> None:
    runtime = KeepingRuntime()
    with activate(runtime):
        metadata.parent.set("a", 1).increment("n", 2)
        metadata.root.append("log", "x")
        blocking_metadata.root.append("log", "y")
    assert [target for target, _ in runtime.changes] == ["parent", "parent", "root", "root"]
    assert runtime.metadata == {}


async def test_outside_of_a_run_nothing_happens() -> None:
    assert metadata.set("a", object()).increment("n").replace({}) is metadata
    metadata.parent.append("log", 1)
    assert (metadata.current(), metadata.get("a")) == (None, None)
    await metadata.flush()
    await metadata.refresh()
    blocking_metadata.flush()


def test_what_can_not_be_stored_is_refused_where_it_is_written() -> None:
    runtime = KeepingRuntime()
    with activate(runtime):
        with pytest.raises(InvalidPayloadError, match="the metadata 'a' can't be sent: object"):
            metadata.set("a", object())
        with pytest.raises(InvalidPayloadError, match="at most 262,144"):
            metadata.set("a", "x" * 300_000)
        with pytest.raises(ValueError, match=r"metadata key '\$\.a\.\.b': .* is no path"):
            metadata.set("$.a..b", 1)
        with pytest.raises(ValueError, match="metadata key ''"):
            metadata.delete("")
        with pytest.raises(ValueError, match="a number is needed"):
            metadata.increment("n", cast("float", "1"))
        with pytest.raises(ValueError, match="it takes a dict"):
            metadata.replace(cast("dict[str, object]", [1]))
    assert runtime.changes == []


async def test_a_flush_waits_until_the_server_has_the_last_change(api: ApiServer) -> None:
    runtime = KeepingRuntime()
    with activate(runtime):
        metadata.increment("n").increment("n")
        for flushed in ("0.0", "6.2", "7.1", "7.2"):
            api.will(answer(200, {"metadata": {"n": 5}, "flushed": flushed}))
        await metadata.flush()
        assert [seen.path for seen in api.seen] == ["/api/v1/runs/run_1/metadata"] * 4
        assert metadata.get("n") == 2
        api.will(answer(200, {"metadata": {"n": 5}, "flushed": "7.2"}))
        blocking_metadata.refresh()
        assert metadata.get("n") == 5


def test_changes_from_anywhere_are_sent_in_one_request_with_a_key(api: ApiServer) -> None:
    changes = MetadataChanges().set("a", Point(1)).delete("b")
    changes.parent.append("log", 1)
    changes.root.increment("n").decrement("m")
    api.will(answer(200, {"metadata": {"a": 1}}))
    assert blocking_runs.update_metadata("run_1", changes) == {"a": 1}
    (seen,) = api.seen
    assert (seen.method, seen.path) == ("PUT", "/api/v1/runs/run_1/metadata")
    assert seen.headers["x-trigger-request-idempotency-key"]
    body = json.loads(seen.body)
    assert body["operations"] == [
        {"key": "a", "type": "set", "value": {"x": 1}},
        {"key": "b", "type": "delete"},
    ]
    assert body["parentOperations"] == [{"key": "log", "type": "append", "value": 1}]
    assert [one["value"] for one in body["rootOperations"]] == [1, -1]
    api.will(answer(200, {"metadata": {"b": 1}}))
    blocking_runs.update_metadata("run_1", {"b": 1})
    assert json.loads(api.seen[-1].body)["operations"] == [{"type": "update", "value": {"b": 1}}]
