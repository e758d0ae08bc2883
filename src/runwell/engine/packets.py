"""Packets in the object store: payloads and outputs too large for a row, and their end.

A packet is known here before it is uploaded, so that none is ever forgotten: one that no run refers
to when its time is over is deleted, whatever happened in between. Not about where they lie: that is
an `ObjectStore`.
"""

import re
from collections.abc import Sequence
from datetime import datetime, timedelta

from runwell.core.errors import RequestError
from runwell.core.ids import make_id
from runwell.core.payloads import MAX_PAYLOAD_BYTES
from runwell.engine.db import Database, Transaction
from runwell.engine.environments import Environment
from runwell.engine.object_store import ObjectStore, ObjectStoreError
from runwell.engine.queries import load_queries

_sql = load_queries("packets")

#: An upload that no run refers to is kept for this long.
UNUSED_LIFETIME = timedelta(days=1)
# A sweep that died in the middle is taken up again after this.
_RETRY_AFTER = timedelta(minutes=10)
#: So many packets are looked after by one sweep.
BATCH = 100

_MAX_PATH_CHARACTERS = 512
_PATH = re.compile(r"[A-Za-z0-9_.\-]+(?:/[A-Za-z0-9_.\-]+)*")


def check_path(path: str) -> None:
    """Raise RequestError 400 for a path that no packet has."""
    is_plain = len(path) <= _MAX_PATH_CHARACTERS and _PATH.fullmatch(path) is not None
    if not is_plain or any(part.strip(".") == "" for part in path.split("/")):
        raise RequestError(
            400,
            f"{path[:64]!r} is no path of a packet: use letters, digits, '_', '-' and '.' between "
            f"single slashes, {_MAX_PATH_CHARACTERS} characters at most",
        )


def key_of(environment: Environment, path: str) -> str:
    """What a packet is called in the object store."""
    return f"{environment.public_id}/{path}"


async def list_run_ids(tx: Transaction, environment: Environment, path: str) -> list[str]:
    """Some runs whose payload or output a packet is; several when one was replayed."""
    rows = await tx.fetch(_sql.list_runs_of_packet, environment_id=environment.id, path=path)
    return [row["id"] for row in rows]


async def register_upload(
    db: Database, environment: Environment, path: str, *, now: datetime
) -> None:
    """Note that a packet is about to be uploaded; raises RequestError 400 or 409."""
    check_path(path)
    rows = await db.fetch(
        _sql.register_packet,
        environment_id=environment.id,
        path=path,
        now=now,
        expires_at=now + UNUSED_LIFETIME,
    )
    if not rows:
        raise RequestError(409, f"the packet {path} is being deleted just now: try again")


async def store_payload(
    db: Database,
    store: ObjectStore,
    environment: Environment,
    data: bytes,
    data_type: str,
    *,
    now: datetime,
) -> str:
    """Put a payload that came with its trigger into the object store; returns its path.

    Raises ObjectStoreError when that can't be done.
    """
    path = f"trigger/{make_id('packet', now)}/payload.json"
    await register_upload(db, environment, path, now=now)
    await store.write(key_of(environment, path), data, data_type)
    return path


async def check_payload(
    db: Database, store: ObjectStore, environment: Environment, path: str, *, now: datetime
) -> None:
    """Make sure that a run may be triggered with an uploaded payload.

    From here on it stays long enough for the run to be there. Raises RequestError 400 for a path
    that none has, 422 for a packet that isn't there and 413 for one that is too large.
    """
    check_path(path)
    rows = await db.fetch(
        _sql.touch_packet,
        environment_id=environment.id,
        path=path,
        expires_at=now + UNUSED_LIFETIME,
    )
    size = await store.find_size(key_of(environment, path)) if rows else None
    if size is None:
        raise RequestError(
            422,
            f"the payload's packet {path} was never uploaded, or is gone: ask for a URL with "
            f"PUT /api/v1/packets/{path}, PUT the payload there, and trigger again",
        )
    if size > MAX_PAYLOAD_BYTES:
        raise RequestError(
            413,
            f"the payload in the packet {path} is {size:,} bytes, and at most "
            f"{MAX_PAYLOAD_BYTES:,} are accepted: store it elsewhere and pass a reference",
        )


async def sweep(db: Database, store: ObjectStore, *, now: datetime) -> int:
    """Delete packets whose time is over and that no run refers to; returns how many it saw."""
    rows = await db.fetch(
        _sql.take_expired_packets, now=now, retry_at=now + _RETRY_AFTER, most=BATCH
    )
    deleted: list[tuple[int, str]] = []
    failure: ObjectStoreError | None = None
    for row in rows:
        if not row["is_deleting"]:
            continue
        try:
            await store.delete(f"{row['public_id']}/{row['path']}")
        except ObjectStoreError as error:
            # The others may not be spared for it; this one comes up again.
            failure = error
            break
        deleted.append((row["environment_id"], row["path"]))
    await _forget(db, deleted)
    if failure is not None:
        raise failure
    return len(rows)


async def read_signing_key(tx: Transaction) -> bytes:
    """The secret by which the servers of this database sign URLs of packets."""
    secret = await tx.fetch_value(_sql.find_signing_key, name="packets")
    return str(secret).encode()


async def _forget(db: Database, deleted: Sequence[tuple[int, str]]) -> None:
    if deleted:
        await db.fetch(
            _sql.delete_packets,
            environment_ids=[environment_id for environment_id, _ in deleted],
            paths=[path for _, path in deleted],
        )
