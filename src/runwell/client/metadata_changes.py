"""Changes of metadata as callers write them: one method for each operation, each giving itself."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Self, cast

from pydantic import ValidationError

from runwell.core.metadata import (
    AppendOperation,
    DeleteOperation,
    IncrementOperation,
    Operation,
    RemoveOperation,
    SetOperation,
    UpdateOperation,
)
from runwell.core.payloads import MAX_METADATA_BYTES, Json, encode_value, parse_json
from runwell.core.schemas import MetadataBody


class MetadataWriter(ABC):
    """The methods that change metadata; `_add` says what becomes of an operation."""

    def set(self, key: str, value: object) -> Self:
        """Assign a value, which may be anything that has a JSON form.

        Here and below, a key that begins with `$.` is a path: `$.steps[0].name`.
        """
        return self._keyed("set", key, value)

    def delete(self, key: str) -> Self:
        """Remove a key, if it is there."""
        return self._keyed("delete", key)

    def append(self, key: str, value: object) -> Self:
        """Add a value to a list; what is no list yet becomes one."""
        return self._keyed("append", key, value)

    def remove(self, key: str, value: object) -> Self:
        """Drop the elements of a list that equal a value."""
        return self._keyed("remove", key, value)

    def increment(self, key: str, value: float = 1) -> Self:
        """Add to a number; what is no number counts as 0."""
        return self._keyed("increment", key, value)

    def decrement(self, key: str, value: float = 1) -> Self:
        """Subtract from a number; what is no number counts as 0."""
        return self._keyed("increment", key, -value)

    def replace(self, value: Mapping[str, object]) -> Self:
        """Put an object in the place of all metadata."""
        if not self._has_use:
            return self
        if not isinstance(cast("object", value), Mapping):
            raise ValueError(f"metadata={value!r}: it takes a dict, which becomes a JSON object")
        self._add(UpdateOperation(value=cast("dict[str, Json]", _read_value("metadata", value))))
        return self

    def _keyed(self, kind: str, key: str, value: object = None) -> Self:
        if self._has_use:
            self._add(_make(kind, key, value))
        return self

    @property
    def _has_use(self) -> bool:
        """Whether there is anything to change."""
        return True

    @abstractmethod
    def _add(self, operation: Operation) -> None:
        """Take a change."""


class MetadataChanges(MetadataWriter):
    """Changes of a run's metadata, to be sent by `runs.update_metadata`.

    `parent` and `root` collect changes of the runs above it; all apply together or not at all.

    Example:
        >>> from runwell import MetadataChanges, runs
        >>> async def note_delivery(run_id: str) -> None:
        ...     changes = MetadataChanges().set("state", "delivered").append("log", "at the door")
        ...     changes.root.increment("delivered")
        ...     await runs.update_metadata(run_id, changes)
    """

    def __init__(self) -> None:
        self._operations: list[Operation] = []
        self.parent: MetadataWriter = _Part()
        self.root: MetadataWriter = _Part()

    def to_body(self) -> MetadataBody:
        """The form that the API takes."""
        return MetadataBody(
            operations=self._operations,
            parent_operations=_operations_of(self.parent),
            root_operations=_operations_of(self.root),
        )

    def _add(self, operation: Operation) -> None:
        self._operations.append(operation)


class _Part(MetadataWriter):
    def __init__(self) -> None:
        self.operations: list[Operation] = []

    def _add(self, operation: Operation) -> None:
        self.operations.append(operation)


def _operations_of(part: MetadataWriter) -> list[Operation]:
    return part.operations if isinstance(part, _Part) else []


def _make(kind: str, key: str, value: object) -> Operation:
    try:
        match kind:
            case "set":
                return SetOperation(key=key, value=_read_value(key, value))
            case "append":
                return AppendOperation(key=key, value=_read_value(key, value))
            case "remove":
                return RemoveOperation(key=key, value=_read_value(key, value))
            case "increment":
                return IncrementOperation(key=key, value=cast("float", value))
            case _:
                return DeleteOperation(key=key)
    except ValidationError as error:
        first = error.errors()[0]
        reason = first["msg"].removeprefix("Value error, ")
        raise ValueError(f"metadata {first['loc'][-1]} {first['input']!r}: {reason}") from None


def _read_value(key: str, value: object) -> Json:
    what = f"the metadata {key!r}"
    return parse_json(encode_value(value, what=what, limit=MAX_METADATA_BYTES), what=what)
