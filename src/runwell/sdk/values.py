"""Values of user code as JSON, whatever they are: for lines and spans."""

from typing import cast

from pydantic_core import PydanticSerializationError, from_json, to_json

from runwell.core.payloads import Json


def to_json_value(value: object) -> Json:
    """A value as JSON; what has no such form is written as its text.

    >>> to_json_value({1, 2}), to_json_value(3)
    ([1, 2], 3)
    """
    if value is None or type(value) in (bool, int) or (type(value) is str and value.isascii()):
        return cast("Json", value)
    try:
        text = to_json(
            value,
            by_alias=True,
            bytes_mode="base64",
            inf_nan_mode="strings",
            serialize_unknown=True,
        )
    except PydanticSerializationError:
        # A value that holds itself, or half of a character.
        return repr(value)
    return cast("Json", from_json(text))
