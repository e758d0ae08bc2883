"""Runs as rows of a shape, and the answers that carry them (`protocol.md` 5.3 and 5.5)."""

import json
import time
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from typing import Final

from runwell.core.payloads import JSON_TYPE, TEXT_TYPE
from runwell.core.shapes import ARRAY_COLUMNS, COLUMN_TYPES, array_text, stored_status
from runwell.core.statuses import RunStatus
from runwell.engine.shapes import ShapeRun
from runwell.server.http import Answer

_SCHEMA: Final = json.dumps(
    {name: {"type": kind} for name, kind in COLUMN_TYPES.items()}
    | {name: {"type": "text", "dims": 1} for name in ARRAY_COLUMNS},
    separators=(",", ":"),
)
_UP_TO_DATE: Final = b'{"headers":{"control":"up-to-date"}}'
_MUST_REFETCH: Final = b'[{"headers":{"control":"must-refetch"}}]'
_MAX_INT4 = 2**31 - 1

#: What a client that can't make sense of a run needs in every row.
REQUIRED_COLUMNS: Final = frozenset(
    ("id", "friendlyId", "taskIdentifier", "status", "createdAt", "updatedAt", "number")
)


def encode_rows(
    runs: Sequence[ShapeRun],
    *,
    operation: str,
    is_4x: bool,
    without: Collection[str] = (),
) -> list[bytes]:
    """A message for each run."""
    messages: list[bytes] = []
    for run in runs:
        value = _row(run, is_4x=is_4x)
        for column in without:
            value.pop(column, None)
        message = {
            "key": f'"public"."TaskRun"/"{run.id}"',
            "value": value,
            "headers": {"operation": operation},
        }
        messages.append(json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode())
    return messages


def shape_answer(
    messages: Sequence[bytes], *, handle: str, offset: str, is_up_to_date: bool, is_old: bool
) -> Answer:
    """Rows, and whether those are all that there are by now; `is_old`: for clients before 3.3.0."""
    headers = [
        ("electric-handle", handle),
        ("electric-offset", offset),
        ("electric-schema", _SCHEMA),
        ("electric-cursor", str(time.time_ns() // 1_000_000)),
        ("cache-control", "no-store"),
    ]
    if is_old:
        headers += [("electric-shape-id", handle), ("electric-chunk-last-offset", offset)]
    if is_up_to_date:
        headers.append(("electric-up-to-date", ""))
        messages = [*messages, _UP_TO_DATE]
    return Answer(b"[" + b",".join(messages) + b"]", headers=headers)


def refetch_answer(handle: str) -> Answer:
    """409: the client begins anew, with this handle."""
    headers = (
        ("electric-handle", handle),
        ("electric-shape-id", handle),
        ("cache-control", "no-store"),
    )
    return Answer(_MUST_REFETCH, status=409, headers=headers)


def _row(run: ShapeRun, *, is_4x: bool) -> dict[str, str | None]:
    payload, payload_type = _packet(run.payload, run.payload_type)
    output, output_type = None, None
    if run.status is RunStatus.COMPLETED and run.output is not None:
        output, output_type = _packet(run.output, run.output_type or TEXT_TYPE)
    return {
        "id": run.id,
        "friendlyId": run.id,
        "taskIdentifier": run.task_id,
        "status": stored_status(run.status, is_4x=is_4x),
        "createdAt": _instant(run.created_at),
        "updatedAt": _instant(run.updated_at),
        "startedAt": _instant(run.started_at),
        "delayUntil": _instant(run.delayed_until),
        "queuedAt": _instant(run.queued_at),
        "expiredAt": _instant(run.expired_at),
        "completedAt": _instant(run.finished_at),
        "idempotencyKey": run.idempotency_key,
        "number": str(run.number),
        "isTest": "true" if run.is_test else "false",
        "usageDurationMs": str(min(run.duration_ms, _MAX_INT4)),
        "costInCents": "0",
        "baseCostInCents": "0",
        "ttl": run.ttl,
        "payload": payload,
        "payloadType": payload_type,
        "metadata": run.metadata,
        "metadataType": JSON_TYPE,
        "output": output,
        "outputType": output_type,
        "runTags": array_text(sorted(run.tags)),
        "error": run.error,
        "realtimeStreams": "{}",
    }


def _packet(data: str | None, data_type: str) -> tuple[str | None, str]:
    if data == "NULL" and data_type == TEXT_TYPE:
        # Clients take this text for null, whatever its column is.
        return '"NULL"', JSON_TYPE
    return data, data_type


def _instant(instant: datetime | None) -> str | None:
    """Without a zone, in UTC: clients append the Z themselves."""
    if instant is None:
        return None
    return instant.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="milliseconds")
