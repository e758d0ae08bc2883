"""Who may ask, and what the others are told."""

import logging

import pytest

from runwell.engine.db import Database
from runwell.server.auth import KEPT_SECONDS
from tests.server.serving import error_of, serving

PROTECTED = [
    ("POST", "/api/v1/tasks/hello/trigger"),
    ("GET", "/api/v3/runs/run_1"),
    ("GET", "/api/v1/runs"),
    ("POST", "/api/v2/runs/run_1/cancel"),
    ("GET", "/api/v1/runs/run_1/logs"),
    ("POST", "/api/v1/projects/~/background-workers"),
    *(
        ("POST", f"/engine/v1/worker-actions/{action}")
        for action in ("connect", "dequeue", "heartbeat", "report", "disconnect")
    ),
]

REFUSED = {
    "": "no bearer token",
    "Bearer": "no bearer token",
    "Basic dHJfZGV2X3g6": "no bearer token",
    "Bearer pk_dev_0123456789": "a public key",
    "Bearer tr_pat_0123456789": "a personal access token",
    "Bearer aaa.bbb.ccc": "no public access token",
    "Bearer hello": "no secret key",
    "Bearer tr_dev_with space": "no secret key",
    "Bearer tr_dev_\u00e9": "no secret key",
    "Bearer tr_dev_01234567890123456789": "no environment here has this secret key",
}


async def test_every_route_but_those_for_anybody_wants_a_key(database_url: str) -> None:
    async with serving(database_url) as served:
        del served.client.headers["authorization"]
        for method, path in PROTECTED:
            answer = await served.client.request(method, path)
            assert answer.status_code == 401, path
            assert "there is no authorization header" in error_of(answer)
            assert answer.headers["www-authenticate"] == "Bearer"
        for path in ("/healthz", "/readyz", "/openapi.json"):
            assert (await served.client.get(path)).status_code == 200


@pytest.mark.parametrize("header", REFUSED)
async def test_a_credential_that_is_not_taken_is_named_for_what_it_is(
    database_url: str, header: str
) -> None:
    async with serving(database_url) as served:
        answer = await served.client.get(
            "/api/v1/runs", headers=[(b"authorization", header.encode("latin-1"))]
        )
        assert answer.status_code == 401
        assert REFUSED[header] in error_of(answer)


async def test_a_key_sees_the_runs_of_its_own_environment_only(database_url: str) -> None:
    async with serving(database_url) as served:
        run_id = await served.trigger()
        stranger = {"authorization": f"bearer {served.keys['prod']}"}
        assert (await served.client.get("/api/v1/runs", headers=stranger)).json()["data"] == []
        for method, path in (
            ("GET", f"/api/v3/runs/{run_id}"),
            ("POST", f"/api/v2/runs/{run_id}/cancel"),
            ("GET", f"/api/v1/runs/{run_id}/logs"),
        ):
            answer = await served.client.request(method, path, headers=stranger)
            assert answer.status_code == 404, path
        assert (await served.get(f"/api/v3/runs/{run_id}"))["status"] != "CANCELED"


async def test_a_known_key_is_not_looked_up_again_within_seconds(database_url: str) -> None:
    async with serving(database_url) as served:
        await served.get("/api/v1/runs")
        ring = served.backend.keys
        assert KEPT_SECONDS <= 10
        closed = await Database.open(database_url, min_size=1)
        await closed.close()
        found = await ring.find(closed, served.keys["dev"], now=served.backend.now())
        assert found is not None
        assert found.slug == "dev"


async def test_keys_never_get_into_the_log(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with serving(database_url) as served:
        await served.trigger()
        await served.client.get("/api/v1/runs", headers={"authorization": "Bearer tr_dev_wrong"})
        ours = [str(record.__dict__) for record in caplog.records if "http" not in record.name]
        assert not any("tr_dev_" in text for text in ours)
