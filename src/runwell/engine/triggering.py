"""New runs: a trigger's options, its queue, its idempotency key."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from pydantic.alias_generators import to_camel

from runwell.core.errors import InvalidPayloadError, RequestError
from runwell.core.ids import make_id, run_id_for_request
from runwell.core.payloads import (
    JSON_TYPE,
    MAX_METADATA_BYTES,
    STORE_TYPE,
    Json,
    check_json,
    check_text,
    decode_packet,
    encode_json,
    parse_json,
)
from runwell.core.protocol import clean_queue_name, task_queue_name
from runwell.core.schemas import MAX_TAGS, TriggerBody, TriggerOptions
from runwell.core.timing import parse_duration, parse_instant
from runwell.core.unbuilt import UNBUILT_FIELDS
from runwell.engine import queues
from runwell.engine.db import Database
from runwell.engine.environments import Environment
from runwell.engine.queries import load_queries

_sql = load_queries("triggering")

DEFAULT_KEY_LIFETIME = timedelta(days=30)
#: The least and the most that a run may take, in seconds (docs `runs/max-duration.md`).
MIN_DURATION_SECONDS, MAX_DURATION_SECONDS = 5, 2_147_483_647
MAX_TASK_ID_CHARACTERS = 256
MAX_PRIORITY_SECONDS = 10 * 365 * 24 * 3600


@dataclass(frozen=True, kw_only=True)
class TriggerRequest:
    """One trigger as it came in; `request_key` is the same when it is sent again.

    `run_id`: the id that the run is to have, made before; `replay_of`: the run that it copies.
    """

    task_id: str
    body: TriggerBody
    request_key: str | None = None
    traceparent: str | None = None
    run_id: str | None = None
    replay_of: str | None = None


@dataclass(frozen=True, slots=True)
class Triggered:
    """The run of a trigger; `is_cached` when the idempotency key had it already."""

    run_id: str
    is_cached: bool


async def trigger_run(
    db: Database, environment: Environment, request: TriggerRequest, *, now: datetime
) -> Triggered:
    """Create a run, durable when this returns.

    One statement, unless a queue is new or its limit changes. Raises RequestError with a sentence
    for what can't be (422) or is malformed (400).
    """
    options = request.body.options
    values = _run_values(environment, request, now)
    if options.queue is not None and "concurrency_limit" in options.queue.model_fields_set:
        await _check_version(db, environment, options.lock_to_version, request.task_id)
        await _set_queue_limit(db, environment, options, request.task_id, now=now)
    rows = await db.fetch(_sql.insert_run, **values)
    if not rows:
        await _check_version(db, environment, options.lock_to_version, request.task_id)
        await _create_queue(db, environment, values, now=now)
        rows = await db.fetch(_sql.insert_run, **values)
        if not rows:
            raise RuntimeError(f"the queue of task {request.task_id} vanished while it was used")
    run_id = str(values["run_id"])
    if rows[0]["is_new"]:
        return Triggered(run_id, is_cached=False)
    return await _find_earlier(db, environment, values)


async def _find_earlier(
    db: Database, environment: Environment, values: dict[str, object]
) -> Triggered:
    run_id, key = str(values["run_id"]), values["idempotency_key"]
    async with db.connection() as tx:
        if await tx.fetch_value(_sql.has_run, run_id=run_id, environment_id=environment.id):
            return Triggered(run_id, is_cached=False)
        found = await tx.fetch_value(
            _sql.find_run_of_key,
            environment_id=environment.id,
            task_id=values["task_id"],
            key=key,
        )
    if found is None:
        raise RequestError(422, f"the idempotency key {key} was reset while it was used: try again")
    return Triggered(found, is_cached=True)


async def _check_version(
    db: Database, environment: Environment, version: str | None, task_id: str
) -> None:
    if version is None:
        return
    async with db.connection() as tx:
        has_task = await tx.fetch_value(
            _sql.find_version, environment_id=environment.id, version=version, task_id=task_id
        )
    if has_task is None:
        raise RequestError(
            422,
            f"options.lockToVersion: there is no version {version[:64]} in the environment "
            f"{environment.slug}",
        )
    if not has_task:
        # Versions don't change: the run would wait for ever.
        raise RequestError(
            422, f"options.lockToVersion: the version {version} has no task {task_id}"
        )


async def _create_queue(
    db: Database, environment: Environment, values: dict[str, object], *, now: datetime
) -> None:
    async with db.transaction() as tx:
        name = values["queue_name"] or await tx.fetch_value(
            _sql.find_task_queue,
            environment_id=environment.id,
            task_id=values["task_id"],
            version=values["version"],
        )
        await queues.ensure_queue(
            tx,
            environment,
            name=str(name or values["default_queue_name"]),
            concurrency_key=str(values["concurrency_key"] or ""),
            now=now,
        )


async def _set_queue_limit(
    db: Database,
    environment: Environment,
    options: TriggerOptions,
    task_id: str,
    *,
    now: datetime,
) -> None:
    if options.queue is None:
        return
    name = _queue_name(options.queue.name)
    limit = options.queue.concurrency_limit
    async with db.transaction() as tx:
        if name is None:
            name = await tx.fetch_value(
                _sql.find_task_queue,
                environment_id=environment.id,
                task_id=task_id,
                version=options.lock_to_version,
            )
        await queues.set_limit(
            tx, environment, name=name or task_queue_name(task_id), limit=limit, now=now
        )


def _queue_name(name: str | None) -> str | None:
    if name is None:
        return None
    cleaned = clean_queue_name(name)
    if not cleaned:
        raise RequestError(
            422, f"{name!r} is no queue name: use letters, digits, '_', '-' and '/' (128 at most)"
        )
    return cleaned


def _run_values(
    environment: Environment, request: TriggerRequest, now: datetime
) -> dict[str, object]:
    body, options = request.body, request.body.options
    _check_task_id(request.task_id)
    _refuse_what_is_not_built(options)
    payload, payload_type = encode_payload(body.payload, options.payload_type)
    tags = list(dict.fromkeys(options.tags))
    if len(tags) > MAX_TAGS:
        raise RequestError(422, f"a run has at most {MAX_TAGS} tags, and {len(tags)} were given")
    parent_run_id = _parent_run_id(options)
    keys = (options.concurrency_key, options.idempotency_key, options.lock_to_version)
    for text in (*tags, *keys, parent_run_id):
        if text is not None:
            _checked_text(text)
    key_lifetime = (
        DEFAULT_KEY_LIFETIME
        if options.idempotency_key_ttl is None
        else _duration(options.idempotency_key_ttl, "idempotencyKeyTTL")
    )
    ttl, ttl_seconds = _ttl(options.ttl)
    key = request.request_key
    return {
        "run_id": request.run_id
        or (make_id("run", now) if key is None else run_id_for_request(environment.id, key, now)),
        "environment_id": environment.id,
        "task_id": request.task_id,
        "version": options.lock_to_version,
        "queue_name": None if options.queue is None else _queue_name(options.queue.name),
        "default_queue_name": task_queue_name(request.task_id),
        "concurrency_key": options.concurrency_key,
        "idempotency_key": options.idempotency_key,
        "idempotency_key_expires_at": now + key_lifetime,
        "delayed_until": _delayed_until(options.delay, now),
        "priority_seconds": _priority(options.priority),
        "payload": payload,
        "payload_type": payload_type,
        "context": None if body.context is None else _encode_checked(body.context, "context"),
        "metadata": _encode_metadata(options.metadata),
        "parent_run_id": parent_run_id,
        "tags": tags,
        "is_test": options.test,
        "replay_of": request.replay_of,
        "max_attempts": options.max_attempts,
        "max_duration": _max_duration(options.max_duration),
        "machine": options.machine,
        "ttl": ttl,
        "ttl_seconds": ttl_seconds,
        "trace_context": None
        if request.traceparent is None
        else encode_json({"traceparent": request.traceparent}),
        "now": now,
    }


def _parent_run_id(options: TriggerOptions) -> str | None:
    # Clients of 3.x name the attempt that triggers.
    attempt_id = options.parent_attempt
    return options.parent_run_id or (attempt_id and queues.run_id_of_attempt(attempt_id))


def _check_task_id(task_id: str) -> None:
    _checked_text(task_id)
    if not task_id or len(task_id) > MAX_TASK_ID_CHARACTERS or not task_id.isprintable():
        raise RequestError(
            400,
            f"{task_id[:64]!r} is no task id: 1 to {MAX_TASK_ID_CHARACTERS} printable characters",
        )


def _refuse_what_is_not_built(options: TriggerOptions) -> None:
    # `False` and empty values change nothing.
    refused = [name for name in UNBUILT_FIELDS if getattr(options, name)]
    if refused:
        reasons = (
            f"options.{to_camel(name)} can't be honoured: this Runwell doesn't have "
            f"{UNBUILT_FIELDS[name]} yet"
            for name in refused
        )
        raise RequestError(400, "; ".join(reasons))


def encode_payload(payload: Json, payload_type: str) -> tuple[str | None, str]:
    """A payload as it is stored, and its type; raises RequestError 400 for what isn't its type."""
    if payload_type == STORE_TYPE:
        if not isinstance(payload, str) or not payload:
            raise RequestError(400, "payload: with application/store it is the path of a packet")
        return payload, STORE_TYPE
    if payload is None:
        return None, JSON_TYPE if payload_type == "application/super+json" else payload_type
    try:
        if not isinstance(payload, str):
            # A plain HTTP caller, who sends JSON where the SDK sends a text.
            check_json(payload, what="payload")
            return encode_json(payload), JSON_TYPE
        decode_packet(payload, payload_type)
    except InvalidPayloadError as error:
        if payload_type == JSON_TYPE and isinstance(payload, str) and not _looks_like_json(payload):
            return _encode_checked(payload, "the payload"), JSON_TYPE
        raise RequestError(400, str(error)) from None
    return payload, payload_type


def _looks_like_json(text: str) -> bool:
    return text.lstrip()[:1] in ("{", "[", '"')


def _encode_metadata(metadata: Json) -> str | None:
    if metadata is None:
        return None
    if isinstance(metadata, str):
        # The JavaScript SDK sends it as a packet.
        try:
            metadata = parse_json(metadata, what="options.metadata")
        except InvalidPayloadError as error:
            raise RequestError(400, str(error)) from None
    if not isinstance(metadata, dict):
        raise RequestError(400, "options.metadata must be a JSON object")
    text = _encode_checked(metadata, "options.metadata")
    if len(text.encode()) > MAX_METADATA_BYTES:
        raise RequestError(
            422, f"options.metadata is {len(text.encode())} bytes; {MAX_METADATA_BYTES} at most"
        )
    return text


def _encode_checked(value: Json, what: str) -> str:
    try:
        check_json(value, what=what)
    except InvalidPayloadError as error:
        raise RequestError(400, str(error)) from None
    return encode_json(value)


def _checked_text(text: str) -> None:
    try:
        check_text(text, what=f"{text[:64]!r}")
    except InvalidPayloadError as error:
        raise RequestError(400, str(error)) from None


def _duration(value: str | int, name: str) -> timedelta:
    try:
        return parse_duration(value)
    except ValueError as error:
        raise RequestError(400, f"options.{name}: {error}") from None


def _delayed_until(delay: str | None, now: datetime) -> datetime | None:
    if delay is None:
        return None
    try:
        until = now + parse_duration(delay)
    except ValueError:
        try:
            until = parse_instant(delay)
        except ValueError:
            raise RequestError(
                400,
                f"options.delay: {delay!r} is neither a duration ('30s', '1h30m', '2d') nor an "
                "ISO date ('2027-01-31T09:00:00Z')",
            ) from None
    return until if until > now else None


def _ttl(ttl: str | int | None) -> tuple[str | None, int | None]:
    if ttl is None:
        return None, None
    seconds = round(_duration(ttl, "ttl").total_seconds())
    return (f"{ttl}s" if isinstance(ttl, int) else ttl), min(seconds, MAX_DURATION_SECONDS)


def _max_duration(seconds: float | None) -> int | None:
    if seconds is None:
        return None
    return round(min(max(seconds, MIN_DURATION_SECONDS), MAX_DURATION_SECONDS))


def _priority(priority: float | None) -> float:
    if priority is None:
        return 0.0
    if not abs(priority) <= MAX_PRIORITY_SECONDS:
        raise RequestError(400, f"options.priority: {priority} is no number of seconds")
    return float(priority)
