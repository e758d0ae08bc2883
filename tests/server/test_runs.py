"""Runs over HTTP: trigger, retrieve, list, cancel, captured lines."""

from datetime import UTC, datetime, timedelta

import pytest

from runwell.core.ids import make_request_key
from tests.server.serving import Served, error_of, serving

TRIGGER = "/api/v1/tasks/hello/trigger"


async def _finish_one(served: Served, worker_id: str, version_id: str, **report: object) -> str:
    """Dequeue the next run and report its end; returns its id."""
    dequeued = await served.act(
        "dequeue",
        workerId=worker_id,
        requestId=make_request_key(),
        backgroundWorkerIds=[version_id],
        maxRuns=1,
    )
    run = dequeued["runs"][0]
    now = datetime.now(UTC).isoformat()
    line = {"seq": 1, "time": now, "level": "INFO", "message": "hi \u0000", "attributes": {"a": 1}}
    lease = {"runId": run["runId"], "snapshotId": run["snapshotId"]}
    answer = await served.act(
        "report",
        workerId=worker_id,
        reports=[
            {"type": "start", **lease, "startedAt": now},
            {"type": "logs", **lease, "attemptNumber": 1, "lines": [line]},
            {**lease, "startedAt": now, "finishedAt": now, "durationMs": 5, **report},
        ],
    )
    assert answer["results"] == ["accepted"] * 3
    return str(run["runId"])


async def test_a_trigger_answers_the_run_and_the_claims_of_a_public_token(
    database_url: str,
) -> None:
    async with serving(database_url) as served:
        answer = await served.client.post(TRIGGER, json={"payload": {"a": 1}})
        assert answer.status_code == 200
        assert answer.json()["isCached"] is False
        listed = await served.get("/api/v1/runs")
        assert [run["id"] for run in listed["data"]] == [answer.json()["id"]]
        claims = answer.headers["x-trigger-jwt-claims"]
        assert claims == f'{{"sub":"{listed["data"][0]["env"]["id"]}","pub":true}}'


async def test_a_task_id_may_have_slashes_and_letters_of_any_script(database_url: str) -> None:
    async with serving(database_url) as served:
        answer = await served.client.post("/api/v1/tasks/a%2Fb%20%C3%A9/trigger", json={})
        run = await served.get(f"/api/v3/runs/{answer.json()['id']}")
        assert run["taskIdentifier"] == "a/b \u00e9"


async def test_an_idempotency_key_gives_the_same_run_and_the_header_wins(
    database_url: str,
) -> None:
    async with serving(database_url) as served:
        body = {"options": {"idempotencyKey": "in-body", "idempotencyKeyTTL": "1h"}}
        first = await served.client.post(TRIGGER, json=body)
        again = await served.client.post(
            TRIGGER, json={}, headers={"idempotency-key": "in-body", "idempotency-key-ttl": "1h"}
        )
        assert again.json() == {"id": first.json()["id"], "isCached": True}
        other = await served.client.post(TRIGGER, json=body, headers={"idempotency-key": "header"})
        assert other.json()["isCached"] is False
        run = await served.get(f"/api/v3/runs/{other.json()['id']}")
        assert run["idempotencyKey"] == "header"


async def test_a_request_sent_twice_makes_one_run(database_url: str) -> None:
    async with serving(database_url) as served:
        headers = {"x-trigger-request-idempotency-key": make_request_key()}
        answers = [
            (await served.client.post(TRIGGER, json={}, headers=headers)).json() for _ in range(2)
        ]
        assert answers[0]["id"] == answers[1]["id"]
        assert len((await served.get("/api/v1/runs"))["data"]) == 1


async def test_a_run_without_a_version_of_its_task_waits_for_one(database_url: str) -> None:
    async with serving(database_url) as served:
        run_id = await served.trigger("nobody-has-it")
        assert (await served.get(f"/api/v3/runs/{run_id}"))["status"] == "WAITING_FOR_DEPLOY"
        answer = await served.client.get(
            f"/api/v3/runs/{run_id}", headers={"x-trigger-api-version": "2025-07-16"}
        )
        assert answer.json()["status"] == "PENDING_VERSION"
        await served.register("nobody-has-it")
        assert (await served.get(f"/api/v3/runs/{run_id}"))["status"] == "QUEUED"


async def test_a_run_that_is_not_executing_says_why(database_url: str) -> None:
    async with serving(database_url) as served:
        version_id, worker_id = await served.register("hello"), await served.connect()
        first = await served.trigger(options={"queue": {"name": "one", "concurrencyLimit": 1}})
        second = await served.trigger(options={"queue": {"name": "one"}})
        assert (await served.get(f"/api/v3/runs/{first}"))["explanation"] == {
            "reason": "NEXT",
            "message": "it is the next of the queue one: a worker takes it in a moment",
            "ahead": 0,
        }
        body = {"workerId": worker_id, "backgroundWorkerIds": [version_id], "maxRuns": 1}
        (run,) = (await served.act("dequeue", requestId="r1", **body))["runs"]
        assert (await served.get(f"/api/v3/runs/{second}"))["explanation"] == {
            "reason": "QUEUE_LIMIT",
            "message": f"the limit of the queue one, 1, is held by {first}",
            "runIds": [first],
            "runCount": 1,
            "ahead": 0,
        }
        now = datetime.now(UTC).isoformat()
        lease = {"runId": first, "snapshotId": run["snapshotId"]}
        reports = [{"type": "start", **lease, "startedAt": now}]
        await served.act("report", workerId=worker_id, reports=reports)
        assert "explanation" not in await served.get(f"/api/v3/runs/{first}")
        await served.act("heartbeat", workerId=worker_id, runs=[], backgroundWorkerIds=["x"])
        found = (await served.get(f"/api/v3/runs/{second}"))["explanation"]
        assert found["reason"] == "NO_WORKER_WITH_VERSION"


async def test_a_finished_run_shows_everything_and_leaves_out_what_it_has_not(
    database_url: str,
) -> None:
    async with serving(database_url) as served:
        version_id, worker_id = await served.register("hello"), await served.connect()
        run_id = await served.trigger(
            payload='{"a": null}', options={"tags": ["b", "a"], "metadata": {"x": None}}
        )
        fresh = await served.get(f"/api/v3/runs/{run_id}")
        assert fresh["isQueued"]
        assert not fresh["isCompleted"]
        assert None not in {key: value for key, value in fresh.items() if key != "payload"}.values()
        for absent in ("output", "error", "finishedAt", "startedAt", "batchId", "idempotencyKey"):
            assert absent not in fresh
        await _finish_one(served, worker_id, version_id, type="complete", output='{"ok":[1]}')
        run = await served.get(f"/api/v3/runs/{run_id}")
        assert run["status"] == "COMPLETED"
        assert run["isSuccess"]
        assert run["payload"] == {"a": None}
        assert run["output"] == {"ok": [1]}
        assert run["metadata"] == {"x": None}
        assert run["tags"] == ["a", "b"]
        assert run["attemptCount"] == 1
        assert run["attempts"][0]["status"] == "COMPLETED"
        assert run["relatedRuns"] == {"children": []}
        assert run["version"].endswith(".1")
        assert run["durationMs"] == 5


async def test_a_failed_run_shows_its_error(database_url: str) -> None:
    async with serving(database_url) as served:
        version_id, worker_id = await served.register("hello"), await served.connect()
        run_id = await served.trigger()
        await _finish_one(
            served,
            worker_id,
            version_id,
            type="fail",
            skipRetrying=True,
            error={
                "type": "BUILT_IN_ERROR",
                "name": "ValueError",
                "message": "no",
                "stackTrace": "here",
            },
        )
        run = await served.get(f"/api/v3/runs/{run_id}")
        assert (run["status"], run["isFailed"], run["isCompleted"]) == ("FAILED", True, True)
        assert run["error"] == {"name": "ValueError", "message": "no", "stackTrace": "here"}
        assert run["attempts"][0]["error"] == run["error"]
        assert "output" not in run


async def test_the_captured_lines_of_a_run_are_read_page_by_page(database_url: str) -> None:
    async with serving(database_url) as served:
        version_id, worker_id = await served.register("hello"), await served.connect()
        run_id = await served.trigger()
        path = f"/api/v1/runs/{run_id}/logs"
        empty = await served.get(path)
        assert empty["data"] == []
        await _finish_one(served, worker_id, version_id, type="complete")
        page = await served.get(path, after=empty["next"], limit="1")
        assert [(line["message"], line["level"]) for line in page["data"]] == [
            ("hi \ufffd", "INFO")
        ]
        assert page["data"][0]["attributes"] == {"a": 1}
        assert (await served.get(path, after=page["next"]))["data"] == []
        for query in ({"limit": "0"}, {"limit": "x"}, {"after": "x"}):
            answer = await served.client.get(path, params=query)
            assert answer.status_code == 400
            assert next(iter(query)) in error_of(answer)


async def test_a_run_that_is_not_here_is_not_asked_for_again(database_url: str) -> None:
    async with serving(database_url) as served:
        for method, path in (
            ("GET", "/api/v3/runs/run_unknown"),
            ("POST", "/api/v2/runs/run_unknown/cancel"),
            ("GET", "/api/v1/runs/run_unknown/logs"),
        ):
            answer = await served.client.request(method, path)
            assert answer.status_code == 404
            assert "run_unknown" in error_of(answer)
            assert answer.headers["x-should-retry"] == "false"


async def test_a_run_can_be_read_on_any_server_once_its_trigger_was_answered(
    database_url: str,
) -> None:
    async with serving(database_url) as one, serving(database_url) as other:
        for _ in range(20):
            run_id = await one.trigger()
            assert (await other.get(f"/api/v3/runs/{run_id}"))["id"] == run_id


async def test_a_queued_run_is_canceled_at_once_and_a_finished_one_stays(
    database_url: str,
) -> None:
    async with serving(database_url) as served:
        version_id, worker_id = await served.register("hello"), await served.connect()
        run_id = await served.trigger()
        for _ in range(2):
            answer = await served.client.post(f"/api/v2/runs/{run_id}/cancel")
            assert answer.json() == {"id": run_id}
            run = await served.get(f"/api/v3/runs/{run_id}")
            assert (run["status"], run["isCancelled"]) == ("CANCELED", True)
            assert "finishedAt" in run
        finished = await served.trigger()
        await _finish_one(served, worker_id, version_id, type="complete")
        await served.client.post(f"/api/v2/runs/{finished}/cancel")
        assert (await served.get(f"/api/v3/runs/{finished}"))["status"] == "COMPLETED"


async def test_pages_are_walked_to_the_end_and_back(database_url: str) -> None:
    async with serving(database_url) as served:
        made = [await served.trigger() for _ in range(5)]
        made.sort(reverse=True)
        first = await served.get("/api/v1/runs", **{"page[size]": "2"})
        assert [run["id"] for run in first["data"]] == made[:2]
        assert "previous" not in first["pagination"]
        after = first["pagination"]["next"]
        second = await served.get("/api/v1/runs", **{"page[size]": "2", "page[after]": after})
        assert [run["id"] for run in second["data"]] == made[2:4]
        last = await served.get(
            "/api/v1/runs", **{"page[size]": "2", "page[after]": second["pagination"]["next"]}
        )
        assert [run["id"] for run in last["data"]] == made[4:]
        assert "next" not in last["pagination"]
        # Clients that walk back send the old `after` along: `before` wins.
        back = await served.get(
            "/api/v1/runs",
            **{
                "page[size]": "2",
                "page[after]": after,
                "page[before]": last["pagination"]["previous"],
            },
        )
        assert [run["id"] for run in back["data"]] == made[2:4]


async def test_filters_choose_the_runs_of_a_list(database_url: str) -> None:
    async with serving(database_url) as served:
        version_id, worker_id = await served.register("hello"), await served.connect()
        done = await served.trigger(options={"tags": ["red", "round"]})
        await _finish_one(served, worker_id, version_id, type="complete")
        test_run = await served.trigger(options={"test": True, "tags": "red"})
        waiting = await served.trigger("other", options={"tags": ["blue"]})
        delayed = await served.trigger(options={"delay": "1h"})
        version = (await served.get(f"/api/v3/runs/{done}"))["version"]
        everything = {done, test_run, waiting, delayed}
        hour_ago = datetime.now(UTC) - timedelta(hours=1)
        for filters, expected in (
            ({"status": "COMPLETED"}, {done}),
            ({"status": "QUEUED,DELAYED"}, {test_run, delayed}),
            ({"status": "PENDING_VERSION"}, {waiting}),
            ({"taskIdentifier": "other,unknown"}, {waiting}),
            ({"version": version}, {done}),
            ({"tag": "round,blue"}, {done, waiting}),
            ({"isTest": "true"}, {test_run}),
            ({"isTest": "false", "tag": "red"}, {done}),
            ({"createdAt][period": "1h30m"}, everything),
            ({"createdAt][from": str(int(hour_ago.timestamp() * 1000))}, everything),
            ({"createdAt][to": hour_ago.isoformat()}, set[str]()),
            ({"batch": "batch_1"}, set[str]()),
            ({"schedule": "sched_1"}, set[str]()),
            ({"bulkAction": "bulk_1"}, set[str]()),
        ):
            query = {f"filter[{name}]": value for name, value in filters.items()}
            page = await served.get("/api/v1/runs", **query)
            assert {run["id"] for run in page["data"]} == expected, filters
            assert all(run["env"]["name"] == "dev" for run in page["data"])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("page[size]", "0"),
        ("page[size]", "101"),
        ("page[size]", "ten"),
        ("page[after]", "a b"),
        ("page[before]", "\u0000"),
        ("filter[status]", "QUEUED,NONSENSE"),
        ("filter[isTest]", "yes"),
        ("filter[createdAt][from]", "yesterday"),
        ("filter[createdAt][to]", "99999999999999999999999"),
        ("filter[createdAt][period]", "a while"),
        ("filter[tag]", "x" * 300),
        ("filter[taskIdentifier]", "\u0000"),
        ("filter[color]", "red"),
        ("filter[env]", "dev"),
    ],
)
async def test_a_parameter_that_can_not_be_read_is_named(
    database_url: str, name: str, value: str
) -> None:
    async with serving(database_url) as served:
        answer = await served.client.get("/api/v1/runs", params={name: value})
        assert answer.status_code == 400, answer.text
        assert name in error_of(answer)


async def test_a_key_is_reset_over_http_and_a_second_reset_is_no_error(database_url: str) -> None:
    async with serving(database_url) as served:
        options = {"options": {"idempotencyKey": "a/b"}}
        first = (await served.client.post(TRIGGER, json=options)).json()
        path, body = "/api/v1/idempotencyKeys/a%2Fb/reset", {"taskIdentifier": "hello"}
        answers = [(await served.client.post(path, json=body)).json() for _ in range(2)]
        assert answers == [{"id": "a/b", "wasTaken": True}, {"id": "a/b", "wasTaken": False}]
        second = (await served.client.post(TRIGGER, json=options)).json()
        assert (second["isCached"], second["id"] != first["id"]) == (False, True)
        bad = await served.client.post(path, json={})
        assert (bad.status_code, error_of(bad)) == (400, "taskIdentifier: this field is required")
