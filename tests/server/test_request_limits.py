"""What is refused because it is too much, and what goes on meanwhile."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from runwell.client.api import ApiClient
from runwell.client.runs import Runs
from runwell.client.transport import ClientSettings
from runwell.core.errors import ConfigurationError
from runwell.engine.queries import parse_queries
from runwell.server.request_limits import (
    Buckets,
    Doorkeeper,
    Rate,
    RateLimitedError,
    RequestLimits,
    read_request_limits,
)
from tests.server.serving import error_of, serving
from tests.support.public_tokens import make_token
from tests.support.waiting import wait_until

NOW = datetime(2025, 1, 4, 12, 0, tzinfo=UTC)
SLOW = Rate(refill=1, period_seconds=3600, burst=2)


def test_a_bucket_gives_back_with_time_and_never_more_than_it_holds() -> None:
    buckets = Buckets(Rate(refill=250, period_seconds=10, burst=3))
    for _ in range(3):
        buckets.take("a", NOW)
    with pytest.raises(RateLimitedError) as raised:
        buckets.take("a", NOW)
    assert (raised.value.limit, raised.value.seconds) == (3, 1)
    assert raised.value.reset_at == int(NOW.timestamp() * 1000) + 40
    buckets.take("b", NOW)
    buckets.take("a", NOW + timedelta(milliseconds=41))
    # A clock that went back gives nothing, and takes nothing.
    with pytest.raises(RateLimitedError):
        buckets.take("a", NOW - timedelta(hours=1))
    for _ in range(3):
        buckets.take("a", NOW + timedelta(days=1))
    with pytest.raises(RateLimitedError):
        buckets.take("a", NOW + timedelta(days=1))


def test_buckets_are_forgotten_when_they_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runwell.server.request_limits._MAX_BUCKETS", 2)
    buckets = Buckets(Rate(refill=1, period_seconds=1, burst=1))
    for name in ("a", "b", "c"):
        buckets.take(name, NOW)
    buckets.take("a", NOW)
    with pytest.raises(RateLimitedError):
        buckets.take("c", NOW)


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("250/10s:750", Rate(refill=250, period_seconds=10, burst=750)),
        ("60/1m", Rate(refill=60, period_seconds=60, burst=60)),
        ("off", None),
        ("OFF", None),
    ],
)
def test_a_rate_is_read_from_its_text(text: str, rate: Rate | None) -> None:
    limits = read_request_limits({"RUNWELL_RATE_LIMIT": text, "RUNWELL_MAX_REQUESTS": text[:0]})
    assert limits.secret_keys == rate
    assert limits.max_requests == 1_000
    assert read_request_limits({"RUNWELL_MAX_REQUESTS": "off"}).max_requests is None
    assert read_request_limits({"RUNWELL_MAX_REQUESTS": "7"}).max_requests == 7


@pytest.mark.parametrize("text", ["10", "0/1s", "1/0s", "1/1s:0", "1/soon", "-1/1s", "1/1s:x"])
def test_a_rate_that_is_none_is_an_error_at_the_start(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"RUNWELL_PUBLIC_RATE_LIMIT is .*250/10s:750"):
        read_request_limits({"RUNWELL_PUBLIC_RATE_LIMIT": text})


@pytest.mark.parametrize("text", ["0", "many", "-1", "1.5", "99999999"])
def test_a_number_of_requests_that_is_none_is_an_error_at_the_start(text: str) -> None:
    with pytest.raises(ConfigurationError, match="RUNWELL_MAX_REQUESTS"):
        read_request_limits({"RUNWELL_MAX_REQUESTS": text})


async def test_too_many_requests_are_told_when_to_come_back(database_url: str) -> None:
    async with serving(database_url) as served:
        version, worker_id = await served.register("hello"), await served.connect()
        await served.trigger()
        claims = (await served.client.post("/api/v1/auth/jwt/claims")).json()
        served.backend.doorkeeper = Doorkeeper(RequestLimits(secret_keys=SLOW, public_tokens=SLOW))
        answers = [await served.client.get("/api/v1/runs") for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        refused = answers[-1]
        assert refused.headers["content-type"] == "application/problem+json"
        body = refused.json()
        assert (body["title"], body["status"]) == ("Rate Limit Exceeded", 429)
        assert (body["limit"], body["remaining"]) == (2, 0)
        assert 3_000 < body["secondsUntilReset"] <= 3_600
        assert refused.headers["x-ratelimit-limit"] == "2"
        assert refused.headers["x-ratelimit-remaining"] == "0"
        assert refused.headers["retry-after"] == str(body["secondsUntilReset"])
        reset = int(refused.headers["x-ratelimit-reset"])
        assert reset == body["reset"]
        assert 0 < reset / 1000 - served.backend.now().timestamp() <= 3_600
        assert "too many requests" in body["error"]
        # Another credential has a bucket of its own.
        token = make_token(served.keys["dev"], claims["sub"], "read:runs")
        headers = {"authorization": f"Bearer {token}"}
        public = [await served.client.get("/api/v1/runs", headers=headers) for _ in range(3)]
        assert [answer.status_code for answer in public] == [200, 200, 429]
        # What makes a token, what anybody may ask, and what workers say isn't counted.
        for _ in range(3):
            assert (await served.client.post("/api/v1/auth/jwt/claims")).status_code == 200
            assert (await served.client.get("/api/v1/timezones")).status_code == 200
        dequeued = await served.act(
            "dequeue",
            workerId=worker_id,
            requestId="r1",
            backgroundWorkerIds=[version],
            maxRuns=1,
            waitMs=0,
        )
        assert len(dequeued["runs"]) == 1


async def test_a_client_waits_as_long_as_it_is_told_and_goes_on(database_url: str) -> None:
    async with serving(database_url) as served:
        run_id = await served.trigger()
        fast = Rate(refill=10, period_seconds=1, burst=1)
        served.backend.doorkeeper = Doorkeeper(RequestLimits(secret_keys=fast))
        settings = ClientSettings(base_url=served.url, secret_key=served.keys["dev"])
        runs = Runs(ApiClient(lambda: settings))
        found = [await runs.retrieve(run_id) for _ in range(3)]
        assert [run.id for run in found] == [run_id] * 3


async def test_a_server_with_too_much_to_do_refuses_and_serves_what_it_accepted(
    database_url: str,
) -> None:
    async with serving(database_url) as served:
        served.backend.doorkeeper = Doorkeeper(RequestLimits(max_requests=2))
        arrived, go_on = asyncio.Event(), asyncio.Event()

        async def body() -> AsyncIterator[bytes]:
            yield b'{"payload":'
            arrived.set()
            await go_on.wait()
            yield b"1}"

        path = "/api/v1/tasks/hello/trigger"
        slow = [asyncio.create_task(served.client.post(path, content=body())) for _ in range(2)]
        await arrived.wait()
        doorkeeper = served.backend.doorkeeper
        await wait_until(lambda: doorkeeper.under_way == 2, "both are under way")
        refused = await served.client.get("/api/v1/runs")
        assert refused.status_code == 503
        assert refused.headers["retry-after"] == "1"
        assert "2 requests under way" in error_of(refused)
        # Those who look whether it lives, and its workers, are answered.
        assert (await served.client.get("/healthz")).status_code == 200
        assert await served.connect()
        go_on.set()
        assert [(await answer).status_code for answer in slow] == [200, 200]
        assert (await served.client.get("/api/v1/runs")).status_code == 200
        assert served.backend.doorkeeper.under_way == 0


async def test_a_statement_that_takes_too_long_is_no_bug_of_the_caller(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(database_url) as served:

        async def take_long(*_: object, **__: object) -> None:
            async with served.backend.db.transaction() as tx:
                for text in ("SET LOCAL statement_timeout = 1", "SELECT pg_sleep(10)"):
                    (query,) = parse_queries(f"-- name: slow\n{text}")
                    await tx.execute(query)

        monkeypatch.setattr("runwell.engine.runs.list_runs", take_long)
        answer = await served.client.get("/api/v1/runs")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        assert "did not answer within" in error_of(answer)
