"""Batches in two steps over HTTP: opened, streamed in pieces, broken off, sent again."""

import asyncio
import json
from collections.abc import AsyncGenerator, Iterable
from typing import Any

import httpx
import pytest

from tests.server.serving import Served, error_of, serving
from tests.support.waiting import wait_until

OPEN = "/api/v3/batches"


def lines_of(*indexes: int, **fields: Any) -> bytes:
    return b"".join(line_of(index, **fields) for index in indexes)


def line_of(index: int, **fields: Any) -> bytes:
    item = {"index": index, "task": "hello", "payload": f'{{"json":{index}}}'}
    options = {"payloadType": "application/super+json"}
    return json.dumps({**item, "options": options, **fields}).encode() + b"\n"


async def in_pieces(pieces: Iterable[bytes]) -> AsyncGenerator[bytes]:
    for piece in pieces:
        yield piece
        await asyncio.sleep(0)


async def open_batch(served: Served, run_count: int, **fields: Any) -> dict[str, Any]:
    answer = await served.client.post(OPEN, json={"runCount": run_count, **fields})
    assert answer.status_code == 202, answer.text
    assert "sub" in answer.headers["x-trigger-jwt-claims"]
    found: dict[str, Any] = answer.json()
    return found


async def send(served: Served, batch_id: str, content: Any) -> httpx.Response:
    return await served.client.post(
        f"{OPEN}/{batch_id}/items",
        content=content,
        headers={"content-type": "application/x-ndjson"},
    )


async def payloads(served: Served, batch_id: str) -> list[Any]:
    batch = await served.get(f"/api/v2/batches/{batch_id}")
    return [(await served.get(f"/api/v3/runs/{run}"))["payload"] for run in batch["runs"]]


async def test_a_client_of_4x_opens_a_batch_and_streams_its_items(database_url: str) -> None:
    async with serving(database_url) as served:
        opened = await open_batch(served, 3, taskIdentifiers=["hello"])
        assert opened == {"id": opened["id"], "runCount": 3, "isCached": False}
        whole = lines_of(0, 1, 2).rstrip() + b"\n\n"
        # Cut anywhere.
        answer = await send(
            served, opened["id"], in_pieces(whole[i : i + 7] for i in range(0, len(whole), 7))
        )
        assert answer.status_code == 200, answer.text
        assert answer.json() == {
            "id": opened["id"],
            "itemsAccepted": 3,
            "itemsDeduplicated": 0,
            "sealed": True,
            "enqueuedCount": 3,
            "expectedCount": 3,
        }
        assert await payloads(served, opened["id"]) == [0, 1, 2]
        found = await served.get(f"/api/v2/batches/{opened['id']}")
        assert found["status"] == "PENDING"
        assert found["processing"]["errors"] == []
        assert found["processing"]["completedAt"]


async def test_a_stream_that_breaks_is_sent_again_without_making_runs_twice(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runwell.server.routes.batch_streams._STEP_ITEMS", 2)
    async with serving(database_url) as served:
        opened = await open_batch(served, 5)

        async def break_off() -> AsyncGenerator[bytes]:
            yield lines_of(0, 1) + line_of(2)[:20]

            async def are_there() -> bool:
                return len((await served.get("/api/v1/runs"))["data"]) == 2

            await wait_until(are_there, "the first two items are runs")
            raise ConnectionResetError

        with pytest.raises(ConnectionResetError):
            await send(served, opened["id"], break_off())
        assert await payloads(served, opened["id"]) == [0, 1]
        found = await served.get(f"/api/v2/batches/{opened['id']}")
        assert (found["status"], "completedAt" in found["processing"]) == ("PROCESSING", False)
        assert (await served.get(f"/api/v1/batches/{opened['id']}"))["status"] == "PENDING"
        again = (await send(served, opened["id"], lines_of(*range(5)))).json()
        assert (again["itemsAccepted"], again["itemsDeduplicated"]) == (3, 2)
        assert again["sealed"]
        assert await payloads(served, opened["id"]) == [0, 1, 2, 3, 4]


async def test_a_set_that_is_not_whole_is_not_sealed(database_url: str) -> None:
    async with serving(database_url) as served:
        opened = await open_batch(served, 3)
        for content, enqueued in ((lines_of(1), 1), (b"", 1), (b"\n \n" + lines_of(0), 2)):
            answer = (await send(served, opened["id"], content)).json()
            assert not answer["sealed"]
            assert (answer["enqueuedCount"], answer["expectedCount"]) == (enqueued, 3)


async def test_an_item_that_cannot_be_a_run_is_told_with_the_batch(database_url: str) -> None:
    async with serving(database_url) as served:
        opened = await open_batch(served, 2)
        content = line_of(0, options={"lockToVersion": "20200101.1"}) + line_of(1)
        assert (await send(served, opened["id"], content)).json()["sealed"]
        found = await served.get(f"/api/v2/batches/{opened['id']}")
        (error,) = found["processing"]["errors"]
        assert (error["index"], error["taskIdentifier"], error["errorCode"]) == (0, "hello", "422")
        assert "no version 20200101.1" in error["error"]


@pytest.mark.parametrize(
    ("content", "status", "words"),
    [
        (line_of(0) + b"{nonsense\n", 400, "line 2: "),
        (b'{"task":"a"}\n', 400, "line 1: index: this field is required"),
        (line_of(0, options={"maxAttempts": 0}), 400, "line 1: options.maxAttempts"),
        (line_of(7), 400, "index: 7 is no place in the batch"),
        (b"[]\n", 400, "line 1: the body must be a JSON object"),
        (
            line_of(0, payload='"' + "x" * 3_200_000 + '"', options={}),
            413,
            "line 1: the payload is",
        ),
        (b"x" * 7_500_000, 413, "line 1 is too long"),
    ],
    ids=["syntax", "missing", "option", "index", "array", "payload", "line"],
)
async def test_a_bad_line_says_what_is_wrong_and_where(
    database_url: str, content: bytes, status: int, words: str
) -> None:
    async with serving(database_url) as served:
        opened = await open_batch(served, 2)
        answer = await send(served, opened["id"], content)
        assert answer.status_code == status, answer.text
        assert error_of(answer).startswith(words)
        assert (await served.get("/api/v1/runs"))["data"] == []


async def test_a_batch_that_cannot_be_opened_says_why(database_url: str) -> None:
    async with serving(database_url) as served:
        for body, status, words in (
            ({}, 400, "runCount: this field is required"),
            ({"runCount": 0}, 400, "runCount: a batch takes 1 to 1,000 runs, not 0"),
            ({"runCount": 1, "resumeParentOnCompletion": True}, 400, "say with parentRunId"),
        ):
            answer = await served.client.post(OPEN, json=body)
            assert (answer.status_code, words in error_of(answer)) == (status, True), answer.text
        answer = await send(served, "batch_none", line_of(0))
        assert (answer.status_code, "no batch batch_none" in error_of(answer)) == (404, True)


async def test_an_idempotency_key_gives_the_batch_that_has_it(database_url: str) -> None:
    async with serving(database_url) as served:
        first = await open_batch(served, 1, idempotencyKey="k")
        assert (first["isCached"], first["idempotencyKey"]) == (False, "k")
        assert (await open_batch(served, 1, idempotencyKey="k")) == first
        await send(served, first["id"], line_of(0))
        assert (await open_batch(served, 1, idempotencyKey="k"))["isCached"]


async def test_the_oldest_form_of_a_batch(database_url: str) -> None:
    async with serving(database_url) as served:
        body = {"items": [{"payload": "1"}, {"payload": "2"}]}
        answer = await served.client.post("/api/v1/tasks/a%2Fb/batch", json=body)
        assert answer.status_code == 200, answer.text
        assert answer.json().keys() == {"batchId", "runs"}
        runs = [await served.get(f"/api/v3/runs/{run}") for run in answer.json()["runs"]]
        assert [(run["taskIdentifier"], run["payload"]) for run in runs] == [("a/b", 1), ("a/b", 2)]
        answer = await served.client.post(
            "/api/v1/tasks/a/batch", json={"items": [{"payload": 1}] * 101}
        )
        assert (answer.status_code, "up to 100 items" in error_of(answer)) == (400, True)


async def test_results_of_runs_and_batches(database_url: str) -> None:
    async with serving(database_url) as served:
        version = await served.register("hello")
        body = {"items": [{"task": "hello", "payload": "1"}] * 2}
        batch = (await served.client.post("/api/v1/tasks/batch", json=body)).json()
        done, other = (run["id"] for run in batch["runs"])
        assert (await served.get(f"/api/v1/batches/{batch['id']}/results")) == {
            "id": batch["id"],
            "items": [],
        }
        answer = await served.client.get(f"/api/v1/runs/{done}/result")
        assert (answer.status_code, "has not ended" in error_of(answer)) == (404, True)
        worker = await served.connect()
        taken = await served.act(
            "dequeue", workerId=worker, requestId="r", backgroundWorkerIds=[version], maxRuns=1
        )
        ids = {"runId": done, "snapshotId": taken["runs"][0]["snapshotId"]}
        now = "2026-03-01T12:00:00Z"
        times = {"startedAt": now, "finishedAt": now, "durationMs": 12}
        report = {"type": "complete", **ids, **times, "output": '{"a":1}'}
        await served.act("report", workerId=worker, reports=[report])
        await served.client.post(f"/api/v2/runs/{other}/cancel")
        found = await served.get(f"/api/v1/batches/{batch['id']}/results")
        assert found["items"][0] == await served.get(f"/api/v1/runs/{done}/result")
        assert found["items"][0] == {
            "ok": True,
            "id": done,
            "taskIdentifier": "hello",
            "output": '{"a":1}',
            "outputType": "application/json",
            "usage": {"durationMs": 12},
        }
        assert found["items"][1]["ok"] is False
        assert found["items"][1]["error"] == {
            "type": "INTERNAL_ERROR",
            "code": "TASK_RUN_CANCELLED",
        }
        for path in ("/api/v1/batches/batch_none/results", "/api/v1/runs/run_none/result"):
            assert (await served.client.get(path)).status_code == 404
