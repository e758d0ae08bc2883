"""User-like code that the type checkers read and nobody runs: triggers, runs, the config file."""

from datetime import UTC, datetime, timedelta
from typing import assert_type

import runwell.sync
from runwell import (
    Config,
    Queue,
    RawResponse,
    RequestOptions,
    Retries,
    Retry,
    Run,
    RunHandle,
    RunPage,
    auth,
    define_config,
    envvars,
    idempotency_keys,
    queue,
    runs,
    task,
    tasks,
    timeout,
)
from runwell.client.run_pages import BlockingRunPage
from runwell.core.payloads import Json
from runwell.core.schemas import CanceledRun, LogPage, RunListItem
from runwell.core.variable_schemas import VariableObject
from tests.typing.definitions import Order, bare, with_default, with_payload

shared = queue("shared", concurrency_limit=2)


@task(
    id="options",
    retry=Retry(max_attempts=3, min_timeout="1s", max_timeout=timedelta(seconds=5), factor=2),
    queue=shared,
    machine="large-1x",
    max_duration=timeout.NONE,
    ttl="1h",
    description="All of them",
    keep_process=True,
)
def with_options() -> dict[str, int]:
    return {}


async def trigger() -> None:
    handle = await with_payload.trigger(
        Order(1),
        delay=datetime.now(UTC),
        ttl=timedelta(minutes=1),
        idempotency_key=idempotency_keys.create(["a", "b"], scope="global"),
        idempotency_key_ttl="1h",
        queue=Queue(name="q", concurrency_limit=1),
        concurrency_key="user_1",
        max_attempts=3,
        tags=["a"],
        metadata={"a": 1},
        max_duration=300,
        machine="large-2x",
        version="20250228.1",
        priority=10,
        request_options=RequestOptions(timeout="5s"),
    )
    assert_type(handle, RunHandle[str])
    assert_type(handle.id, str)
    assert_type(handle.public_access_token, str | None)
    assert_type(await bare.trigger(), RunHandle[list[str]])
    assert_type(await bare.trigger(tags="a"), RunHandle[list[str]])
    assert_type(await with_default.trigger(), RunHandle[str])
    assert_type(await with_default.trigger("Ada"), RunHandle[str])
    assert_type(with_payload.sync.trigger(Order(1), delay="1h"), RunHandle[str])
    assert_type(bare.sync.trigger(), RunHandle[list[str]])
    assert_type(await tasks.trigger("hello", {"a": 1}, queue="q"), RunHandle[Json])
    assert_type(await tasks.trigger_and_poll("hello", timeout="1m", tags="a"), Run[Json])
    assert_type(runwell.sync.tasks.trigger_and_poll("hello", poll_interval=2), Run[Json])


async def read() -> None:
    handle = await with_payload.trigger(Order(1))
    run = await runs.retrieve(handle)
    assert_type(run, Run[str])
    assert_type(run.output, str | None)
    assert_type(run.finished_at, datetime | None)
    assert_type((await runs.retrieve("run_1")).output, Json)
    assert_type(await runs.poll(handle, timeout=5), Run[str])
    assert_type(await runs.cancel(run), CanceledRun)
    assert_type(await runs.logs(handle, after="1.1"), LogPage)
    assert_type(await runs.list(status=["QUEUED"], limit=5), RunPage)
    async for item in runs.list(tag="a", from_=datetime.now(UTC)):
        assert_type(item, RunListItem)
        await runs.retrieve(item)
    async for item in await runs.list():
        assert_type(item, RunListItem)


def read_blocking() -> None:
    page = runwell.sync.runs.list(period="1d")
    assert_type(page, BlockingRunPage)
    for item in page:
        assert_type(runwell.sync.runs.retrieve(item), Run[Json])
    assert_type(runwell.sync.runs.poll(with_payload.sync.trigger(Order(1))), Run[str])


async def read_answers() -> None:
    answer = await runs.with_raw_response.retrieve("run_1")
    assert_type(answer, RawResponse[Run[Json]])
    handle = await with_payload.trigger(Order(1))
    assert_type((await runs.with_raw_response.retrieve(handle)).data.output, str | None)
    assert_type(await runs.with_raw_response.poll(handle, timeout=5), RawResponse[Run[str]])
    canceled = await runs.with_raw_response.cancel("run_1")
    assert_type(canceled, RawResponse[CanceledRun])
    assert_type(canceled.data.id, str)
    assert_type((await runs.with_raw_response.list(limit=5)).data, RunPage)
    made = await tasks.with_raw_response.trigger("hello", {"a": 1}, tags="a")
    assert_type(made, RawResponse[RunHandle[Json]])
    token = await auth.with_raw_response.create_public_token({"read": {"runs": True}})
    assert_type(token.data, str)
    assert_type(await envvars.retrieve("A"), VariableObject)
    assert_type(await auth.create_trigger_public_token(with_payload, multiple_use=True), str)
    page = runwell.sync.runs.with_raw_response.list(period="1d")
    assert_type(page, RawResponse[BlockingRunPage])
    assert_type(runwell.sync.runs.with_raw_response.cancel("run_1").data, CanceledRun)


config = define_config(
    project="proj_a",
    dirs=["trigger"],
    ignore_patterns=["**/old_*.py"],
    retries=Retries(enabled_in_dev=False, default=Retry()),
    machine="small-2x",
    max_duration="1h",
    log_level="debug",
)
assert_type(config, Config)
