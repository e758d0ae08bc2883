"""Changes of metadata: what each operation does, alone and after others."""

import copy
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from runwell.core.metadata import (
    AppendOperation,
    DeleteOperation,
    IncrementOperation,
    Operation,
    RemoveOperation,
    SetOperation,
    UpdateOperation,
    apply_operations,
    merge_operation,
    parse_path,
)
from runwell.core.payloads import Json

ADAPTER: TypeAdapter[Operation] = TypeAdapter(Operation)


def _read(text: str) -> Operation:
    return ADAPTER.validate_python(json.loads(text))


@pytest.mark.parametrize(
    ("before", "operation", "after"),
    [
        ({}, '{"type": "set", "key": "a", "value": {"n": 1}}', {"a": {"n": 1}}),
        ({"a": 1}, '{"type": "set", "key": "a", "value": null}', {"a": None}),
        ({"a": 1, "b": 2}, '{"type": "delete", "key": "a"}', {"b": 2}),
        ({}, '{"type": "delete", "key": "a"}', {}),
        ({"$.a": 1, "a": 2}, '{"type": "delete", "key": "$.a"}', {"a": 2}),
        ({}, '{"type": "append", "key": "a", "value": 1}', {"a": [1]}),
        ({"a": [1]}, '{"type": "append", "key": "a", "value": [2]}', {"a": [1, [2]]}),
        ({"a": "x"}, '{"type": "append", "key": "a", "value": 1}', {"a": ["x", 1]}),
        (
            {"a": [1, True, 1.0, "1"]},
            '{"type": "remove", "key": "a", "value": 1}',
            {"a": [True, "1"]},
        ),
        ({"a": [[{"b": 1}]]}, '{"type": "remove", "key": "a", "value": [{"b": 1}]}', {"a": []}),
        ({"a": 1}, '{"type": "remove", "key": "a", "value": 1}', {"a": 1}),
        ({}, '{"type": "remove", "key": "a", "value": 1}', {}),
        ({"a": 0.5}, '{"type": "increment", "key": "a", "value": 0.25}', {"a": 0.75}),
        ({"a": 5}, '{"type": "increment", "key": "a", "value": -7}', {"a": -2}),
        ({"a": "5"}, '{"type": "increment", "key": "a", "value": 1}', {"a": 1}),
        ({"a": True}, '{"type": "increment", "key": "a", "value": 1}', {"a": 1}),
        ({}, '{"type": "increment", "key": "a"}', {"a": 1}),
        ({"a": 1.7e308}, '{"type": "increment", "key": "a", "value": 1.7e308}', {"a": 1.7e308}),
        ({"a": 1}, '{"type": "update", "value": {"b": 2}}', {"b": 2}),
        ({}, '{"type": "set", "key": "$.a.b[0].c", "value": 1}', {"a": {"b": [{"c": 1}]}}),
        ({"a": {"b": 1}}, '{"type": "increment", "key": "$.a.b"}', {"a": {"b": 2}}),
        ({"a": {"b": [1]}}, '{"type": "append", "key": "$.a.b", "value": 2}', {"a": {"b": [1, 2]}}),
        ({"a": [1, 2]}, '{"type": "set", "key": "$.a[1]", "value": 3}', {"a": [1, 3]}),
        ({"a": [1, 2]}, '{"type": "set", "key": "$.a[7]", "value": 3}', {"a": [1, 2]}),
        ({"a": [1, 2]}, '{"type": "set", "key": "$.a.b", "value": 3}', {"a": [1, 2]}),
        ({"a": 1}, '{"type": "set", "key": "$.a.b", "value": 3}', {"a": {"b": 3}}),
        ({"a": 1}, '{"type": "remove", "key": "$.a.b", "value": 3}', {"a": 1}),
        ({}, '{"type": "set", "key": "$.x[\'a.b\']", "value": 1}', {"x": {"a.b": 1}}),
        ({}, '{"type": "set", "key": "a.b", "value": 1}', {"a.b": 1}),
    ],
)
def test_an_operation_does_what_is_documented(
    before: dict[str, Json], operation: str, after: dict[str, Json]
) -> None:
    given_before = copy.deepcopy(before)
    found = apply_operations(before, [_read(operation)])
    assert json.dumps(found) == json.dumps(after)
    assert before == given_before


@pytest.mark.parametrize(
    "text",
    [
        '{"type": "set", "key": "", "value": 1}',
        '{"type": "set", "value": 1}',
        '{"type": "increment", "key": "a", "value": "1"}',
        '{"type": "increment", "key": "a", "value": true}',
        '{"type": "update", "value": [1]}',
        '{"type": "set", "key": "$.", "value": 1}',
        '{"type": "set", "key": "$.a[b]", "value": 1}',
        '{"type": "set", "key": "$.a..b", "value": 1}',
        '{"type": "destroy", "key": "a"}',
    ],
)
def test_what_is_no_operation_is_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        ADAPTER.validate_json(text)


def test_a_path_is_read_step_by_step() -> None:
    assert parse_path("$.a.b[0]['c d'][\"e.f\"]") == ["a", "b", 0, "c d", "e.f"]


_keys = st.sampled_from(["a", "b", "$.a.b", "$.b[0]"])
_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text("xy", max_size=2),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("ab"), inner),
    max_leaves=4,
)
_operations = st.lists(
    st.one_of(
        st.builds(SetOperation, key=_keys, value=_values),
        st.builds(AppendOperation, key=_keys, value=_values),
        st.builds(RemoveOperation, key=_keys, value=_values),
        st.builds(IncrementOperation, key=_keys, value=st.integers(-5, 5)),
        st.builds(DeleteOperation, key=_keys),
        st.builds(UpdateOperation, value=st.dictionaries(st.sampled_from("ab"), _values)),
    ),
    max_size=8,
)


@given(_operations, st.dictionaries(st.sampled_from("ab"), _values))
def test_merged_operations_do_what_they_did_one_by_one(
    operations: list[Operation], before: dict[str, Json]
) -> None:
    merged: list[Operation] = []
    for operation in operations:
        merge_operation(merged, operation)
    assert len(merged) <= len(operations)
    assert apply_operations(before, merged) == apply_operations(before, operations)
    # Also when they travel, and in two parts.
    sent = [ADAPTER.validate_json(ADAPTER.dump_json(one, by_alias=True)) for one in operations]
    half = apply_operations(before, sent[:3])
    assert apply_operations(half, sent[3:]) == apply_operations(before, operations)
