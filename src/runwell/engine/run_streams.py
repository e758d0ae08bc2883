"""Streams: chunks that a task sends while it runs, kept until a day after its end.

Chunks are numbered in the order in which they were stored. Each writer numbers its own as well:
what it sends again, since an answer was lost, is there once. A stream is closed when none of its
writers is at work any more.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal

from runwell.core.errors import RequestError
from runwell.engine.db import Database, Transaction
from runwell.engine.environments import Environment, no_such_run
from runwell.engine.queries import load_queries

_sql = load_queries("run_streams")

StreamTarget = Literal["self", "parent", "root"]

#: Of one chunk, in bytes of UTF-8.
MAX_CHUNK_BYTES: Final = 1024 * 1024
MAX_CHUNKS: Final = 20_000
#: Of all chunks of a stream.
MAX_STREAM_BYTES: Final = 16 * 1024 * 1024
MAX_STREAMS: Final = 100
_MAX_WRITERS = 100
_MAX_KEY_CHARACTERS = 256
#: How long streams are kept after the end of their run.
LIFETIME = timedelta(days=1)
#: So many streams are looked at by one tick, and so many chunks are read at once.
SWEEP_STREAMS: Final = 5
READ_CHUNKS: Final = 100
# Wake-ups are shared by some streams, so that those of all streams ever need no memory.
_TOPICS = 256


@dataclass(frozen=True, kw_only=True, slots=True)
class Writer:
    """Who writes to which stream; `run_id` is that of the run which the stream belongs to."""

    run_id: str
    key: str
    name: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Chunk:
    """One value of a stream; `number` counts from 0 on."""

    number: int
    body: str
    created_at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadChunks:
    """The next chunks, and whether nothing can follow them for now: nobody writes any more."""

    chunks: list[Chunk]
    is_over: bool


def topic_of(run_id: str, key: str) -> str:
    """Woken when there is something new in a stream."""
    return f"streams:{zlib.crc32(f'{run_id}/{key}'.encode()) % _TOPICS}"


async def open_stream(
    db: Database,
    environment: Environment,
    run_id: str,
    target: StreamTarget,
    key: str,
    *,
    writer: str,
    now: datetime,
) -> Writer:
    """Begin to write to a stream of a run, or of its parent or root; of its own without one.

    Raises RequestError 404 without the run, 400 for a bad key, and 422 for a new stream of a run
    that has ended or has MAX_STREAMS of them. Source: docs `realtime/streams.md`.
    """
    if not 1 <= len(key) <= _MAX_KEY_CHARACTERS:
        raise RequestError(
            400, f"the key of a stream must have 1 to {_MAX_KEY_CHARACTERS} characters"
        )

    async def act(tx: Transaction) -> Writer:
        row = await tx.fetch_one(
            _sql.find_target,
            run_id=run_id,
            environment_id=environment.id,
            target=target,
            key=key,
        )
        if row is None:
            raise no_such_run(run_id, environment)
        owner = str(row["run_id"])
        if not row["is_there"]:
            if row["has_ended"]:
                raise _ended(owner)
            if row["streams"] >= MAX_STREAMS:
                raise RequestError(
                    422, f"the run {owner} has {MAX_STREAMS} streams: no more are kept for one"
                )
        writers = await tx.fetch_value(
            _sql.open_stream, run_id=owner, key=key, writer=writer, look_at=now + LIFETIME
        )
        if writers > _MAX_WRITERS:
            raise RequestError(
                422, f"{_MAX_WRITERS} writers are at work on the stream {key}: end some first"
            )
        return Writer(run_id=owner, key=key, name=writer)

    return await db.run(act)


async def append_chunks(
    db: Database, writer: Writer, bodies: Sequence[str], *, first: int, now: datetime
) -> int:
    """Store chunks of a writer that are not there yet; returns how many those were.

    `first` is the number that the writer gave the first of them. Raises RequestError 422 when the
    run has ended, and 413 when the stream would be too large; nothing of them is stored then.
    """

    async def act(tx: Transaction) -> int:
        stream = await tx.fetch_one(_sql.lock_stream, run_id=writer.run_id, key=writer.key)
        if stream is None:
            raise _ended(writer.run_id)
        row = await tx.fetch_one(
            _sql.append_chunks,
            run_id=writer.run_id,
            key=writer.key,
            writer=writer.name,
            first=stream["chunks"],
            writer_first=first,
            bodies=list(bodies),
            now=now,
        )
        assert row is not None
        if row["added"] and stream["has_ended"]:
            raise _ended(writer.run_id)
        if row["chunks"] > MAX_CHUNKS or row["bytes"] > MAX_STREAM_BYTES:
            raise RequestError(
                413,
                f"the stream {writer.key} is full: {MAX_CHUNKS:,} chunks and "
                f"{MAX_STREAM_BYTES:,} bytes are kept of one; send larger chunks, or use several",
            )
        return int(row["added"])

    return await db.run(act)


async def close_writer(db: Database, writer: Writer) -> None:
    """Say that a writer has ended: with the last one the stream is closed."""
    await db.fetch(_sql.close_writer, run_id=writer.run_id, key=writer.key, writer=writer.name)


async def find_last_chunk(
    db: Database,
    environment: Environment,
    run_id: str,
    target: StreamTarget,
    key: str,
    *,
    writer: str,
) -> int | None:
    """The number of the last chunk that is stored of a writer; None without one."""
    async with db.connection() as tx:
        row = await tx.fetch_one(
            _sql.find_target, run_id=run_id, environment_id=environment.id, target=target, key=key
        )
        if row is None:
            raise no_such_run(run_id, environment)
        found = await tx.fetch_value(
            _sql.find_last_chunk, run_id=row["run_id"], key=key, writer=writer
        )
    return None if found is None else int(found)


async def read_chunks(db: Database, run_id: str, key: str, *, after: int) -> ReadChunks:
    """The next READ_CHUNKS chunks after a number; -1 to begin."""
    rows = await db.fetch(_sql.read_chunks, run_id=run_id, key=key, after=after, most=READ_CHUNKS)
    chunks = [
        Chunk(number=row["number"], body=row["body"], created_at=row["created_at"])
        for row in rows
        if row["number"] is not None
    ]
    is_done = bool(rows[0]["is_closed"] or rows[0]["has_ended"])
    return ReadChunks(chunks=chunks, is_over=is_done and len(chunks) < READ_CHUNKS)


async def delete_old_streams(db: Database, *, now: datetime) -> int:
    """Delete streams whose run ended a day ago; SWEEP_STREAMS when there may be more."""
    (row,) = await db.fetch(
        _sql.delete_old_streams, now=now, ended_before=now - LIFETIME, most=SWEEP_STREAMS
    )
    return int(row[0])


def _ended(run_id: str) -> RequestError:
    return RequestError(422, f"the run {run_id} has ended: nothing can be added to its streams")
