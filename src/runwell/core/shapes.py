"""Rows of realtime shapes: how a run travels to its subscribers (`protocol.md` 5.5).

Every value is PostgreSQL's text of it, or null. Statuses have names of their own here.
"""

import re
from typing import Final

from runwell.core.statuses import RunStatus

#: The columns and their types, as `electric-schema` has them.
COLUMN_TYPES: Final[dict[str, str]] = {
    "id": "text",
    "friendlyId": "text",
    "taskIdentifier": "text",
    "status": "text",
    "createdAt": "timestamp",
    "updatedAt": "timestamp",
    "startedAt": "timestamp",
    "delayUntil": "timestamp",
    "queuedAt": "timestamp",
    "expiredAt": "timestamp",
    "completedAt": "timestamp",
    "idempotencyKey": "text",
    "number": "int4",
    "isTest": "bool",
    "usageDurationMs": "int4",
    "costInCents": "float8",
    "baseCostInCents": "float8",
    "ttl": "text",
    "payload": "text",
    "payloadType": "text",
    "metadata": "text",
    "metadataType": "text",
    "output": "text",
    "outputType": "text",
    "error": "jsonb",
}
#: Columns that are arrays of texts.
ARRAY_COLUMNS: Final = ("runTags", "realtimeStreams")

_R = RunStatus
_STORED: Final[dict[RunStatus, str]] = {
    _R.WAITING_FOR_DEPLOY: "WAITING_FOR_DEPLOY",
    _R.DELAYED: "DELAYED",
    _R.QUEUED: "PENDING",
    _R.DEQUEUED: "DEQUEUED",
    _R.EXECUTING: "EXECUTING",
    _R.FROZEN: "WAITING_TO_RESUME",
    _R.REATTEMPTING: "RETRYING_AFTER_FAILURE",
    _R.COMPLETED: "COMPLETED_SUCCESSFULLY",
    _R.CANCELED: "CANCELED",
    _R.FAILED: "COMPLETED_WITH_ERRORS",
    _R.CRASHED: "CRASHED",
    _R.INTERRUPTED: "INTERRUPTED",
    _R.SYSTEM_FAILURE: "SYSTEM_FAILURE",
    _R.EXPIRED: "EXPIRED",
    _R.TIMED_OUT: "TIMED_OUT",
}
_BY_STORED: Final = {name: status for status, name in _STORED.items()}

_ESCAPED = re.compile(r'(["\\])')
_ELEMENT = re.compile(r'"((?:[^"\\]|\\.)*)"')


def stored_status(status: RunStatus, *, is_4x: bool) -> str:
    """The name of a status in a row; clients of 3.x end their subscription at one they don't know.

    >>> stored_status(RunStatus.DEQUEUED, is_4x=False)
    'EXECUTING'
    """
    if status is _R.DEQUEUED and not is_4x:
        status = _R.EXECUTING
    return _STORED[status]


def read_stored_status(name: str) -> RunStatus:
    """The status of that name in a row; raises ValueError when there is none."""
    try:
        return _BY_STORED[name]
    except KeyError:
        raise ValueError(f"{name!r} is no status of a run in a shape") from None


def array_text(texts: list[str]) -> str:
    r"""Texts as PostgreSQL writes an array of them.

    >>> array_text(["a", 'b"c'])
    '{"a","b\\"c"}'
    """
    return "{" + ",".join('"' + _ESCAPED.sub(r"\\\1", text) + '"' for text in texts) + "}"


def read_array(text: str) -> list[str]:
    r"""The texts of what `array_text` wrote.

    >>> read_array('{"a","b\\"c"}')
    ['a', 'b"c']
    """
    return [re.sub(r"\\(.)", r"\1", quoted, flags=re.DOTALL) for quoted in _ELEMENT.findall(text)]
