"""What doesn't fit is refused with a sentence that helps, and nothing of it is stored."""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator

import httpx
import pytest

from runwell.core.payloads import MAX_PAYLOAD_BYTES
from runwell.server.routes.runs import MAX_TRIGGER_BYTES
from tests.server.serving import Served, error_of, serving

TRIGGER = "/api/v1/tasks/hello/trigger"


async def _post(served: Served, body: bytes) -> httpx.Response:
    return await served.client.post(TRIGGER, content=body)


def _nested(depth: int) -> str:
    return "[" * depth + "]" * depth


BODIES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "the body is empty"),
    "cut off": (b'{"payload": ', "line 1, column 13"),
    "no JSON": (b"payload=1", "not valid JSON"),
    "a list": (b"[1, 2]", "the body must be a JSON object"),
    "a text": (b'"hello"', "the body must be a JSON object"),
    "bad UTF-8": (b'{"payload": "\xff\xfe"}', "not valid UTF-8: bad byte at position 13"),
    "a NUL escape": (b'{"payload": {"a": "x\\u0000y"}}', "a NUL character"),
    "a NUL byte": (b'{"payload": "x\x00y"}', "not valid JSON"),
    "a NUL in a tag": (b'{"options": {"tags": ["a\\u0000"]}}', "options.tags[0]"),
    "a NUL in the context": (b'{"context": {"a\\u0000": 1}}', "a NUL character"),
    "NaN": (b'{"payload": {"a": NaN}}', "NaN is not a JSON number"),
    "Infinity": (b'{"payload": [-Infinity]}', "-Infinity is not a JSON number"),
    "a number too large": (b'{"payload": {"a": [1e999]}}', "at a[0]"),
    "a number too large in the context": (b'{"context": 1e999}', "not a JSON number"),
    "a lone surrogate": (b'{"payload": {"a": "\\ud800"}}', "a lone surrogate"),
    "nested deeply": (b'{"payload": ' + _nested(5_000).encode() + b"}", "nested deeper than 200"),
    "a packet of bad JSON": (b'{"payload": "{\\"a\\": "}', "not valid JSON"),
    "a packet with NaN": (b'{"payload": "[NaN]"}', "NaN"),
    "a packet with a NUL": (b'{"payload": "[\\"\\\\u0000\\"]"}', "NUL"),
    "a packet nested deeply": (
        json.dumps({"payload": _nested(100_000)}).encode(),
        "nested deeper than 200",
    ),
    "options as a list": (b'{"options": []}', "options: must be an object"),
    "a text for a number": (b'{"options": {"maxAttempts": "3"}}', "options.maxAttempts: "),
    "a number for a text": (b'{"options": {"concurrencyKey": 3}}', "options.concurrencyKey: "),
    "too many attempts": (b'{"options": {"maxAttempts": 251}}', "less than or equal to 250"),
    "a tag of another type": (b'{"options": {"tags": ["a", 1]}}', "options.tags[1]: "),
    "a tag too long": (json.dumps({"options": {"tags": ["x" * 129]}}).encode(), "128"),
    "an unknown machine": (b'{"options": {"machine": "huge"}}', "options.machine: "),
    "a delay nobody reads": (b'{"options": {"delay": "soon"}}', "options.delay: 'soon'"),
    "a ttl nobody reads": (b'{"options": {"ttl": "1 hour"}}', "options.ttl: '1 hour'"),
    "metadata as a list": (b'{"options": {"metadata": [1]}}', "options.metadata"),
    "metadata with a NUL": (b'{"options": {"metadata": {"a": "\\u0000"}}}', "NUL"),
    "metadata as bad JSON": (b'{"options": {"metadata": "{"}}', "JSON"),
}


@pytest.mark.parametrize("name", BODIES)
async def test_a_trigger_that_does_not_fit_is_refused_and_stores_nothing(
    database_url: str, name: str
) -> None:
    body, expected = BODIES[name]
    async with serving(database_url) as served:
        answer = await _post(served, body)
        assert answer.status_code == 400, answer.text
        assert expected in error_of(answer)
        assert (await served.get("/api/v1/runs"))["data"] == []


async def test_what_breaks_a_rule_is_a_business_error(database_url: str) -> None:
    async with serving(database_url) as served:
        for options, expected in (
            ({"tags": [str(i) for i in range(11)]}, "at most 10 tags"),
            ({"queue": {"name": "???"}}, "no queue name"),
            ({"metadata": {"a": "x" * 300_000}}, "options.metadata is"),
            ({"payloadType": "application/store"}, ""),
        ):
            answer = await served.client.post(TRIGGER, json={"payload": "x", "options": options})
            assert answer.status_code == 422, answer.text
            assert expected in error_of(answer)
        assert (await served.get("/api/v1/runs"))["data"] == []


async def test_an_unknown_option_is_ignored_and_a_limit_that_would_not_hold_is_refused(
    database_url: str,
) -> None:
    async with serving(database_url) as served:
        for unknown in ({"maxAttemps": 3}, {"fromLater": {"a": [1]}}, {"queue": {"colour": "red"}}):
            answer = await served.client.post(TRIGGER, json={"options": unknown})
            assert answer.status_code == 200, answer.text
        for name in ("gates", "concurrency"):
            limit = [{"queue": "q"}]
            answer = await served.client.post(TRIGGER, json={"options": {name: limit}})
            assert answer.status_code == 422, answer.text
            assert error_of(answer).startswith(f"options.{name} can't be honoured: limit what runs")
            answer = await served.client.post(TRIGGER, json={"options": {name: []}})
            assert answer.status_code == 200, answer.text
        assert len((await served.get("/api/v1/runs"))["data"]) == 5


async def test_a_payload_over_the_limit_is_refused_and_one_at_the_limit_taken(
    database_url: str,
) -> None:
    async with serving(database_url) as served:
        # Quotes double within JSON: the limit is on the payload, not on how it is written.
        text = '"' + '\\"' * (MAX_PAYLOAD_BYTES // 2 - 1) + '"'
        assert len(text) == MAX_PAYLOAD_BYTES
        assert (await served.client.post(TRIGGER, json={"payload": text})).status_code == 200
        for payload in (text[:-1] + 'x"', {"a": "x" * MAX_PAYLOAD_BYTES}):
            answer = await served.client.post(TRIGGER, json={"payload": payload})
            assert answer.status_code == 413
            assert "the payload is 3,145," in error_of(answer)


async def test_a_body_is_refused_by_its_declared_length_before_it_is_sent(
    database_url: str,
) -> None:
    async with serving(database_url) as served:
        status, rest = await _send_raw(
            served,
            f"POST {TRIGGER} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {served.keys['dev']}\r\n"
            f"content-length: {MAX_TRIGGER_BYTES + 1}\r\n\r\n",
        )
        assert status == 413
        assert "too large" in rest


async def test_a_body_without_a_length_is_counted_while_it_comes_in(database_url: str) -> None:
    async def endless() -> AsyncGenerator[bytes]:
        for _ in range(MAX_TRIGGER_BYTES // 65_536 + 1):
            yield b" " * 65_536

    async with serving(database_url) as served:
        answer = await served.client.post(TRIGGER, content=endless())
        assert answer.status_code == 413
        assert "too large" in error_of(answer)
        assert (await served.client.get("/healthz")).status_code == 200


async def test_ids_with_a_nul_or_too_long_are_refused(database_url: str) -> None:
    async with serving(database_url) as served:
        for path in (
            "/api/v1/tasks/a%00b/trigger",
            f"/api/v1/tasks/{'a' * 257}/trigger",
            "/api/v1/tasks/a%09b/trigger",
        ):
            answer = await served.client.post(path, json={})
            assert answer.status_code == 400, answer.text
        for path in ("/api/v3/runs/run_%00", "/api/v1/runs/run_%00/logs"):
            answer = await served.client.get(path)
            assert answer.status_code == 400
            assert "NUL" in error_of(answer)


async def test_what_is_no_http_is_answered_400_and_the_server_lives(database_url: str) -> None:
    async with serving(database_url) as served:
        for text in ("\x01\x02 nonsense", "GET /\xff HTTP/1.1\r\nhost: x", "GET / HTTP/9.9"):
            status, _ = await _send_raw(served, f"{text}\r\n\r\n")
            assert status in (400, 404), text
        assert (await served.client.get("/healthz")).status_code == 200


async def test_headers_without_an_end_are_cut_off(database_url: str) -> None:
    async with serving(database_url) as served:
        host, port = served.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET /healthz HTTP/1.1\r\nhost: x\r\nx-long: ")
        # Reading at the same time, since the answer comes before all is sent.
        answering = asyncio.create_task(reader.readuntil(b"\r\n\r\n"))
        with contextlib.suppress(ConnectionError):
            while not answering.done():
                writer.write(b"x" * 16_384)
                await writer.drain()
        assert (await answering).startswith(b"HTTP/1.1 400")
        writer.close()
        # A head of a common size is taken, also when it comes in pieces.
        answer = await served.client.get("/healthz", headers={"x-long": "x" * 32_768})
        assert answer.status_code == 200


@pytest.mark.parametrize("action", ["connect", "dequeue", "heartbeat", "report", "disconnect"])
async def test_a_worker_action_that_does_not_fit_is_refused(database_url: str, action: str) -> None:
    async with serving(database_url) as served:
        url = f"/engine/v1/worker-actions/{action}"
        for body, expected in (
            (b"", "the body is empty"),
            (b"{}", "this field is required"),
            (b"[", "not valid JSON"),
        ):
            answer = await served.client.post(url, content=body)
            assert answer.status_code == 400, answer.text
            assert expected in error_of(answer)


async def test_a_manifest_that_does_not_fit_names_the_place(database_url: str) -> None:
    async with serving(database_url) as served:
        answer = await served.client.post(
            "/api/v1/projects/~/background-workers",
            json={
                "metadata": {
                    "packageVersion": "1",
                    "contentHash": "hash-of-1",
                    "tasks": [{"id": "", "filePath": "a.py", "exportName": "a"}],
                }
            },
        )
        assert answer.status_code == 400
        assert error_of(answer).startswith("metadata.tasks[0].id: ")
        assert answer.json()["details"][0]["path"] == "metadata.tasks[0].id"


async def test_a_manifest_with_a_ttl_nobody_reads_or_a_task_twice_is_refused(
    database_url: str,
) -> None:
    async with serving(database_url) as served:
        task = {"id": "hello", "filePath": "a.py", "exportName": "a"}
        for tasks, expected in (
            ([task | {"ttl": "soon"}], "the ttl of task hello"),
            ([task, task], "hello are there twice"),
        ):
            metadata = {"packageVersion": "1", "contentHash": "hash-of-1", "tasks": tasks}
            answer = await served.client.post(
                "/api/v1/projects/~/background-workers", json={"metadata": metadata}
            )
            assert answer.status_code == 422, answer.text
            assert expected in error_of(answer)


@pytest.mark.parametrize("field", ["seq", "attemptNumber", "durationMs"])
async def test_a_report_with_a_number_too_large_for_its_column_is_refused(
    database_url: str, field: str
) -> None:
    lease = {"runId": "run_1", "snapshotId": 1}
    now = "2026-01-01T00:00:00Z"
    line = {"seq": 1, "time": now, "level": "INFO", "message": "hi"}
    reports: dict[str, dict[str, object]] = {
        "seq": {"type": "logs", **lease, "attemptNumber": 1, "lines": [line | {"seq": 2**31}]},
        "attemptNumber": {"type": "logs", **lease, "attemptNumber": 2**31, "lines": [line]},
        "durationMs": {
            "type": "complete",
            **lease,
            "startedAt": now,
            "finishedAt": now,
            "durationMs": 2**64,
        },
    }
    async with serving(database_url) as served:
        body = {"workerId": "w", "reports": [reports[field]]}
        answer = await served.client.post("/engine/v1/worker-actions/report", json=body)
        assert answer.status_code == 400, answer.text
        assert field in error_of(answer)


async def _send_raw(served: Served, text: str) -> tuple[int, str]:
    host, port = served.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(text.encode("latin-1"))
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    rest = await reader.read(65_536)
    writer.close()
    await writer.wait_closed()
    return int(head.split(" ")[1]), rest.decode()
