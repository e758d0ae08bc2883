"""Every route against every wrong credential: all refused, and nothing told."""

import logging
import re
from collections.abc import Iterator

import httpx
import pytest

from runwell.server import access
from runwell.server.access import ACCESS, Access
from runwell.server.application import OPERATIONS, create_app
from runwell.server.operations import Operation
from tests.server.serving import Served, error_of, serving
from tests.support.public_tokens import FAR, forge_token, make_token

CLOSED = [operation for operation in OPERATIONS if not operation.access.is_open]


def path_of(operation: Operation) -> str:
    return re.sub(r"\{[^}]*\}", "x", operation.path)


async def claims_of_dev(served: Served) -> dict[str, object]:
    answer = await served.client.post("/api/v1/auth/jwt/claims")
    assert answer.status_code == 200
    return {
        **answer.json(),
        "scopes": ["admin"],
        "iss": "https://id.trigger.dev",
        "aud": "https://api.trigger.dev",
        "exp": FAR,
    }


async def wrong_credentials(served: Served) -> Iterator[tuple[str, str]]:
    """What is no credential, each with a name."""
    claims = await claims_of_dev(served)
    key, other = served.keys["dev"], served.keys["prod"]
    hs256 = {"alg": "HS256"}
    good = forge_token(hs256, claims, key)
    head, payload, signature = good.split(".")
    return iter(
        {
            "missing": "",
            "another scheme": f"Basic {key}",
            "empty": "Bearer",
            "malformed": "Bearer hello",
            "public key": "Bearer pk_dev_0123456789",
            "unknown key": "Bearer tr_dev_01234567890123456789",
            "a key cut short": f"Bearer {key[:-1]}",
            "a key and more": f"Bearer {key}x",
            "a key in other letters": f"Bearer {key.swapcase()}",
            "unknown personal token": "Bearer tr_pat_" + "1" * 40,
            "no token at all": "Bearer a.b.c",
            "empty parts": "Bearer ..",
            "alg none": "Bearer " + forge_token({"alg": "none"}, claims, signature=b""),
            "alg None": "Bearer " + forge_token({"alg": "None"}, claims, key),
            "no alg": "Bearer " + forge_token({}, claims, key),
            "unsigned": f"Bearer {head}.{payload}.",
            "HS384": "Bearer " + forge_token({"alg": "HS384"}, claims, key, "sha384"),
            "HS512": "Bearer " + forge_token({"alg": "HS512"}, claims, key, "sha512"),
            "RS256 by the key": "Bearer " + forge_token({"alg": "RS256"}, claims, key),
            "HS256 said, SHA-512 done": "Bearer " + forge_token(hs256, claims, key, "sha512"),
            "critical extension": "Bearer "
            + forge_token({"alg": "HS256", "crit": ["x"], "x": 1}, claims, key),
            "key in the header": "Bearer "
            + forge_token(
                {"alg": "HS256", "jwk": {"kty": "oct", "k": "YWFhYWFhYWFhYWFhYWFhYQ"}},
                claims,
                "a" * 16,
            ),
            "another environment's key": "Bearer " + forge_token(hs256, claims, other),
            "its id as the key": "Bearer " + forge_token(hs256, claims, str(claims["sub"])),
            "empty key": "Bearer " + forge_token(hs256, claims, ""),
            "another payload": f"Bearer {head}.{payload[:-2]}AA.{signature}",
            "expired": "Bearer " + forge_token(hs256, {**claims, "exp": 1}, key),
            "without an end": "Bearer " + forge_token(hs256, {**claims, "exp": None}, key),
            "an end that is none": "Bearer " + forge_token(hs256, {**claims, "exp": True}, key),
            "another issuer": "Bearer " + forge_token(hs256, {**claims, "iss": "x"}, key),
            "another audience": "Bearer " + forge_token(hs256, {**claims, "aud": "x"}, key),
            "not public": "Bearer " + forge_token(hs256, {**claims, "pub": 1}, key),
            "no environment": "Bearer " + forge_token(hs256, {**claims, "sub": None}, key),
            "unknown environment": "Bearer " + forge_token(hs256, {**claims, "sub": "env_x"}, key),
        }.items()
    )


async def test_every_route_refuses_every_wrong_credential(database_url: str) -> None:
    async with serving(database_url) as served:
        wrong = list(await wrong_credentials(served))
        # Thousands of requests: without sockets.
        transport = httpx.ASGITransport(create_app(served.backend))
        async with httpx.AsyncClient(transport=transport, base_url=served.url) as client:
            for operation in CLOSED:
                for name, header in wrong:
                    headers = {"authorization": header} if header else {}
                    answer = await client.request(
                        operation.method, path_of(operation), headers=headers
                    )
                    assert answer.status_code == 401, (operation.name, name, answer.text)
                    assert error_of(answer)


async def test_every_route_refuses_a_public_token_with_the_wrong_scope(database_url: str) -> None:
    async with serving(database_url) as served:
        sub = str((await claims_of_dev(served))["sub"])
        key = served.keys["dev"]
        useless = [
            make_token(key, sub),
            make_token(key, sub, "read", "write", "tasks", "read:runs:y", "read:tags:x:y"),
            make_token(key, sub, "trigger:tasks:y", "read:batch:y", "READ:ALL", "*", "admin:x"),
        ]
        for operation in CLOSED:
            for token in useless:
                answer = await ask(served, operation, token)
                # A body that is needed to know what it is about may be refused before.
                expected = {403} if operation.name not in BY_BODY else {400, 403}
                assert answer.status_code in expected, (operation.name, answer.text)
                if answer.status_code == 403:
                    assert answer.json()["code"] == "unauthorized"
                    assert error_of(answer).startswith("Unauthorized: ")
            if not operation.access.takes_public_tokens:
                answer = await ask(served, operation, make_token(key, sub, "admin", "read:all"))
                assert answer.status_code == 403, operation.name


BY_BODY = {name for name, found in ACCESS.items() if found is access.BATCH_TRIGGER}


async def ask(served: Served, operation: Operation, token: str) -> httpx.Response:
    return await served.client.request(
        operation.method,
        path_of(operation),
        headers={"authorization": f"Bearer {token}"},
        json={"items": [{"task": "x"}]} if operation.name in BY_BODY else None,
        params={"tags": "x"} if operation.name == "followTags" else None,
    )


async def test_what_the_table_does_not_have_is_refused_to_everybody(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(ACCESS, "listRuns")
    async with serving(database_url) as served:
        answer = await served.client.get("/api/v1/runs")
        assert answer.status_code == 403
        assert "nobody may call this" in error_of(answer)


async def test_a_route_that_forgets_to_ask_for_scopes_gives_a_public_token_nothing(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ACCESS, "readMetadata", access.READ_RUN)
    async with serving(database_url) as served:
        run_id = await served.trigger()
        sub = str((await claims_of_dev(served))["sub"])
        token = make_token(served.keys["dev"], sub, "admin")
        headers = {"authorization": f"Bearer {token}"}
        answer = await served.client.get(f"/api/v1/runs/{run_id}/metadata", headers=headers)
        assert answer.status_code == 403
        assert "not asked for its scopes" in error_of(answer)


def test_what_takes_public_tokens_takes_them_for_reading_and_triggering_alone() -> None:
    for operation in OPERATIONS:
        found: Access = operation.access
        if found.takes_public_tokens and found.action == "read":
            assert operation.method == "GET", operation.name
        if found.path_resource is not None:
            assert f"{{{found.path_resource[1]}" in operation.path
            assert found.path_resource[0] in found.resources


async def test_no_credential_gets_into_the_log_or_into_an_answer(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with serving(database_url) as served:
        wrong = list(await wrong_credentials(served))
        good = [f"Bearer {served.keys['dev']}"]
        for header in (*good, *(header for _, header in wrong if len(header) > 12)):
            answer = await served.client.get("/api/v1/runs", headers={"authorization": header})
            assert header.removeprefix("Bearer ") not in answer.text
        ours = [str(record.__dict__) for record in caplog.records if "http" not in record.name]
        for _, header in wrong:
            secret = header.partition(" ")[2]
            if len(secret) > 12:
                assert not any(secret in text for text in ours)
        assert not any(served.keys["dev"] in text for text in ours)
