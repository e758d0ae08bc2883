"""What a worker says to the server: one call each, never retried here."""

import json

import pytest

from runwell.client.transport import ApiConnectionError, ConflictError
from runwell.client.workers import WorkerClient
from runwell.core.protocol import (
    ConnectBody,
    DequeueBody,
    DisconnectBody,
    HeartbeatBody,
    HeldRun,
    RegisterBody,
    ReportBody,
    WorkerMetadata,
)
from tests.support.transport import Answer, FakeTransport, answer_json

CONNECTED = {
    "workerId": "worker_1",
    "organization": {"id": "org_1", "slug": "o", "name": "O"},
    "project": {"id": "p_1", "ref": "proj_a", "slug": "p", "name": "P"},
    "environment": {"id": "env_1", "slug": "dev", "type": "DEVELOPMENT"},
}


def worker_client(*answers: Answer) -> tuple[WorkerClient, FakeTransport]:
    transport = FakeTransport(*answers)
    return WorkerClient("http://api.test/", "tr_dev_key", transport=transport), transport


async def test_each_call_has_its_path_body_and_answer() -> None:
    client, transport = worker_client(
        answer_json({"id": "bw_1", "version": "20250101.1", "contentHash": "h" * 8}),
        answer_json(CONNECTED),
        answer_json({"runs": []}),
        answer_json({"canceled": ["run_1"]}),
        answer_json({"results": []}),
        answer_json({}),
    )
    metadata = WorkerMetadata(package_version="1", content_hash="h" * 8, tasks=[])
    registered = await client.register("~", RegisterBody(metadata=metadata))
    connected = await client.connect(ConnectBody(name="w", capacity=2, package_version="1"))
    dequeued = await client.dequeue(
        DequeueBody(
            worker_id="worker_1",
            request_id="r",
            background_worker_ids=["bw_1"],
            max_runs=2,
            wait_ms=20_000,
        )
    )
    beat = await client.heartbeat(
        HeartbeatBody(worker_id="worker_1", runs=[HeldRun(run_id="run_1", snapshot_id=1)])
    )
    reported = await client.report(ReportBody(worker_id="worker_1", reports=[]))
    await client.disconnect(DisconnectBody(worker_id="worker_1"))
    assert registered.version == "20250101.1"
    assert connected.environment.type == "DEVELOPMENT"
    assert (dequeued.runs, beat.canceled, reported.results) == ([], ["run_1"], [])
    assert [request.url.removeprefix("http://api.test") for request in transport.requests] == [
        "/api/v1/projects/~/background-workers",
        *(
            f"/engine/v1/worker-actions/{action}"
            for action in ("connect", "dequeue", "heartbeat", "report", "disconnect")
        ),
    ]
    assert json.loads(transport.requests[2].body or b"") == {
        "workerId": "worker_1",
        "requestId": "r",
        "backgroundWorkerIds": ["bw_1"],
        "maxRuns": 2,
        "waitMs": 20_000,
    }
    assert transport.requests[0].headers["authorization"] == "Bearer tr_dev_key"


async def test_a_call_that_waits_at_the_server_is_waited_for_that_much_longer() -> None:
    client, transport = worker_client(answer_json({"canceled": []}))
    await client.heartbeat(HeartbeatBody(worker_id="w", runs=[]))
    await client.heartbeat(HeartbeatBody(worker_id="w", runs=[], wait_ms=5000))
    assert [request.timeout for request in transport.requests] == [15, 20]


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (answer_json({"error": "connect again"}, 409), ConflictError),
        (ApiConnectionError("refused"), ApiConnectionError),
    ],
)
async def test_nothing_is_retried(answer: Answer, error: type[Exception]) -> None:
    client, transport = worker_client(answer)
    with pytest.raises(error):
        await client.connect(ConnectBody(name="w", capacity=2, package_version="1"))
    assert len(transport.requests) == 1
    assert transport.pauses == []


async def test_the_ref_of_a_project_is_one_part_of_the_path() -> None:
    client, transport = worker_client(
        answer_json({"id": "bw_1", "version": "1", "contentHash": "h"})
    )
    metadata = WorkerMetadata(package_version="1", content_hash="h" * 8, tasks=[])
    await client.register("a/b", RegisterBody(metadata=metadata))
    assert "/projects/a%2Fb/" in transport.requests[0].url
