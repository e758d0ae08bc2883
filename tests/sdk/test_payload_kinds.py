"""What payloads and outputs may be: each kind goes to the task, and comes back, as it was."""

import enum
import json
import uuid
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Literal, NamedTuple, TypedDict

import msgspec
import pytest
from pydantic import BaseModel, ConfigDict

from runwell import ConfigurationError, Task, TaskPayloadParsedError, task


class Color(enum.Enum):
    RED = "red"
    ONE = 1


class Level(enum.IntEnum):
    LOW = 1


class Model(BaseModel):
    price: Decimal
    tags: set[int]
    color: Color = Color.RED


class Raw(BaseModel):
    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")
    data: bytes


@dataclass
class Point:
    model: Model
    when: datetime
    data: bytes


class Typed(TypedDict):
    point: Point
    level: Level
    lasts: timedelta


class Pair(NamedTuple):
    left: int
    right: bytes


class Inner(msgspec.Struct, rename="camel"):
    first_name: str
    data: bytes


class Struct(msgspec.Struct):
    when: datetime
    price: Decimal
    inner: list[Inner]


MODEL = Model(price=Decimal("1.10"), tags={1, 2})
POINT = Point(MODEL, datetime(2025, 1, 2, 3, 4, 5, 678901, tzinfo=UTC), b"\xff\x00")
STRUCT = Struct(POINT.when, Decimal("1.10"), [Inner("Ada", b"\xff")])
KINDS: list[tuple[Any, object]] = [
    (Model, MODEL),
    (Raw, Raw(data=b"\xff")),
    (Point, POINT),
    (Typed, Typed(point=POINT, level=Level.LOW, lasts=timedelta(days=1, microseconds=1))),
    (Pair, Pair(1, b"\xff")),
    (Struct, STRUCT),
    (dict[str, list[Struct]], {"a": [STRUCT]}),
    (Struct | None, STRUCT),
    (Color, Color.ONE),
    (Color | None, None),
    (uuid.UUID, uuid.UUID(int=7)),
    (Decimal, Decimal("0.10000000000000000001")),
    (datetime, POINT.when),
    (date, date(2025, 1, 2)),
    (time, time(1, 2, 3)),
    (timedelta, timedelta(seconds=1.5)),
    (bytes, bytes(range(256))),
    (set[tuple[int, str]], {(1, "a"), (2, "b")}),
    (frozenset[Color], frozenset({Color.RED})),
    (dict[int, bytes], {1: b"\xff"}),
    (tuple[int, ...], (1, 2)),
    (Literal["a", "b"], "b"),
    (float, 1e300),
    (complex, 1 + 2j),
    (int, 2**60),
]


def task_of(kind: Any) -> Task[Any, Any]:
    def echo(payload: object) -> object:
        return payload

    echo.__annotations__ = {"payload": kind, "return": kind}
    return task(id="echo")(echo)


@pytest.mark.parametrize(("kind", "value"), KINDS, ids=range(len(KINDS)))
def test_a_value_is_the_same_in_the_task_and_where_the_output_is_read(
    kind: Any, value: object
) -> None:
    echo = task_of(kind)
    text = echo.encode_payload(value)
    assert text is not None or value is None
    given = echo.parse_payload(None if text is None else json.loads(text))
    assert (type(given), given) == (type(value), value)
    output = echo.encode_output(given)
    assert output == text
    assert echo.parse_output(None if output is None else json.loads(output)) == value
    assert echo.manifest("a.py", "echo").payload_schema is not None or kind is complex


def test_a_struct_that_does_not_fit_is_refused_with_its_place() -> None:
    given: dict[str, object] = {"when": "2025-01-02T00:00:00Z", "price": 1, "inner": [{}]}
    with pytest.raises(TaskPayloadParsedError) as raised:
        task_of(Struct).encode_payload(given)
    assert "payload: Value error, Object missing required field `firstName` - at `$.inner[0]`" in (
        str(raised.value)
    )


def read_even(value: Any) -> int:
    if value["number"] % 2:
        raise ValueError("it is odd")
    return value["number"] // 2


def test_a_parser_of_ones_own_reads_payloads_before_the_trigger_and_before_the_run() -> None:
    @task(id="halve", schema=read_even)
    def halve(half: Any) -> int:
        return half

    assert halve.encode_payload({"number": 4}) == '{"number":4}'
    assert halve.parse_payload({"number": 4}) == 2
    for read in (halve.encode_payload, halve.parse_payload):
        with pytest.raises(
            TaskPayloadParsedError,
            match="the payload does not fit the schema of task 'halve': ValueError: it is odd",
        ) as raised:
            read({"number": 3})
        assert isinstance(raised.value.__cause__, ValueError)
        with pytest.raises(TaskPayloadParsedError, match="KeyError: 'number'"):
            read({})
    assert halve.manifest("a.py", "halve").payload_schema is None


@pytest.mark.parametrize("schema", [Model, list[Model]])
def test_a_type_is_the_schema_of_a_payload_without_an_annotation(schema: Any) -> None:
    def show(payload):  # type: ignore[no-untyped-def] # a function without annotations
        return payload  # pyright: ignore[reportUnknownVariableType] (without annotations)

    shown = task(id="show", schema=schema)(show)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType] (without annotations)
    value = MODEL if schema is Model else [MODEL]
    assert shown.parse_payload(json.loads(shown.encode_payload(value) or "")) == value


def test_a_schema_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="schema='a': it takes a function of the payload, or a"):
        task(id="a", schema="a")  # pyright: ignore[reportArgumentType] (what is refused)

    def bare() -> None: ...

    with pytest.raises(TypeError, match="has a schema and takes no payload"):
        task(id="a", schema=read_even)(bare)


def test_an_annotation_without_a_json_form_is_named() -> None:
    with pytest.raises(ConfigurationError, match="annotated with range, which can't be read"):
        task_of(range).encode_payload([1])
