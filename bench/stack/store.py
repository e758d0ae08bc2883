"""The drivers under test, doing the same three statements over equally many connections."""

import asyncio
from typing import LiteralString, Protocol

import asyncpg
import psycopg

from bench.stack.wire import ClaimedRun, Exchange, NewRun
from runwell.core.ids import make_id

CONNECTIONS = 8

SCHEMA = """
CREATE TABLE IF NOT EXISTS stack_runs (
    id text COLLATE "C" PRIMARY KEY,
    snapshot_id bigint NOT NULL,
    task_id text NOT NULL,
    status text NOT NULL,
    payload text,
    payload_type text NOT NULL,
    tags text[] NOT NULL,
    max_attempts integer,
    attempt_number integer NOT NULL DEFAULT 0,
    worker_id text,
    output text,
    duration_ms bigint,
    created_at timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 70);
CREATE INDEX IF NOT EXISTS stack_runs_in_order ON stack_runs (created_at, id)
    WHERE status = 'QUEUED';
CREATE SEQUENCE IF NOT EXISTS stack_snapshots CACHE 100;
"""

INSERT: LiteralString = """
INSERT INTO stack_runs
    (id, snapshot_id, task_id, status, payload, payload_type, tags, max_attempts)
VALUES ($1, nextval('stack_snapshots'), $2, 'QUEUED', $3, $4, $5, $6)
"""
CLAIM: LiteralString = """
WITH claimed AS (
    SELECT id FROM stack_runs WHERE status = 'QUEUED'
    ORDER BY created_at, id LIMIT $1 FOR UPDATE SKIP LOCKED
)
UPDATE stack_runs r
SET status = 'EXECUTING', worker_id = $2, attempt_number = attempt_number + 1,
    snapshot_id = nextval('stack_snapshots')
FROM claimed WHERE r.id = claimed.id
RETURNING r.id, r.snapshot_id, r.task_id, r.payload, r.payload_type, r.tags, r.attempt_number,
    r.created_at
"""
COMPLETE: LiteralString = """
UPDATE stack_runs r
SET status = 'COMPLETED', output = done.output, duration_ms = done.duration_ms, worker_id = NULL
FROM unnest($1::text[], $2::bigint[], $3::text[], $4::bigint[])
    AS done (id, snapshot_id, output, duration_ms)
WHERE r.id = done.id AND r.snapshot_id = done.snapshot_id AND r.status = 'EXECUTING'
"""


class Store(Protocol):
    """A driver with its connections."""

    async def open(self) -> None:
        """Connect."""
        ...

    async def close(self) -> None:
        """Disconnect."""
        ...

    async def insert(self, run: NewRun) -> str:
        """Store a run, committed, and return its id."""
        ...

    async def exchange(self, wanted: Exchange) -> list[ClaimedRun]:
        """Complete runs and claim others, each committed."""
        ...


class AsyncpgStore:
    """asyncpg. Its own pool's default is to reset a connection, one more round trip per use."""

    def __init__(self, dsn: str, *, resets: bool) -> None:
        """Keep the URL; `resets` keeps the pool's default."""
        self._dsn = dsn
        self._resets = resets
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None

    async def open(self) -> None:
        """Connect."""
        self._pool = await asyncpg.create_pool(
            self._dsn,
            min_size=CONNECTIONS,
            max_size=CONNECTIONS,
            reset=None if self._resets else _leave_as_it_is,
        )

    async def close(self) -> None:
        """Disconnect."""
        await self._open_pool.close()

    async def insert(self, run: NewRun) -> str:
        """Store a run, committed, and return its id."""
        run_id = make_id("run")
        async with self._open_pool.acquire() as connection:
            await connection.fetch(
                INSERT,
                *(
                    run_id,
                    "hello",
                    run.payload,
                    run.payload_type,
                    run.tags,
                    run.max_attempts,
                ),
            )
        return run_id

    async def exchange(self, wanted: Exchange) -> list[ClaimedRun]:
        """Complete runs and claim others, each committed."""
        async with self._open_pool.acquire() as connection:
            if wanted.run_ids:
                await connection.fetch(
                    COMPLETE,
                    *(
                        wanted.run_ids,
                        wanted.snapshot_ids,
                        wanted.outputs,
                        wanted.durations,
                    ),
                )
            rows = await connection.fetch(CLAIM, wanted.max_runs, wanted.worker_id)
        return [ClaimedRun(*row) for row in rows]

    @property
    def _open_pool(self) -> "asyncpg.Pool[asyncpg.Record]":
        assert self._pool is not None
        return self._pool


class PsycopgStore:
    """psycopg 3 with its C parts, prepared statements, and the cheapest pool that works."""

    def __init__(self, dsn: str) -> None:
        """Keep the URL."""
        self._dsn = dsn
        self._idle: asyncio.LifoQueue[psycopg.AsyncConnection] = asyncio.LifoQueue()

    async def open(self) -> None:
        """Connect."""
        for _ in range(CONNECTIONS):
            connection = await psycopg.AsyncConnection.connect(
                self._dsn,
                autocommit=True,
                prepare_threshold=0,
                # Takes $1 as it is, and saves translating the placeholders.
                cursor_factory=psycopg.AsyncRawCursor,
            )
            self._idle.put_nowait(connection)

    async def close(self) -> None:
        """Disconnect."""
        while not self._idle.empty():
            await self._idle.get_nowait().close()

    async def insert(self, run: NewRun) -> str:
        """Store a run, committed, and return its id."""
        run_id = make_id("run")
        connection = await self._idle.get()
        try:
            await connection.execute(
                INSERT,
                (
                    run_id,
                    "hello",
                    run.payload,
                    run.payload_type,
                    run.tags,
                    run.max_attempts,
                ),
            )
        finally:
            self._idle.put_nowait(connection)
        return run_id

    async def exchange(self, wanted: Exchange) -> list[ClaimedRun]:
        """Complete runs and claim others, each committed."""
        connection = await self._idle.get()
        try:
            if wanted.run_ids:
                await connection.execute(
                    COMPLETE,
                    (
                        wanted.run_ids,
                        wanted.snapshot_ids,
                        wanted.outputs,
                        wanted.durations,
                    ),
                )
            cursor = await connection.execute(
                CLAIM, (wanted.max_runs, wanted.worker_id), binary=True
            )
            rows = await cursor.fetchall()
        finally:
            self._idle.put_nowait(connection)
        return [ClaimedRun(*row) for row in rows]


def open_store(name: str, dsn: str) -> Store:
    """The driver called `asyncpg`, `asyncpg-reset` or `psycopg`."""
    if name == "psycopg":
        return PsycopgStore(dsn)
    return AsyncpgStore(dsn, resets=name == "asyncpg-reset")


async def _leave_as_it_is(connection: object) -> None:
    """Nothing of ours changes a session, so there is nothing to reset."""
