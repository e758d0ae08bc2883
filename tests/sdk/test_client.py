"""The default client: `configure`, the environment, and tasks that trigger themselves."""

import asyncio
import json
from collections.abc import Generator
from dataclasses import dataclass
from typing import cast

import pytest

import runwell.sync
from runwell import (
    ApiConnectionError,
    ConfigurationError,
    RequestOptions,
    Retry,
    configure,
    idempotency_keys,
    runs,
    task,
    tasks,
)
from runwell.client.triggering import hash_key
from runwell.core.errors import TaskPayloadParsedError
from runwell.sdk.client import current_settings
from runwell.sdk.idempotency import KeyScope
from runwell.sdk.runtime import activate
from tests.client.test_runs import run_json
from tests.sdk.contexts import KeepingRuntime
from tests.support.api_server import ApiServer, answer, api_server, unused_url

TRIGGERED = answer(200, {"id": "run_1", "isCached": False})


@dataclass
class Sum:
    """What `add` returns."""

    value: int


@task(id="add")
async def add(numbers: list[int]) -> Sum:
    return Sum(sum(numbers))


@task(id="greet")
def greet(name: str = "world") -> str:
    return f"Hello {name}"


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Generator[ApiServer]:
    with api_server() as api:
        monkeypatch.setenv("TRIGGER_API_URL", api.url)
        monkeypatch.setenv("TRIGGER_SECRET_KEY", "tr_dev_environment")
        yield api
    configure()


def bodies(api: ApiServer) -> list[dict[str, object]]:
    return [json.loads(seen.body) for seen in api.seen]


async def test_the_environment_says_where_runs_go(api: ApiServer) -> None:
    api.will(*[TRIGGERED] * 2)
    await tasks.trigger("hello")
    await asyncio.to_thread(runwell.sync.tasks.trigger, "hello")
    assert [seen.headers["authorization"] for seen in api.seen] == ["Bearer tr_dev_environment"] * 2


def test_what_is_configured_goes_before_the_environment(api: ApiServer) -> None:
    api.will(*[TRIGGERED] * 2)
    configure(secret_key="tr_dev_configured")
    runwell.sync.tasks.trigger("hello")
    configure()
    runwell.sync.tasks.trigger("hello")
    assert [seen.headers["authorization"] for seen in api.seen] == [
        "Bearer tr_dev_configured",
        "Bearer tr_dev_environment",
    ]
    configure(base_url="https://a.test/", retry=Retry(max_attempts=2), timeout="5s")
    settings = current_settings()
    assert settings.base_url == "https://a.test"
    assert settings.retry.max_attempts == 2


@pytest.mark.parametrize("options", [{"base_url": "localhost"}, {"timeout": "soon"}])
def test_a_bad_configuration_changes_nothing(options: dict[str, str]) -> None:
    configure(secret_key="tr_dev_kept")
    try:
        with pytest.raises((ConfigurationError, ValueError), match=r"localhost|timeout"):
            configure(**options)  # pyright: ignore[reportArgumentType] (what is refused)
        assert current_settings().secret_key == "tr_dev_kept"
    finally:
        configure()


def test_configure_is_for_known_settings() -> None:
    with pytest.raises(TypeError, match="access_token"):
        configure(access_token="x")  # pyright: ignore[reportCallIssue] (what is refused)


def test_without_a_key_nothing_is_sent(api: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRIGGER_SECRET_KEY")
    monkeypatch.delenv("TRIGGER_ACCESS_TOKEN", raising=False)
    with pytest.raises(ConfigurationError, match="`runwell env`"):
        greet.sync.trigger()
    assert api.seen == []


async def test_a_task_triggers_itself_with_a_payload_that_fits(api: ApiServer) -> None:
    api.will(*[TRIGGERED] * 3)
    handle = await add.trigger([1, 2], tags="sums")
    assert handle.id == "run_1"
    assert (await greet.trigger()).id == "run_1"
    assert (await asyncio.to_thread(greet.sync.trigger, "Ada", priority=1)).id == "run_1"
    options = {"payloadType": "application/json"}
    assert bodies(api) == [
        {"options": {**options, "tags": ["sums"]}, "payload": "[1,2]"},
        {"options": options},
        {"options": {**options, "priority": 1}, "payload": '"Ada"'},
    ]
    assert api.seen[0].path == "/api/v1/tasks/add/trigger"


async def test_a_payload_that_does_not_fit_is_not_sent(api: ApiServer) -> None:
    with pytest.raises(TaskPayloadParsedError, match=r"payload\[0\]: Input should be a valid int"):
        await add.trigger(["one"])  # pyright: ignore[reportArgumentType] (what is refused)
    assert api.seen == []


async def test_an_option_that_is_none_is_a_type_error(api: ApiServer) -> None:
    with pytest.raises(TypeError, match="no option 'tag': did you mean 'tags'"):
        await add.trigger([1], tag="a")  # pyright: ignore[reportCallIssue] (what is refused)


async def test_the_output_comes_back_as_the_task_returns_it(api: ApiServer) -> None:
    run = answer(200, run_json(output={"value": 3}))
    api.will(TRIGGERED, *[run] * 3)
    handle = await add.trigger([1, 2])
    assert (await runs.retrieve(handle)).output == Sum(3)
    assert (await runs.poll(handle)).output == Sum(3)
    assert (await runs.retrieve(handle.id)).output == {"value": 3}


async def test_a_server_that_is_away_is_an_error_after_the_retries() -> None:
    configure(base_url=unused_url(), secret_key="k", retry=Retry(max_attempts=2, min_timeout=0))
    try:
        with pytest.raises(ApiConnectionError, match="nothing listens there"):
            await add.trigger([1])
        once = RequestOptions(retry=Retry(max_attempts=1))
        with pytest.raises(ApiConnectionError):
            await runs.retrieve("run_1", request_options=once)
    finally:
        configure()


def test_keys_are_the_same_in_each_sdk() -> None:
    # What `idempotencyKeys.create(["user", "1"])` gives in JavaScript: SHA-256 of the joined texts.
    expected = "c6c289e49e9c05b2145860387b73bcb18df43fb09a1e4a4a9713c76c88bb541b"
    assert idempotency_keys.create(["user", "1"]) == expected
    assert idempotency_keys.create("user-1") == expected


@pytest.mark.parametrize(
    ("scope", "inside"), [("run", ("run_1",)), ("attempt", ("attempt_1",)), ("global", ())]
)
def test_a_key_belongs_to_its_scope(scope: KeyScope, inside: tuple[str, ...]) -> None:
    outside = idempotency_keys.create("key", scope=scope)
    assert outside == hash_key("key")
    with activate(KeepingRuntime()):
        assert idempotency_keys.create("key", scope=scope) == hash_key("key", *inside)
        assert idempotency_keys.create("key") == hash_key("key", "run_1")


def test_a_key_of_nothing_or_of_an_unknown_scope_is_refused() -> None:
    with pytest.raises(ValueError, match="idempotency_key=''"):
        idempotency_keys.create("")
    with pytest.raises(ValueError, match="scope='day'"):
        idempotency_keys.create("a", scope="day")  # pyright: ignore[reportArgumentType] (what is refused)


async def test_what_a_run_triggers_names_it_as_the_parent(api: ApiServer) -> None:
    api.will(*[TRIGGERED] * 5)
    with activate(KeepingRuntime()):
        await add.trigger([1])
        await tasks.trigger("add", [1])
        await asyncio.to_thread(lambda: runwell.sync.tasks.trigger("add", [1]))
        add.sync.trigger([1])
    await add.trigger([1])
    options = [cast("dict[str, object]", body["options"]) for body in bodies(api)]
    assert [given.get("parentRunId") for given in options] == ["run_1"] * 4 + [None]
