"""Whether an event's payload is one that somebody waits for. Pure functions."""

from typing import cast

from runwell.core.payloads import Json

_MAX_DEPTH = 50


def matches(wanted: Json, payload: Json) -> bool:
    """Whether a payload has all that a filter names.

    An object wants each of its names, by the same rule; a list wants any one of its values; any
    other value wants its equal. What the filter does not name does not matter.

    >>> wanted = {"user": {"id": 7}, "kind": ["paid", "refunded"]}
    >>> matches(wanted, {"user": {"id": 7, "name": "Ada"}, "kind": "paid"})
    True
    >>> matches({"user": {"id": 7}}, {"user": {"id": 8}})
    False
    """
    return _matches(wanted, payload, 0)


def _matches(wanted: Json, payload: Json, depth: int) -> bool:
    if depth > _MAX_DEPTH:
        return False
    if isinstance(wanted, dict):
        if not isinstance(payload, dict):
            return False
        return all(
            name in payload and _matches(value, payload[name], depth + 1)
            for name, value in wanted.items()
        )
    if isinstance(wanted, list):
        return any(_matches(value, payload, depth + 1) for value in cast("list[Json]", wanted))
    # True is 1 in Python, and not in JSON.
    return isinstance(wanted, bool) == isinstance(payload, bool) and wanted == payload
