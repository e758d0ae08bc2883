"""Real connections: kept, closed by the server, hanging, forked, through a proxy, with TLS."""

import asyncio
import gc
import os
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from pathlib import Path

import pytest

from runwell.client.connections import MAX_CONNECTIONS, HttpTransport
from runwell.client.transport import ApiConnectionError, Pause, Request, Response
from tests.support.api_server import ApiServer, answer, api_server, raw, unused_url

OK = answer(200, {"ok": True})


@pytest.fixture
def api() -> Generator[ApiServer]:
    with api_server() as api:
        yield api


def request_to(url: str, *, timeout: float = 10, body: bytes | None = b"{}") -> Request:
    return Request("POST" if body else "GET", f"{url}/x", {}, body, timeout)


def send_blocking(url: str, *, timeout: float = 10) -> Response | ApiConnectionError | None:
    return HttpTransport().perform_blocking(request_to(url, timeout=timeout))


async def send(url: str, *, timeout: float = 10) -> Response | ApiConnectionError | None:  # noqa: ASYNC109 (the timeout of a request)
    return await HttpTransport().perform(request_to(url, timeout=timeout))


async def send_both(url: str, *, timeout: float = 10) -> list[Response | ApiConnectionError | None]:  # noqa: ASYNC109 (the timeout of a request)
    blocking = await asyncio.to_thread(send_blocking, url, timeout=timeout)
    return [await send(url, timeout=timeout), blocking]


def reason_of(outcome: object) -> str:
    assert isinstance(outcome, ApiConnectionError)
    assert outcome.status is None
    return str(outcome)


async def test_one_connection_serves_many_requests(api: ApiServer) -> None:
    api.will(*[OK] * 3)
    for _ in range(3):
        assert isinstance(await send(api.url), Response)
    assert len({seen.port for seen in api.seen}) == 1


def test_one_connection_serves_many_blocking_requests(api: ApiServer) -> None:
    api.will(*[OK] * 3)
    for _ in range(3):
        assert isinstance(send_blocking(api.url), Response)
    assert len({seen.port for seen in api.seen}) == 1


async def test_a_connection_that_the_server_closed_is_replaced_without_a_word(
    api: ApiServer,
) -> None:
    api.will(*[answer(200, {}, close=True)] * 2, *[OK] * 2)
    first = await send_both(api.url)
    second = await send_both(api.url)
    assert all(isinstance(outcome, Response) for outcome in first + second)


async def test_a_connection_closed_at_the_next_request_is_replaced_without_a_word(
    api: ApiServer,
) -> None:
    # The server takes the second request and closes without an answer, as one does whose time for
    # idle connections is over just then.
    api.will(OK, raw(b"", close=True), OK)
    assert isinstance(await send(api.url), Response)
    assert isinstance(await send(api.url), Response)
    api.will(OK, raw(b"", close=True), OK)
    assert isinstance(await asyncio.to_thread(send_blocking, api.url), Response)
    assert isinstance(await asyncio.to_thread(send_blocking, api.url), Response)
    assert len(api.seen) == 6


async def test_a_lost_answer_on_a_new_connection_is_a_connection_error(api: ApiServer) -> None:
    api.will(*[raw(b"", close=True)] * 2)
    for outcome in await send_both(api.url):
        assert "closed" in reason_of(outcome)


async def test_half_an_answer_is_a_connection_error(api: ApiServer) -> None:
    half = raw(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf", close=True)
    api.will(half, half)
    for outcome in await send_both(api.url):
        assert "before the answer was complete" in reason_of(outcome)


async def test_what_is_not_http_is_a_connection_error(api: ApiServer) -> None:
    api.will(*[raw(b"SSH-2.0-OpenSSH\r\n", close=True)] * 2)
    for outcome in await send_both(api.url):
        assert "not HTTP" in reason_of(outcome)


async def test_a_connection_that_says_more_than_asked_is_not_used_again(api: ApiServer) -> None:
    twice = raw(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}HTTP/1.1 500 Oh\r\n\r\n")
    api.will(twice, twice, OK, OK)
    first, second = await send_both(api.url), await send_both(api.url)
    for outcome in first + second:
        assert isinstance(outcome, Response)
        assert outcome.status == 200
    assert len({seen.port for seen in api.seen}) == 4


async def test_an_answer_until_the_end_of_the_connection_is_read(api: ApiServer) -> None:
    api.will(*[raw(b"HTTP/1.0 200 OK\r\n\r\nall of it", close=True)] * 2)
    for outcome in await send_both(api.url):
        assert isinstance(outcome, Response)
        assert outcome.body == b"all of it"


async def test_an_answer_in_chunks_is_read(api: ApiServer) -> None:
    chunks = raw(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n")
    api.will(chunks, chunks)
    for outcome in await send_both(api.url):
        assert isinstance(outcome, Response)
        assert outcome.body == b"{}"


async def test_a_slow_answer_ends_the_wait_and_the_connection(api: ApiServer) -> None:
    api.will(api.hang, api.hang, OK, OK)
    for outcome in await send_both(api.url, timeout=0.3):
        assert "no answer within 0.3 seconds" in reason_of(outcome)
    for outcome in await send_both(api.url):
        assert isinstance(outcome, Response)
    assert len({seen.port for seen in api.seen}) == 4


async def test_a_server_that_is_not_there_is_named_with_what_to_do() -> None:
    url = unused_url()
    for outcome in await send_both(url):
        assert f"POST {url}/x: nothing listens there: is the server running?" in reason_of(outcome)


async def test_a_host_that_can_not_be_is_a_connection_error() -> None:
    for outcome in await send_both(f"http://{'a' * 70}.invalid"):
        reason_of(outcome)


async def test_a_canceled_request_closes_its_connection(api: ApiServer) -> None:
    api.will(api.hang, OK)
    task = asyncio.ensure_future(send(api.url))
    await asyncio.to_thread(api.arrived.wait, 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert isinstance(await send(api.url), Response)
    assert len({seen.port for seen in api.seen}) == 2


async def test_many_requests_at_once_share_a_bounded_number_of_connections(
    api: ApiServer,
) -> None:
    count = MAX_CONNECTIONS + 50
    api.will(*[OK] * count)
    outcomes = await asyncio.gather(*(send(api.url) for _ in range(count)))
    assert all(isinstance(outcome, Response) for outcome in outcomes)
    assert len({seen.port for seen in api.seen}) <= MAX_CONNECTIONS


def test_many_threads_may_send_at_once(api: ApiServer) -> None:
    api.will(*[OK] * 20)
    outcomes: list[object] = []
    threads = [
        threading.Thread(target=lambda: outcomes.append(send_blocking(api.url))) for _ in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 20
    assert all(isinstance(outcome, Response) for outcome in outcomes)


def test_each_event_loop_has_connections_of_its_own_and_closes_them(api: ApiServer) -> None:
    api.will(*[OK] * 3)
    for _ in range(3):
        # pytest makes an error of the warning that an unclosed socket would give.
        assert isinstance(asyncio.run(send(api.url)), Response)
        gc.collect()
    assert len({seen.port for seen in api.seen}) == 3


def test_an_event_loop_that_ended_badly_does_not_keep_others_from_working(api: ApiServer) -> None:
    api.will(answer(200, {}, {"connection": "close"}), OK)
    loop = asyncio.new_event_loop()
    assert isinstance(loop.run_until_complete(send(api.url)), Response)
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    assert isinstance(asyncio.run(send(api.url)), Response)


# The parent's loop runs while it forks, as that of a supervisor may.
FORK = """
import asyncio, gc, os, sys
from runwell.client.connections import HttpTransport
from runwell.client.transport import Request, Response

request = Request("POST", sys.argv[1] + "/x", {}, b"{}", 10)
transport = HttpTransport()

async def child():
    assert isinstance(await transport.perform(request), Response)
    assert isinstance(transport.perform_blocking(request), Response)
    gc.collect()

async def parent():
    assert isinstance(await transport.perform(request), Response)
    assert isinstance(transport.perform_blocking(request), Response)
    pid = os.fork()
    if pid == 0:
        asyncio._set_running_loop(None)
        asyncio.run(child())
        sys.stdout.flush()
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    assert status == 0, status
    assert isinstance(await transport.perform(request), Response)
    assert isinstance(transport.perform_blocking(request), Response)

asyncio.run(parent())
"""


def run_python(code: str, *arguments: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning", "-c", code, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def test_a_forked_child_leaves_the_connections_of_its_parent_alone(api: ApiServer) -> None:
    api.will(*[OK] * 6)
    run_python(FORK, api.url)
    ports = [seen.port for seen in api.seen]
    # The parent's two connections serve it before and after; the child made its own two.
    assert ports[4:] == ports[:2]
    assert len(set(ports)) == 4


async def test_a_proxy_of_the_environment_is_used(
    api: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", api.url)
    monkeypatch.setenv("no_proxy", "direct.invalid")
    api.will(answer(200, {"by": "proxy"}), answer(503, {}))
    by_async, by_blocking = await send_both("http://behind-a-proxy.invalid")
    assert isinstance(by_async, Response)
    assert isinstance(by_blocking, Response)
    assert {by_async.status, by_blocking.status} == {200, 503}
    assert [seen.path for seen in api.seen] == ["http://behind-a-proxy.invalid/x"] * 2
    reason_of(await send("http://direct.invalid"))


async def test_a_proxy_is_not_used_for_this_machine(
    api: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", unused_url())
    api.will(OK)
    assert isinstance(await send(api.url), Response)


async def test_a_proxy_that_fails_is_a_connection_error(
    api: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", unused_url())
    for outcome in await send_both("http://behind-a-dead-proxy.invalid"):
        assert "through the proxy" in reason_of(outcome)
    monkeypatch.setenv("http_proxy", api.url)
    api.will(api.hang, api.hang)
    for outcome in await send_both("http://behind-a-slow-proxy.invalid", timeout=0.3):
        assert "no answer within 0.3 seconds" in reason_of(outcome)


TLS = """
import asyncio, sys
from runwell.client.connections import HttpTransport
from runwell.client.transport import Request

request = Request("POST", sys.argv[1] + "/x", {}, b"{}", 10)
transport = HttpTransport()
for outcome in (
    asyncio.run(transport.perform(request)),
    transport.perform_blocking(request),
    transport.perform_blocking(request),
):
    print(getattr(outcome, "status", None), outcome if isinstance(outcome, Exception) else "")
"""


def test_a_server_with_tls_is_asked_for_its_certificate() -> None:
    folder = Path(__file__).parents[1] / "support/tls"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "localhost.pem", folder / "localhost.key")
    with api_server(context) as api:
        api.will(*[OK] * 3)
        trusting = run_python(TLS, api.url, SSL_CERT_FILE=str(folder / "localhost.pem"))
        assert trusting.splitlines() == ["200 ", "200 ", "200 "]
        assert len({seen.port for seen in api.seen}) == 2
        doubting = run_python(TLS, api.url)
        assert doubting.count("CERTIFICATE_VERIFY_FAILED") == 3


async def test_a_pause_waits() -> None:
    start = time.monotonic()
    assert await HttpTransport().perform(Pause(0.01)) is None
    assert HttpTransport().perform_blocking(Pause(0.01)) is None
    # uvloop counts in whole milliseconds.
    assert time.monotonic() - start >= 0.018
