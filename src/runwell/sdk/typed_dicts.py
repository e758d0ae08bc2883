"""Makes `typing.TypedDict` usable as a schema on Python 3.11.

pydantic refuses the class of the standard library before Python 3.12 and takes the one of
`typing_extensions`; users write the former, and it means the same.
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

# An annotation at runtime: a class, an alias, a special form. Typing has no word for all of them.
Annotation = object

_make_typed_dict = cast(
    "Callable[[str, dict[str, Annotation]], Annotation]", typing_extensions.TypedDict
)


def readable_by_pydantic(annotation: Annotation) -> Annotation:
    """The same annotation, with each `typing.TypedDict` in it replaced where that is needed."""
    return annotation if sys.version_info >= (3, 12) else _replaced(annotation, {})


def _replaced(annotation: Annotation, made: dict[Annotation, Annotation]) -> Annotation:
    if isinstance(annotation, type) and is_typeddict(annotation):
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
