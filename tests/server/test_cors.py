"""What pages of any origin may ask, and what their scripts may read of the answers."""

import httpx
import pytest

from tests.server.serving import serving

ORIGIN = "https://shop.example.com"
#: What the clients of both generations send from a browser.
REQUEST_HEADERS = (
    "authorization,content-type,accept,trigger-version,x-trigger-client,"
    "x-trigger-electric-version,x-trigger-api-version,x-trigger-source,"
    "x-trigger-realtime-streams-version,x-trigger-request-idempotency-key,x-trigger-branch,"
    "last-event-id,timeout-seconds"
)
EXPOSED = {
    "x-trigger-jwt",
    "x-trigger-jwt-claims",
    "x-should-retry",
    "retry-after",
    "x-ratelimit-limit",
    "x-ratelimit-remaining",
    "x-ratelimit-reset",
    "electric-handle",
    "electric-offset",
    "electric-schema",
    "electric-cursor",
    "electric-up-to-date",
}


def exposed_by(answer: httpx.Response) -> set[str]:
    return {name.strip() for name in answer.headers["access-control-expose-headers"].split(",")}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/v1/tasks/hello/trigger"),
        ("POST", "/api/v1/tasks/batch"),
        ("GET", "/api/v3/runs/run_1"),
        ("GET", "/realtime/v1/runs/run_1"),
        ("PUT", "/packets/env_1/a"),
        ("DELETE", "/api/v1/nowhere"),
    ],
)
async def test_a_preflight_lets_every_client_through_without_a_credential(
    database_url: str, method: str, path: str
) -> None:
    async with serving(database_url) as served:
        del served.client.headers["authorization"]
        answer = await served.client.options(
            path,
            headers={
                "origin": ORIGIN,
                "access-control-request-method": method,
                "access-control-request-headers": REQUEST_HEADERS,
            },
        )
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] in ("*", ORIGIN)
        allowed = {
            name.strip() for name in answer.headers["access-control-allow-methods"].split(",")
        }
        assert {"GET", "HEAD", "PUT", "PATCH", "POST", "DELETE"} <= allowed
        headers = set(answer.headers["access-control-allow-headers"].split(","))
        assert set(REQUEST_HEADERS.split(",")) <= {name.strip() for name in headers}
        # Access is by key: cookies are never asked for.
        assert "access-control-allow-credentials" not in answer.headers


async def test_every_answer_to_a_page_can_be_read_refusals_too(database_url: str) -> None:
    async with serving(database_url) as served:
        headers = {"origin": ORIGIN}
        made = await served.client.post("/api/v1/tasks/hello/trigger", json={}, headers=headers)
        answers = [
            made,
            await served.client.get(f"/api/v3/runs/{made.json()['id']}", headers=headers),
            await served.client.get("/api/v3/runs/run_none", headers=headers),
            await served.client.get("/nowhere", headers=headers),
            await served.client.get(
                "/api/v1/runs", headers={**headers, "authorization": "Bearer wrong"}
            ),
            await served.client.put("/api/v1/runs", headers=headers),
        ]
        assert [answer.status_code for answer in answers] == [200, 200, 404, 404, 401, 405]
        for answer in answers:
            assert answer.headers["access-control-allow-origin"] in ("*", ORIGIN)
            assert exposed_by(answer) >= EXPOSED
        assert "x-trigger-jwt-claims" in made.headers


async def test_who_is_no_page_gets_no_such_headers(database_url: str) -> None:
    async with serving(database_url) as served:
        answer = await served.client.get("/api/v1/runs")
        assert not [name for name in answer.headers if name.startswith("access-control")]
