"""Encoding payloads and outputs as packets, reading what JavaScript clients send, size limits.

A packet is a text with a data type. Runwell writes `application/json` only, and reads
`application/super+json` by taking its `json` member, with dates kept as their ISO texts.
Source: `protocol.md` section 2.5; limits: docs `limits.md`.
"""

import json
import math
from typing import cast

from pydantic import JsonValue
from pydantic_core import PydanticSerializationError, to_json

from runwell.core.errors import InvalidPayloadError
from runwell.core.structs import struct_to_json

#: A value as JSON knows it.
Json = JsonValue

JSON_TYPE = "application/json"
SUPER_JSON_TYPE = "application/super+json"
TEXT_TYPE = "text/plain"
#: The data is in the object store; what travels is its path there.
STORE_TYPE = "application/store"

MAX_PAYLOAD_BYTES = 3 * 1024 * 1024
MAX_OUTPUT_BYTES = 10 * 1024 * 1024
MAX_METADATA_BYTES = 256 * 1024
#: Payloads and outputs of this size and more travel by the object store (docs `limits.md`).
MIN_STORED_BYTES = 512 * 1024
# What pydantic raises, and struct_to_json.
_NO_JSON = (PydanticSerializationError, TypeError)
#: Deeper values are refused: parsers of other languages, and jsonb, stop at some depth too.
MAX_DEPTH = 200


def parse_json(text: str | bytes, *, what: str = "the body") -> Json:
    """Parse JSON strictly: no NaN or Infinity, no NUL, no lone surrogate, bounded depth.

    Raises InvalidPayloadError with a sentence that says what is wrong and where.
    """
    if isinstance(text, bytes):
        try:
            text = text.decode()
        except UnicodeDecodeError as error:
            raise InvalidPayloadError(
                f"{what} is not valid UTF-8: bad byte at position {error.start}"
            ) from None
    try:
        value = cast("Json", json.loads(text, parse_constant=_refuse_constant))
    except json.JSONDecodeError as error:
        raise InvalidPayloadError(
            f"{what} is not valid JSON: {error.msg} at line {error.lineno}, column {error.colno}"
        ) from None
    except RecursionError:
        raise InvalidPayloadError(f"{what} is nested deeper than {MAX_DEPTH} levels") from None
    except ValueError as error:
        raise InvalidPayloadError(f"{what} is not valid JSON: {error}") from None
    check_json(value, what=what)
    return value


def check_json(value: Json, *, what: str) -> None:
    """Refuse what PostgreSQL or other JSON readers can't hold; raises InvalidPayloadError."""
    stack: list[tuple[Json, str, int]] = [(value, "", 0)]
    while stack:
        item, path, depth = stack.pop()
        if depth > MAX_DEPTH:
            raise InvalidPayloadError(f"{what} is nested deeper than {MAX_DEPTH} levels")
        if isinstance(item, str):
            _check_text(item, f"{what}{f' at {path}' if path else ''}")
        elif isinstance(item, float) and not math.isfinite(item):
            raise InvalidPayloadError(
                f"{what} has {item} at {path or 'its root'}: not a JSON number"
            )
        elif isinstance(item, list):
            stack.extend((child, f"{path}[{i}]", depth + 1) for i, child in enumerate(item))
        elif isinstance(item, dict):
            for key, child in item.items():
                _check_text(key, f"a key of {what}{f' at {path}' if path else ''}")
                stack.append((child, f"{path}.{key}" if path else key, depth + 1))


def check_text(text: str, *, what: str) -> None:
    """Refuse NUL and lone surrogates, which no UTF-8 database holds; raises InvalidPayloadError."""
    _check_text(text, what)


def decode_packet(data: str | None, data_type: str) -> Json:
    """The JSON value of a packet: what the API shows and what a task gets.

    Raises InvalidPayloadError when the text does not fit its type.
    """
    if data is None:
        return None
    if data_type == JSON_TYPE:
        return parse_json(data, what="the payload")
    if data_type == SUPER_JSON_TYPE:
        wrapped = parse_json(data, what="the payload")
        if not isinstance(wrapped, dict) or "json" not in wrapped:
            raise InvalidPayloadError("the payload is not superjson: it has no 'json' member")
        return wrapped["json"]
    _check_text(data, "the payload")
    return data


def encode_json(value: Json) -> str:
    """A JSON value as compact text (UTF-8 kept readable); raises InvalidPayloadError."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidPayloadError(f"not a JSON value: {error}") from None


def encode_value(value: object, *, what: str, limit: int) -> str:
    """Any value that JSON can show, as compact text: models, dataclasses, dates, sets, enums.

    Bytes become base64 (url-safe), sets and tuples lists. Raises InvalidPayloadError for what has
    no JSON form, with its place, and for a text of more than `limit` bytes.
    """
    try:
        encoded = _to_json(value)
    except _NO_JSON as error:
        raise InvalidPayloadError(_why_not_json(value, str(error), what)) from error
    if len(encoded) > limit:
        raise InvalidPayloadError(
            f"{what} is {len(encoded):,} bytes of JSON, and at most {limit:,} are accepted: "
            "store it elsewhere and pass a reference"
        )
    # The walk is for the few texts that may hold something to refuse; scanning bytes is cheap.
    if (
        encoded.count(b"[") + encoded.count(b"{") > MAX_DEPTH
        or b"NaN" in encoded
        or b"Infinity" in encoded
        or b"\\u0000" in encoded
    ):
        check_json(cast("Json", json.loads(encoded)), what=what)
    return encoded.decode()


def _to_json(value: object) -> bytes:
    return to_json(
        value,
        by_alias=True,
        bytes_mode="base64",
        inf_nan_mode="constants",
        # Asked only about what pydantic doesn't know.
        fallback=struct_to_json,
    )


def _why_not_json(value: object, reason: str, what: str) -> str:
    path = ""
    # A value that contains itself has no innermost place to name.
    for _ in range(0 if "Circular" in reason else MAX_DEPTH):
        step = next((s for s in _parts(value) if not _has_json_form(s[1])), None)
        if step is None:
            break
        path, value = path + step[0], step[1]
    where = f"{what} at {path.removeprefix('.')}" if path else what
    key = _bad_key(value)
    if key is not None:
        return f"a key of {where} can't be sent: {type(key).__name__} objects can't be keys in JSON"
    field = _bad_bytes(value)
    if field is not None:
        path = f"{path}.{field}".removeprefix(".")
        return (
            f"{what} at {path} can't be sent: {type(value).__name__} writes bytes as text, and "
            "these are not UTF-8: give it model_config = "
            "ConfigDict(ser_json_bytes='base64', val_json_bytes='base64')"
        )
    if "no JSON form" in reason or "is unsupported" in reason:
        return f"{where} can't be sent: {type(value).__name__} objects have no JSON form"
    return f"{where} can't be sent: {reason.removeprefix('Error serializing to JSON: ')}"


def _parts(value: object) -> list[tuple[str, object]]:
    if isinstance(value, dict):
        return [(f".{key}", part) for key, part in cast("dict[object, object]", value).items()]
    if isinstance(value, list | tuple):
        return [(f"[{i}]", part) for i, part in enumerate(cast("list[object]", value))]
    if isinstance(value, set | frozenset):
        return [("{}", part) for part in cast("set[object]", value)]
    if isinstance(value, type):
        return []
    fields = getattr(value, "__struct_fields__", None) or getattr(value, "__dict__", ())
    return [(f".{name}", getattr(value, name)) for name in fields]


def _bad_key(value: object) -> object:
    if not isinstance(value, dict):
        return None
    keys = cast("dict[object, object]", value)
    return next((key for key in keys if not _has_json_form({key: None})), None)


def _bad_bytes(value: object) -> str | None:
    """The name of a field of a model that holds bytes which are no text."""
    if not hasattr(type(value), "__pydantic_serializer__"):
        return None
    return next((step[1:] for step, part in _parts(value) if _is_no_text(part)), None)


def _is_no_text(value: object) -> bool:
    return isinstance(value, bytes) and "\ufffd" in value.decode(errors="replace")


def _has_json_form(value: object) -> bool:
    try:
        _to_json(value)
    except _NO_JSON:
        return False
    return True


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def _check_text(text: str, what: str) -> None:
    if "\x00" in text:
        raise InvalidPayloadError(f"{what} contains a NUL character, which can't be stored")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InvalidPayloadError(
                f"{what} contains a lone surrogate at position {error.start}, which is not valid "
                "Unicode"
            ) from None
