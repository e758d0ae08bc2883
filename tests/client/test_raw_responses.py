"""Results that come with the answer of the server."""

import inspect
from collections.abc import Awaitable
from typing import cast

import pytest

import runwell
import runwell.sync
from runwell.client.raw_responses import EnvVarsWithRaw
from runwell.client.raw_runs import BlockingRunsWithRaw, RunsWithRaw
from runwell.client.recording import RawResponse
from runwell.client.transport import NotFoundError
from tests.client.test_against_server import client_of
from tests.server.serving import serving
from tests.support.transport import FakeTransport, answer_json, fake_client

MANAGING = ("auth", "batch", "bulk_actions", "envvars", "queues", "runs", "schedules", "tasks")
# What defines, waits in a run, follows, or makes flows for ours.
OTHERS = {
    "task",
    "trigger_and_wait",
    "trigger_by_task_and_wait",
    "with_auth",
    "with_raw_response",
    "subscribe_to_run",
    "subscribe_to_runs_with_tag",
    "subscribe_to_batch",
    "fetch_stream",
    "in_transaction",
}


@pytest.mark.parametrize("name", MANAGING)
def test_every_method_that_asks_has_one_with_the_answer(name: str) -> None:
    for module in (runwell, runwell.sync):
        value = cast("object", getattr(module, name))
        methods = {
            method
            for method in dir(value)
            if not method.startswith("_") and not method.endswith("_flow")
        }
        raw = cast("object", getattr(value, "with_raw_response"))  # noqa: B009 (of any of them)
        found = {method for method in dir(raw) if not method.startswith("_")}
        assert found == methods - OTHERS
        for method in found:
            # The documentation of the one is that of the other.
            assert callable(getattr(raw, method)), method


async def test_a_result_has_the_status_and_the_headers_of_its_answer(database_url: str) -> None:
    async with serving(database_url) as served:
        client = client_of(served)
        run_id = await served.trigger(payload=[1])
        runs = RunsWithRaw(client)
        answer = await runs.with_raw_response.retrieve(run_id)
        assert answer.data.payload == [1]
        assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
        assert run_id.encode() in answer.body
        assert "body" not in repr(answer)
        page = await runs.with_raw_response.list(limit=1)
        assert [run.id for run in page.data.data] == [run_id]
        with pytest.raises(NotFoundError):
            await runs.with_raw_response.retrieve("run_none")
        done = await EnvVarsWithRaw(client).with_raw_response.create("A", "1")
        assert (done.data, done.body) == (None, b'{"success":true}')


def test_blocking_callers_get_the_same() -> None:
    answer = answer_json({"id": "run_1"}, headers={"x-request": "1"})
    transport = FakeTransport(answer_json({"error": "busy"}, 503), answer)
    runs = BlockingRunsWithRaw(fake_client(transport))
    found = runs.with_raw_response.cancel("run_1")
    assert isinstance(found, RawResponse)
    # The last answer is the one that counts.
    assert (found.data.id, found.status, found.headers) == ("run_1", 200, {"x-request": "1"})
    assert len(transport.requests) == 2


async def test_calls_at_the_same_time_keep_their_answers_apart() -> None:
    answers = [answer_json({"id": f"run_{n}"}, headers={"n": str(n)}) for n in (1, 2)]
    runs = RunsWithRaw(fake_client(FakeTransport(*answers)))
    first, second = [await runs.with_raw_response.cancel(f"run_{n}") for n in (1, 2)]
    assert (first.data.id, first.headers["n"]) == ("run_1", "1")
    assert (second.data.id, second.headers["n"]) == ("run_2", "2")
    call = runs.with_raw_response.cancel("run_1")
    assert inspect.iscoroutine(call)
    await cast("Awaitable[object]", call)
