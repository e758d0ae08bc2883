"""What a trigger asks for, checked: its options, payload and metadata as the columns of a new run.

No SQL and no clock: a request and an instant in, a `NewRun` out. Where the run goes is
`triggering`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from runwell.core.errors import InvalidPayloadError, RequestError
from runwell.core.ids import RunId, make_id, run_id_for_request
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
from runwell.engine import queues
from runwell.engine.environments import Environment

DEFAULT_KEY_LIFETIME = timedelta(days=30)
#: The least and the most that a run may take, in seconds (docs `runs/max-duration.md`).
MIN_DURATION_SECONDS, MAX_DURATION_SECONDS = 5, 2_147_483_647
MAX_TASK_ID_CHARACTERS = 256
MAX_PRIORITY_SECONDS = 10 * 365 * 24 * 3600


@dataclass(frozen=True, kw_only=True)
class TriggerRequest:
    """One trigger as it came in.

    `request_key` is the same when it is sent again. `run_id` is for callers that name the run
    themselves, so that what they do twice makes it once. `replay_of`: the run that it copies.
    """

    task_id: str
    body: TriggerBody
    request_key: str | None = None
    traceparent: str | None = None
    run_id: RunId | None = None
    replay_of: RunId | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Debounce:
    """One delayed run for a key: each trigger pushes it by `delay`, by `max_delay` in all.

    The last trigger says what the run gets if it `is_trailing`, and the first one otherwise.
    """

    key: str
    delay: timedelta
    is_trailing: bool
    max_delay: timedelta | None
    request_key: str | None

    def latest_at(self, due_at: datetime, now: datetime) -> datetime | None:
        """How far a run that is made now, for `due_at`, may be pushed; None for any time."""
        return None if self.max_delay is None else max(due_at, now + self.max_delay)


@dataclass(frozen=True, kw_only=True, slots=True)
class NewRun:
    """A run to be inserted; the fields up to `region` are those of the type new_run."""

    run_id: RunId
    task_id: str
    version: str | None
    queue_name: str | None
    default_queue_name: str
    concurrency_key: str | None
    idempotency_key: str | None
    idempotency_key_expires_at: datetime
    delayed_until: datetime | None
    priority_seconds: float
    payload: str | None
    payload_type: str
    context: str | None
    metadata: str | None
    tags: str | None
    is_test: bool
    max_attempts: int | None
    max_duration: int | None
    machine: str | None
    ttl: str | None
    ttl_seconds: int | None
    parent_run_id: RunId | None
    #: The parent waits for it.
    is_awaited: bool
    replay_of: RunId | None
    trace_context: str | None
    region: str | None
    #: A limit that is to be set for the queue; None removes the one there is.
    queue_limit: int | None
    sets_queue_limit: bool
    debounce: Debounce | None
    #: The request's key, where `run_id` isn't made of it and has to be remembered with it.
    request_key: str | None
    #: A batch of which it becomes one more run, and the bulk action that makes it.
    joined_batch_id: str | None
    bulk_action_id: str | None


def read_request(
    environment: Environment,
    request: TriggerRequest,
    *,
    now: datetime,
    run_id: RunId | None = None,
) -> NewRun:
    """The run that a request asks for, as `run_id` if given.

    Raises RequestError with a sentence for what can't be (422) or is malformed (400).
    """
    body, options = request.body, request.body.options
    _check_task_id(request.task_id)
    _refuse_gates(options)
    payload, payload_type = encode_payload(body.payload, options.payload_type)
    tags = _encode_tags(options.tags)
    for text in (
        options.concurrency_key,
        options.idempotency_key,
        options.lock_to_version,
        options.region,
        options.dependent_batch,
        options.parent_batch,
        options.bulk_action_id,
    ):
        if text is not None:
            _checked_text(text)
    key_lifetime = (
        DEFAULT_KEY_LIFETIME
        if options.idempotency_key_ttl is None
        else _duration(options.idempotency_key_ttl, "idempotencyKeyTTL")
    )
    ttl, ttl_seconds = _ttl(options.ttl)
    queue = options.queue
    debounce = _debounce(options, request.request_key)
    delayed_until = _delayed_until(options.delay, now)
    if debounce is not None:
        delayed_until = max(now + debounce.delay, delayed_until or now)
    parent_run_id, is_awaited = _parent(options)
    named_id = request.run_id or run_id
    request_key = request.request_key if named_id is None else None
    if request_key is not None:
        named_id = run_id_for_request(environment.id, request_key, now)
    return NewRun(
        run_id=named_id or make_id("run", now),
        task_id=request.task_id,
        version=options.lock_to_version,
        queue_name=None if queue is None else _queue_name(queue.name),
        default_queue_name=task_queue_name(request.task_id),
        concurrency_key=options.concurrency_key,
        idempotency_key=options.idempotency_key,
        idempotency_key_expires_at=now + key_lifetime,
        delayed_until=delayed_until,
        priority_seconds=_priority(options.priority),
        payload=payload,
        payload_type=payload_type,
        context=None if body.context is None else _encode_checked(body.context, "context"),
        metadata=_encode_metadata(options.metadata),
        tags=tags,
        is_test=options.test,
        max_attempts=options.max_attempts,
        max_duration=_max_duration(options.max_duration),
        machine=options.machine,
        ttl=ttl,
        ttl_seconds=ttl_seconds,
        parent_run_id=parent_run_id,
        is_awaited=is_awaited,
        replay_of=request.replay_of,
        trace_context=None
        if request.traceparent is None
        else encode_json({"traceparent": request.traceparent}),
        region=options.region or None,
        queue_limit=None if queue is None else queue.concurrency_limit,
        sets_queue_limit=queue is not None and "concurrency_limit" in queue.model_fields_set,
        debounce=debounce,
        request_key=request_key if named_id is None else None,
        joined_batch_id=options.dependent_batch or options.parent_batch or None,
        bulk_action_id=options.bulk_action_id or None,
    )


def _parent(options: TriggerOptions) -> tuple[RunId | None, bool]:
    """The run inside of which this was triggered, and whether that run waits for it.

    Whether there is such a run is seen at the insert.
    """
    is_awaited = bool(options.resume_parent_on_completion or options.dependent_attempt)
    given = options.parent_run_id
    for attempt in (options.dependent_attempt, options.parent_attempt):
        if given is None and attempt:
            given = queues.run_id_of_attempt(attempt)
    if given is not None:
        _checked_text(given)
    elif options.dependent_attempt:
        raise RequestError(
            400,
            f"options.dependentAttempt: {options.dependent_attempt[:64]!r} is no id of an attempt "
            "(`ctx.attempt.id`)",
        )
    elif is_awaited:
        raise RequestError(
            400,
            "options.resumeParentOnCompletion: say with options.parentRunId which run waits",
        )
    return given, is_awaited


def _queue_name(name: str | None) -> str | None:
    if name is None:
        return None
    cleaned = clean_queue_name(name)
    if not cleaned:
        raise RequestError(
            422, f"{name!r} is no queue name: use letters, digits, '_', '-' and '/' (128 at most)"
        )
    return cleaned


def _check_task_id(task_id: str) -> None:
    _checked_text(task_id)
    if not task_id or len(task_id) > MAX_TASK_ID_CHARACTERS or not task_id.isprintable():
        raise RequestError(
            400,
            f"{task_id[:64]!r} is no task id: 1 to {MAX_TASK_ID_CHARACTERS} printable characters",
        )


def _refuse_gates(options: TriggerOptions) -> None:
    # The protocol has these names and doesn't say what they do. A limit that is passed over in
    # silence would be worse than a refusal. Empty values limit nothing.
    for name, value in (("gates", options.gates), ("concurrency", options.concurrency)):
        if value:
            raise RequestError(
                422,
                f"options.{name} can't be honoured: limit what runs at once by options.queue and "
                "options.concurrencyKey",
            )


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


def _encode_tags(given: Sequence[str]) -> str | None:
    tags: list[Json] = list(dict.fromkeys(given))
    if len(tags) > MAX_TAGS:
        raise RequestError(422, f"a run has at most {MAX_TAGS} tags, and {len(tags)} were given")
    for tag in given:
        _checked_text(tag)
    return encode_json(tags) if tags else None


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


def _debounce(options: TriggerOptions, request_key: str | None) -> Debounce | None:
    given = options.debounce
    if given is None:
        return None
    _checked_text(given.key)
    delay = _duration(given.delay, "debounce.delay")
    if not delay:
        raise RequestError(400, "options.debounce.delay: it must be longer than nothing")
    max_delay = None
    if given.max_delay is not None:
        max_delay = _duration(given.max_delay, "debounce.maxDelay")
        if max_delay < delay:
            raise RequestError(
                400,
                f"options.debounce.maxDelay: {given.max_delay} is shorter than the delay, which is "
                f"{given.delay}",
            )
    return Debounce(
        key=given.key,
        delay=delay,
        is_trailing=given.mode == "trailing",
        max_delay=max_delay,
        request_key=request_key,
    )


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
