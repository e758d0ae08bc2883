"""Over HTTP, a full environment refuses what is new and answers what is known."""

from runwell.core.ids import make_request_key
from runwell.engine.backlogs import Backlogs, QueueSizes
from tests.server.serving import error_of, serving

TRIGGER = "/api/v1/tasks/hello/trigger"


async def test_a_full_environment_refuses_new_runs_and_answers_for_those_it_has(
    database_url: str,
) -> None:
    async with serving(database_url) as served:
        served.backend.backlogs = Backlogs(served.backend.db, QueueSizes(development=2))
        await served.register("hello")
        again = {"x-trigger-request-idempotency-key": make_request_key()}
        first = await served.client.post(TRIGGER, json={}, headers=again)
        keyed = {"options": {"idempotencyKey": "key"}}
        second = await served.client.post(TRIGGER, json=keyed)
        batch = {"items": [{"task": "hello"}]}
        await served.backend.backlogs.tick()

        refused = await served.client.post(TRIGGER, json={})
        assert refused.status_code == 422
        assert "2 or more runs wait in the queues of the environment dev" in error_of(refused)
        assert "RUNWELL_QUEUE_SIZE_DEV" in error_of(refused)
        run_id = first.json()["id"]
        requests: list[tuple[str, object]] = [
            ("/api/v1/tasks/batch", batch),
            (f"/api/v1/runs/{run_id}/replay", None),
            ("/api/v1/bulk-actions", {"action": "replay", "filter": {}}),
        ]
        for path, body in requests:
            answer = await served.client.post(path, json=body)
            assert answer.status_code == 422
            assert "let workers catch up" in error_of(answer)

        lost = await served.client.post(TRIGGER, json={}, headers=again)
        assert lost.json()["id"] == run_id
        cached = await served.client.post(TRIGGER, json=keyed)
        assert cached.json() == {"id": second.json()["id"], "isCached": True}


async def test_a_batch_whose_answer_was_lost_is_answered_though_it_filled_the_environment(
    database_url: str,
) -> None:
    async with serving(database_url) as served:
        served.backend.backlogs = Backlogs(served.backend.db, QueueSizes(development=2))
        await served.register("hello")
        batch = {"items": [{"task": "hello"}, {"task": "hello"}]}
        headers = {"x-trigger-request-idempotency-key": make_request_key()}
        first = await served.client.post("/api/v1/tasks/batch", json=batch, headers=headers)
        await served.backend.backlogs.tick()
        again = await served.client.post("/api/v1/tasks/batch", json=batch, headers=headers)
        assert again.json()["id"] == first.json()["id"]
