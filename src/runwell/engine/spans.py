"""Spans of runs: storing them, and the days they are kept by. Reading them is in `traces`."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from pydantic import BaseModel
from pydantic_core import to_json

from runwell.core.payloads import Json
from runwell.core.spans import Span, attempt_span_id, clip_span, run_span_id
from runwell.engine.db import Database, Transaction
from runwell.engine.environments import Environment
from runwell.engine.queries import load_queries

_sql = load_queries("spans")

#: Partitions are made for so many days from today on.
DAYS_AHEAD: Final = 3
#: The attributes of a span together, and its events, and its links.
MAX_SPAN_BYTES: Final = 512 * 1024


@dataclass(frozen=True, kw_only=True)
class RunSpan:
    """A span with the run it is of; without an attempt it is right under the run."""

    run_id: str
    attempt_number: int | None
    span: Span


async def store_spans(tx: Transaction, found: Iterable[RunSpan]) -> None:
    """Store spans, clipped to the limits. A partial one never replaces one that has ended."""
    latest: dict[tuple[str, str], RunSpan] = {}
    for one in found:
        key = one.run_id, one.span.span_id
        known = latest.get(key)
        if known is None or known.span.ended_at is None:
            latest[key] = one
    if not latest:
        return
    spans = [(one, clip_span(one.span)) for one in latest.values()]
    await tx.execute(
        _sql.upsert_spans,
        run_ids=[one.run_id for one, _ in spans],
        span_ids=[span.span_id for _, span in spans],
        parent_span_ids=[span.parent_span_id or _place(one) for one, span in spans],
        attempt_numbers=[one.attempt_number or 0 for one, _ in spans],
        names=[_clean(span.name) for _, span in spans],
        kinds=[span.kind for _, span in spans],
        levels=[span.level for _, span in spans],
        started_at=[span.started_at for _, span in spans],
        ended_at=[span.ended_at for _, span in spans],
        are_errors=[span.is_error for _, span in spans],
        are_canceled=[span.is_canceled for _, span in spans],
        attributes=[_encode(span.attributes) for _, span in spans],
        events=[_encode(span.events) for _, span in spans],
        links=[_encode(span.links) for _, span in spans],
    )


async def find_attempts(
    tx: Transaction, environment: Environment, run_ids: Sequence[str]
) -> dict[str, int]:
    """Those of these runs that an environment has, each with its attempt (0: none yet)."""
    rows = await tx.fetch(_sql.find_runs, run_ids=list(run_ids), environment_id=environment.id)
    return {row["id"]: row["attempt_number"] for row in rows}


async def keep_days(db: Database, *, now: datetime, lifetime: timedelta | None) -> int:
    """Make the days ahead, and drop those that are older than `lifetime`; None keeps all.

    Returns how many partitions were made or dropped.
    """
    made = await db.run(
        lambda tx: tx.fetch_value(_sql.make_span_days, first_day=now.date(), days=DAYS_AHEAD)
    )
    if lifetime is None:
        return int(made)
    first_kept = (now - lifetime).date()
    dropped = await db.run(lambda tx: tx.fetch_value(_sql.drop_span_days, first_kept=first_kept))
    return int(made) + int(dropped)


def _place(one: RunSpan) -> str:
    if one.attempt_number:
        return attempt_span_id(one.run_id, one.attempt_number)
    return run_span_id(one.run_id)


def _clean(text: str) -> str:
    # PostgreSQL holds neither a NUL nor half of a character.
    return text.replace("\x00", "\ufffd").encode("utf-8", "replace").decode()


def _encode(value: dict[str, Json] | Sequence[BaseModel]) -> str | None:
    if not value:
        return None
    raw = to_json(value, inf_nan_mode="strings", serialize_unknown=True)
    if len(raw) > MAX_SPAN_BYTES:
        # Each value is within its limit, and all together are too much.
        if isinstance(value, dict):
            raw = to_json({"$clipped": f"left out: {len(raw)} bytes of attributes"})
        else:
            return None
    return raw.decode("utf-8", "replace").replace("\\u0000", "\\ufffd")
