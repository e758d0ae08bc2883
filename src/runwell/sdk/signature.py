"""What a task's function takes and returns, and the reading and checking of values by it.

The annotation of the payload is its schema. Annotations are read when they are first needed, so
that they may name classes that stand further down in the file.
"""

import inspect
import sys
from collections.abc import Callable
from functools import cached_property
from types import FunctionType, SimpleNamespace
from typing import Final, NoReturn, cast, get_type_hints

from pydantic import ConfigDict, PydanticSchemaGenerationError, TypeAdapter, ValidationError
from pydantic.errors import PydanticInvalidForJsonSchema, PydanticUserError

from runwell.core.errors import ConfigurationError, InvalidPayloadError, TaskPayloadParsedError
from runwell.core.payloads import MAX_PAYLOAD_BYTES, Json, encode_json, encode_value, parse_json
from runwell.sdk.catalog import TaskFunction
from runwell.sdk.typed_dicts import Annotation, readable_by_pydantic

if sys.version_info >= (3, 14):
    # Annotations are evaluated late there, and may name what does not exist at runtime.
    from annotationlib import Format, get_annotations

#: A user's function that makes a payload of JSON, or raises.
Parser = Callable[[Json], object]

CONTEXT_PARAMETER: Final = "ctx"
INIT_PARAMETER: Final = "init"
_TAKES: Final = "a task takes one payload, and 'ctx' and 'init' if it wants"
_MAX_SHOWN_FAULTS = 10
_PLAIN: Final = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
# Bytes travel as base64. Annotated models that set this themselves keep what they set.
_CONFIG = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64", allow_inf_nan=False)


class Schema:
    """An annotation that reads values from JSON."""

    def __init__(self, annotation: Annotation) -> None:
        readable = cast("type[object]", readable_by_pydantic(annotation))
        self._readable = readable
        # Within a tuple, the configuration holds for dataclasses and typed dicts too.
        wrapped = cast("type[tuple[object]]", tuple.__class_getitem__((readable,)))
        self._adapter = TypeAdapter(wrapped, config=_CONFIG)

    def read(self, text: str) -> object:
        """The value of a JSON text; raises pydantic's ValidationError."""
        return self._adapter.validate_json(f"[{text}]")[0]

    def json_schema(self) -> dict[str, Json] | None:
        """The JSON schema of the values; None when JSON schema has no words for it."""
        try:
            return cast("dict[str, Json]", TypeAdapter[object](self._readable).json_schema())
        except (PydanticInvalidForJsonSchema, PydanticUserError):
            return None


class TaskSignature:
    """The parameters and the result of a task's function."""

    def __init__(
        self,
        task_id: str,
        function: TaskFunction,
        payload_type: type[object] | None = None,
        parser: Parser | None = None,
    ) -> None:
        """With a `parser`, the annotation of the payload is not looked at."""
        self._task_id = task_id
        self._payload_type = payload_type
        self._parser = parser
        self._function = cast("FunctionType", inspect.unwrap(function))
        self.payload, named = _read_parameters(task_id, function)
        self.takes_context = CONTEXT_PARAMETER in named
        self.takes_init = INIT_PARAMETER in named
        if parser is not None and self.payload is None:
            _refuse(task_id, "it has a schema and takes no payload: declare a parameter for it")

    @cached_property
    def payload_schema(self) -> Schema | None:
        """How a payload is read; None when the task takes none, or gives it no annotation."""
        if self.payload is None or self._parser is not None:
            return None
        if self.payload.annotation is inspect.Parameter.empty:
            return None if self._payload_type is None else Schema(self._payload_type)
        return self._schema(self.payload.name, f"the payload parameter '{self.payload.name}'")

    @cached_property
    def output_schema(self) -> Schema | None:
        """How an output is read back; None when the function does not say what it returns."""
        has_annotation = "return" in _annotations(self._function)
        return self._schema("return", "the result") if has_annotation else None

    def encode_payload(self, payload: object) -> str | None:
        """The JSON text of a payload that fits; None for no payload.

        Raises TaskPayloadParsedError when it does not fit the annotation, InvalidPayloadError when
        it can't be sent at all.
        """
        if payload is None and (self.payload is None or self._has_default):
            return None
        if self.payload is None:
            raise TaskPayloadParsedError(
                f"task '{self._task_id}' takes no payload, and was given one: declare a parameter "
                "for it in the task's function"
            )
        text = encode_value(payload, what="the payload", limit=MAX_PAYLOAD_BYTES)
        if self._parser is None:
            self._read_payload(text)
        else:
            self._parse(self._parser, parse_json(text))
        return None if payload is None else text

    def parse_payload(self, value: Json) -> object:
        """The payload as the function takes it; raises TaskPayloadParsedError."""
        if self.payload is None:
            return None
        if value is None and self._has_default:
            return self.payload.default
        if self._parser is not None:
            return self._parse(self._parser, value)
        return value if self.payload_schema is None else self._read_payload(encode_json(value))

    def parse_output(self, value: Json) -> object:
        """The output of a run as the type that the function says it returns."""
        if self.output_schema is None:
            return value
        try:
            return self.output_schema.read(encode_json(value))
        except ValidationError as error:
            raise InvalidPayloadError(
                f"the output does not fit what task '{self._task_id}' says it returns:\n"
                f"{_faults(error, 'output')}"
            ) from None

    def arguments(
        self, payload: object, ctx: object, init: object
    ) -> tuple[list[object], dict[str, object]]:
        """The positional and the named arguments of a call."""
        positional: list[object] = []
        named: dict[str, object] = {}
        if self.takes_context:
            named[CONTEXT_PARAMETER] = ctx
        if self.takes_init:
            named[INIT_PARAMETER] = init
        if self.payload is not None:
            if self.payload.kind is inspect.Parameter.POSITIONAL_ONLY:
                positional.append(payload)
            else:
                named[self.payload.name] = payload
        return positional, named

    @property
    def _has_default(self) -> bool:
        return self.payload is not None and self.payload.default is not inspect.Parameter.empty

    def _read_payload(self, text: str) -> object:
        if self.payload_schema is None:
            return None
        try:
            return self.payload_schema.read(text)
        except ValidationError as error:
            raise TaskPayloadParsedError(
                f"the payload does not fit task '{self._task_id}':\n{_faults(error, 'payload')}"
            ) from None

    def _parse(self, parser: Parser, value: Json) -> object:
        try:
            return parser(value)
        # Whatever the user's own parser raises.
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            raise TaskPayloadParsedError(
                f"the payload does not fit the schema of task '{self._task_id}': {reason}"
            ) from error

    def _hint(self, name: str) -> Annotation:
        # One by one: the annotation of `ctx` may name what is imported for type checkers only.
        holder = SimpleNamespace(__annotations__={name: _annotations(self._function)[name]})
        names = cast("dict[str, object]", self._function.__globals__)
        try:
            return get_type_hints(holder, globalns=names, include_extras=True)[name]
        except (NameError, TypeError, SyntaxError, AttributeError) as error:
            raise ConfigurationError(
                f"task '{self._task_id}': its annotations can't be read: {error}. They are read "
                "from the top level of the file, at runtime: import there what they name"
            ) from error

    def _schema(self, name: str, what: str) -> Schema:
        annotation = self._hint(name)
        try:
            return Schema(annotation)
        except (PydanticSchemaGenerationError, PydanticUserError, NameError) as error:
            reason = str(error).partition("\n")[0]
            shown = getattr(annotation, "__qualname__", str(annotation))
            raise ConfigurationError(
                f"task '{self._task_id}': {what} is annotated with {shown}, which can't be read "
                "from JSON: take a pydantic model, a dataclass, a TypedDict or built-in types "
                f"({reason})"
            ) from error


def _read_parameters(
    task_id: str, function: TaskFunction
) -> tuple[inspect.Parameter | None, frozenset[str]]:
    for is_wrong, kind in (
        (inspect.isgeneratorfunction, "a generator"),
        (inspect.isasyncgenfunction, "an async generator"),
        (inspect.isclass, "a class"),
    ):
        if is_wrong(function):
            _refuse(task_id, f"{kind} can't be a task: write a function that returns its result")
    if not inspect.isfunction(inspect.unwrap(function)):
        _refuse(task_id, f"{function!r} is not a function")
    parameters = _parameters(function)
    named = {name for name in (CONTEXT_PARAMETER, INIT_PARAMETER) if name in parameters}
    for name in named:
        if parameters.pop(name).kind is inspect.Parameter.POSITIONAL_ONLY:
            _refuse(task_id, f"its parameter '{name}' is given by name: not positional only")
    for name, parameter in parameters.items():
        if parameter.kind not in (*_PLAIN, inspect.Parameter.KEYWORD_ONLY):
            _refuse(task_id, f"it takes *{name}: {_TAKES}")
    if len(parameters) > 1:
        names = ", ".join(f"'{name}'" for name in parameters)
        _refuse(
            task_id,
            f"it takes {names}: {_TAKES}. Put the values into one dataclass, TypedDict or pydantic "
            "model",
        )
    return next(iter(parameters.values()), None), frozenset(named)


def _parameters(function: TaskFunction) -> dict[str, inspect.Parameter]:
    if sys.version_info >= (3, 14):
        return dict(inspect.signature(function, annotation_format=Format.FORWARDREF).parameters)
    return dict(inspect.signature(function).parameters)


def _annotations(function: TaskFunction) -> dict[str, Annotation]:
    if sys.version_info >= (3, 14):
        return get_annotations(function, format=Format.FORWARDREF)
    return cast("dict[str, Annotation]", function.__annotations__)


def _refuse(task_id: str, why: str) -> NoReturn:
    raise TypeError(f"task '{task_id}': {why}")


def _faults(error: ValidationError, root: str) -> str:
    faults = error.errors(include_url=False, include_context=False)
    lines = [
        # The first part of the place is the tuple around the value.
        f"  {_place(root, fault['loc'][1:])}: {fault['msg']} (got {_shown(fault['input'])})"
        for fault in faults[:_MAX_SHOWN_FAULTS]
    ]
    if len(faults) > _MAX_SHOWN_FAULTS:
        lines.append(f"  ... and {len(faults) - _MAX_SHOWN_FAULTS} more")
    return "\n".join(lines)


def _place(root: str, parts: tuple[int | str, ...]) -> str:
    return root + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
