"""Changes of a run's metadata, as pure functions (docs `runs/metadata.md`, `protocol.md` 3.5).

Operations apply in their order, each to what the one before left. A key that begins with `$.` is a
path into what is nested (`$.steps[0].name`), for all of them but `delete` and `update`. An
operation that can't do anything where it points to has no effect.
"""

import copy
import itertools
import math
import re
from collections.abc import Sequence
from typing import Annotated, Literal, assert_never, cast

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator
from pydantic.alias_generators import to_camel

from runwell.core.payloads import Json

Metadata = dict[str, Json]
#: Whose metadata is changed: the run's own, that of its parent, or of its root.
Target = Literal["run", "parent", "root"]

MAX_KEY_CHARACTERS = 512
#: A list grows by one element at most: an index beyond its end has no effect.
_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d{1,6})\]|\['([^']*)'\]|\[\"([^\"]*)\"\]")

Key = Annotated[str, StringConstraints(min_length=1, max_length=MAX_KEY_CHARACTERS)]


class _Operation(BaseModel):
    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, frozen=True, extra="ignore"
    )


class _Keyed(_Operation):
    key: Key

    @field_validator("key")
    @classmethod
    def _check_path(cls, key: str) -> str:
        if is_path(key):
            parse_path(key)
        return key


class SetOperation(_Keyed):
    """Assign a value to a key."""

    type: Literal["set"] = "set"
    value: Json


class DeleteOperation(_Operation):
    """Remove a key, taken literally."""

    type: Literal["delete"] = "delete"
    key: Key


class AppendOperation(_Keyed):
    """Add a value to a list; what is no list becomes one."""

    type: Literal["append"] = "append"
    value: Json


class RemoveOperation(_Keyed):
    """Drop the elements of a list that equal a value."""

    type: Literal["remove"] = "remove"
    value: Json


class IncrementOperation(_Keyed):
    """Add to a number; what is no number counts as 0."""

    type: Literal["increment"] = "increment"
    value: int | float = 1

    @field_validator("value", mode="before")
    @classmethod
    def _check_number(cls, value: object) -> object:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or _add(cast("float", value), 0.0) is None:
            raise ValueError("a number is needed here")
        return value


class UpdateOperation(_Operation):
    """Put an object in the place of all metadata."""

    type: Literal["update"] = "update"
    value: dict[str, Json]


Operation = Annotated[
    SetOperation
    | DeleteOperation
    | AppendOperation
    | RemoveOperation
    | IncrementOperation
    | UpdateOperation,
    Field(discriminator="type"),
]


def apply_operations(metadata: Metadata | None, operations: Sequence[Operation]) -> Metadata:
    """The metadata after these operations; what was given stays as it is.

    >>> apply_operations({"a": 1}, [IncrementOperation(key="a", value=2)])
    {'a': 3}
    """
    changed: Metadata = copy.deepcopy(metadata or {})
    for operation in operations:
        change_in_place(changed, operation)
    return changed


def change_in_place(metadata: Metadata, operation: Operation) -> None:
    """Apply one operation to what is given."""
    if isinstance(operation, UpdateOperation):
        metadata.clear()
        metadata.update(copy.deepcopy(operation.value))
    elif isinstance(operation, DeleteOperation):
        metadata.pop(operation.key, None)
    else:
        _apply_at(metadata, operation)


def merge_operation(pending: list[Operation], operation: Operation) -> None:
    """Add an operation to a list that is yet to be applied, in place of the last if that is so.

    Two values set one after the other are the second one; two increments are one.
    """
    last = pending[-1] if pending else None
    match last, operation:
        case SetOperation(), SetOperation() if last.key == operation.key:
            pending[-1] = operation
        case IncrementOperation(), IncrementOperation() if last.key == operation.key:
            value = _add(last.value, operation.value)
            if value is None:
                pending.append(operation)
            else:
                pending[-1] = IncrementOperation(key=last.key, value=value)
        case _, UpdateOperation():
            pending[:] = [operation]
        case _:
            pending.append(operation)


def is_path(key: str) -> bool:
    """Whether a key is a path into what is nested."""
    return key.startswith("$.")


def parse_path(key: str) -> list[str | int]:
    """The steps of a path; raises ValueError for what is none.

    >>> parse_path("$.steps[0].name")
    ['steps', 0, 'name']
    """
    steps: list[str | int] = []
    at = 1
    while at < len(key):
        match = _STEP.match(key, at)
        if match is None:
            raise ValueError(
                f"{key[:64]!r} is no path: write '$.name', '$.a.b' or '$.list[0].name'; the rest "
                f"from {key[at : at + 16]!r} on can't be read"
            )
        name, index, single, double = match.groups()
        steps.append(int(index) if index is not None else name or single or double or "")
        at = match.end()
    return steps


def _apply_at(
    metadata: Metadata,
    operation: SetOperation | AppendOperation | RemoveOperation | IncrementOperation,
) -> None:
    steps: list[str | int] = (
        parse_path(operation.key) if is_path(operation.key) else [operation.key]
    )
    creates = not isinstance(operation, RemoveOperation)
    place = _find_place(metadata, steps, creates=creates)
    if place is None:
        return
    holder, step = place
    old = _get(holder, step)
    match operation:
        case SetOperation():
            _put(holder, step, copy.deepcopy(operation.value))
        case AppendOperation():
            value = copy.deepcopy(operation.value)
            if isinstance(old, list):
                old.append(value)
            else:
                _put(holder, step, [value] if old is None else [old, value])
        case RemoveOperation():
            if isinstance(old, list):
                old[:] = [one for one in old if not _equals(one, operation.value)]
        case IncrementOperation():
            is_number = isinstance(old, int | float) and not isinstance(old, bool)
            value = _add(cast("float", old) if is_number else 0, operation.value)
            if value is not None:
                _put(holder, step, value)
        case _:
            assert_never(operation)


def _find_place(
    metadata: Metadata, steps: Sequence[str | int], *, creates: bool
) -> tuple[dict[str, Json] | list[Json], str | int] | None:
    """Where the last step leads into; None when there is no such place."""
    holder: dict[str, Json] | list[Json] = metadata
    for step, following in itertools.pairwise(steps):
        inner = _get(holder, step)
        if not isinstance(inner, dict | list):
            if not creates or not _fits(holder, step):
                return None
            inner = cast("dict[str, Json] | list[Json]", [] if isinstance(following, int) else {})
            _put(holder, step, inner)
        holder = inner
    return (holder, steps[-1]) if _fits(holder, steps[-1]) else None


def _fits(holder: dict[str, Json] | list[Json], step: str | int) -> bool:
    if isinstance(holder, list):
        return isinstance(step, int) and step <= len(holder)
    return isinstance(step, str)


def _get(holder: dict[str, Json] | list[Json], step: str | int) -> Json:
    if isinstance(holder, list):
        return holder[step] if isinstance(step, int) and step < len(holder) else None
    return holder.get(step) if isinstance(step, str) else None


def _put(holder: dict[str, Json] | list[Json], step: str | int, value: Json) -> None:
    if isinstance(holder, dict):
        holder[cast("str", step)] = value
    elif cast("int", step) == len(holder):
        holder.append(value)
    else:
        holder[cast("int", step)] = value


def _add(one: float, other: float) -> float | None:
    """The sum; None when it is beyond what JSON's readers take."""
    try:
        value = one + other
        return value if math.isfinite(value) else None
    except OverflowError:
        return None


def _equals(one: Json, other: Json) -> bool:
    """Whether two JSON values are the same: `true` is not 1."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_equals, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_equals(one[key], other[key]) for key in one)
    return one == other
