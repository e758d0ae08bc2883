"""The worker's endpoints: registering versions, long polls, leases."""

import asyncio
import time
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from runwell.core.ids import make_request_key
from tests.server.serving import (
    WORKER_ACTIONS,
    Served,
    error_of,
    manifest,
    seconds_since,
    serving,
)
from tests.support.waiting import wait_until

# Far from the 20 seconds that the polls here would wait, also on a busy machine.
_SOON = 10


def _dequeue_body(worker_id: str, version_id: str, **changes: object) -> dict[str, Any]:
    return {
        "workerId": worker_id,
        "requestId": make_request_key(),
        "backgroundWorkerIds": [version_id],
        "maxRuns": 10,
        **changes,
    }


async def _begin_poll(
    served: Served, action: str, body: dict[str, Any]
) -> "asyncio.Task[httpx.Response]":
    """Send a long poll, and return once it waits at the server."""
    polling = asyncio.create_task(served.client.post(f"{WORKER_ACTIONS}/{action}", json=body))
    before = served.backend.polls.waiting
    await wait_until(lambda: served.backend.polls.waiting > before or polling.done(), "it waits")
    return polling


async def test_the_same_contents_give_the_same_version(database_url: str) -> None:
    async with serving(database_url) as served:
        path = "/api/v1/projects/~/background-workers"
        first, again, other = [
            (
                await served.client.post(path, json={"metadata": manifest("a", content_hash=h)})
            ).json()
            for h in ("hash-of-1", "hash-of-1", "hash-of-2")
        ]
        assert first == again
        assert first["version"].endswith(".1")
        assert other["version"].endswith(".2")


async def test_a_key_registers_versions_of_its_own_project_only(database_url: str) -> None:
    async with serving(database_url) as served:
        answer = await served.client.post(
            "/api/v1/projects/proj_strange/background-workers", json={"metadata": manifest("a")}
        )
        assert answer.status_code == 404
        assert "'proj_strange'" in error_of(answer)
        connected = await served.act("connect", name="w", capacity=1, packageVersion="1")
        answer = await served.client.post(
            f"/api/v1/projects/{connected['project']['ref']}/background-workers",
            json={"metadata": manifest("a")},
        )
        assert answer.status_code == 200


async def test_a_worker_learns_where_it_works(database_url: str) -> None:
    async with serving(database_url) as served:
        connected = await served.act("connect", name="w", capacity=1, packageVersion="1")
        assert connected["environment"]["slug"] == "dev"
        assert connected["environment"]["type"] == "DEVELOPMENT"
        assert connected["leaseSeconds"] > connected["heartbeatSeconds"]


async def test_a_dequeue_that_waits_is_woken_by_a_trigger(database_url: str) -> None:
    async with serving(database_url) as served:
        version_id, worker_id = await served.register("hello"), await served.connect()
        polling = await _begin_poll(
            served, "dequeue", _dequeue_body(worker_id, version_id, waitMs=20_000)
        )
        start = time.monotonic()
        run_id = await served.trigger(payload='"x"')
        runs = (await polling).json()["runs"]
        assert [run["runId"] for run in runs] == [run_id]
        assert runs[0]["payload"] == '"x"'
        assert seconds_since(start) < _SOON


async def test_a_dequeue_that_waits_hears_of_a_trigger_on_another_server(
    database_url: str,
) -> None:
    async with serving(database_url) as served, serving(database_url) as other:
        version_id, worker_id = await served.register("hello"), await served.connect()
        polling = await _begin_poll(
            served, "dequeue", _dequeue_body(worker_id, version_id, waitMs=20_000)
        )
        run_id = await other.trigger()
        assert [run["runId"] for run in (await polling).json()["runs"]] == [run_id]


async def test_a_dequeue_without_runs_answers_when_its_time_is_over(database_url: str) -> None:
    async with serving(database_url) as served:
        version_id, worker_id = await served.register("hello"), await served.connect()
        start = time.monotonic()
        answer = await served.act("dequeue", **_dequeue_body(worker_id, version_id, waitMs=100))
        assert answer == {"runs": []}
        assert 0.1 <= seconds_since(start) < _SOON
        assert served.backend.polls.waiting == 0


async def test_a_dequeue_sent_again_gives_the_same_runs(database_url: str) -> None:
    async with serving(database_url) as served:
        version_id, worker_id = await served.register("hello"), await served.connect()
        await served.trigger()
        body = _dequeue_body(worker_id, version_id)
        first = await served.act("dequeue", **body)
        assert len(first["runs"]) == 1
        assert await served.act("dequeue", **body) == first


async def test_a_stop_ends_polls_at_once_and_they_answer_empty(database_url: str) -> None:
    async with serving(database_url) as served:
        version_id, worker_id = await served.register("hello"), await served.connect()
        beat: dict[str, Any] = {"workerId": worker_id, "runs": [], "waitMs": 20_000}
        polls = [
            await _begin_poll(
                served, "dequeue", _dequeue_body(worker_id, version_id, waitMs=20_000)
            ),
            await _begin_poll(served, "heartbeat", beat),
        ]
        start = time.monotonic()
        served.server.stop()
        answers = [(await polling).json() for polling in polls]
        assert answers == [{"runs": []}, {"canceled": [], "lost": []}]
        assert seconds_since(start) < _SOON


async def test_a_poll_ends_when_its_client_goes_away(database_url: str) -> None:
    async with serving(database_url) as served:
        version_id, worker_id = await served.register("hello"), await served.connect()
        polling = await _begin_poll(
            served, "dequeue", _dequeue_body(worker_id, version_id, waitMs=20_000)
        )
        polling.cancel()
        await wait_until(lambda: served.backend.polls.waiting == 0, "nobody waits")
        # And no run is handed to nobody.
        run_id = await served.trigger()
        assert (await served.get(f"/api/v3/runs/{run_id}"))["isQueued"]


async def test_a_heartbeat_that_waits_hears_of_a_cancel(database_url: str) -> None:
    async with serving(database_url) as served:
        version_id, worker_id = await served.register("hello"), await served.connect()
        run_id = await served.trigger()
        run = (await served.act("dequeue", **_dequeue_body(worker_id, version_id)))["runs"][0]
        held = {"runId": run_id, "snapshotId": run["snapshotId"]}
        start_report = {"type": "start", **held, "startedAt": datetime.now(UTC).isoformat()}
        await served.act("report", workerId=worker_id, reports=[start_report])
        polling = await _begin_poll(
            served, "heartbeat", {"workerId": worker_id, "runs": [held], "waitMs": 20_000}
        )
        start = time.monotonic()
        await served.client.post(f"/api/v2/runs/{run_id}/cancel")
        assert (await polling).json() == {"canceled": [run_id], "lost": []}
        assert seconds_since(start) < _SOON
        await served.act("report", workerId=worker_id, reports=[{"type": "canceled", **held}])
        after = {"workerId": worker_id, "runs": [held]}
        assert await served.act("heartbeat", **after) == {"canceled": [], "lost": [run_id]}


async def test_a_report_under_a_lease_that_ended_is_stale(database_url: str) -> None:
    async with serving(database_url) as served:
        version_id, worker_id = await served.register("hello"), await served.connect()
        run_id = await served.trigger()
        run = (await served.act("dequeue", **_dequeue_body(worker_id, version_id)))["runs"][0]
        now = datetime.now(UTC).isoformat()
        complete = {
            "type": "complete",
            "runId": run_id,
            "snapshotId": run["snapshotId"],
            "output": "1",
            "startedAt": now,
            "finishedAt": now,
            "durationMs": 1,
        }
        for expected in ("accepted", "stale"):
            answer = await served.act("report", workerId=worker_id, reports=[complete])
            assert answer == {"results": [expected]}
        for changes in ({"runId": "run_unknown"}, {"snapshotId": 2**62}):
            answer = await served.act("report", workerId=worker_id, reports=[complete | changes])
            assert answer == {"results": ["stale"]}


async def test_what_a_worker_held_goes_back_when_it_disconnects(database_url: str) -> None:
    async with serving(database_url) as served:
        version_id = await served.register("hello")
        first, second = await served.connect(), await served.connect()
        run_id = await served.trigger()
        await served.act("dequeue", **_dequeue_body(first, version_id))
        polling = await _begin_poll(
            served, "dequeue", _dequeue_body(second, version_id, waitMs=20_000)
        )
        await served.act("disconnect", workerId=first)
        assert [run["runId"] for run in (await polling).json()["runs"]] == [run_id]


@pytest.mark.parametrize("action", ["dequeue", "heartbeat"])
async def test_a_worker_that_is_not_known_must_connect_again(
    database_url: str, action: str
) -> None:
    async with serving(database_url) as served:
        version_id = await served.register("hello")
        body = _dequeue_body("worker_x", version_id, runs=[])
        answer = await served.client.post(f"{WORKER_ACTIONS}/{action}", json=body)
        assert answer.status_code == 409
        assert "connect again" in error_of(answer)
