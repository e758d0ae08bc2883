"""Replays: new runs with the payload and options of earlier ones, on the latest version.

Source: docs `replaying.md`, `protocol.md` 3.4. A replay keeps the payload, context, the metadata
given at trigger time, tags, queue, concurrency key, priority, TTL, machine, limits and test mark.
It takes over neither a version, delay or idempotency key, nor a parent.
"""

import json
from dataclasses import dataclass
from datetime import datetime
from typing import cast

from runwell.core.errors import RequestError
from runwell.core.machines import MachineName
from runwell.core.payloads import JSON_TYPE, MAX_PAYLOAD_BYTES, Json, encode_json
from runwell.core.schemas import QueueOption, TriggerBody, TriggerOptions
from runwell.engine.db import Database, Row
from runwell.engine.environments import Environment, no_such_run
from runwell.engine.queries import load_queries
from runwell.engine.trigger_options import TriggerRequest
from runwell.engine.triggering import Triggered, trigger_run

_sql = load_queries("replays")


@dataclass(frozen=True, kw_only=True)
class ChangedPayload:
    """The payload of a replay in place of the original one: as a trigger takes it."""

    payload: Json
    payload_type: str = JSON_TYPE


async def replay_run(
    db: Database,
    environment: Environment,
    run_id: str,
    *,
    changed: ChangedPayload | None = None,
    request_key: str | None = None,
    new_run_id: str | None = None,
    now: datetime,
) -> Triggered:
    """Trigger a copy of a run, whatever became of it, and return the new run.

    The same `request_key` gives the same new run, and so does a `new_run_id` that was made before.
    Raises RequestError 404 without the run, and 413, 422 or 400 when the payload can't be one.
    """
    async with db.connection() as tx:
        row = await tx.fetch_one(
            _sql.find_replayed_run, run_id=run_id, environment_id=environment.id
        )
    if row is None:
        raise no_such_run(run_id, environment)
    payload, payload_type = cast("Json", row["payload"]), str(row["payload_type"])
    if changed is not None:
        payload, payload_type = changed.payload, changed.payload_type
        _check_size(payload)
    request = TriggerRequest(
        task_id=row["task_id"],
        body=TriggerBody.model_construct(
            payload=payload,
            context=_parse(row["context"]),
            options=_options(row, payload_type),
        ),
        request_key=request_key,
        run_id=new_run_id,
        replay_of=run_id,
    )
    return await trigger_run(db, environment, request, now=now)


def _options(row: Row, payload_type: str) -> TriggerOptions:
    machine = row["machine"]
    # Built without checking: every value was checked when the original was triggered.
    return TriggerOptions.model_construct(
        payload_type=payload_type,
        queue=QueueOption.model_construct({"name"}, name=row["queue_name"]),
        concurrency_key=row["concurrency_key"],
        tags=list(row["tags"]),
        metadata=_parse(row["metadata"]),
        max_attempts=row["max_attempts"],
        max_duration=row["max_duration"],
        machine=None if machine is None else MachineName(machine),
        priority=row["priority_seconds"],
        # One that had none, also against a default, has none again.
        ttl=0 if row["ttl"] is None else row["ttl"],
        test=row["is_test"],
        region=row["region"],
    )


def _check_size(payload: Json) -> None:
    text = payload if isinstance(payload, str) else encode_json(payload)
    size = len(text.encode("utf-8", "replace"))
    if size > MAX_PAYLOAD_BYTES:
        raise RequestError(
            413,
            f"the payload is {size:,} bytes, and at most {MAX_PAYLOAD_BYTES:,} are accepted: "
            "store it elsewhere and pass a reference",
        )


def _parse(text: str | None) -> Json:
    return None if text is None else cast("Json", json.loads(text))
