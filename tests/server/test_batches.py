"""Batches over HTTP: what clients of 3.x and 4.x send, and what they read."""

from typing import Any

import pytest

from runwell.core.ids import make_request_key
from tests.server.serving import Served, error_of, serving

BATCH = "/api/v1/tasks/batch"
REQUEST_KEY = "x-trigger-request-idempotency-key"


def items_of(*payloads: str) -> list[dict[str, Any]]:
    options = {"payloadType": "application/super+json"}
    return [{"task": "hello", "payload": payload, "options": options} for payload in payloads]


async def count_runs(served: Served) -> int:
    return len((await served.get("/api/v1/runs"))["data"])


async def test_a_client_of_3x_triggers_a_batch_and_retrieves_it(database_url: str) -> None:
    async with serving(database_url) as served:
        body = {"items": items_of('{"json":{"n":1}}', '{"json":{"n":2}}')}
        answer = await served.client.post(BATCH, json=body)
        assert answer.status_code == 202
        batch = answer.json()
        assert (batch["id"][:6], batch["isCached"]) == ("batch_", False)
        # Null would not pass the client's own check.
        assert "idempotencyKey" not in batch
        for run in batch["runs"]:
            assert run.keys() == {"id", "taskIdentifier", "isCached"}
        assert "sub" in answer.headers["x-trigger-jwt-claims"]
        found = await served.get(f"/api/v1/batches/{batch['id']}")
        assert (found["status"], found["runCount"]) == ("PENDING", 2)
        assert found["runs"] == [run["id"] for run in batch["runs"]]
        run = await served.get(f"/api/v3/runs/{batch['runs'][1]['id']}")
        assert (run["payload"], run["batchId"]) == ({"n": 2}, batch["id"])
        listed = await served.get("/api/v1/runs", **{"filter[batch]": batch["id"]})
        assert len(listed["data"]) == 2


async def test_a_client_of_4x_triggers_a_batch_and_retrieves_it(database_url: str) -> None:
    async with serving(database_url) as served:
        parent = await served.trigger()
        body = {"items": items_of('{"json":1}'), "parentRunId": parent}
        answer = await served.client.post("/api/v2/tasks/batch", json=body)
        assert (answer.status_code, answer.json()["runCount"]) == (202, 1)
        found = await served.get(f"/api/v2/batches/{answer.json()['id']}")
        assert found["processing"]["errors"] == []
        run = await served.get(f"/api/v3/runs/{found['runs'][0]}")
        assert run["relatedRuns"]["parent"]["id"] == parent


async def test_a_lost_answer_is_asked_for_again(database_url: str) -> None:
    async with serving(database_url) as served:
        headers = {REQUEST_KEY: make_request_key()}
        body = {"items": items_of('{"json":1}')}
        answers = [await served.client.post(BATCH, json=body, headers=headers) for _ in range(2)]
        assert answers[0].json() == answers[1].json()
        assert await count_runs(served) == 1


async def test_an_idempotency_key_in_a_header_gives_one_batch(database_url: str) -> None:
    async with serving(database_url) as served:
        headers = {"idempotency-key": "k" * 64, "idempotency-key-ttl": "1h"}
        body = {"items": items_of('{"json":1}')}
        first, again = [
            (await served.client.post(BATCH, json=body, headers=headers)).json() for _ in range(2)
        ]
        assert (first["isCached"], again["isCached"]) == (False, True)
        assert first["runs"] == again["runs"]
        assert again["idempotencyKey"] == "k" * 64
        assert await count_runs(served) == 1


@pytest.mark.parametrize(
    ("body", "headers", "status", "words"),
    [
        ({"items": []}, {}, 400, "1 to 1,000 items"),
        ({}, {}, 400, "items: this field is required"),
        ({"items": [{"payload": 1}]}, {}, 400, "items[0].task: this field is required"),
        (
            {"items": [{"task": "a"}, {"task": "a", "options": {"delay": 5}}]},
            {},
            400,
            "items[1].options.delay: ",
        ),
        (
            {"items": [{"task": "a"}, {"task": "a", "options": {"delay": "x"}}]},
            {},
            400,
            "items[1].options.delay: 'x' is neither",
        ),
        ({"items": items_of("1")}, {"idempotency-key": ""}, 400, "header idempotency-key must"),
        (
            {"items": items_of('{"json":1}')},
            {"idempotency-key-ttl": "soon"},
            400,
            "header idempotency-key-ttl: 'soon' is not a duration",
        ),
        ({"items": items_of('{"json":1}')}, {REQUEST_KEY: "x" * 257}, 400, "1 to 256 characters"),
    ],
)
async def test_a_bad_batch_says_what_is_wrong_and_triggers_nothing(
    database_url: str, body: dict[str, Any], headers: dict[str, str], status: int, words: str
) -> None:
    async with serving(database_url) as served:
        answer = await served.client.post(BATCH, json=body, headers=headers)
        assert answer.status_code == status
        assert words in error_of(answer)
        assert await count_runs(served) == 0


async def test_payloads_that_are_too_large_are_refused(database_url: str) -> None:
    async with serving(database_url) as served:
        large = {"items": [{"task": "a", "payload": "x" * 4_000_000}]}
        answer = await served.client.post(BATCH, json=large)
        assert (answer.status_code, error_of(answer)[:9]) == (413, "items[0]:")
        together = {"items": [{"task": "a", "payload": "x" * 2_900_000}] * 2}
        answer = await served.client.post(BATCH, json=together)
        assert answer.status_code == 413
        assert "5,800,000 bytes together" in error_of(answer)


async def test_a_batch_that_is_not_there_is_404(database_url: str) -> None:
    async with serving(database_url) as served:
        answer = await served.client.get("/api/v1/batches/batch_none")
        assert (answer.status_code, "no batch batch_none" in error_of(answer)) == (404, True)
