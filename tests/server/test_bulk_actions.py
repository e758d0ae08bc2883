"""Bulk actions over HTTP, and from Python."""

import json
from typing import Any

import pytest

from runwell.client.api import ApiClient
from runwell.client.bulk_actions import BlockingBulkActions, BulkActions
from runwell.client.runs import BlockingRuns, Runs
from runwell.client.transport import ClientSettings, NotFoundError
from runwell.core.timing import SystemClock
from runwell.engine import bulk_steps
from tests.server.serving import Served, error_of, serving
from tests.support.transport import FakeTransport, answer_json, fake_client

PATH = "/api/v1/bulk-actions"
MADE = {
    "id": "bulk_1",
    "action": "cancel",
    "status": "COMPLETED",
    "total": 1,
    "succeeded": 1,
    "skipped": 0,
    "failed": 0,
    "createdAt": "2026-03-01T12:00:00Z",
}


async def _work(served: Served) -> None:
    while await bulk_steps.take_step(served.backend.db, now=SystemClock().now()) is not None:
        pass


async def test_a_bulk_action_is_begun_followed_listed_and_aborted(database_url: str) -> None:
    async with serving(database_url) as served:
        ids = [await served.trigger(options={"tags": f"t{number}"}) for number in range(3)]
        body = {"action": "cancel", "filter": {"tag": ["t0", "t1"], "createdAt": {"period": "1d"}}}
        counted = await served.client.post(f"{PATH}/count", json=body)
        assert counted.json() == {"count": 2}
        made = (await served.client.post(PATH, json=body)).json()
        assert (made["status"], made["total"], made["action"]) == ("PENDING", 2, "cancel")
        await _work(served)
        found = await served.get(f"{PATH}/{made['id']}")
        assert (found["status"], found["succeeded"], found["failures"]) == ("COMPLETED", 2, [])
        assert (await served.get(f"/api/v3/runs/{ids[2]}"))["status"] == "WAITING_FOR_DEPLOY"
        listed = await served.get("/api/v1/runs", **{"filter[bulkAction]": made["id"]})
        assert [run["id"] for run in listed["data"]] == [ids[1], ids[0]]
        body = {"action": "replay", "runIds": ids[:1]}
        other = (await served.client.post(PATH, json=body)).json()
        aborted = await served.client.post(f"{PATH}/{other['id']}/abort")
        assert aborted.json()["status"] == "ABORTED"
        assert [one["id"] for one in (await served.get(PATH))["data"]] == [other["id"], made["id"]]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "action"),
        ({"action": "explode", "filter": {}}, "action"),
        ({"action": "cancel"}, "either by runIds or by filter"),
        ({"action": "cancel", "filter": {}, "runIds": ["run_1"]}, "either by runIds or by filter"),
        ({"action": "cancel", "runIds": []}, "runIds"),
        ({"action": "cancel", "filter": {"colour": "red"}}, "there is no parameter filter[colour]"),
        ({"action": "cancel", "filter": {"status": "LOST"}}, "is no status"),
        ({"action": "cancel", "filter": {"isTest": 1}}, "neither true nor false"),
        ({"action": "cancel", "filter": {"createdAt": {"period": "x"}}}, "filter[createdAt]"),
    ],
)
async def test_what_is_no_bulk_action_is_refused(
    database_url: str, body: dict[str, Any], message: str
) -> None:
    async with serving(database_url) as served:
        answer = await served.client.post(PATH, json=body)
        assert answer.status_code == 400
        assert message in error_of(answer)
        assert (await served.get(PATH))["data"] == []


async def test_the_client_begins_and_polls_bulk_actions(database_url: str) -> None:
    async with serving(database_url) as served:
        settings = ClientSettings(base_url=served.url, secret_key=served.keys["dev"])
        client = ApiClient(lambda: settings)
        runs, actions = Runs(client), BulkActions(client)
        await served.trigger(options={"tags": "a"})
        begun = await runs.bulk_cancel(tag="a", status=["QUEUED", "WAITING_FOR_DEPLOY"])
        with pytest.raises(TimeoutError, match="is not done"):
            await actions.poll(begun, poll_interval=0.01, timeout=0.03)
        await _work(served)
        done = await actions.poll(begun)
        assert (done.id, done.succeeded) == (begun.id, 1)
        assert [one.id for one in await actions.list()] == [begun.id]
        assert (await actions.abort(begun)).status == "COMPLETED"
        with pytest.raises(NotFoundError, match="no bulk action"):
            await actions.retrieve("bulk_x")


def test_a_bulk_action_says_which_runs_are_meant() -> None:
    transport = FakeTransport(answer_json(MADE))
    runs = BlockingRuns(fake_client(transport))
    runs.bulk_replay(["run_1"])
    runs.bulk_cancel(period="1d", is_test=True)
    sent = [json.loads(request.body or b"") for request in transport.requests]
    assert sent == [
        {"action": "replay", "runIds": ["run_1"]},
        {"action": "cancel", "filter": {"createdAt": {"period": "86400s"}, "isTest": "true"}},
    ]
    for arguments, filters in (((), {}), ((["run_1"],), {"tag": "a"}), ((), {"limit": 5})):
        with pytest.raises(ValueError, match=r"filters|pages"):
            runs.bulk_cancel(*arguments, **filters)
    with pytest.raises(ValueError, match="names no bulk action"):
        BlockingBulkActions(fake_client(transport)).retrieve("")
