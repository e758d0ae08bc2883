"""A trigger as the API takes it: the options that users give, read into the body of the request."""

import difflib
import hashlib
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final, TypedDict, cast
from urllib.parse import quote

from runwell.client.options import (
    MAX_DURATION_SECONDS,
    Debounce,
    MachineOption,
    Queue,
    check_queue_name,
    read_instant,
    read_machine,
    read_max_duration,
    read_whole,
    read_whole_seconds,
)
from runwell.client.transport import Call, ClientSettings, RequestOptions, json_body
from runwell.core.ids import Version, make_request_key
from runwell.core.payloads import JSON_TYPE, MAX_METADATA_BYTES, Json, encode_value, parse_json
from runwell.core.schemas import MAX_TAG_CHARACTERS, MAX_TAGS
from runwell.core.timing import Duration, parse_duration, parse_instant

KEY_CHARACTERS: Final = 64
_MAX_ATTEMPTS: Final = 250
_MAX_CONCURRENCY_KEY_CHARACTERS: Final = 128
_MAX_REGION_CHARACTERS: Final = 64


class TriggerOptions(TypedDict, total=False):
    """What every trigger function takes by name. An option of None counts as not given.

    `queue` and `concurrency_key`: where the run waits. `delay`: when it is queued, a length of time
    or an aware instant. `debounce`: one run for all triggers with a key.
    `ttl`: how long it may wait for its first start; 0 for as long as it takes. `idempotency_key`: a
    text, or texts, for which there is one run of the task while `idempotency_key_ttl` lasts (30
    days). `max_attempts`, `max_duration`, `machine`: in place of the task's own. `tags`: up to ten
    texts. `metadata`: a JSON object. `version`: the background worker version that must run it.
    `priority`: seconds of head start over the runs of its queue. `region`: where it is to run, once
    a worker has said that it is there.
    """

    concurrency_key: str | None
    debounce: Debounce | None
    delay: Duration | datetime | None
    idempotency_key: str | Sequence[str] | None
    idempotency_key_ttl: Duration | None
    machine: MachineOption | None
    max_attempts: int | None
    max_duration: Duration | None
    metadata: Mapping[str, object] | None
    priority: float | None
    queue: Queue | str | None
    region: str | None
    request_options: RequestOptions | None
    tags: str | Sequence[str] | None
    ttl: Duration | None
    version: str | None


def trigger_call(
    task_id: str,
    payload: str | None,
    options: TriggerOptions,
    settings: ClientSettings,
    *,
    payload_type: str = JSON_TYPE,
    is_awaited: bool = False,
) -> Call:
    """The call that triggers one run; `payload` is a JSON text, or the path of its upload.

    `is_awaited`: the current run waits for it.
    Raises TypeError for an unknown option and ValueError for a bad value of a known one. The
    request key stays the same however often the call is sent, so that it makes one run.
    """
    body = trigger_body(
        payload, options, settings, payload_type=payload_type, is_awaited=is_awaited
    )
    return Call(
        method="POST",
        path=f"/api/v1/tasks/{quote(task_id, safe='')}/trigger",
        body=json_body(body),
        headers={"x-trigger-request-idempotency-key": make_request_key()},
        options=options.get("request_options"),
    )


def trigger_body(
    payload: str | None,
    options: TriggerOptions,
    settings: ClientSettings,
    *,
    payload_type: str = JSON_TYPE,
    is_awaited: bool = False,
) -> dict[str, object]:
    """Payload and options as the API takes them; raises as `trigger_call` does."""
    check_names(options)
    fields: dict[str, Json] = {"payloadType": payload_type}
    version = options.get("version") or settings.version
    if version is not None:
        fields["lockToVersion"] = _version(version)
    if settings.parent_run_id is not None:
        fields["parentRunId"] = settings.parent_run_id
        if is_awaited:
            fields["resumeParentOnCompletion"] = True
    for name, value in options.items():
        if value is not None and name in _READERS:
            field, read = _READERS[name]
            fields[field] = read(value)
    body: dict[str, object] = {"options": fields}
    if payload is not None:
        body["payload"] = payload
    return body


def check_names(options: Mapping[str, object]) -> None:
    """Raise TypeError for an option that no trigger function has."""
    for name in options:
        if name in TriggerOptions.__annotations__:
            continue
        near = difflib.get_close_matches(name, TriggerOptions.__annotations__, n=1)
        known = ", ".join(sorted(TriggerOptions.__annotations__))
        hint = f"did you mean '{near[0]}'?" if near else f"there are {known}"
        raise TypeError(f"a trigger has no option '{name}': {hint}")


def hash_key(parts: str | Sequence[str], *more: str) -> str:
    """The idempotency key for texts: 64 hexadecimal digits, the same in every language's SDK."""
    given: list[object] = [parts] if isinstance(parts, str) else list(parts)
    texts = [part for part in given if isinstance(part, str) and part]
    if not texts or len(texts) < len(given):
        raise ValueError(f"idempotency_key={parts!r}: it takes a text, or a list of texts")
    return hashlib.sha256("-".join((*texts, *more)).encode()).hexdigest()


def read_key(value: object) -> str:
    """An idempotency key as the API takes it: one that was hashed already stays as it is."""
    if isinstance(value, str) and len(value) == KEY_CHARACTERS:
        return value
    return hash_key(cast("str | Sequence[str]", value))


def _concurrency_key(value: object) -> Json:
    if not isinstance(value, str) or not 1 <= len(value) <= _MAX_CONCURRENCY_KEY_CHARACTERS:
        raise ValueError(
            f"concurrency_key={value!r}: it takes a text of 1 to {_MAX_CONCURRENCY_KEY_CHARACTERS} "
            "characters"
        )
    return value


def read_delay(value: object) -> Json:
    """A delay as the API takes it: a duration, or an ISO date; raises ValueError."""
    if isinstance(value, datetime):
        return read_instant("delay", value).astimezone(UTC).isoformat()
    if isinstance(value, str):
        for read in (parse_duration, parse_instant):
            try:
                read(value)
            except ValueError:
                continue
            return value
        raise ValueError(
            f"delay={value!r} is neither a duration like '1h30m' nor a date like "
            "'2027-01-31T09:00:00Z'"
        )
    return f"{read_whole_seconds('delay', cast('Duration', value))}s"


def _debounce(value: object) -> Json:
    if not isinstance(value, Debounce):
        raise ValueError(f"debounce={value!r}: it takes Debounce(key=..., delay=...)")
    return value.to_fields()


def _ttl(value: object) -> Json:
    return read_whole_seconds("ttl", cast("Duration", value))


def read_key_ttl(value: object) -> str:
    """How long a key holds, as the API takes it."""
    # The API takes one number with one unit.
    return f"{read_whole_seconds('idempotency_key_ttl', cast('Duration', value))}s"


def _queue(value: object) -> Json:
    if isinstance(value, str):
        check_queue_name(value)
        return {"name": value}
    if not isinstance(value, Queue):
        raise ValueError(f"queue={value!r}: it takes the name of a queue, or Queue(...)")
    if value.rate_limit is not None:
        raise ValueError(
            "queue: a rate limit belongs to a definition, Queue(rate_limit=...) of a task or "
            "queue(...); a trigger takes the name of such a queue"
        )
    fields: dict[str, Json] = {}
    if value.name is not None:
        fields["name"] = value.name
    if value.concurrency_limit is not None:
        fields["concurrencyLimit"] = value.concurrency_limit
    return fields


def read_tags(value: object) -> Json:
    """Tags as the API takes them; raises ValueError."""
    tags = [value] if isinstance(value, str) else list(cast("Sequence[object]", value))
    for tag in tags:
        if not isinstance(tag, str) or not 1 <= len(tag) <= MAX_TAG_CHARACTERS:
            raise ValueError(
                f"tags: {tag!r} is not a tag: a text of 1 to {MAX_TAG_CHARACTERS} characters"
            )
    if len(tags) > MAX_TAGS:
        raise ValueError(f"tags: a run has at most {MAX_TAGS}, and {len(tags)} were given")
    return cast("list[Json]", tags)


def _metadata(value: object) -> Json:
    if not isinstance(value, Mapping):
        raise ValueError(f"metadata={value!r}: it takes a dict, which becomes a JSON object")
    text = encode_value(cast("object", value), what="the metadata", limit=MAX_METADATA_BYTES)
    return parse_json(text, what="the metadata")


def _priority(value: object) -> Json:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_number and abs(cast("float", value)) <= MAX_DURATION_SECONDS:
        return cast("float", value)
    raise ValueError(f"priority={value!r}: it takes a number of seconds")


def _region(value: object) -> Json:
    if not isinstance(value, str) or not 1 <= len(value) <= _MAX_REGION_CHARACTERS:
        raise ValueError(
            f"region={value!r}: it takes a text of 1 to {_MAX_REGION_CHARACTERS} characters"
        )
    return value


def _version(value: str) -> str:
    try:
        return str(Version.parse(value))
    except ValueError as error:
        raise ValueError(f"version: {error}") from None


#: How an option is called in the API, and how its value is read.
_READERS: Final[dict[str, tuple[str, Callable[[object], Json]]]] = {
    "concurrency_key": ("concurrencyKey", _concurrency_key),
    "debounce": ("debounce", _debounce),
    "delay": ("delay", read_delay),
    "idempotency_key": ("idempotencyKey", read_key),
    "idempotency_key_ttl": ("idempotencyKeyTTL", read_key_ttl),
    "machine": ("machine", lambda value: read_machine(cast("MachineOption", value))),
    "max_attempts": (
        "maxAttempts",
        lambda value: read_whole("max_attempts", cast("int", value), 1, _MAX_ATTEMPTS),
    ),
    "max_duration": ("maxDuration", lambda value: read_max_duration(cast("Duration", value))),
    "metadata": ("metadata", _metadata),
    "priority": ("priority", _priority),
    "queue": ("queue", _queue),
    "region": ("region", _region),
    "tags": ("tags", read_tags),
    "ttl": ("ttl", _ttl),
}
