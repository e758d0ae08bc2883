"""Replay, reschedule and tags over HTTP."""

import pytest

from runwell.core.ids import make_request_key
from runwell.core.payloads import MIN_STORED_BYTES
from tests.server.serving import error_of, serving


async def test_a_replay_needs_no_body_and_answers_the_new_run(database_url: str) -> None:
    async with serving(database_url) as served:
        original = await served.trigger(payload={"a": 1}, options={"tags": "t"})
        # As the JavaScript client sends it: a content type, and nothing.
        answer = await served.client.post(
            f"/api/v1/runs/{original}/replay", headers={"content-type": "application/json"}
        )
        assert answer.status_code == 200
        new = await served.get(f"/api/v3/runs/{answer.json()['id']}")
        assert (new["payload"], new["tags"], new["replayOf"]) == ({"a": 1}, ["t"], original)
        listed = await served.get("/api/v1/runs")
        assert [run["id"] for run in listed["data"]] == [new["id"], original]


async def test_a_replay_takes_another_payload_also_null(database_url: str) -> None:
    async with serving(database_url) as served:
        original = await served.trigger(payload={"a": 1})
        for payload in ({"b": 2}, None, [1], '"text"'):
            answer = await served.client.post(
                f"/api/v1/runs/{original}/replay", json={"payload": payload}
            )
            new = await served.get(f"/api/v3/runs/{answer.json()['id']}")
            assert new.get("payload") == ("text" if payload == '"text"' else payload)


async def test_a_replay_sent_twice_is_one_run(database_url: str) -> None:
    async with serving(database_url) as served:
        original = await served.trigger()
        headers = {"x-trigger-request-idempotency-key": make_request_key()}
        path = f"/api/v1/runs/{original}/replay"
        ids = {(await served.client.post(path, headers=headers)).json()["id"] for _ in range(2)}
        assert len(ids) == 1


async def test_a_delayed_run_is_rescheduled_and_answered_whole(database_url: str) -> None:
    async with serving(database_url) as served:
        run_id = await served.trigger(options={"delay": "1h"})
        answer = await served.client.post(
            f"/api/v1/runs/{run_id}/reschedule", json={"delay": "2030-01-01T00:00:00.000Z"}
        )
        assert answer.status_code == 200
        assert answer.json()["status"] == "DELAYED"
        assert answer.json()["delayedUntil"].startswith("2030-01-01T00:00:00")
        assert answer.json()["relatedRuns"] == {"children": []}


async def test_tags_are_one_text_or_several(database_url: str) -> None:
    async with serving(database_url) as served:
        run_id = await served.trigger(options={"tags": ["a"]})
        path = f"/api/v1/runs/{run_id}/tags"
        one = await served.client.post(path, json={"tags": "b"})
        assert one.json() == {"message": "Successfully set 1 new tags."}
        again = await served.client.post(path, json={"tags": ["b", "a"]})
        assert again.json() == {"message": "No new tags to add"}
        assert (await served.get(f"/api/v3/runs/{run_id}"))["tags"] == ["a", "b"]
        many = await served.client.post(path, json={"tags": [f"t{n}" for n in range(9)]})
        assert many.status_code == 422
        assert "at most 10" in error_of(many)


@pytest.mark.parametrize(
    ("action", "body", "status"),
    [
        ("replay", '{"payload": ', 400),
        ("replay", '{"payload": 1, "payloadType": "x"}', 400),
        ("reschedule", "", 400),
        ("reschedule", "{}", 400),
        ("reschedule", '{"delay": 5}', 400),
        ("reschedule", '{"delay": "1h"}', 400),
        ("tags", "", 400),
        ("tags", '{"tags": [""]}', 400),
        ("tags", '{"tags": {"a": 1}}', 400),
        ("tags", '{"tags": "\\u0000"}', 400),
    ],
)
async def test_what_makes_no_sense_is_refused_with_what_is_wrong(
    database_url: str, action: str, body: str, status: int
) -> None:
    async with serving(database_url) as served:
        run_id = await served.trigger()
        path = f"/api/v1/runs/{run_id}/{action}"
        answer = await served.client.post(path, content=body)
        assert (answer.status_code, bool(error_of(answer))) == (status, True)
        assert len((await served.get("/api/v1/runs"))["data"]) == 1


async def test_a_run_that_is_unknown_can_not_be_changed(database_url: str) -> None:
    async with serving(database_url) as served:
        for action, body in (
            ("replay", {}),
            ("reschedule", {"delay": "1h"}),
            ("tags", {"tags": "a"}),
        ):
            answer = await served.client.post(f"/api/v1/runs/run_x/{action}", json=body)
            assert answer.status_code == 404
            assert "no run run_x" in error_of(answer)


async def test_metadata_is_changed_and_read_in_the_shapes_of_the_clients(database_url: str) -> None:
    async with serving(database_url) as served:
        root = await served.trigger(options={"metadata": {"done": 0}})
        run_id = await served.trigger(options={"parentRunId": root})
        path = f"/api/v1/runs/{run_id}/metadata"
        headers = {"x-trigger-request-idempotency-key": make_request_key()}
        body = {
            "metadata": {"a": None},
            "operations": [{"type": "set", "key": "$.b.c", "value": [1]}],
            "parentOperations": [{"type": "append", "key": "log", "value": "x"}],
            "rootOperations": [{"type": "increment", "key": "done", "value": 1}],
        }
        answers = [await served.client.put(path, json=body, headers=headers) for _ in range(2)]
        assert [answer.status_code for answer in answers] == [200, 200]
        answer = answers[-1]
        assert answer.json()["metadata"] == {"a": None, "b": {"c": [1]}}
        read = await served.get(path)
        assert read["metadata"] == {"a": None, "b": {"c": [1]}}
        assert (await served.get(f"/api/v3/runs/{root}"))["metadata"] == {"done": 1, "log": ["x"]}
        # As older clients write it: the whole of it.
        assert (await served.client.put(path, json={"metadata": {}})).json() == {"metadata": {}}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ('{"metadata": [1]}', "metadata"),
        ('{"operations": [{"type": "explode", "key": "a"}]}', "operations[0]"),
        ('{"operations": [{"type": "set", "key": "$.a..b", "value": 1}]}', "is no path"),
        ('{"operations": [{"type": "increment", "key": "a", "value": "1"}]}', "a number is needed"),
        ('{"operations": [{"type": "set", "key": "a", "value": "\\u0000"}]}', "NUL"),
        ('{"operations": [{"type": "set", "key": "a", "value": NaN}]}', "NaN"),
        ("", "the body is empty"),
    ],
)
async def test_what_is_no_change_of_metadata_is_refused(
    database_url: str, body: str, message: str
) -> None:
    async with serving(database_url) as served:
        run_id = await served.trigger(options={"metadata": {"a": 1}})
        answer = await served.client.put(f"/api/v1/runs/{run_id}/metadata", content=body)
        assert answer.status_code == 400
        assert message in error_of(answer)
        assert (await served.get(f"/api/v3/runs/{run_id}"))["metadata"] == {"a": 1}
        assert (await served.client.get("/api/v1/runs/run_x/metadata")).status_code == 404


async def test_a_large_payload_is_shared_by_a_replay_and_may_be_changed(database_url: str) -> None:
    async with serving(database_url) as served:
        large = "x" * (MIN_STORED_BYTES + 1)
        original = await served.trigger(payload={"a": large})
        path = f"/api/v1/runs/{original}/replay"
        same = await served.client.post(path)
        other = await served.client.post(path, json={"payload": {"b": large}})
        for answer, expected in ((same, {"a": large}), (other, {"b": large})):
            run = await served.get(f"/api/v3/runs/{answer.json()['id']}")
            assert "payload" not in run
            assert (await served.client.get(run["payloadPresignedUrl"])).json() == expected
