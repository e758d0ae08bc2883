"""OpenTelemetry in, by the official exporters and by hand, and the traces that come of it."""

import asyncio
import gzip
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from runwell.core.spans import attempt_span_id, run_span_id
from tests.server.serving import Served, error_of, serving

_START = int(datetime.now(UTC).timestamp()) * 1_000_000_000


def resource(run_id: str, **more: str) -> dict[str, Any]:
    """The attributes of a run's resource, as OTLP in JSON."""
    found: dict[str, Any] = {"ctx.run.id": run_id, **more}
    return {"attributes": [{"key": "$trigger", "value": {"boolValue": True}}, *_attributes(found)]}


def _attributes(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"key": key, "value": {"stringValue": value}} for key, value in found.items()]


def one_span(run_id: str, **fields: Any) -> dict[str, Any]:
    """A request with a span."""
    span = {
        "traceId": "0af7651916cd43dd8448eb211c80319c",
        "spanId": "b7ad6b7169203331",
        "name": "fetch",
        "kind": 3,
        "startTimeUnixNano": str(_START),
        "endTimeUnixNano": str(_START + 5_000_000),
        **fields,
    }
    return {"resourceSpans": [{"resource": resource(run_id), "scopeSpans": [{"spans": [span]}]}]}


async def children_of_run(served: Served, run_id: str) -> list[dict[str, Any]]:
    """What is right under a run."""
    found = await served.get(f"/api/v1/runs/{run_id}/trace")
    return list(found["trace"]["rootSpan"]["children"])


@pytest.mark.parametrize("compression", [Compression.NoCompression, Compression.Gzip])
async def test_the_official_exporter_is_understood(
    database_url: str, compression: Compression
) -> None:
    async with serving(database_url) as served:
        run_id = await served.trigger()
        provider = TracerProvider(resource=Resource({"$trigger": True, "ctx.run.id": run_id}))
        exporter = OTLPSpanExporter(
            endpoint=f"{served.url}/otel/v1/traces",
            headers={"authorization": f"Bearer {served.keys['dev']}"},
            compression=compression,
        )
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        tracer = provider.get_tracer("app")

        def work() -> None:
            with tracer.start_as_current_span("outer", attributes={"n": 1, "f": [1.5]}) as outer:
                outer.add_event("halfway", {"a": "b"})
                with pytest.raises(ValueError, match="no"), tracer.start_as_current_span("inner"):
                    raise ValueError("no")

        await asyncio.to_thread(work)
        await asyncio.to_thread(provider.shutdown)
        (outer,) = await children_of_run(served, run_id)
        (inner,) = outer["children"]
        assert outer["data"]["message"] == "outer"
        assert outer["data"]["properties"] == {"n": 1, "f": [1.5]}
        assert [event["name"] for event in outer["data"]["events"]] == ["halfway"]
        assert inner["data"]["isError"]
        assert inner["data"]["events"][0]["attributes"]["exception.type"] == "ValueError"


async def test_json_is_understood_and_answered_in_json(database_url: str) -> None:
    async with serving(database_url) as served:
        run_id = await served.trigger()
        body = gzip.compress(json.dumps(one_span(run_id)).encode())
        headers = {"content-type": "application/json", "content-encoding": "gzip"}
        answer = await served.client.post("/otel/v1/traces", content=body, headers=headers)
        assert (answer.status_code, answer.json()) == (200, {})
        (found,) = await children_of_run(served, run_id)
        assert found["id"] == "b7ad6b7169203331"
        assert found["parentId"] == run_span_id(run_id)
        assert found["data"]["kind"] == "CLIENT"
        assert found["data"]["duration"] == 5_000_000


async def test_a_placeholder_is_shown_until_its_span_comes(database_url: str) -> None:
    async with serving(database_url) as served:
        run_id = await served.trigger()
        real_id = "b7ad6b7169203331"
        placeholder = [
            {"key": "$span.partial", "value": {"boolValue": True}},
            *_attributes({"$span.span_id": real_id, "a": "b"}),
        ]
        sent = one_span(run_id, spanId="00f067aa0ba902b7", attributes=placeholder)
        await served.client.post("/otel/v1/traces", json=sent)
        (found,) = await children_of_run(served, run_id)
        assert (found["id"], found["data"]["isPartial"]) == (real_id, True)
        await served.client.post("/otel/v1/traces", json=one_span(run_id))
        await served.client.post("/otel/v1/traces", json=sent)
        (found,) = await children_of_run(served, run_id)
        assert (found["id"], found["data"]["isPartial"]) == (real_id, False)


async def test_log_records_are_leaves_and_are_kept_once(database_url: str) -> None:
    async with serving(database_url) as served:
        run_id = await served.trigger()
        await served.client.post("/otel/v1/traces", json=one_span(run_id))
        record = {
            "timeUnixNano": str(_START + 1_000),
            "severityNumber": 17,
            "body": {"stringValue": "it broke"},
            "traceId": "0af7651916cd43dd8448eb211c80319c",
            "spanId": "b7ad6b7169203331",
        }
        other = {**record, "body": {"intValue": "3"}, "severityText": "note", "severityNumber": 5}
        lost = {**record, "spanId": ""}
        of_run = {
            "resource": resource(run_id),
            "scopeLogs": [{"logRecords": [record, other, lost]}],
        }
        await served.client.post("/otel/v1/logs", json={"resourceLogs": [of_run]})
        answer = await served.client.post("/otel/v1/logs", json={"resourceLogs": [of_run]})
        assert answer.json()["partialSuccess"] == {
            "rejectedLogRecords": "1",
            "errorMessage": "a log record has no trace id or no span id",
        }
        ((span),) = await children_of_run(served, run_id)
        found = [(one["data"]["message"], one["data"]["level"]) for one in span["children"]]
        assert sorted(found) == [("it broke", "ERROR"), ("note log", "DEBUG")]


_UNKEPT: list[tuple[dict[str, Any], str]] = [
    ({"resource": {}}, "the resource lacks the attribute $trigger = true"),
    (
        {"resource": {"attributes": [{"key": "$trigger", "value": {"boolValue": True}}]}},
        "the resource lacks the attribute ctx.run.id",
    ),
    ({"resource": resource("run_x")}, "names a run that the key's environment lacks"),
    ({"scopeSpans": [{"spans": [{"spanId": ""}]}]}, "lacks a span id of 8 bytes"),
    (
        {"scopeSpans": [{"spans": [{"spanId": "b7ad6b7169203331"}]}]},
        "lacks a time of start",
    ),
]


async def test_what_cannot_be_kept_is_counted_and_explained(database_url: str) -> None:
    async with serving(database_url) as served:
        run_id = await served.trigger()
        for change, reason in _UNKEPT:
            sent = one_span(run_id)
            sent["resourceSpans"][0].update(change)
            answer = await served.client.post("/otel/v1/traces", json=sent)
            assert answer.status_code == 200
            assert answer.json()["partialSuccess"]["rejectedSpans"] == "1"
            assert reason in answer.json()["partialSuccess"]["errorMessage"]
        assert await children_of_run(served, run_id) == []


_REFUSED: list[tuple[bytes, dict[str, str], int, str]] = [
    (b"{}", {"content-type": "text/plain"}, 400, "send application/x-protobuf"),
    (b"{", {"content-type": "application/json"}, 400, "not OTLP in JSON"),
    (b"[]", {"content-type": "application/json"}, 400, "it must be an object"),
    (b"\xff\xff", {"content-type": "application/x-protobuf"}, 400, "not an OTLP protobuf"),
    (
        b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"zz"}]}]}]}',
        {"content-type": "application/json"},
        400,
        "traceId: 'zz' is not hexadecimal",
    ),
    (b"{}", {"content-encoding": "br"}, 415, "use gzip"),
    (b"{}", {"content-encoding": "gzip"}, 400, "not gzip"),
    (gzip.compress(b"{}" * 99)[:-9], {"content-encoding": "gzip"}, 400, "cut off"),
    (gzip.compress(b"0" * 17_000_000), {"content-encoding": "gzip"}, 413, "16,777,216"),
]


async def test_a_body_that_is_no_export_request_is_refused(database_url: str) -> None:
    async with serving(database_url) as served:
        for content, headers, status, words in _REFUSED:
            answer = await served.client.post("/otel/v1/traces", content=content, headers=headers)
            assert answer.status_code == status
            assert words in error_of(answer)


async def test_a_key_is_needed_and_the_environment_must_be_its_own(database_url: str) -> None:
    async with serving(database_url) as served:
        run_id = await served.trigger()
        sent = one_span(run_id)
        refused = await served.client.post(
            "/otel/v1/traces", json=sent, headers={"authorization": ""}
        )
        assert refused.status_code == 401
        prod = {"authorization": f"Bearer {served.keys['prod']}"}
        answer = await served.client.post("/otel/v1/traces", json=sent, headers=prod)
        assert answer.json()["partialSuccess"]["rejectedSpans"] == "1"
        other = await served.client.get(f"/api/v1/runs/{run_id}/trace", headers=prod)
        assert other.status_code == 404


async def test_what_is_too_much_is_cut_with_a_mark(database_url: str) -> None:
    async with serving(database_url) as served:
        run_id = await served.trigger()
        event: dict[str, Any] = {"name": "e", "timeUnixNano": str(_START), "attributes": []}
        link = {"traceId": "0af7651916cd43dd8448eb211c80319c", "spanId": "b7ad6b7169203331"}
        attributes = _attributes({f"k{n}": "v" * 2_000 for n in range(300)})
        sent = one_span(run_id, attributes=attributes, events=[event] * 12, links=[link] * 3)
        await served.client.post("/otel/v1/traces", json=sent)
        found = await served.get(f"/api/v1/runs/{run_id}/spans/b7ad6b7169203331")
        data = found["data"]
        assert data["properties"]["$clipped"] == ("left out: 2 events, 1 links, 44 attributes")
        assert len(data["properties"]) == 257
        assert data["properties"]["k0"].endswith("characters cut]")
        assert (len(data["events"]), len(data["links"])) == (10, 2)


async def test_parts_of_a_trace_are_read_over_http(database_url: str) -> None:
    async with serving(database_url) as served:
        run_id = await served.trigger()
        await served.client.post("/otel/v1/traces", json=one_span(run_id))
        url = f"/api/v1/runs/{run_id}"
        children = await served.get(f"{url}/spans/{run_span_id(run_id)}/children?limit=1")
        assert [one["id"] for one in children["data"]] == ["b7ad6b7169203331"]
        nothing = await served.get(f"{url}/spans/{attempt_span_id(run_id, 1)}/children")
        assert nothing["data"] == []
        events = await served.get(f"{url}/events")
        assert {one["data"]["message"] for one in events["events"]} == {"hello", "fetch"}
        bad = await served.client.get(f"{url}/events?limit=0")
        assert bad.status_code == 400
