"""OpenTelemetry in: spans and log records of runs, as OTLP over HTTP.

A request is kept as far as it can be: what can't be is counted in the answer's partial success, as
OTLP wants it, and never an error that an exporter would send again.
"""

from google.protobuf.json_format import MessageToJson
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from starlette.requests import Request

from runwell.engine import spans
from runwell.engine.db import Transaction
from runwell.engine.environments import Environment
from runwell.engine.spans import RunSpan
from runwell.server import otlp
from runwell.server.backend import Backend
from runwell.server.http import Answer, read_body
from runwell.server.operations import Operation

_REFUSALS = (
    (400, "The content type is another one, or the body is not OTLP."),
    (413, f"The body has more than {otlp.MAX_BYTES:,} bytes, inflated or not."),
    (415, "The compression is not gzip."),
)


async def take_traces(request: Request, backend: Backend) -> Answer:
    """Keep the spans of an export request."""
    environment = await backend.authenticate(request)
    sent = otlp.parse(await _read(request), _content_type(request), ExportTraceServiceRequest())
    export = otlp.read_spans(sent)
    await _store(backend, environment, export)
    answer = ExportTraceServiceResponse()
    if export.rejected:
        answer.partial_success.rejected_spans = export.rejected
        answer.partial_success.error_message = "; ".join(export.reasons)
    return _answer(request, answer)


async def take_logs(request: Request, backend: Backend) -> Answer:
    """Keep the log records of an export request."""
    environment = await backend.authenticate(request)
    sent = otlp.parse(await _read(request), _content_type(request), ExportLogsServiceRequest())
    export = otlp.read_logs(sent)
    await _store(backend, environment, export)
    answer = ExportLogsServiceResponse()
    if export.rejected:
        answer.partial_success.rejected_log_records = export.rejected
        answer.partial_success.error_message = "; ".join(export.reasons)
    return _answer(request, answer)


async def _read(request: Request) -> bytes:
    body = await read_body(request, limit=otlp.MAX_BYTES)
    return otlp.inflate(body, request.headers.get("content-encoding", "").strip().lower())


async def _store(backend: Backend, environment: Environment, export: otlp.Export) -> None:
    wanted = sorted({one.run_id for one in export.spans if "\x00" not in one.run_id})
    if not wanted:
        return

    async def act(tx: Transaction) -> list[RunSpan]:
        known = await spans.find_attempts(tx, environment, wanted)
        kept = [
            RunSpan(
                run_id=one.run_id,
                attempt_number=one.attempt_number or known[one.run_id],
                span=one.span,
            )
            for one in export.spans
            if one.run_id in known and one.environment_id in (None, environment.public_id)
        ]
        await spans.store_spans(tx, kept)
        return kept

    kept = await backend.db.run(act)
    export.reject(
        len(export.spans) - len(kept), "ctx.run.id names a run that the key's environment lacks"
    )


def _content_type(request: Request) -> str:
    return request.headers.get("content-type", "")


def _answer(
    request: Request, message: ExportTraceServiceResponse | ExportLogsServiceResponse
) -> Answer:
    if _content_type(request).lower().startswith(otlp.JSON):
        return Answer(MessageToJson(message, indent=None).encode())
    return Answer(message.SerializeToString(), headers=(("content-type", otlp.PROTOBUF),))


operations: list[Operation] = [
    Operation(
        method="POST",
        path="/otel/v1/traces",
        endpoint=take_traces,
        name="exportTraces",
        summary="Send spans of runs, as OTLP in protobuf or JSON, compressed by gzip or not",
        tag="traces",
        answer_description="Kept; `partialSuccess` counts what was not, and says why.",
        refusals=_REFUSALS,
    ),
    Operation(
        method="POST",
        path="/otel/v1/logs",
        endpoint=take_logs,
        name="exportLogs",
        summary="Send log records of runs, as OTLP in protobuf or JSON, compressed by gzip or not",
        tag="traces",
        answer_description="Kept; `partialSuccess` counts what was not, and says why.",
        refusals=_REFUSALS,
    ),
]
