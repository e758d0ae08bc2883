"""What the options of a trigger become in its request, and which values they refuse."""

import hashlib
import json
from datetime import UTC, datetime, timedelta, timezone
from enum import Enum
from typing import Any, cast

import pytest

from runwell.client.management import BlockingTasks, Tasks
from runwell.client.options import Debounce, Machine, Queue, Retry, timeout
from runwell.client.transport import ClientSettings, InternalServerError, RequestOptions
from runwell.client.triggering import TriggerOptions, trigger_body, trigger_call
from runwell.core import schemas
from runwell.core.errors import InvalidPayloadError
from runwell.core.machines import MachineName
from tests.support.transport import FakeTransport, answer_json, fake_client

SETTINGS = ClientSettings(secret_key="tr_dev_key")
TRIGGERED = answer_json({"id": "run_1", "isCached": False})


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def options_of(**options: object) -> dict[str, object]:
    call = trigger_call("hello", None, cast("TriggerOptions", options), SETTINGS)
    assert call.body is not None
    # The server takes exactly this, and refuses unknown fields.
    schemas.TriggerBody.model_validate_json(call.body)
    sent = json.loads(call.body)["options"]
    assert sent.pop("payloadType") == "application/json"
    return sent


class Metal(Enum):
    """Something with a value."""

    IRON = "Fe"


@pytest.mark.parametrize(
    ("name", "value", "field", "sent"),
    [
        ("queue", "my/queue-1", "queue", {"name": "my/queue-1"}),
        ("queue", Queue(name="q"), "queue", {"name": "q"}),
        (
            "queue",
            Queue(name="q", concurrency_limit=3),
            "queue",
            {"name": "q", "concurrencyLimit": 3},
        ),
        ("queue", Queue(concurrency_limit=0), "queue", {"concurrencyLimit": 0}),
        ("concurrency_key", "user_1", "concurrencyKey", "user_1"),
        ("region", "eu-1", "region", "eu-1"),
        ("max_attempts", 5, "maxAttempts", 5),
        ("tags", "one", "tags", ["one"]),
        ("tags", ("one", "two"), "tags", ["one", "two"]),
        ("idempotency_key", "abc", "idempotencyKey", sha256("abc")),
        ("idempotency_key", ["user", "1"], "idempotencyKey", sha256("user-1")),
        ("idempotency_key", "f" * 64, "idempotencyKey", "f" * 64),
        ("idempotency_key_ttl", "1h30m", "idempotencyKeyTTL", "5400s"),
        ("idempotency_key_ttl", 60, "idempotencyKeyTTL", "60s"),
        ("delay", "1h30m", "delay", "1h30m"),
        ("delay", "2027-01-31T09:00:00Z", "delay", "2027-01-31T09:00:00Z"),
        ("delay", timedelta(minutes=2), "delay", "120s"),
        ("delay", 0.2, "delay", "1s"),
        ("delay", datetime(2027, 1, 31, 9, tzinfo=UTC), "delay", "2027-01-31T09:00:00+00:00"),
        (
            "delay",
            datetime(2027, 1, 31, 9, tzinfo=timezone(timedelta(hours=2))),
            "delay",
            "2027-01-31T07:00:00+00:00",
        ),
        ("ttl", "10m", "ttl", 600),
        ("ttl", timedelta(seconds=1.5), "ttl", 2),
        ("metadata", {"a": [1, Metal.IRON]}, "metadata", {"a": [1, "Fe"]}),
        ("max_duration", 300, "maxDuration", 300),
        ("max_duration", "1h", "maxDuration", 3600),
        ("max_duration", timeout.NONE, "maxDuration", 2_147_483_647),
        ("machine", "large-2x", "machine", "large-2x"),
        ("version", "20250228.1", "lockToVersion", "20250228.1"),
        ("priority", 10, "priority", 10),
        ("priority", -1.5, "priority", -1.5),
    ],
)
def test_an_option_is_sent_as_the_api_takes_it(
    name: str, value: object, field: str, sent: object
) -> None:
    assert options_of(**{name: value}) == {field: sent}
    assert options_of(**{name: None}) == {}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("queue", "with spaces"),
        ("queue", "ä"),
        ("queue", ""),
        ("queue", "q" * 129),
        ("queue", 5),
        ("concurrency_key", ""),
        ("concurrency_key", "k" * 129),
        ("region", ""),
        ("region", "r" * 65),
        ("concurrency_key", 7),
        ("max_attempts", 0),
        ("max_attempts", 251),
        ("max_attempts", 1.5),
        ("max_attempts", True),
        ("tags", [""]),
        ("tags", ["t" * 129]),
        ("tags", [str(i) for i in range(11)]),
        ("tags", [5]),
        ("idempotency_key", ""),
        ("idempotency_key", []),
        ("idempotency_key", ["a", 5]),
        ("idempotency_key_ttl", "soon"),
        ("delay", "tomorrow"),
        ("delay", datetime(2027, 1, 1)),  # noqa: DTZ001 (what is refused)
        ("delay", -5),
        ("ttl", "1h 30m"),
        ("ttl", float("nan")),
        ("metadata", ["a"]),
        ("metadata", "a"),
        ("max_duration", 4),
        ("max_duration", True),
        ("max_duration", None.__class__),
        ("machine", "huge"),
        ("version", "20250231.1"),
        ("version", "latest"),
        ("priority", "high"),
        ("priority", float("inf")),
        ("priority", True),
    ],
)
def test_a_bad_value_is_refused_with_the_name_of_its_option(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=name.partition("_ttl")[0]):
        options_of(**{name: value})


@pytest.mark.parametrize("metadata", [{"a": float("nan")}, {"a": object()}, {"a": "x" * 300_000}])
def test_metadata_that_can_not_be_stored_is_refused(metadata: dict[str, object]) -> None:
    with pytest.raises(InvalidPayloadError, match="the metadata"):
        options_of(metadata=metadata)


@pytest.mark.parametrize("limit", [-1, 100_001, 1.5, True])
def test_a_queue_refuses_a_limit_that_is_none(limit: float) -> None:
    with pytest.raises(ValueError, match="concurrency_limit"):
        Queue(concurrency_limit=cast("int", limit))


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"max_attempts": 0}, "max_attempts"),
        ({"max_attempts": "three"}, "max_attempts"),
        ({"factor": 0.5}, "factor"),
        ({"min_timeout": "soon"}, "min_timeout"),
        ({"max_timeout": -1}, "max_timeout"),
        ({"randomize": "perhaps"}, "randomize"),
    ],
)
def test_a_retry_refuses_what_is_none(options: dict[str, object], name: str) -> None:
    with pytest.raises(ValueError, match=name):
        Retry(**options)  # pyright: ignore[reportArgumentType] (what is refused)


def test_the_version_of_the_environment_is_used_unless_another_is_given() -> None:
    settings = ClientSettings(secret_key="k", version="20250101.2")
    for options, version in (
        (TriggerOptions(), "20250101.2"),
        ({"version": "20250102.1"}, "20250102.1"),
    ):
        call = trigger_call("hello", None, cast("TriggerOptions", options), settings)
        assert json.loads(call.body or b"")["options"]["lockToVersion"] == version


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("dely", "a trigger has no option 'dely': did you mean 'delay'"),
        ("zzz", "a trigger has no option 'zzz': there are concurrency_key, debounce"),
        ("timeout", "a trigger has no option 'timeout'"),
    ],
)
def test_an_unknown_option_is_a_type_error_that_names_it(name: str, message: str) -> None:
    transport = FakeTransport(TRIGGERED)
    with pytest.raises(TypeError, match=message):
        BlockingTasks(fake_client(transport)).trigger("hello", None, **{name: 1})  # pyright: ignore[reportArgumentType] (what is refused)
    assert transport.requests == []


def test_a_task_id_is_one_part_of_the_path() -> None:
    assert trigger_call("a/b c?", None, {}, SETTINGS).path == "/api/v1/tasks/a%2Fb%20c%3F/trigger"


def test_one_trigger_keeps_its_request_key_and_the_next_has_another() -> None:
    transport = FakeTransport(answer_json({"error": "x"}, 500), TRIGGERED)
    tasks = BlockingTasks(fake_client(transport))
    tasks.trigger("hello")
    tasks.trigger("hello")
    first, retried, second = (
        request.headers["x-trigger-request-idempotency-key"] for request in transport.requests
    )
    assert first == retried != second


def test_a_payload_is_sent_as_json_text_and_no_payload_not_at_all() -> None:
    transport = FakeTransport(TRIGGERED)
    tasks = BlockingTasks(fake_client(transport))
    tasks.trigger("hello", {"at": datetime(2025, 1, 1, tzinfo=UTC), "n": [1]})
    tasks.trigger("hello", "text")
    tasks.trigger("hello")
    bodies = cast("list[dict[str, object]]", transport.bodies())
    assert bodies[0]["payload"] == '{"at":"2025-01-01T00:00:00Z","n":[1]}'
    assert bodies[1]["payload"] == '"text"'
    assert "payload" not in bodies[2]


def test_a_payload_that_can_not_be_sent_sends_nothing() -> None:
    transport = FakeTransport(TRIGGERED)
    tasks = BlockingTasks(fake_client(transport))
    for payload in (object(), float("nan"), "x" * (3 * 1024 * 1024), "\x00"):
        with pytest.raises(InvalidPayloadError, match="the payload"):
            tasks.trigger("hello", payload)
    assert transport.requests == []


async def test_the_handle_has_the_id_and_says_whether_the_run_was_there() -> None:
    transport = FakeTransport(answer_json({"id": "run_7", "isCached": True}))
    handle = await Tasks(fake_client(transport)).trigger("hello", idempotency_key="a")
    assert (handle.id, handle.is_cached, handle.public_access_token) == ("run_7", True, None)
    assert repr(handle) == "RunHandle(id='run_7', is_cached=True)"


def test_options_of_a_request_are_not_sent_and_hold_for_it() -> None:
    transport = FakeTransport(answer_json({"error": "x"}, 500))
    once = RequestOptions(retry=Retry(max_attempts=1))
    with pytest.raises(InternalServerError):
        BlockingTasks(fake_client(transport)).trigger("hello", request_options=once)
    assert len(transport.requests) == 1
    assert "requestOptions" not in str(transport.bodies())


def test_where_to_go_on_when_memory_runs_out_is_named_in_any_form() -> None:
    for given in (Machine("large-1x"), Machine(MachineName.LARGE_1X), "large-1x"):
        options = Retry(out_of_memory=given).to_options()
        assert options.model_dump(by_alias=True)["outOfMemory"] == {"machine": "large-1x"}
    assert Retry().to_options().out_of_memory is None
    with pytest.raises(ValueError, match="not a machine preset: choose one of micro"):
        Machine("huge")  # pyright: ignore[reportArgumentType] (what is refused)
    with pytest.raises(ValueError, match="not a machine preset"):
        Retry(out_of_memory="huge")  # pyright: ignore[reportArgumentType] (what is refused)


def test_a_debounce_is_sent_as_the_api_takes_it() -> None:
    debounce = Debounce(key="k", delay="1m", mode="trailing", max_delay=timedelta(hours=1))
    fields = trigger_body(None, {"debounce": debounce}, SETTINGS)["options"]
    assert cast("dict[str, object]", fields)["debounce"] == {
        "key": "k",
        "delay": "60s",
        "mode": "trailing",
        "maxDelay": "3600s",
    }


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"key": ""}, "1 to 512 characters"),
        ({"delay": 0}, "longer than nothing"),
        ({"delay": "soon"}, "'soon' is not a duration"),
        ({"mode": "first"}, "choose leading or trailing"),
        ({"max_delay": 1}, "shorter than its delay"),
    ],
)
def test_a_debounce_that_can_not_be_is_a_value_error(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Debounce(**cast("Any", {"key": "k", "delay": "5s", **fields}))


def test_a_debounce_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match=r"it takes Debounce\("):
        trigger_body(None, cast("Any", {"debounce": {"key": "k"}}), SETTINGS)
