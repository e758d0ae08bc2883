"""Captured lines of attempts: storing and reading them."""

import json
from datetime import datetime

from runwell.core.errors import RequestError
from runwell.core.payloads import Json, encode_json
from runwell.core.protocol import MAX_LOG_MESSAGE_CHARACTERS, LogsReport
from runwell.core.schemas import LogLine, LogPage
from runwell.engine.db import Transaction
from runwell.engine.queries import load_queries
from runwell.engine.spans import RunSpan, store_spans

_sql = load_queries("logs")

MAX_PAGE = 1_000
_MAX_INTEGER = 2_147_483_647
_MAX_ATTRIBUTES_CHARACTERS = 16_384


async def insert_lines(tx: Transaction, reports: list[LogsReport]) -> None:
    """Store lines and spans of reports that were accepted; a line that is there already is kept."""
    run_ids: list[str] = []
    attempts: list[int] = []
    seqs: list[int] = []
    times: list[datetime] = []
    levels: list[str] = []
    messages: list[str] = []
    attributes: list[str | None] = []
    span_ids: list[str | None] = []
    for report in reports:
        for line in report.lines:
            run_ids.append(report.run_id)
            attempts.append(report.attempt_number)
            seqs.append(line.seq)
            times.append(line.time)
            levels.append(line.level)
            # Workers clip too; this is the door, and PostgreSQL holds no NUL.
            messages.append(line.message[:MAX_LOG_MESSAGE_CHARACTERS].replace("\x00", "\ufffd"))
            attributes.append(_encode_attributes(line.attributes))
            span_ids.append(line.span_id)
    if run_ids:
        await tx.execute(
            _sql.insert_lines,
            run_ids=run_ids,
            attempt_numbers=attempts,
            seqs=seqs,
            logged_at=times,
            levels=levels,
            messages=messages,
            attributes=attributes,
            span_ids=span_ids,
        )
    await store_spans(
        tx,
        (
            RunSpan(run_id=report.run_id, attempt_number=report.attempt_number, span=span)
            for report in reports
            for span in report.spans
        ),
    )


async def read_lines(tx: Transaction, run_id: str, *, after: str | None, limit: int) -> LogPage:
    """A page of a run's lines, from behind `after` (a page's `next`) on.

    Raises RequestError 400 for a cursor that no page gave.
    """
    attempt, seq = _parse_cursor(after)
    rows = await tx.fetch(
        _sql.read_lines,
        run_id=run_id,
        after_attempt=attempt,
        after_seq=seq,
        most=max(1, min(limit, MAX_PAGE)),
    )
    lines = [
        LogLine(
            attempt=row["attempt_number"],
            seq=row["seq"],
            time=row["logged_at"],
            level=row["level"],
            message=row["message"],
            attributes=None if row["attributes"] is None else json.loads(row["attributes"]),
        )
        for row in rows
    ]
    if lines:
        attempt, seq = lines[-1].attempt, lines[-1].seq
    return LogPage(data=lines, next=f"{attempt}.{seq}")


def _parse_cursor(after: str | None) -> tuple[int, int]:
    if after is None:
        return 0, 0
    attempt, dot, seq = after.partition(".")
    are_numbers = dot and attempt.isdecimal() and seq.isdecimal() and len(after) < 20
    if not (are_numbers and int(attempt) <= _MAX_INTEGER and int(seq) <= _MAX_INTEGER):
        raise RequestError(400, f"after: {after!r} is not the `next` of a page of log lines")
    return int(attempt), int(seq)


def _encode_attributes(attributes: dict[str, Json] | None) -> str | None:
    if not attributes:
        return None
    text = encode_json(dict(attributes))
    if len(text) > _MAX_ATTRIBUTES_CHARACTERS:
        text = encode_json({"clipped": f"{len(text)} characters of attributes left out"})
    return text.replace("\\u0000", "\\ufffd")
