"""The project's own telemetry: exporters get everything, and can neither fail nor hold up a run."""

import http.server
import threading
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from runwell.core.spans import attempt_span_id, run_span_id, trace_id_of
from tests.worker.support.watched_worker import working, write_project


@dataclass
class Receiver:
    """An OTLP receiver; its other paths answer whatever is asked."""

    url: str
    traces: list[ExportTraceServiceRequest] = field(default_factory=list[ExportTraceServiceRequest])
    logs: list[ExportLogsServiceRequest] = field(default_factory=list[ExportLogsServiceRequest])
    traceparents: list[str] = field(default_factory=list[str])


@pytest.fixture
def receiver() -> Generator[Receiver]:
    made = Receiver(url="")

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.path == "/v1/traces":
                made.traces.append(ExportTraceServiceRequest.FromString(body))
            elif self.path == "/v1/logs":
                made.logs.append(ExportLogsServiceRequest.FromString(body))
            self._answer()

        def do_GET(self) -> None:
            made.traceparents.append(self.headers["traceparent"] or "")
            self._answer()

        def _answer(self) -> None:
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield made
    server.shutdown()
    thread.join()
    server.server_close()


async def test_exporters_get_the_spans_and_lines_of_a_run_before_it_ends(
    tmp_path: Path, receiver: Receiver
) -> None:
    write_project(
        tmp_path,
        tasks="""
        @task(id="works")
        def works() -> None:
            with logger.trace("block"):
                logger.warn("careful", a=1)
        """,
    )
    (tmp_path / "trigger_config.py").write_text(
        f"""
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from runwell import Telemetry, define_config

config = define_config(telemetry=Telemetry(
    exporters=[OTLPSpanExporter(endpoint="{receiver.url}/v1/traces")],
    log_exporters=[OTLPLogExporter(endpoint="{receiver.url}/v1/logs")],
))
"""
    )
    async with working(tmp_path) as worker:
        run = await worker.server.run("works")
    spans = {
        span.name: (span, sent.resource)
        for request in receiver.traces
        for sent in request.resource_spans
        for scope in sent.scope_spans
        for span in scope.spans
    }
    assert set(spans) == {"block", "Attempt 1"}
    attempt, resource = spans["Attempt 1"]
    block, _ = spans["block"]
    assert attempt.trace_id.hex() == trace_id_of(run.run_id, None)
    assert attempt.parent_span_id.hex() == run_span_id(run.run_id)
    assert attempt.span_id.hex() == attempt_span_id(run.run_id, 1)
    assert block.parent_span_id == attempt.span_id
    said = {one.key: one.value.string_value for one in resource.attributes}
    assert (said["ctx.run.id"], said["ctx.project.ref"]) == (run.run_id, "proj_abc")
    (record,) = [
        record
        for request in receiver.logs
        for sent in request.resource_logs
        for scope in sent.scope_logs
        for record in scope.log_records
    ]
    assert (record.body.string_value, record.severity_text) == ("careful", "WARN")
    assert record.span_id == block.span_id
    # The server makes the span of the attempt itself.
    assert [span.name for span in run.spans.values()] == ["block"]


async def test_telemetry_that_fails_or_hangs_does_not_fail_the_run(tmp_path: Path) -> None:
    write_project(
        tmp_path,
        tasks="""
        @task(id="works")
        def works() -> str:
            with logger.trace("block"):
                return "done"
        """,
    )
    (tmp_path / "trigger_config.py").write_text(
        """
import time
from opentelemetry.sdk.trace import SpanProcessor
from runwell import Telemetry, define_config
from runwell.worker import exporting

exporting.FLUSH_SECONDS = 0.2

class Raises(SpanProcessor):
    def on_start(self, span, parent_context=None):
        raise ValueError("on_start")
    def on_end(self, span):
        raise ValueError("on_end")
    def force_flush(self, timeout_millis=30000):
        raise ValueError("force_flush")

class Fails:
    def export(self, spans):
        raise ValueError("export")
    def shutdown(self):
        pass

class Hangs(Fails):
    def export(self, spans):
        time.sleep(600)

class Instruments:
    def instrument(self):
        raise ValueError("instrument")

config = define_config(telemetry=Telemetry(
    instrumentations=[Instruments()], span_processors=[Raises()], exporters=[Fails(), Hangs()],
))
"""
    )
    async with working(tmp_path) as worker:
        run = await worker.server.run("works")
        assert run.output == "done"
        assert [span.name for span in run.spans.values()] == ["block"]
        assert "exporters of telemetry were given up after 0.2 seconds" in run.messages
        assert "telemetry failed (span processor): ValueError: on_end" in run.messages


async def test_outgoing_requests_are_spans_that_the_other_side_hears_of(
    tmp_path: Path, receiver: Receiver
) -> None:
    write_project(
        tmp_path,
        tasks=f"""
        import urllib.request
        import httpx

        @task(id="asks")
        async def asks() -> None:
            with logger.trace("block"):
                urllib.request.urlopen("{receiver.url}/a").read()
                async with httpx.AsyncClient() as client:
                    await client.get("{receiver.url}/b")
        """,
    )
    async with working(tmp_path) as worker:
        run = await worker.server.run("asks")
    found = [span for span in run.spans.values() if span.kind == "CLIENT"]
    (block,) = [span for span in run.spans.values() if span.name == "block"]
    assert [span.parent_span_id for span in found] == [block.span_id] * 2
    trace_id = trace_id_of(run.run_id, None)
    assert receiver.traceparents == [f"00-{trace_id}-{span.span_id}-01" for span in found]
