"""Makes `typing.TypedDict` on Python 3.11, and msgspec's structs, usable as schemas.

pydantic refuses the TypedDict of the standard library before Python 3.12 and takes the one of
`typing_extensions`; users write the former, and it means the same. Structs it doesn't know.
"""

import sys
from collections.abc import Callable
from types import UnionType
from typing import (
    Annotated,
    Literal,
    NotRequired,
    Required,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

import typing_extensions
from pydantic_core import CoreSchema
from pydantic_core.core_schema import no_info_plain_validator_function

from runwell.core.structs import is_struct_type, struct_from_json, struct_schema

# An annotation at runtime: a class, an alias, a special form. Typing has no word for all of them.
Annotation = object

_make_typed_dict = cast(
    "Callable[[str, dict[str, Annotation]], Annotation]", typing_extensions.TypedDict
)


def readable_by_pydantic(annotation: Annotation) -> Annotation:
    """The same annotation, with what pydantic can't read in it replaced."""
    return _replaced(annotation, {})


class _StructReader:
    """Has pydantic read a struct by msgspec."""

    def __init__(self, kind: type) -> None:
        self._kind = kind

    def __get_pydantic_core_schema__(self, source: object, handler: object) -> CoreSchema:
        return no_info_plain_validator_function(lambda value: struct_from_json(value, self._kind))

    def __get_pydantic_json_schema__(self, schema: object, handler: object) -> dict[str, object]:
        return struct_schema(self._kind)


def _replaced(annotation: Annotation, made: dict[Annotation, Annotation]) -> Annotation:
    if is_struct_type(annotation):
        return Annotated[annotation, _StructReader(cast("type", annotation))]
    if sys.version_info < (3, 12) and isinstance(annotation, type) and is_typeddict(annotation):
        return _replaced_class(annotation, made)
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is None or origin is Literal:
        return annotation
    if origin is Annotated:
        return Annotated[_replaced(arguments[0], made), *arguments[1:]]
    parts = tuple(_replaced(part, made) for part in arguments)
    if parts == arguments:
        return annotation
    if origin is Union or origin is UnionType:
        return Union[parts]  # noqa: UP007 (the parts are known at runtime only)
    return cast("dict[tuple[Annotation, ...], Annotation]", origin)[parts]


def _replaced_class(annotation: type, made: dict[Annotation, Annotation]) -> Annotation:
    if type(annotation).__module__ != "typing":
        return annotation
    if annotation not in made:
        # Inside itself a class stands for any value: its own replacement is not there yet.
        made[annotation] = object
        required = cast("frozenset[str]", vars(annotation)["__required_keys__"])
        fields = {
            name: _field(hint, name in required, made)
            for name, hint in get_type_hints(annotation, include_extras=True).items()
        }
        made[annotation] = _make_typed_dict(annotation.__name__, fields)
    return made[annotation]


def _field(hint: Annotation, is_required: bool, made: dict[Annotation, Annotation]) -> Annotation:
    origin = get_origin(hint)
    if origin is Required or origin is NotRequired:
        is_required, hint = origin is Required, get_args(hint)[0]
    inner = _replaced(hint, made)
    return Required[inner] if is_required else NotRequired[inner]
