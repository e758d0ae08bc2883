"""Settings, retries, and answers as errors; without I/O."""

import pickle
from datetime import UTC, datetime, timedelta

import pytest

from runwell.client.options import Retry
from runwell.client.transport import (
    ApiAnswerError,
    ApiConnectionError,
    ApiError,
    AuthenticationError,
    BadRequestError,
    Call,
    ClientSettings,
    ConflictError,
    InternalServerError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    RequestOptions,
    Response,
    UnprocessableEntityError,
    check_url,
    read_environment,
    request_flow,
)
from runwell.core.errors import ConfigurationError
from runwell.core.schemas import CanceledRun
from tests.support.transport import FakeTransport, answer_json, fake_client

CALL = Call(method="GET", path="/api/v1/runs")
OK = answer_json({"id": "run_1"})
NOW = datetime(2025, 1, 2, tzinfo=UTC)
FAILED = answer_json({"error": "out of order"}, 500)


class FixedClock:
    def now(self) -> datetime:
        return NOW


def send(transport: FakeTransport, call: Call = CALL) -> Response:
    client = fake_client(transport)
    return client.run_blocking(request_flow(call, client.settings, FixedClock()))


def test_a_call_carries_the_key_and_says_who_calls() -> None:
    transport = FakeTransport(OK)
    send(transport, Call(method="GET", path="/api/v1/runs", query={"page[size]": "5"}))
    request = transport.requests[0]
    assert request.url == "http://api.test/api/v1/runs?page%5Bsize%5D=5"
    assert request.headers["authorization"] == "Bearer tr_dev_key"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["user-agent"].startswith("runwell-python/")


def test_a_call_that_keeps_failing_is_sent_five_times_with_growing_pauses() -> None:
    transport = FakeTransport(FAILED)
    with pytest.raises(InternalServerError, match="500 on GET /api/v1/runs: out of order"):
        send(transport)
    assert len(transport.requests) == 5
    assert transport.pauses == [1, 1.6, 2.56, 4.096]


def test_pauses_grow_to_thirty_seconds_at_most() -> None:
    transport = FakeTransport(FAILED)
    retry = Retry(max_attempts=12, factor=1.6, min_timeout="1s", max_timeout="30s", randomize=False)
    settings = ClientSettings(base_url="http://api.test", secret_key="k", retry=retry)
    client = fake_client(transport, settings)
    with pytest.raises(InternalServerError):
        client.run_blocking(client.request(CALL))
    assert max(transport.pauses) == 30
    assert len(transport.pauses) == 11


def test_a_call_succeeds_when_a_later_try_does() -> None:
    transport = FakeTransport(ApiConnectionError("reset"), FAILED, OK)
    assert send(transport).body == OK.body
    assert transport.pauses == [1, 1.6]


def test_no_answer_at_all_is_a_connection_error_without_a_status() -> None:
    transport = FakeTransport(ApiConnectionError("refused"))
    with pytest.raises(ApiConnectionError, match="refused") as raised:
        send(transport)
    assert raised.value.status is None
    assert len(transport.requests) == 5


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 504, 599])
def test_a_status_that_may_pass_is_retried(status: int) -> None:
    transport = FakeTransport(answer_json({"error": "later"}, status), OK)
    send(transport)
    assert transport.pauses == [1]


@pytest.mark.parametrize("status", [301, 400, 401, 403, 404, 405, 413, 422])
def test_a_status_that_stays_is_not_retried(status: int) -> None:
    transport = FakeTransport(answer_json({"error": "no"}, status), OK)
    with pytest.raises(ApiError):
        send(transport)
    assert len(transport.requests) == 1


def test_the_server_may_force_or_forbid_a_retry() -> None:
    forced = FakeTransport(answer_json({"error": "soon"}, 404, {"x-should-retry": "true"}), OK)
    send(forced)
    assert forced.pauses == [1]
    forbidden = FakeTransport(answer_json({"error": "no"}, 500, {"x-should-retry": "false"}), OK)
    with pytest.raises(InternalServerError):
        send(forbidden)
    assert forbidden.pauses == []


@pytest.mark.parametrize(
    ("status", "headers", "pause"),
    [
        (429, {"x-ratelimit-reset": str(int(NOW.timestamp() * 1000) + 2500)}, 2.5),
        # In the past, or in seconds by mistake: the ordinary pause.
        (429, {"x-ratelimit-reset": str(int(NOW.timestamp()))}, 1),
        (429, {"x-ratelimit-reset": "soon"}, 1),
        (503, {"x-ratelimit-reset": str(int(NOW.timestamp() * 1000) + 2500)}, 1),
        (503, {"retry-after": "7"}, 7),
        (503, {"retry-after": "Thu, 02 Jan 2025 00:00:05 GMT"}, 5),
        (503, {"retry-after": "Thu, 02 Jan 2025 00:00:05"}, 5),
        (503, {"retry-after": "Wed, 01 Jan 2025 00:00:00 GMT"}, 1),
        (503, {"retry-after": "tomorrow"}, 1),
    ],
)
def test_the_server_may_say_how_long_to_wait(
    status: int, headers: dict[str, str], pause: float
) -> None:
    transport = FakeTransport(answer_json({"error": "slow down"}, status, headers), OK)
    send(transport)
    assert transport.pauses == [pause]


def test_a_wait_of_more_than_a_minute_is_left_to_the_caller() -> None:
    reset = int((NOW + timedelta(hours=1)).timestamp() * 1000)
    headers = {"x-ratelimit-reset": str(reset)}
    transport = FakeTransport(answer_json({"error": "slow down"}, 429, headers), OK)
    with pytest.raises(RateLimitError) as raised:
        send(transport)
    assert raised.value.headers["x-ratelimit-reset"] == str(reset)
    assert transport.pauses == []


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, BadRequestError),
        (401, AuthenticationError),
        (403, PermissionDeniedError),
        (404, NotFoundError),
        (409, ConflictError),
        (418, ApiError),
        (422, UnprocessableEntityError),
        (429, RateLimitError),
        (500, InternalServerError),
        (503, InternalServerError),
    ],
)
def test_each_status_has_its_error(status: int, kind: type[ApiError]) -> None:
    body = {"error": "because", "details": [1]}
    with pytest.raises(ApiError) as raised:
        send(FakeTransport(answer_json(body, status, {"x-a": "b"})))
    assert type(raised.value) is kind
    assert raised.value.status == status
    assert raised.value.headers == {"x-a": "b"}
    assert raised.value.body == body
    assert "because" in str(raised.value)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "the answer says nothing more"),
        (b"null", "the answer says nothing more"),
        (b"<html>Bad gateway</html>", "<html>Bad gateway</html>"),
        (b'{"error":{"message":"deep"}}', "deep"),
        (b'{"detail":"other"}', '{"detail": "other"}'),
        (b"\xff\xfe", "\ufffd\ufffd"),
        (b"[" * 100_000, "[[[["),
        (b"x" * 5000, "x" * 300 + "..."),
    ],
)
def test_an_error_has_a_reason_whatever_the_body_is(body: bytes, reason: str) -> None:
    with pytest.raises(BadRequestError) as raised:
        send(FakeTransport(Response(400, {}, body)))
    assert reason in str(raised.value)
    assert len(str(raised.value)) < 400


def test_an_error_survives_being_sent_to_another_process() -> None:
    error = NotFoundError("404: none", status=404, headers={"a": "b"}, body={"error": "none"})
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), copy.status, copy.body) == (
        NotFoundError,
        "404: none",
        404,
        {"error": "none"},
    )


@pytest.mark.parametrize("body", [b"", b"<html>", b"{}", b'{"id": 5}', b"[]", b'{"id": "a'])
def test_an_answer_that_is_no_answer_of_the_api_is_an_error_and_not_retried(body: bytes) -> None:
    transport = FakeTransport(Response(200, {}, body))
    client = fake_client(transport)
    with pytest.raises(ApiAnswerError, match=r"is the URL that of a Runwell server") as raised:
        client.run_blocking(client.ask(CALL, CanceledRun))
    assert raised.value.status == 200
    assert len(transport.requests) == 1


def test_options_of_one_call_go_before_the_settings() -> None:
    transport = FakeTransport(FAILED)
    options = RequestOptions(retry=Retry(max_attempts=1), timeout="5s")
    with pytest.raises(InternalServerError):
        send(transport, Call(method="GET", path="/x", options=options))
    assert [request.timeout for request in transport.requests] == [5]


@pytest.mark.parametrize("key", [None, ""])
def test_a_missing_key_says_where_to_get_one(key: str | None) -> None:
    client = fake_client(FakeTransport(OK), ClientSettings(secret_key=key))
    with pytest.raises(ConfigurationError, match="`runwell env` prints"):
        client.run_blocking(client.request(CALL))


@pytest.mark.parametrize("key", ["tr_dev_a\r\nx: y", "tr_dev_ü", "tr_dev_\x00"])
def test_a_key_that_no_header_can_hold_is_refused(key: str) -> None:
    client = fake_client(FakeTransport(OK), ClientSettings(secret_key=key))
    with pytest.raises(ConfigurationError, match="characters that no key has"):
        client.run_blocking(client.request(CALL))


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:3030",
        "ftp://a",
        "http://",
        "http://a:b",
        "http://a:99999",
        "http://a:0",
        "http://a b",
        "http://ä",
        "http://a\n",
    ],
)
def test_a_url_that_is_none_is_refused_with_an_example(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"must be like http://127\.0\.0\.1:3030"):
        check_url(url)


def test_a_url_may_have_a_path_and_a_slash_at_its_end() -> None:
    assert check_url("https://a.test:8443/runwell/") == "https://a.test:8443/runwell"


def test_the_environment_gives_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("URL", "KEY"):
        monkeypatch.delenv(f"TRIGGER_API_{name}", raising=False)
    monkeypatch.delenv("TRIGGER_SECRET_KEY", raising=False)
    monkeypatch.delenv("TRIGGER_VERSION", raising=False)
    monkeypatch.setenv("TRIGGER_ACCESS_TOKEN", "tr_pat_1")
    assert read_environment() == ClientSettings(secret_key="tr_pat_1")
    monkeypatch.setenv("TRIGGER_API_URL", "http://a.test")
    monkeypatch.setenv("TRIGGER_SECRET_KEY", "tr_dev_1")
    monkeypatch.setenv("TRIGGER_VERSION", "20250101.1")
    assert read_environment() == ClientSettings(
        base_url="http://a.test", secret_key="tr_dev_1", version="20250101.1"
    )


def test_settings_never_show_the_key() -> None:
    assert "tr_dev_1" not in repr(ClientSettings(secret_key="tr_dev_1"))


async def test_async_callers_get_the_same() -> None:
    transport = FakeTransport(FAILED, OK)
    client = fake_client(transport)
    found = await client.run(client.ask(CALL, CanceledRun))
    assert found.id == "run_1"
    assert transport.pauses == [1]
