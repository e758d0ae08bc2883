"""`retry.on_throw` and `retry.fetch`, asynchronous and blocking, against a real HTTP server."""

import asyncio
from collections.abc import Awaitable, Callable, Generator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx
import pytest

from runwell import AbortTaskRunError, Retry, RetryByHeaders, retry
from runwell.sdk import pauses
from runwell.sync import retry as blocking_retry
from tests.support.api_server import ApiServer, answer, api_server, raw, unused_url

Fetch = Callable[..., Awaitable[httpx.Response]]
QUICK = Retry(max_attempts=3, min_timeout=0)


@pytest.fixture
def api() -> Generator[ApiServer]:
    with api_server() as server:
        yield server


@pytest.fixture(params=["async", "blocking"])
def fetch(request: pytest.FixtureRequest) -> Fetch:
    """Both ways of `retry.fetch`, called in one."""

    async def fetch_in_thread(url: str, **options: Any) -> httpx.Response:
        return await asyncio.to_thread(blocking_retry.fetch, url, **options)

    return retry.fetch if request.param == "async" else fetch_in_thread


@pytest.fixture
def delays(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits between attempts, which take no time here."""
    taken: list[float] = []

    async def sleep(seconds: float) -> None:
        taken.append(seconds)

    monkeypatch.setattr(pauses.asyncio, "sleep", sleep)
    monkeypatch.setattr(pauses.time, "sleep", taken.append)
    return taken


async def test_a_function_is_called_until_it_does_not_raise() -> None:
    async def flaky(attempt: int) -> str:
        if attempt < 3:
            raise ConnectionError(f"attempt {attempt}")
        return f"attempt {attempt}"

    def blocking(attempt: int) -> str:
        return asyncio.run(flaky(attempt))

    assert await retry.on_throw(flaky, max_attempts=3, min_timeout=0) == "attempt 3"
    with pytest.raises(ConnectionError, match="attempt 2"):
        await retry.on_throw(flaky, max_attempts=2, min_timeout=0)
    assert await retry.on_throw(lambda: "no argument") == "no argument"
    blocked = await asyncio.to_thread(blocking_retry.on_throw, blocking, min_timeout=0)
    assert blocked == "attempt 3"
    with pytest.raises(ConnectionError, match="attempt 2"):
        await asyncio.to_thread(blocking_retry.on_throw, blocking, max_attempts=2, min_timeout=0)


async def test_an_abort_is_not_repeated_and_neither_is_a_wrong_option() -> None:
    calls = 0

    def aborts(limit: int = 5) -> None:
        nonlocal calls
        calls += limit
        raise AbortTaskRunError("enough")

    with pytest.raises(AbortTaskRunError):
        await retry.on_throw(aborts, min_timeout=0)
    with pytest.raises(AbortTaskRunError):
        blocking_retry.on_throw(aborts, min_timeout=0)
    assert calls == 10
    with pytest.raises(ValueError, match="max_attempts"):
        await retry.on_throw(aborts, max_attempts=0)


def test_waits_grow_as_those_of_a_task(delays: list[float]) -> None:
    def fails() -> None:
        raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011 (it has no message)
        blocking_retry.on_throw(fails, max_attempts=4, max_timeout="3s", randomize=False)
    assert delays == [1, 2, 3]


async def test_bad_statuses_are_repeated_and_others_are_the_answer(
    api: ApiServer, fetch: Fetch, delays: list[float]
) -> None:
    api.will(answer(503, {}), answer(429, {}), answer(200, {"ok": True}))
    response = await fetch(f"{api.url}/a?key=secret", method="POST", json={"x": 1})
    assert response.json() == {"ok": True}
    assert [(seen.method, seen.body) for seen in api.seen] == [("POST", b'{"x":1}')] * 3
    assert len(delays) == 2
    api.will(answer(404, {"error": "no"}))
    assert (await fetch(api.url)).status_code == 404


@pytest.mark.usefixtures("delays")
async def test_the_last_bad_answer_is_an_error(api: ApiServer, fetch: Fetch) -> None:
    api.will(*[answer(500, {"error": "broken"})] * 3)
    with pytest.raises(httpx.HTTPStatusError, match=r"500 Status after 3 attempts") as caught:
        await fetch(f"{api.url}/?key=secret", by_status={"500-599": QUICK})
    assert caught.value.response.json() == {"error": "broken"}
    assert "secret" not in str(caught.value)
    api.will(answer(500, {}))
    assert (await fetch(api.url, by_status={408: QUICK})).status_code == 500


async def test_headers_say_when_a_limit_ends(
    api: ApiServer, fetch: Fetch, delays: list[float]
) -> None:
    now = datetime.now(UTC)
    at = now + timedelta(seconds=90)
    forms = {
        "retry_after": ["90", format_datetime(at, usegmt=True)],
        "unix_timestamp": [f"{at.timestamp()}"],
        "unix_timestamp_in_ms": [f"{at.timestamp() * 1000:.0f}"],
        "iso_8601": [at.isoformat(), at.replace(tzinfo=None).isoformat()],
        "iso_8601_duration_openai_variant": ["1m30s", "89.5s500ms", "90000ms"],
    }
    for form, values in forms.items():
        for value in values:
            api.will(answer(429, {}, {"x-reset": value}), answer(200, {}))
            rule = RetryByHeaders(reset_header="X-Reset", reset_format=form)  # pyright: ignore[reportArgumentType] (one of its forms)
            await fetch(api.url, by_status={"4xx": rule})
            assert 85 < delays.pop() <= 90, (form, value)
            assert not delays


async def test_without_a_readable_header_waits_grow(
    api: ApiServer, fetch: Fetch, delays: list[float]
) -> None:
    for headers in ({}, {"retry-after": "soon"}, {"retry-after": "0"}):
        api.will(answer(429, {}, headers), answer(429, {}, headers), answer(200, {}))
        await fetch(api.url, by_status={429: RetryByHeaders()})
        first, second = delays
        assert 1 <= first <= 2 <= second <= 4
        delays.clear()
    api.will(answer(429, {}, {"retry-after": "86400"}))
    with pytest.raises(httpx.HTTPStatusError, match="says to wait for 1 day"):
        await fetch(api.url, by_status={429: RetryByHeaders()})


@pytest.mark.usefixtures("delays")
async def test_a_silent_server_and_a_broken_connection_are_repeated(
    api: ApiServer, fetch: Fetch
) -> None:
    api.will(api.hang, answer(200, {}))
    options = {"timeout": 0.1, "timeout_retry": QUICK}
    assert (await fetch(api.url, **options)).status_code == 200
    api.will(raw(b"", close=True), answer(200, {}))
    assert (await fetch(api.url, connection_retry=QUICK)).status_code == 200
    with pytest.raises(httpx.ConnectError):
        await fetch(unused_url(), connection_retry=QUICK)
    api.will(api.hang)
    with pytest.raises(httpx.ReadTimeout):
        await fetch(api.url, timeout=0.1, timeout_retry=Retry(max_attempts=1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"by_status": {"6xx": QUICK}}, "by_status: '6xx' names no statuses: write 429, '5xx'"),
        ({"by_status": {429: 3}}, "by_status.429.=3: it takes Retry"),
        ({"timeout": "soon"}, "timeout: 'soon' is not a duration"),
        ({"retries": 3}, "retry.fetch has no option 'retries'"),
        ({"content": iter([b"a"])}, "content: it takes a text or bytes, which can be sent again"),
    ],
)
async def test_wrong_options_are_named(fetch: Fetch, options: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        await fetch(unused_url(), **options)
    with pytest.raises(httpx.UnsupportedProtocol):
        await fetch("ftp://127.0.0.1/")
