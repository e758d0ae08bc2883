"""What may travel as payload, output or metadata, and what is refused with its place."""

import contextlib
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runwell.core.errors import InvalidPayloadError
from runwell.core.payloads import (
    JSON_TYPE,
    MAX_DEPTH,
    SUPER_JSON_TYPE,
    TEXT_TYPE,
    Json,
    check_json,
    check_text,
    decode_packet,
    encode_json,
    parse_json,
)

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"))
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda children: st.lists(children) | st.dictionaries(texts, children),
    max_leaves=20,
)


def nested(depth: int) -> Json:
    value: Json = 1
    for _ in range(depth):
        value = [value]
    return value


@given(json_values)
def test_what_is_encoded_decodes_to_the_same(value: Json) -> None:
    text = encode_json(value)
    assert parse_json(text) == value
    assert parse_json(text.encode()) == value
    assert decode_packet(text, JSON_TYPE) == value


@given(json_values)
def test_the_json_of_a_superjson_packet_is_its_value(value: Json) -> None:
    assert decode_packet(encode_json({"json": value, "meta": {}}), SUPER_JSON_TYPE) == value


@given(st.text() | st.binary())
def test_any_input_is_a_value_or_an_error_of_ours(text: str | bytes) -> None:
    with contextlib.suppress(InvalidPayloadError):
        check_json(parse_json(text), what="what was read")


def test_encoding_is_compact_and_keeps_text_readable() -> None:
    assert encode_json({"name": "Žofie", "n": [1, 2]}) == '{"name":"Žofie","n":[1,2]}'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"the body is not valid JSON: .* at line 1, column 2"),
        ("", r"the body is not valid JSON: .* at line 1, column 1"),
        ("[NaN]", "the body is not valid JSON: NaN is not a JSON number"),
        ("-Infinity", "-Infinity is not a JSON number"),
        ("1" * 5000, "the body is not valid JSON: .*digits"),
        (b"\xff", "the body is not valid UTF-8: bad byte at position 0"),
        ("[" * 100_000, "the body is nested deeper than 200 levels"),
        ("[" * 202 + "]" * 202, "the body is nested deeper than 200 levels"),
        ("1e999", "the body has inf at its root: not a JSON number"),
        ('{"a": [1, 1e999]}', r"the body has inf at a\[1\]: not a JSON number"),
        (r'"\u0000"', "the body contains a NUL character"),
        (r'{"a": {"b": "\u0000"}}', r"the body at a\.b contains a NUL character"),
        (r'{"a\u0000": 1}', "a key of the body contains a NUL character"),
        (r'{"a": {"\u0000": 1}}', "a key of the body at a contains a NUL character"),
        (r'"\ud800"', "the body contains a lone surrogate at position 0"),
    ],
)
def test_bad_json_says_what_is_wrong_and_where(text: str | bytes, message: str) -> None:
    with pytest.raises(InvalidPayloadError, match=message):
        parse_json(text)


def test_an_error_names_what_was_read() -> None:
    with pytest.raises(InvalidPayloadError, match="the metadata is not valid JSON"):
        parse_json("{", what="the metadata")


def test_the_deepest_value_that_is_allowed_passes() -> None:
    check_json(nested(MAX_DEPTH), what="it")
    with pytest.raises(InvalidPayloadError, match="it is nested deeper than 200 levels"):
        check_json(nested(MAX_DEPTH + 1), what="it")


def test_a_pair_of_surrogates_is_one_good_character() -> None:
    assert parse_json(json.dumps("😀")) == "😀"


@pytest.mark.parametrize("value", [math.nan, math.inf, {"a": object()}, {(1, 2): 3}, {1, 2}])
def test_what_is_no_json_value_can_not_be_encoded(value: object) -> None:
    with pytest.raises(InvalidPayloadError, match="not a JSON value"):
        encode_json(value)  # pyright: ignore[reportArgumentType] - that is the point


def test_a_value_in_itself_can_not_be_encoded() -> None:
    value: list[Json] = []
    value.append(value)
    with pytest.raises(InvalidPayloadError, match="not a JSON value"):
        encode_json(value)


def test_no_data_is_the_value_none() -> None:
    assert decode_packet(None, JSON_TYPE) is None


@pytest.mark.parametrize("data", ["[]", '{"meta": {}}', "1"])
def test_superjson_without_its_json_is_refused(data: str) -> None:
    with pytest.raises(InvalidPayloadError, match="not superjson: it has no 'json' member"):
        decode_packet(data, SUPER_JSON_TYPE)


def test_text_is_its_own_value() -> None:
    assert decode_packet("{not json", TEXT_TYPE) == "{not json"
    with pytest.raises(InvalidPayloadError, match="NUL"):
        decode_packet("\x00", TEXT_TYPE)


def test_a_text_of_another_kind_is_checked_under_its_name() -> None:
    check_text("fine", what="the tag")
    with pytest.raises(InvalidPayloadError, match="the tag contains a lone surrogate"):
        check_text("a\udfff", what="the tag")
