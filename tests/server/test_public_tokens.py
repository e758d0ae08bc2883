"""What a public access token lets its holder do over HTTP, and when it ends."""

import asyncio
import json
from datetime import timedelta

import httpx

from runwell.core.ids import make_request_key
from runwell.engine import credentials
from tests.server.serving import Served, error_of, serving
from tests.support.public_tokens import claims_of, make_token


async def claims_of_dev(served: Served) -> dict[str, str]:
    answer = await served.client.post("/api/v1/auth/jwt/claims")
    found: dict[str, str] = answer.json()
    return found


NOWHERE = [
    "/api/v3/runs/{}",
    "/api/v1/runs/{}/logs",
    "/api/v1/runs/{}/metadata",
    "/api/v1/batches/{}",
    "/api/v1/schedules/{}",
    "/api/v1/waitpoints/tokens/{}",
    "/api/v1/queues/{}",
]


async def test_another_environments_things_are_as_if_they_were_nowhere(database_url: str) -> None:
    async with serving(database_url) as served:
        run_id = await served.trigger()
        batch = await served.client.post("/api/v1/tasks/batch", json={"items": [{"task": "x"}]})
        token = await served.client.post("/api/v1/waitpoints/tokens", json={})
        queues = await served.get("/api/v1/queues")
        there = [
            run_id,
            str(batch.json()["id"]),
            str(token.json()["id"]),
            str(queues["data"][0]["id"]),
        ]
        key = served.keys["prod"]
        claims = await served.client.post(
            "/api/v1/auth/jwt/claims", headers={"authorization": f"Bearer {key}"}
        )
        stranger = make_token(key, claims.json()["sub"], "read:all")
        for path in NOWHERE:
            for found in there:
                missing = found[:-3] + "zzz"
                for credential in (key, stranger):
                    headers = {"authorization": f"Bearer {credential}"}
                    answers = [
                        await served.client.get(path.format(one), headers=headers)
                        for one in (found, missing)
                    ]
                    first, second = (
                        (answer.status_code, answer.text.replace(one, "ID"))
                        for answer, one in zip(answers, (found, missing), strict=True)
                    )
                    assert first == second
                    assert first[0] in (403, 404)


async def test_a_token_for_one_run_is_not_told_which_other_runs_there_are(
    database_url: str,
) -> None:
    async with serving(database_url) as served:
        mine, other = await served.trigger(), await served.trigger(options={"tags": ["secret"]})
        sub = str((await claims_of_dev(served))["sub"])
        token = make_token(served.keys["dev"], sub, f"read:runs:{mine}", "read:runs:run_gone")
        headers = {"authorization": f"Bearer {token}"}
        answers = {
            run_id: await served.client.get(f"/api/v3/runs/{run_id}", headers=headers)
            for run_id in (mine, other, "run_nowhere", "run_gone")
        }
        statuses = {run_id: answer.status_code for run_id, answer in answers.items()}
        assert statuses == {mine: 200, other: 403, "run_nowhere": 403, "run_gone": 404}
        assert answers[other].content == answers["run_nowhere"].content


async def test_a_run_is_read_by_its_id_its_tags_its_task_or_its_batch(database_url: str) -> None:
    async with serving(database_url) as served:
        answer = await served.client.post(
            "/api/v1/tasks/batch",
            json={"items": [{"task": "mail", "options": {"tags": ["user:1"]}}]},
        )
        batch_id, run_id = answer.json()["id"], answer.json()["runs"][0]["id"]
        sub, key = str((await claims_of_dev(served))["sub"]), served.keys["dev"]
        for scope in (
            f"read:runs:{run_id}",
            "read:runs",
            "read:tags:user:1",
            "read:tags",
            "read:tasks:mail",
            f"read:batch:{batch_id}",
            "read:all",
            "admin",
        ):
            headers = {"authorization": f"Bearer {make_token(key, sub, scope)}"}
            found = await served.client.get(f"/api/v3/runs/{run_id}", headers=headers)
            assert found.status_code == 200, scope
        headers = {"authorization": f"Bearer {make_token(key, sub, 'read:tags:user:2')}"}
        assert (await served.client.get(f"/api/v3/runs/{run_id}", headers=headers)).is_error


async def test_a_list_shows_the_tasks_that_are_named_and_allowed(database_url: str) -> None:
    async with serving(database_url) as served:
        run_id = await served.trigger("mail")
        await served.trigger("other")
        sub = str((await claims_of_dev(served))["sub"])
        token = make_token(served.keys["dev"], sub, "read:tasks:mail")
        headers = {"authorization": f"Bearer {token}"}

        async def show(tasks: str | None) -> httpx.Response:
            query = {} if tasks is None else {"filter[taskIdentifier]": tasks}
            return await served.client.get("/api/v1/runs", params=query, headers=headers)

        assert [run["id"] for run in (await show("mail")).json()["data"]] == [run_id]
        for tasks in (None, "other", "mail,other"):
            assert (await show(tasks)).status_code == 403, tasks


async def test_a_packet_is_given_to_whoever_may_read_its_run(database_url: str) -> None:
    async with serving(database_url) as served:
        run_id = await served.trigger("mail", payload={"a": "x" * 700_000})
        await served.client.put("/api/v1/packets/unused.json")
        run = await served.get(f"/api/v3/runs/{run_id}")
        path = run["payloadPresignedUrl"].split("/packets/env_")[1].partition("?")[0]
        path = path.partition("/")[2]
        sub, key = str((await claims_of_dev(served))["sub"]), served.keys["dev"]
        for scope, packet, status in (
            ("read:tasks:mail", path, 200),
            ("read:tasks:other", path, 403),
            ("read:tasks:mail", "unused.json", 403),
            ("read:tasks:mail", "nowhere.json", 403),
        ):
            headers = {"authorization": f"Bearer {make_token(key, sub, scope)}"}
            answer = await served.client.get(f"/api/v1/packets/{packet}", headers=headers)
            assert answer.status_code == status, (scope, packet, answer.text)


async def test_who_triggers_with_a_public_token_gets_one_that_reads_the_run(
    database_url: str,
) -> None:
    async with serving(database_url) as served:
        sub = str((await claims_of_dev(served))["sub"])
        token = make_token(served.keys["dev"], sub, "trigger:tasks:mail", "batchTrigger:tasks:mail")
        headers = {"authorization": f"Bearer {token}"}
        answer = await served.client.post("/api/v1/tasks/mail/trigger", json={}, headers=headers)
        assert "x-trigger-jwt-claims" not in answer.headers
        made = answer.headers["x-trigger-jwt"]
        assert claims_of(made)["scopes"] == [f"read:runs:{answer.json()['id']}"]
        found = await served.client.get(
            f"/api/v3/runs/{answer.json()['id']}", headers={"authorization": f"Bearer {made}"}
        )
        assert found.status_code == 200
        batch = await served.client.post(
            "/api/v1/tasks/batch", json={"items": [{"task": "mail"}]}, headers=headers
        )
        assert claims_of(batch.headers["x-trigger-jwt"])["scopes"] == [
            f"read:batch:{batch.json()['id']}"
        ]
        mixed = {"items": [{"task": "mail"}, {"task": "other"}]}
        refused = await served.client.post("/api/v1/tasks/batch", json=mixed, headers=headers)
        assert refused.status_code == 403


async def test_a_one_time_token_is_used_once_whichever_server_it_comes_to(
    database_url: str,
) -> None:
    async with serving(database_url) as served, serving(database_url) as second:
        for scope, path, body in (
            ("trigger:tasks:mail", "/api/v1/tasks/mail/trigger", {}),
            ("batchTrigger:tasks:mail", "/api/v1/tasks/batch", {"items": [{"task": "mail"}]}),
        ):
            made = await served.client.post(
                "/api/v1/auth/public-tokens", json={"scopes": [scope], "oneTimeUse": True}
            )
            headers = {"authorization": f"Bearer {made.json()['token']}"}
            answers = await asyncio.gather(
                *(
                    one.client.post(path, json=body, headers=headers)
                    for one in (served, second, served, second)
                )
            )
            assert sorted(answer.status_code for answer in answers) in (
                [200, 422, 422, 422],
                [202, 422, 422, 422],
            )
            # The last bits of a signature's text mean nothing: another spelling is no other token.
            spelled = headers["authorization"] + "="
            again = await served.client.post(path, json=body, headers={"authorization": spelled})
            assert again.status_code in (401, 422)
            assert "was used" in error_of(
                next(answer for answer in answers if answer.status_code == 422)
            )


async def test_a_one_time_trigger_whose_answer_was_lost_can_be_sent_again(
    database_url: str,
) -> None:
    async with serving(database_url) as served:
        sub = str((await claims_of_dev(served))["sub"])
        token = make_token(served.keys["dev"], sub, "trigger:tasks:mail", otu=True)
        headers = {
            "authorization": f"Bearer {token}",
            "x-trigger-request-idempotency-key": make_request_key(),
        }
        bad = await served.client.post(
            "/api/v1/tasks/mail/trigger",
            json={"options": {"tags": list("abcdefghijk")}},
            headers=headers,
        )
        assert bad.status_code == 422
        ids: set[str] = set()
        for _ in range(2):
            answer = await served.client.post(
                "/api/v1/tasks/mail/trigger", json={}, headers=headers
            )
            assert answer.status_code == 200, answer.text
            ids.add(answer.json()["id"])
        assert len(ids) == 1
        headers["x-trigger-request-idempotency-key"] = make_request_key()
        again = await served.client.post("/api/v1/tasks/mail/trigger", json={}, headers=headers)
        assert again.status_code == 422


async def test_while_keys_overlap_both_are_good_and_then_the_new_one_alone(
    database_url: str,
) -> None:
    async with serving(database_url) as served:
        sub, old = str((await claims_of_dev(served))["sub"]), served.keys["dev"]
        environment = await served.backend.keys.find(
            served.backend.db, old, now=served.backend.now()
        )
        assert environment is not None

        async def rotate(seconds: int) -> str:
            async with served.backend.db.transaction() as tx:
                made = await credentials.rotate_key(
                    tx, environment, overlap=timedelta(seconds=seconds), now=served.backend.now()
                )
            served.backend.keys.forget(environment)
            return made.secret_key

        async def show(credential: str) -> int:
            headers = {"authorization": f"Bearer {credential}"}
            return (await served.client.get("/api/v1/runs", headers=headers)).status_code

        new = await rotate(3600)
        for key in (old, new):
            assert await show(key) == 200
            assert await show(make_token(key, sub, "read:runs")) == 200
        newest = await rotate(0)
        for key, status in ((old, 401), (new, 401), (newest, 200)):
            assert await show(key) == status
            assert await show(make_token(key, sub, "read:runs")) == status


async def test_the_server_signs_tokens_too(database_url: str) -> None:
    async with serving(database_url) as served:
        made = await served.client.post("/api/v1/auth/jwt", json={})
        assert "scopes" not in claims_of(made.json()["token"])
        made = await served.client.post(
            "/api/v1/auth/jwt",
            json={"claims": {"scopes": ["read:runs"]}, "expirationTime": "1hr"},
        )
        token = made.json()["token"]
        assert 3590 <= claims_of(token)["exp"] - claims_of(token)["iat"] <= 3600
        headers = {"authorization": f"Bearer {token}"}
        assert (await served.client.get("/api/v1/runs", headers=headers)).status_code == 200
        for body, said in (
            ({"claims": {"scopes": ["x" * 999]}}, "scopes: "),
            ({"expirationTime": "1 month"}, "expirationTime: "),
        ):
            answer = await served.client.post("/api/v1/auth/jwt", json=body)
            assert answer.status_code == 400
            assert error_of(answer).startswith(said)


async def test_a_token_of_a_wait_is_completed_by_whoever_has_its_scope(database_url: str) -> None:
    async with serving(database_url) as served:
        made = await served.client.post("/api/v1/waitpoints/tokens", json={})
        token_id = made.json()["id"]
        assert json.loads(made.headers["x-trigger-jwt-claims"])["pub"] is True
        sub, key = (await claims_of_dev(served))["sub"], served.keys["dev"]
        path = f"/api/v1/waitpoints/tokens/{token_id}/complete"
        for scope, status in (
            ("write:waitpoints:waitpoint_x", 403),
            ("read:waitpoints", 403),
            (f"write:waitpoints:{token_id}", 200),
        ):
            headers = {"authorization": f"Bearer {make_token(key, sub, scope)}"}
            answer = await served.client.post(path, json={"data": 1}, headers=headers)
            assert answer.status_code == status, scope


async def test_a_run_of_a_public_token_reaches_no_further_than_itself(database_url: str) -> None:
    async with serving(database_url) as served:
        other = await served.trigger("other", payload={"a": "x" * 700_000})
        sub = (await claims_of_dev(served))["sub"]
        token = make_token(served.keys["dev"], sub, "write:tasks")
        headers = {"authorization": f"Bearer {token}"}
        refused: list[dict[str, object]] = [
            {"parentRunId": other},
            {"dependentAttempt": "attempt_1"},
            {"parentAttempt": "attempt_1"},
            {"dependentBatch": "batch_1"},
            {"bulkActionId": "bulk_1"},
            {"resumeParentOnCompletion": True},
            {"queue": {"name": "shared", "concurrencyLimit": 0}},
            {"queue": {"name": "shared", "concurrencyLimit": None}},
            {"payloadType": "application/store"},
        ]
        single, batch = "/api/v1/tasks/mail/trigger", "/api/v1/tasks/batch"
        for options in refused:
            body = {"payload": f"{other}/payload.json", "options": options}
            answer = await served.client.post(single, json=body, headers=headers)
            assert answer.status_code == 403, (options, answer.text)
            items = {"items": [{"task": "mail", **body}]}
            answer = await served.client.post(batch, json=items, headers=headers)
            assert answer.status_code == 403, (options, answer.text)
        for ties in ({"parentRunId": other}, {"dependentAttempt": "attempt_1"}):
            body = {"items": [{"task": "mail"}], **ties}
            answer = await served.client.post(batch, json=body, headers=headers)
            assert answer.status_code == 403, ties
        # What concerns the run alone is the caller's.
        fine = {"queue": {"name": "shared"}, "tags": ["a"], "test": False}
        answer = await served.client.post(single, json={"options": fine}, headers=headers)
        assert answer.status_code == 200
        runs = (await served.get("/api/v1/runs"))["data"]
        assert len(runs) == 2
