"""Making what user code wrote or raised fit for the server: texts and JSON that can be stored."""

import math
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import cast

from runwell.core.payloads import Json

_MAX_DEPTH = 20
_MAX_ITEMS = 1000


def clean_text(text: str) -> str:
    """Replace NUL and lone surrogates, which no UTF-8 database holds."""
    if "\x00" in text:
        text = text.replace("\x00", "\ufffd")
    if text.isascii():
        return text
    return text.encode("utf-8", "replace").decode("utf-8")


def clean_json(value: object, depth: int = 0) -> Json:
    """Any value as JSON: what JSON lacks becomes its text, what is too deep or long is cut."""
    match value:
        case None | bool() | int():
            return value
        case float():
            if math.isfinite(value):
                return value
            return "NaN" if math.isnan(value) else f"{'-' if value < 0 else ''}Infinity"
        case str():
            return clean_text(value)
        case _ if depth >= _MAX_DEPTH:
            return "..."
        case Mapping():
            return _clean_mapping(cast("Mapping[object, object]", value), depth)
        case list() | tuple() | set() | frozenset():
            items = cast("Iterable[object]", value)
            return [clean_json(item, depth + 1) for item in islice(items, _MAX_ITEMS)]
        case _:
            return clean_text(safe_text(value))


def safe_text(value: object) -> str:
    """`str(value)`, also when that raises."""
    try:
        return str(value)
    # A __str__ of user code may raise anything, and a report must not fail because of it.
    except Exception:  # noqa: BLE001
        return f"<{type(value).__name__} whose str() failed>"


def _clean_mapping(value: Mapping[object, object], depth: int) -> Json:
    return {
        clean_text(safe_text(key)): clean_json(item, depth + 1)
        for key, item in islice(value.items(), _MAX_ITEMS)
    }
