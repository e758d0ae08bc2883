"""Tasks: what a function may take, and how payloads and outputs become JSON and come back."""

import asyncio
import enum
import functools
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from types import CoroutineType
from typing import Annotated, Any, Literal, NotRequired, TypedDict, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from runwell import RunContext, Task, task
from runwell.core.errors import ConfigurationError, InvalidPayloadError, TaskPayloadParsedError
from runwell.core.payloads import Json, parse_json
from runwell.core.protocol import TaskManifest
from tests.sdk.contexts import make_context

CONTEXT = make_context()


class Color(enum.Enum):
    """Something with a value."""

    RED = "red"


class Line(TypedDict):
    """A part of an order."""

    name: str
    count: NotRequired[int]


class Order(TypedDict, total=False):
    """Something with parts of its own kind."""

    lines: list[Line]
    data: bytes


@dataclass
class Point:
    """Something with fields."""

    x: int
    at: datetime
    raw: bytes = b""


class Address(BaseModel):
    """Something with another name on the wire."""

    street: str = Field(alias="streetName")
    strict_day: Annotated[date, Field(strict=True)] = date(2025, 1, 1)


def make_task(annotation: object) -> Task[object, object]:
    def run(payload: object) -> object:
        return payload

    run.__annotations__ = {"payload": annotation, "return": annotation}
    return task(id="t")(run)


def make_from(function: object) -> Task[object, object]:
    """A task of a function whose type `@task` does not take, or is not asked about."""
    return cast("Callable[[object], Task[object, object]]", task(id="t"))(function)


def through_json(made: Task[object, object], value: object) -> object:
    """What the function gets when `value` is triggered with."""
    text = made.encode_payload(value)
    return made.parse_payload(None if text is None else parse_json(text))


NOW = datetime(2025, 1, 2, 3, 4, 5, 678_000, tzinfo=UTC)


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (int, 5),
        (int, 10**30),
        (float, 1.5),
        (bool, True),
        (str, "Žofie"),
        (str | None, None),
        (list[int], [1, 2]),
        (tuple[int, str], (1, "a")),
        (set[int], {1, 2}),
        (frozenset[str], frozenset({"a"})),
        (dict[str, list[int]], {"a": [1]}),
        (dict[int, str], {1: "a"}),
        (bytes, b"\x00\xff\xfe"),
        (list[bytes], [b"\xff"]),
        (datetime, NOW),
        (date, date(2025, 1, 2)),
        (timedelta, timedelta(days=1, seconds=2)),
        (Decimal, Decimal("1.10")),
        (uuid.UUID, uuid.UUID(int=5)),
        (Color, Color.RED),
        (Literal["a", "b"], "a"),
        (Point, Point(1, NOW, b"\xff")),
        (list[Point], [Point(1, NOW)]),
        (Address, Address(streetName="Main", strict_day=date(2025, 3, 1))),
        (Address | int, 5),
        (Line, {"name": "a"}),
        (Order, {"lines": [{"name": "a", "count": 2}], "data": b"\xff"}),
        (Order | None, {}),
        (dict[str, Line], {"a": {"name": "b"}}),
        (Annotated[int, Field(gt=3)], 5),
        (object, {"a": [1, None]}),
        (Any, "x"),
        (None, None),
    ],
)
def test_a_payload_arrives_as_its_annotation_says(annotation: object, value: object) -> None:
    made = make_task(annotation)
    arrived = through_json(made, value)
    assert arrived == value
    assert type(arrived) is type(value)
    output = made.encode_output(value)
    assert made.parse_output(None if output is None else parse_json(output)) == value


@given(
    st.builds(
        Point,
        x=st.integers(),
        at=st.datetimes(timezones=st.just(UTC)),
        raw=st.binary(max_size=50),
    )
)
def test_any_dataclass_comes_back_as_it_was(point: Point) -> None:
    assert through_json(POINT_TASK, point) == point


POINT_TASK = make_task(Point)


@pytest.mark.parametrize(
    ("annotation", "value", "place"),
    [
        (int, "five", "payload: Input should be a valid integer"),
        (int, None, "payload: Input should be a valid integer"),
        (Line, {"count": 1}, "payload.name: Field required"),
        (Order, {"lines": [{"name": "a"}, {"name": 5}]}, r"payload.lines\[1\].name: .* \(got 5\)"),
        (Point, {"x": 1}, "payload.at: Field required"),
        (Address, {"street": 5}, "payload.streetName: Field required"),
        (dict[str, int], {"a": "x" * 500}, r"payload.a: .*\.\.\.\)"),
        (Annotated[int, Field(gt=3)], 2, "payload: Input should be greater than 3"),
        (float, "nan", "payload: Input should be a finite number"),
        (list[int], [None] * 50, "... and 40 more"),
    ],
)
def test_a_payload_that_does_not_fit_is_refused_with_its_place(
    annotation: object, value: Json, place: str
) -> None:
    made = make_task(annotation)
    with pytest.raises(TaskPayloadParsedError, match=f"does not fit task 't':\n(.*\n)*.*{place}"):
        made.encode_payload(value)
    with pytest.raises(TaskPayloadParsedError, match=place):
        made.parse_payload(value)


def test_a_payload_that_has_no_json_form_is_refused() -> None:
    for value in (object(), float("nan"), {"a": "\x00"}):
        with pytest.raises(InvalidPayloadError, match="the payload"):
            make_task(object).encode_payload(value)


def test_an_output_that_does_not_fit_the_annotation_is_refused() -> None:
    with pytest.raises(InvalidPayloadError, match="the output does not fit what task 't' says"):
        make_task(int).parse_output("five")


def test_an_output_of_more_than_ten_megabytes_is_refused() -> None:
    with pytest.raises(InvalidPayloadError, match="the output is 11,000,002 bytes"):
        make_task(str).encode_output("x" * 11_000_000)


def test_a_task_without_annotations_takes_any_json() -> None:
    @task(id="t")
    def run(payload):  # pyright: ignore[reportUnknownParameterType, reportMissingParameterType] (what is tested)
        return payload  # pyright: ignore[reportUnknownVariableType]

    made = cast("Task[object, object]", run)
    assert through_json(made, {"a": [1]}) == {"a": [1]}
    assert made.parse_output([1]) == [1]
    assert made.manifest("a.py", "run").payload_schema is None


def test_a_function_is_called_with_what_it_declares() -> None:
    @task(id="bare")
    def bare() -> object:
        return "bare"

    @task(id="context")
    def context(ctx: RunContext) -> object:
        return ctx

    @task(id="both")
    def both(payload: int, ctx: RunContext) -> object:
        return payload, ctx

    def backwards(ctx: RunContext, payload: int) -> object:
        return payload, ctx

    def named(*, payload: int) -> object:
        return payload

    @task(id="placed")
    def placed(payload: int, /, *, ctx: RunContext) -> object:
        return payload, ctx

    assert bare.call(None, CONTEXT) == "bare"
    assert context.call(None, CONTEXT) is CONTEXT
    assert both.call(5, CONTEXT) == (5, CONTEXT)
    assert make_from(backwards).call(5, CONTEXT) == (5, CONTEXT)
    assert make_from(named).call(5, CONTEXT) == 5
    assert placed.call(5, CONTEXT) == (5, CONTEXT)


def test_an_async_function_gives_its_coroutine() -> None:
    @task(id="t")
    async def run(payload: int) -> int:
        return payload + 1

    assert run.is_async
    coroutine = cast("CoroutineType[object, object, int]", run.call(1, CONTEXT))
    assert coroutine.cr_code is run.function.__code__
    assert asyncio.run(coroutine) == 2


def test_a_default_stands_in_for_a_payload_that_is_not_given() -> None:
    @task(id="t")
    def run(name: str = "world") -> str:
        return name

    assert run.encode_payload(None) is None
    assert run.parse_payload(None) == "world"
    assert through_json(cast("Task[object, object]", run), "Ada") == "Ada"


def test_a_task_without_a_payload_refuses_one_from_python_and_drops_one_from_elsewhere() -> None:
    @task(id="t")
    def run() -> None: ...

    with pytest.raises(TaskPayloadParsedError, match="task 't' takes no payload"):
        run.encode_payload({"a": 1})
    assert run.parse_payload({"a": 1}) is None


def generator() -> object:
    yield


async def async_generator() -> object:
    yield


def two(a: int, b: int) -> None: ...


def many(*a: int) -> None: ...


def any_named(**a: int) -> None: ...


def placed_context(a: int, ctx: RunContext, /) -> None: ...


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (two, "it takes 'a', 'b': a task takes one payload"),
        (many, r"it takes \*a: a task takes one payload"),
        (any_named, r"it takes \*a: a task takes one payload"),
        (placed_context, "'ctx' is given by name"),
        (generator, "a generator can't be a task"),
        (async_generator, "an async generator can't be a task"),
        (Point, "a class can't be a task"),
        (functools.partial(two, 1), "is not a function"),
        (5, "5 is not a function"),
        (len, "is not a function"),
    ],
)
def test_what_can_be_no_task_is_refused_where_it_is_defined(function: object, message: str) -> None:
    with pytest.raises(TypeError, match=f"task 't': .*{message}"):
        make_from(function)


def test_a_wrapped_function_keeps_its_signature() -> None:
    def logged(function: Callable[[int], int]) -> Callable[[int], int]:
        @functools.wraps(function)
        def around(*args: int, **kwargs: int) -> int:
            return function(*args, **kwargs)

        return around

    @task(id="t")
    @logged
    def run(payload: int) -> int:
        return payload + 1

    assert run.call(run.parse_payload(1), CONTEXT) == 2
    with pytest.raises(TaskPayloadParsedError):
        run.parse_payload("x")


def test_a_task_shows_what_its_function_is() -> None:
    assert (documented.__name__, documented.__doc__) == ("documented", "What it does.")
    assert documented.__module__ == __name__
    assert documented.function() == 1
    assert repr(documented) == "<Task 'documented'>"


@task(id="documented")
def documented() -> int:
    """What it does."""
    return 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"id": ""}, "id=''"),
        ({"id": "a" * 257}, "id="),
        ({"id": "a\nb"}, "id="),
        ({"id": 5}, "id=5"),
        ({"id": "t", "machine": "huge"}, "machine='huge' is not a machine preset: choose one of"),
        ({"id": "t", "max_duration": 1}, "max_duration=1: it takes at least 5 seconds"),
        ({"id": "t", "ttl": "soon"}, "ttl: 'soon' is not a duration"),
        ({"id": "t", "retry": 3}, "retry=3: it takes Retry"),
        ({"id": "t", "queue": "q"}, "queue='q': it takes Queue"),
    ],
)
def test_a_bad_option_is_refused_with_its_name(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        task(**options)


@pytest.mark.parametrize("options", [{}, {"id": "t", "out_of_memory": 1}, {"id": "t", "cron": "*"}])
def test_an_unknown_or_missing_option_is_a_type_error(options: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        task(**options)


def test_a_manifest_says_what_the_server_needs_to_know() -> None:
    made = make_task(Order)
    manifest = made.manifest("trigger/a.py", "run")
    assert (manifest.id, manifest.file_path, manifest.export_name) == ("t", "trigger/a.py", "run")
    assert manifest.payload_schema is not None
    assert "lines" in cast("dict[str, object]", manifest.payload_schema["properties"])
    sent = manifest.model_dump_json(by_alias=True, exclude_none=True)
    assert TaskManifest.model_validate_json(sent) == manifest


def test_a_payload_without_words_in_json_schema_has_no_schema() -> None:
    made = make_task(Callable[[], int])
    with pytest.raises((ConfigurationError, TaskPayloadParsedError)):
        made.parse_payload(1)
    assert made.manifest("a.py", "run").payload_schema is None
