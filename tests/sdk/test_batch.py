"""Batches from user code: what is sent, what comes back, which mistakes are told before."""

import json
from collections.abc import Generator
from typing import Any, cast

import pytest

from runwell import TaskPayloadParsedError, batch, configure, item, task, tasks
from runwell.sync import batch as blocking_batch
from runwell.sync import tasks as blocking_tasks
from tests.support.api_server import ApiServer, answer, api_server


@task(id="double")
async def double(number: int) -> int:
    return 2 * number


@task(id="shout")
async def shout(text: str) -> str:
    return text.upper()


@pytest.fixture(autouse=True)
def configured() -> Generator[None]:
    """What a test configures is forgotten after it."""
    yield
    configure()


def serve(api: ApiServer, *task_ids: str, **fields: object) -> None:
    configure(base_url=api.url, secret_key="tr_dev_x")
    runs = [
        {"id": f"run_{n}", "taskIdentifier": task_id, "isCached": False}
        for n, task_id in enumerate(task_ids)
    ]
    body = {"id": "batch_1", "isCached": False, "runCount": len(runs), "runs": runs, **fields}
    api.will(answer(202, body))


def sent(api: ApiServer) -> list[dict[str, Any]]:
    assert (api.seen[-1].method, api.seen[-1].path) == ("POST", "/api/v1/tasks/batch")
    return cast("list[dict[str, Any]]", json.loads(api.seen[-1].body)["items"])


async def test_a_task_is_triggered_with_payloads_and_items_in_one_request() -> None:
    with api_server() as api:
        serve(api, "double", "double")
        handle = await double.batch_trigger([1, item(2, delay="1h", tags=["a"])])
        first, second = sent(api)
        assert (first["task"], first["payload"]) == ("double", "1")
        assert second["options"]["delay"] == "1h"
        assert (handle.batch_id, [run.id for run in handle.runs]) == ("batch_1", ["run_0", "run_1"])
        assert handle.runs[0].parse_output is not None
        assert "x-trigger-request-idempotency-key" in api.seen[-1].headers


async def test_a_batch_by_ids_may_mix_tasks() -> None:
    with api_server() as api:
        serve(api, "double", "shout")
        handle = await batch.trigger(
            [("double", 1), ("shout", item("a", idempotency_key="k"))],
            idempotency_key=["b", "1"],
            idempotency_key_ttl="1h",
        )
        assert [sent_item["task"] for sent_item in sent(api)] == ["double", "shout"]
        assert len(sent(api)[1]["options"]["idempotencyKey"]) == 64
        assert len(api.seen[-1].headers["idempotency-key"]) == 64
        assert api.seen[-1].headers["idempotency-key-ttl"] == "3600s"
        assert len(handle.runs) == 2


async def test_a_batch_by_tasks_checks_each_payload() -> None:
    with api_server() as api:
        serve(api, "double", "shout")
        handle = await batch.trigger_by_task([(double, 1), (shout, item("a", ttl=5))])
        assert [sent_item["payload"] for sent_item in sent(api)] == ["1", '"a"']
        assert len(handle.runs) == 2
        with pytest.raises(TaskPayloadParsedError, match=r"^item 1: the payload does not fit"):
            await batch.trigger_by_task([(double, 1), (double, "x")])


def test_blocking_callers_trigger_batches_too() -> None:
    with api_server() as api:
        serve(api, "double")
        assert double.sync.batch_trigger([1]).batch_id == "batch_1"
        serve(api, "shout")
        assert blocking_tasks.batch_trigger("shout", ["a"]).batch_id == "batch_1"
        serve(api, "shout")
        assert blocking_batch.trigger([("shout", "a")]).batch_id == "batch_1"
        serve(api, "shout")
        assert blocking_batch.trigger_by_task([(shout, "a")]).batch_id == "batch_1"


async def test_a_batch_is_retrieved_by_its_id_and_by_its_handle() -> None:
    with api_server() as api:
        serve(api, "double")
        handle = await tasks.batch_trigger("double", [1])
        found = {
            "id": "batch_1",
            "status": "COMPLETED",
            "runCount": 1,
            "createdAt": "2026-03-01T12:00:00Z",
            "updatedAt": "2026-03-01T12:00:01Z",
            "runs": ["run_0"],
        }
        api.will(answer(200, found), answer(200, found))
        assert (await batch.retrieve(handle)).status == "COMPLETED"
        assert (await batch.retrieve("batch_1")).runs == ["run_0"]
        assert api.seen[-1].path == "/api/v1/batches/batch_1"


async def test_mistakes_are_told_with_the_place_of_the_item() -> None:
    with pytest.raises(ValueError, match="1 to 1,000 items, and 0 were given"):
        await double.batch_trigger([])
    with pytest.raises(ValueError, match=r"^item 1: delay='soon'"):
        await double.batch_trigger([1, item(2, delay="soon")])
    wrong = cast("Any", double)
    with pytest.raises(TypeError, match=r"'delay' is an option of an item: item\(payload, delay="):
        await wrong.batch_trigger([1], delay="1h")
    with pytest.raises(TypeError, match="no option 'dealy'"):
        await wrong.batch_trigger([1], dealy="1h")
    with pytest.raises(ValueError, match="names no batch"):
        await batch.retrieve("")
