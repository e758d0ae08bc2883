"""Queues over HTTP: the shapes that clients read, and what is refused."""

import time

from runwell.core.timing import SystemClock
from runwell.engine.background import run_loops
from tests.server.serving import error_of, manifest, serving


async def test_a_queue_is_listed_and_retrieved_by_id_task_and_name(database_url: str) -> None:
    async with serving(database_url) as served:
        await served.register("hello")
        await served.trigger("hello")
        await served.trigger("hello", options={"queue": {"name": "a/b", "concurrencyLimit": 2}})
        listed = await served.get("/api/v1/queues", page="1", perPage="10")
        assert listed["pagination"] == {"currentPage": 1, "totalPages": 1, "count": 2}
        custom, own = listed["data"]
        assert {key: value for key, value in own.items() if key != "id"} == {
            "name": "hello",
            "type": "task",
            "running": 0,
            "queued": 1,
            "hasMoreQueued": False,
            "paused": False,
            "concurrencyLimit": None,
            "concurrency": {
                "current": None,
                "base": None,
                "override": None,
                "overriddenAt": None,
            },
            "rateLimits": [],
        }
        assert (custom["name"], custom["type"], custom["concurrencyLimit"]) == ("a/b", "custom", 2)
        assert await served.get(f"/api/v1/queues/{own['id']}") == own
        assert await served.get("/api/v1/queues/hello", type="task") == own
        # Clients encode a slash twice; once, and not at all, will do.
        for name in ("a%252Fb", "a%2Fb", "a/b"):
            assert await served.get(f"/api/v1/queues/{name}", type="custom") == custom


async def test_a_queue_is_paused_and_resumed(database_url: str) -> None:
    async with serving(database_url) as served:
        version_id, worker_id = await served.register("hello"), await served.connect()
        await served.trigger("hello")
        url = "/api/v1/queues/hello/pause"
        paused = await served.client.post(url, json={"type": "task", "action": "pause"})
        assert (paused.status_code, paused.json()["paused"]) == (200, True)
        body = {"workerId": worker_id, "backgroundWorkerIds": [version_id], "maxRuns": 1}
        assert (await served.act("dequeue", requestId="r1", **body))["runs"] == []
        resumed = await served.client.post(url, json={"type": "task", "action": "resume"})
        assert resumed.json()["paused"] is False
        assert len((await served.act("dequeue", requestId="r2", **body))["runs"]) == 1


async def test_a_limit_is_overridden_and_reset(database_url: str) -> None:
    async with serving(database_url) as served:
        await served.register("hello")
        queue = (await served.get("/api/v1/queues"))["data"][0]
        url = f"/api/v1/queues/{queue['id']}/concurrency"
        answer = await served.client.post(
            f"{url}/override", json={"type": "id", "concurrencyLimit": 5}
        )
        found = answer.json()
        assert found["concurrencyLimit"] == 5
        assert found["concurrency"].pop("overriddenAt")
        assert found["concurrency"] == {"current": 5, "base": None, "override": 5}
        answer = await served.client.post(f"{url}/reset", json={"type": "id"})
        assert answer.json() == queue


async def test_the_environment_is_shown_paused_and_limited(database_url: str) -> None:
    async with serving(database_url) as served:
        shown = await served.get("/api/v1/environment")
        assert shown.pop("id").startswith("env_")
        assert shown == {
            "name": "dev",
            "type": "DEVELOPMENT",
            "running": 0,
            "queued": 0,
            "hasMoreQueued": False,
            "paused": False,
            "concurrencyLimit": 1000,
        }
        url = "/api/v1/environment"
        answer = await served.client.post(f"{url}/pause", json={"action": "pause"})
        assert answer.json()["paused"] is True
        answer = await served.client.post(f"{url}/concurrency", json={"concurrencyLimit": 7})
        assert (answer.json()["paused"], answer.json()["concurrencyLimit"]) == (True, 7)


async def test_a_waiting_dequeue_gets_a_run_as_soon_as_its_rate_limit_has_room(
    database_url: str,
) -> None:
    async with (
        serving(database_url) as served,
        run_loops(served.backend.db, served.backend.signals, served.backend.store, SystemClock()),
    ):
        metadata = manifest("hello")
        metadata["queues"] = [
            {"name": "slow", "rateLimits": [{"limit": 1, "windowSeconds": 1, "per": "queue"}]}
        ]
        url = "/api/v1/projects/~/background-workers"
        registered = await served.client.post(url, json={"metadata": metadata})
        found = await served.get("/api/v1/queues/slow", type="custom")
        assert found["rateLimits"] == [{"limit": 1, "windowSeconds": 1, "per": "queue"}]
        ids = [await served.trigger(options={"queue": {"name": "slow"}}) for _ in range(2)]
        body = {
            "workerId": await served.connect(),
            "backgroundWorkerIds": [registered.json()["id"]],
            "maxRuns": 5,
        }
        began_at = time.monotonic()
        given = [
            run["runId"]
            for number in range(2)
            for run in (await served.act("dequeue", requestId=f"r{number}", waitMs=9000, **body))[
                "runs"
            ]
        ]
        assert given == ids
        assert time.monotonic() - began_at > 0.99


async def test_what_is_wrong_is_said_and_changes_nothing(database_url: str) -> None:
    async with serving(database_url) as served:
        await served.register("hello")
        url = "/api/v1/queues/hello"
        before = await served.get(url, type="task")
        wrong = [
            (400, "action", "pause", {"type": "task", "action": "stop"}),
            (400, "action", "pause", {"type": "task"}),
            (400, "type", "pause", {"type": "name", "action": "pause"}),
            (400, "concurrencyLimit", "concurrency/override", {"concurrencyLimit": -1}),
            (400, "concurrencyLimit", "concurrency/override", {"concurrencyLimit": "5"}),
            (400, "concurrencyLimit", "concurrency/override", {"concurrencyLimit": 1.5}),
            (400, "concurrencyLimit", "concurrency/override", {"concurrencyLimit": 100_001}),
            (422, "raise that one", "concurrency/override",
             {"type": "task", "concurrencyLimit": 1_001}),
            (404, "there is no queue", "pause", {"action": "pause"}),
        ]  # fmt: skip
        for status, part, action, body in wrong:
            answer = await served.client.post(f"{url}/{action}", json=body)
            assert (answer.status_code, part in error_of(answer)) == (status, True), answer.text
        assert await served.get(url, type="task") == before
        for query, part in (("page=0", "page"), ("perPage=101", "perPage"), ("page=x", "page")):
            answer = await served.client.get(f"/api/v1/queues?{query}")
            assert (answer.status_code, part in error_of(answer)) == (400, True)
        answer = await served.client.get(f"{url}?type=x")
        assert (answer.status_code, "type must be" in error_of(answer)) == (400, True)
