"""Public access tokens as the client makes them, and what the server lets them do."""

import asyncio
import json
from collections.abc import Sequence
from datetime import timedelta
from typing import cast

import pytest

from runwell.client.api import ApiClient
from runwell.client.batching import BatchOptions, batch_flow, entry_of_id
from runwell.client.management import BlockingTasks, Tasks
from runwell.client.public_tokens import Auth, BlockingAuth, Scopes, TasksOfToken
from runwell.client.runs import Runs
from runwell.client.transport import (
    ClientSettings,
    PermissionDeniedError,
    RequestOptions,
    UnprocessableEntityError,
)
from tests.server.serving import Served, serving
from tests.support.public_tokens import claims_of
from tests.support.transport import FakeTransport, answer_json, fake_client

CLAIMS = answer_json({"sub": "env_1", "pub": True})


def client_of(served: Served, credential: str | None = None) -> ApiClient:
    settings = ClientSettings(base_url=served.url, secret_key=credential or served.keys["dev"])
    return ApiClient(lambda: settings)


@pytest.mark.parametrize(
    ("scopes", "flat"),
    [
        ({"read": {"runs": ["run_1"], "tags": "a"}}, ["read:runs:run_1", "read:tags:a"]),
        (["read:runs"], ["read:runs"]),
        (None, None),
    ],
)
async def test_a_token_has_the_scopes_that_were_asked_for(
    scopes: Scopes | None, flat: list[str] | None
) -> None:
    transport = FakeTransport(CLAIMS)
    client = fake_client(transport)
    made = [
        await Auth(client).create_public_token(scopes),
        BlockingAuth(client).create_public_token(scopes),
    ]
    for token in made:
        claims = claims_of(token)
        assert (claims["sub"], claims["pub"], claims.get("scopes")) == ("env_1", True, flat)
        assert claims["exp"] - claims["iat"] == 900
        assert "otu" not in claims
    request = transport.requests[0]
    assert (request.method, request.url) == ("POST", "http://api.test/api/v1/auth/jwt/claims")


async def test_a_token_that_triggers_is_good_once_unless_told_otherwise() -> None:
    client = fake_client(FakeTransport(CLAIMS))
    auth, blocking = Auth(client), BlockingAuth(client)
    once = claims_of(await auth.create_trigger_public_token("a", expiration_time="1hr"))
    assert (once["otu"], once["scopes"]) == (True, ["trigger:tasks:a"])
    assert once["exp"] - once["iat"] == 3600
    often = claims_of(blocking.create_trigger_public_token(["a", "b"], multiple_use=True))
    assert (often["otu"], often["scopes"]) == (False, ["trigger:tasks:a", "trigger:tasks:b"])
    batch = claims_of(await auth.create_batch_trigger_public_token("a"))
    assert batch["scopes"] == ["batchTrigger:tasks:a"]
    assert claims_of(blocking.create_batch_trigger_public_token("a"))["otu"] is True
    # Each of two that are made in one second can be used.
    first, second = [await auth.create_trigger_public_token("a") for _ in range(2)]
    assert first != second


@pytest.mark.parametrize("scopes", ["read:runs", {"read": {"runs": 1}}, ["x" * 600], [""]])
async def test_what_are_no_scopes_is_refused_before_anything_is_sent(scopes: object) -> None:
    transport = FakeTransport(CLAIMS)
    with pytest.raises((TypeError, ValueError)):
        await Auth(fake_client(transport)).create_public_token(cast("Scopes", scopes))
    assert not transport.requests


@pytest.mark.parametrize("tasks", [[], "", [""], 1, [None]])
async def test_what_names_no_task_is_refused(tasks: object) -> None:
    with pytest.raises(ValueError, match="names no task"):
        await Auth(fake_client(FakeTransport(CLAIMS))).create_trigger_public_token(
            cast("TasksOfToken", tasks)
        )


async def test_a_handle_has_the_servers_token_or_one_that_is_signed_here() -> None:
    given: Sequence[tuple[dict[str, str], object]] = (
        ({"x-trigger-jwt": "made"}, "made"),
        ({}, None),
        ({"x-trigger-jwt-claims": "{"}, None),
        ({"x-trigger-jwt-claims": "[]"}, None),
    )
    for headers, expected in given:
        answer = answer_json({"id": "run_1", "isCached": False}, headers=headers)
        handle = await Tasks(fake_client(FakeTransport(answer))).trigger("a")
        assert handle.public_access_token == expected
    claims = {"x-trigger-jwt-claims": json.dumps({"sub": "env_1", "pub": True})}
    client = fake_client(
        FakeTransport(answer_json({"id": "run_1", "isCached": False}, 200, claims))
    )
    options = RequestOptions(public_token_expiration=timedelta(minutes=5))
    handle = BlockingTasks(client).trigger("a", request_options=options)
    assert handle.public_access_token is not None
    found = claims_of(handle.public_access_token)
    assert found["scopes"] == ["read:runs:run_1"]
    assert found["exp"] - found["iat"] == 300
    assert handle.public_access_token not in repr(handle)


async def test_tokens_do_what_they_say_against_a_server(database_url: str) -> None:
    async with serving(database_url) as served:
        client = client_of(served)
        handle, other = [await Tasks(client).trigger("mail") for _ in range(2)]
        assert handle.public_access_token is not None
        reader = Runs(client_of(served, handle.public_access_token))
        assert (await reader.retrieve(handle.id)).id == handle.id
        with pytest.raises(PermissionDeniedError, match="lacks the scope"):
            await reader.retrieve(other.id)
        batch = await client.run(batch_flow(client, [entry_of_id("mail", 1)], BatchOptions()))
        assert batch.public_access_token is not None
        reader = Runs(client_of(served, batch.public_access_token))
        assert (await reader.retrieve(batch.runs[0].id)).id == batch.runs[0].id
        once = await Auth(client).create_trigger_public_token("mail")
        browser = client_of(served, once)
        made = await Tasks(browser).trigger("mail")
        assert made.public_access_token is not None
        reader = Runs(client_of(served, made.public_access_token))
        assert (await reader.retrieve(made.id)).id == made.id
        with pytest.raises(UnprocessableEntityError, match="was used"):
            await Tasks(browser).trigger("mail")
        token = await asyncio.to_thread(
            BlockingAuth(client).create_public_token, {"read": {"tasks": ["mail"]}}
        )
        listed = Runs(client_of(served, token)).list(task_identifier="mail")
        assert len([run async for run in listed]) == 4
