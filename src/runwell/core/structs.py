"""msgspec's structs, for those who have msgspec: nothing here imports it.

A struct is written and read by msgspec alone, with all that is in it.
"""

import sys
from collections.abc import Callable
from types import ModuleType
from typing import cast


def find_msgspec() -> ModuleType | None:
    """The package, if anything has imported it: without that there are no structs."""
    return sys.modules.get("msgspec")


def is_struct_type(value: object) -> bool:
    """Whether this is a class of structs."""
    msgspec = find_msgspec()
    return msgspec is not None and isinstance(value, type) and issubclass(value, msgspec.Struct)


def struct_to_json(value: object) -> object:
    """A struct as dictionaries, lists and texts; raises TypeError for what is no struct."""
    msgspec = find_msgspec()
    if msgspec is None or not isinstance(value, msgspec.Struct):
        raise TypeError(f"{type(value).__name__} objects have no JSON form")
    to_builtins = cast("Callable[..., object]", msgspec.to_builtins)
    try:
        return to_builtins(value, str_keys=True)
    except RecursionError:
        raise TypeError("Circular reference detected, or nested too deeply") from None


def struct_from_json(value: object, kind: type) -> object:
    """A struct of this class from its JSON; raises ValueError that says what doesn't fit, where."""
    msgspec = find_msgspec()
    assert msgspec is not None
    try:
        return cast("Callable[..., object]", msgspec.convert)(value, kind)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from None


def struct_schema(kind: type) -> dict[str, object]:
    """The JSON schema of a class of structs, with those inside written out.

    A struct within itself is any value there: pydantic knows no references but its own.
    """
    msgspec = find_msgspec()
    assert msgspec is not None
    schemas, parts = cast(
        "tuple[list[object], dict[str, object]]",
        msgspec.json.schema_components([kind], ref_template="{name}"),
    )
    return cast("dict[str, object]", _written_out(schemas[0], parts, ()))


def _written_out(schema: object, parts: dict[str, object], around: tuple[str, ...]) -> object:
    if isinstance(schema, list):
        return [_written_out(part, parts, around) for part in cast("list[object]", schema)]
    if not isinstance(schema, dict):
        return schema
    name = cast("dict[str, object]", schema).get("$ref")
    if isinstance(name, str):
        return {} if name in around else _written_out(parts[name], parts, (*around, name))
    return {
        key: _written_out(part, parts, around)
        for key, part in cast("dict[str, object]", schema).items()
    }
