"""Subscriptions of the client, against the real server."""

import asyncio
import threading
from collections.abc import Callable

import pytest

from runwell.client import realtime
from runwell.client.api import ApiClient
from runwell.client.connections import HttpTransport
from runwell.client.realtime import LiveRun
from runwell.client.runs import BlockingRuns, Runs
from runwell.client.transport import (
    ApiConnectionError,
    ClientSettings,
    NotFoundError,
    Outcome,
    Request,
    Response,
    Step,
)
from runwell.core.payloads import Json
from tests.server.serving import Served, serving
from tests.server.test_batches import BATCH, items_of


class LossyTransport(HttpTransport):
    """Loses the answer of every second request, and pauses nowhere."""

    def __init__(self) -> None:
        self.requests = 0

    async def perform(self, step: Step) -> Outcome:
        if not isinstance(step, Request):
            return None
        outcome = await super().perform(step)
        self.requests += 1
        return ApiConnectionError("the answer was lost") if self.requests % 2 else outcome


class ForgetfulTransport(HttpTransport):
    """Says of the first live request that its offset means nothing."""

    has_forgotten = False

    async def perform(self, step: Step) -> Outcome:
        if isinstance(step, Request) and "live=true" in step.url and not self.has_forgotten:
            self.has_forgotten = True
            body = b'[{"headers":{"control":"must-refetch"}}]'
            return Response(409, {"content-type": "application/json"}, body)
        return await super().perform(step)


def client_of(served: Served, transport: HttpTransport | None = None) -> ApiClient:
    settings = ClientSettings(base_url=served.url, secret_key=served.keys["dev"])
    return ApiClient(lambda: settings, transport)


async def follow(
    served: Served,
    run_id: str,
    act: Callable[[LiveRun[Json]], bool],
    transport: HttpTransport | None = None,
) -> list[LiveRun[Json]]:
    """Follow a run to its end; it is canceled once `act` says so."""
    seen: list[LiveRun[Json]] = []
    async for run in Runs(client_of(served, transport)).subscribe_to_run(run_id):
        seen.append(run)
        if act(run):
            await served.client.post(f"/api/v2/runs/{run_id}/cancel")
        elif not run.is_completed:
            body = {"metadata": {"n": len(seen)}}
            await served.client.put(f"/api/v1/runs/{run_id}/metadata", json=body)
    return seen


async def test_a_run_is_followed_until_it_has_ended(database_url: str) -> None:
    async with serving(database_url) as served:
        run_id = await served.trigger(payload='{"json":{"a":1}}', options={"tags": ["x"]})
        seen = await follow(served, run_id, lambda run: run.metadata == {"n": 2})
        assert [run.metadata for run in seen] == [None, {"n": 1}, {"n": 2}, {"n": 2}]
        last = seen[-1]
        assert (last.id, last.status, last.tags) == (run_id, "CANCELED", ["x"])
        assert last.is_completed
        assert not last.is_success
        assert last.error is not None
        assert last.finished_at is not None
        assert last.finished_at.tzinfo is not None
        # What was sent once is in every one of them.
        assert {str(run.payload) for run in seen} == {str(seen[0].payload)}
        assert seen[0].payload is not None


async def test_answers_that_are_lost_make_neither_gaps_nor_repeats(database_url: str) -> None:
    async with serving(database_url) as served:
        run_id = await served.trigger()
        transport = LossyTransport()
        seen = await follow(served, run_id, lambda run: run.metadata == {"n": 2}, transport)
        assert [run.metadata for run in seen] == [None, {"n": 1}, {"n": 2}, {"n": 2}]
        assert transport.requests > len(seen)


async def test_one_that_begins_anew_is_not_told_the_same_again(database_url: str) -> None:
    async with serving(database_url) as served:
        run_id = await served.trigger()
        seen = await follow(served, run_id, lambda run: True, ForgetfulTransport())
        assert [run.status for run in seen] == ["WAITING_FOR_DEPLOY", "CANCELED"]


async def test_what_is_not_there_is_said(database_url: str) -> None:
    async with serving(database_url) as served:
        with pytest.raises(NotFoundError, match="there is no run run_x"):
            await follow(served, "run_x", lambda run: True)


async def test_tags_and_batches_are_followed_by_blocking_callers(database_url: str) -> None:
    async with serving(database_url) as served:
        tagged = await served.trigger(options={"tags": ["x", "y"]})
        answer = await served.client.post(BATCH, json={"items": items_of('{"json":1}')})
        batch = answer.json()["id"]
        runs = BlockingRuns(client_of(served))
        # Other tests of this process may have left some.
        threads = threading.active_count()

        def first_two() -> list[str]:
            run = next(iter(runs.subscribe_to_runs_with_tag(["y", "x"])))
            member = next(iter(runs.subscribe_to_batch(batch)))
            assert member.number == 1
            return [run.id, member.task_identifier]

        assert await asyncio.to_thread(first_two) == [tagged, "hello"]
        assert threading.active_count() < threads + 20


def test_what_names_no_tag_is_refused() -> None:
    runs = Runs(ApiClient(ClientSettings))
    for tag in "", [], ["a", ""], "a,b":
        with pytest.raises(ValueError, match="a tag"):
            runs.subscribe_to_runs_with_tag(tag)


def test_a_live_request_is_not_given_up_before_the_server_answers() -> None:
    options = realtime._OPTIONS  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
    assert options.timeout == 60
