"""Bodies of batches and traces, as they are on the wire."""

import json
from datetime import UTC, datetime

import pytest
from pydantic import ValidationError

from runwell.core.batch_schemas import (
    BatchBody,
    BatchOpeningBody,
    NumberedItemBody,
    OpenedBatchAnswer,
)
from runwell.core.trace_schemas import Trace, TraceAnswer, TraceSpan, TraceSpanData


def test_a_batch_names_the_task_of_each_item() -> None:
    body = BatchBody.model_validate_json('{"items": [{"task": "add", "payload": 1}]}')
    assert [item.task for item in body.items] == ["add"]
    with pytest.raises(ValidationError, match="task"):
        BatchBody.model_validate_json('{"items": [{"payload": 1}]}')


def test_a_numbered_item_has_a_place_from_0_on() -> None:
    line = NumberedItemBody.model_validate_json('{"index": 0, "task": "add"}')
    assert (line.index, line.task) == (0, "add")
    with pytest.raises(ValidationError, match="index"):
        NumberedItemBody.model_validate_json('{"index": -1, "task": "add"}')


def test_a_batch_is_opened_with_a_key_that_is_not_empty() -> None:
    assert BatchOpeningBody.model_validate_json('{"runCount": 2}').run_count == 2
    with pytest.raises(ValidationError, match="idempotencyKey"):
        BatchOpeningBody.model_validate_json('{"runCount": 2, "idempotencyKey": ""}')
    answer = OpenedBatchAnswer(id="batch_1", run_count=2, is_cached=False)
    assert json.loads(answer.model_dump_json(by_alias=True))["runCount"] == 2


def test_a_trace_is_a_tree_in_camel_case() -> None:
    data = TraceSpanData(message="attempt 1", start_time=datetime(2026, 3, 1, tzinfo=UTC))
    leaf = TraceSpan(id="b", parent_id="a", run_id="run_1", data=data)
    root = TraceSpan(id="a", run_id="run_1", data=data, has_children=True, children=[leaf])
    text = TraceAnswer(trace=Trace(trace_id="t", root_span=root)).model_dump_json(by_alias=True)
    read = json.loads(text)["trace"]
    assert (read["traceId"], read["isTruncated"]) == ("t", False)
    assert read["rootSpan"]["children"][0]["parentId"] == "a"
    assert read["rootSpan"]["data"]["isPartial"] is False
