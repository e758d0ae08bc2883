"""Values of Python as JSON: models, dataclasses, dates, and what has no such form."""

import dataclasses
import enum
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, model_serializer

from runwell.core.errors import InvalidPayloadError
from runwell.core.payloads import MAX_DEPTH, Json, encode_value, parse_json

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"))
json_values: st.SearchStrategy[Json] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda children: st.lists(children) | st.dictionaries(texts, children),
    max_leaves=20,
)


class Color(enum.Enum):
    """Something with a value."""

    RED = "red"


class Model(BaseModel):
    """Something with another name on the wire."""

    first_name: str = Field(serialization_alias="firstName")


@dataclasses.dataclass
class Point:
    """Something with fields."""

    x: int
    y: object


class Odd:
    """Something without a JSON form."""

    def __init__(self, inside: object = None) -> None:
        self.inside = inside


class Struct(msgspec.Struct):
    """Something of msgspec."""

    number: int
    inside: object


class Holder(BaseModel):
    """Something that has bytes."""

    good: bytes
    bad: bytes


class Failing(BaseModel):
    """Something whose own serialiser raises."""

    @model_serializer
    def fail(self) -> str:
        raise ValueError("broken")


NOON = datetime(2025, 3, 13, 12, tzinfo=UTC)


def encode(value: object, limit: int = 1000) -> str:
    return encode_value(value, what="the output", limit=limit)


@given(json_values)
def test_a_json_value_reads_back_as_it_was(value: Json) -> None:
    assert parse_json(encode(value, 10**6)) == value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Model(first_name="Ada"), '{"firstName":"Ada"}'),
        (Point(1, [2]), '{"x":1,"y":[2]}'),
        (Color.RED, '"red"'),
        (datetime(2025, 3, 13, 12, tzinfo=UTC), '"2025-03-13T12:00:00Z"'),
        (date(2025, 3, 13), '"2025-03-13"'),
        (timedelta(hours=1), '"PT1H"'),
        (Decimal("1.50"), '"1.50"'),
        (UUID(int=1), '"00000000-0000-0000-0000-000000000001"'),
        (Path("a/b"), '"a/b"'),
        ((1, 2), "[1,2]"),
        ({3}, "[3]"),
        (b"\xff\xfe", '"__4="'),
        ("Žofie", '"Žofie"'),
        ("the word NaN", '"the word NaN"'),
        ("Infinity and []{}" * 20, '"' + "Infinity and []{}" * 20 + '"'),
        (r"\u0000", r'"\\u0000"'),
        (Struct(1, Struct(2, b"\xff\xfe")), '{"number":1,"inside":{"number":2,"inside":"//4="}}'),
        ([Struct(1, {"a": NOON})], '[{"number":1,"inside":{"a":"2025-03-13T12:00:00Z"}}]'),
        (None, "null"),
    ],
)
def test_a_value_has_its_plain_json_form(value: object, text: str) -> None:
    assert encode(value) == text


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (Odd(), "the output can't be sent: Odd objects have no JSON form"),
        ({"a": [1, Odd()]}, r"the output at a\[1\] can't be sent: Odd objects"),
        ((1, {"b": Odd()}), r"the output at \[1\]\.b can't be sent: Odd objects"),
        (Point(1, Odd()), r"the output at y can't be sent: Odd objects"),
        ([Odd], r"the output at \[0\] can't be sent: type objects"),
        ({"a": {1, Odd()}}, r"the output at a\{\} can't be sent: Odd objects"),
        ({"a": {(1, Odd()): 2}}, r"a key of the output at a can't be sent: tuple objects can't be"),
        ({"a": Struct(1, Odd())}, r"the output at a\.inside can't be sent: Odd objects"),
        (
            {"a": [Holder(good=b"text", bad=b"\xff")]},
            r"the output at a\[0\]\.bad can't be sent: Holder writes bytes as text.* ConfigDict\(",
        ),
        ({"a": Failing()}, "the output at a can't be sent: .*broken"),
        ({"a": float("nan")}, "the output has nan at a: not a JSON number"),
        ([float("inf")], r"the output has inf at \[0\]: not a JSON number"),
        ({"a": "\x00"}, "the output at a contains a NUL character"),
        ({"a": "\ud800"}, "the output at a can't be sent: .*surrogate"),
    ],
)
def test_what_has_no_json_form_is_named_with_its_place(value: object, message: str) -> None:
    with pytest.raises(InvalidPayloadError, match=message):
        encode(value)


def test_a_value_in_itself_is_refused() -> None:
    value: list[object] = []
    value.append(value)
    with pytest.raises(
        InvalidPayloadError, match=r"the output can't be sent: .*Circular reference"
    ):
        encode(value)


def test_a_struct_in_itself_is_refused() -> None:
    value = Struct(1, None)
    value.inside = value
    with pytest.raises(InvalidPayloadError, match=r"the output can't be sent: .*Circular"):
        encode(value)


def test_a_value_that_is_too_deep_is_refused() -> None:
    value: object = 1
    for _ in range(MAX_DEPTH + 1):
        value = [value]
    with pytest.raises(InvalidPayloadError, match="the output is nested deeper than 200 levels"):
        encode(value)


def test_a_value_that_is_too_large_says_by_how_much_and_what_to_do() -> None:
    with pytest.raises(InvalidPayloadError) as raised:
        encode("é" * 1000)
    assert str(raised.value) == (
        "the output is 2,002 bytes of JSON, and at most 1,000 are accepted: "
        "store it elsewhere and pass a reference"
    )
