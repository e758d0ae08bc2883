"""What holds for every URL: methods, unknown paths, CORS, health, the OpenAPI document."""

import json
import logging
from typing import Any, cast

import pytest

from runwell.core.statuses import FINAL_RUN_STATUSES
from runwell.engine.db import Transaction
from runwell.engine.environments import Environment
from runwell.server.application import OPERATIONS
from tests.server.serving import error_of, serving


async def test_an_unknown_url_is_answered_404_in_json(database_url: str) -> None:
    async with serving(database_url) as served:
        for path in ("/api/v1/nothing", "/api/v1/runs/", "/a%2F..%2Fb"):
            answer = await served.client.get(path)
            assert answer.status_code == 404
            assert "/openapi.json" in error_of(answer)
            assert answer.headers["x-should-retry"] == "false"


async def test_a_wrong_method_is_answered_405_with_those_there_are(database_url: str) -> None:
    async with serving(database_url) as served:
        answer = await served.client.delete("/api/v1/runs")
        assert answer.status_code == 405
        assert answer.headers["allow"] == "GET, HEAD"
        assert "DELETE" in error_of(answer)
        answer = await served.client.get("/api/v1/tasks/hello/trigger")
        assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
        answer = await served.client.head("/healthz")
        assert (answer.status_code, answer.content) == (200, b"")


async def test_a_page_of_any_origin_may_ask_and_read_the_headers_it_needs(
    database_url: str,
) -> None:
    async with serving(database_url) as served:
        preflight = await served.client.options(
            "/api/v1/runs",
            headers={
                "origin": "http://localhost:3000",
                "access-control-request-method": "GET",
                "access-control-request-headers": "authorization,x-trigger-client",
            },
        )
        assert preflight.status_code == 200
        allowed = preflight.headers["access-control-allow-headers"]
        assert allowed == "authorization,x-trigger-client"
        answer = await served.client.get("/api/v1/runs", headers={"origin": "http://a.test"})
        assert answer.headers["access-control-allow-origin"] == "*"
        assert "x-trigger-jwt" in answer.headers["access-control-expose-headers"]


async def test_health_does_not_need_the_database_and_readiness_does(database_url: str) -> None:
    async with serving(database_url) as served:
        assert (await served.get("/readyz"))["status"] == "ready"
        await served.backend.db.close()
        assert (await served.get("/healthz"))["status"] == "ok"
        answer = await served.client.get("/readyz")
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "1"
        assert "try again" in error_of(answer)


async def test_a_database_without_the_newest_migration_is_not_ready(database_url: str) -> None:
    async with serving(database_url) as served:
        import asyncpg

        connection = await asyncpg.connect(database_url)
        await connection.execute("DELETE FROM schema_migrations")
        await connection.close()
        answer = await served.client.get("/readyz")
        assert answer.status_code == 503
        assert "migration" in error_of(answer)


async def test_an_unexpected_error_shows_an_id_that_the_log_has_and_nothing_else(
    database_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(_tx: Transaction, _environment: Environment, run_id: str) -> None:
        raise KeyError(f"the secret of {run_id}")

    monkeypatch.setattr("runwell.engine.runs.get_run", fail)
    async with serving(database_url) as served:
        answer = await served.client.get("/api/v3/runs/run_1")
        assert answer.status_code == 500
        assert "secret" not in error_of(answer)
        [record] = [record for record in caplog.records if record.levelno == logging.ERROR]
        assert record.getMessage() == "request_failed"
        fields = cast("dict[str, str]", record.__dict__["fields"])
        assert fields["error_id"] in error_of(answer)
        assert record.exc_info is not None


async def test_the_openapi_document_has_every_operation_with_its_errors(
    database_url: str,
) -> None:
    async with serving(database_url) as served:
        document = await served.get("/openapi.json")
        assert document["openapi"].startswith("3.1")
        names: set[str] = set()
        for operation in OPERATIONS:
            path = operation.path.replace(":path}", "}")
            described = document["paths"][path][operation.method.lower()]
            names.add(described["operationId"])
            responses = described["responses"]
            assert {str(operation.answer_status), "500", "503"} <= responses.keys()
            assert ("401" in responses) is not operation.access.is_open
            takes_bytes = 413 in {status for status, _ in operation.refusals}
            assert ("413" in responses) is (operation.body is not None or takes_bytes)
            for status, response in responses.items():
                if int(status) >= 400:
                    schema = response["content"]["application/json"]["schema"]
                    assert schema["$ref"].endswith("/ErrorBody")
        assert len(names) == len(OPERATIONS)
        _check_references(document)
        trigger = document["paths"]["/api/v1/tasks/{taskId}/trigger"]["post"]
        headers = {found["name"] for found in trigger["parameters"] if found["in"] == "header"}
        assert "idempotency-key" in headers


def test_final_statuses_are_those_that_the_api_calls_completed() -> None:
    # `runs.poll` of clients ends on `isCompleted`: a final status without it would spin for ever.
    from runwell.core.statuses import status_flags

    assert all(status_flags(status)["isCompleted"] for status in FINAL_RUN_STATUSES)


def _check_references(document: dict[str, Any]) -> None:
    text = json.dumps(document)
    schemas = document["components"]["schemas"]
    wanted = {part.split('"')[0] for part in text.split('"#/components/schemas/')[1:]}
    assert wanted <= schemas.keys()
    assert "#/$defs" not in text
