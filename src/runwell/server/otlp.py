"""OTLP export requests, protobuf or JSON: from their bytes to spans of runs.

Both encodings become the messages of the `opentelemetry-proto` package, so that there is one way to
read them. What a resource says decides which run its spans are of (`protocol.md` section 9.2).
"""

import base64
import binascii
import hashlib
import json
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final, TypeVar, cast

from google.protobuf.json_format import ParseDict, ParseError
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1 import trace_pb2

from runwell.core.errors import RequestError
from runwell.core.payloads import Json
from runwell.core.protocol import MAX_LOG_MESSAGE_CHARACTERS
from runwell.core.spans import Span, SpanEvent, SpanKind, SpanLevel, SpanLink, clip_text, is_span_id

RequestT = TypeVar("RequestT", ExportTraceServiceRequest, ExportLogsServiceRequest)

PROTOBUF: Final = "application/x-protobuf"
JSON: Final = "application/json"
#: A compressed body may grow to this.
MAX_BYTES: Final = 16 * 1024 * 1024
_MAX_NESTING = 12
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# The year 2200: what is later is a mistake of units.
_MAX_NANOSECONDS = 7_258_118_400 * 10**9
_PARTIAL = "$span.partial"
_REAL_ID = "$span.span_id"
_ATTEMPT = "$metadata.ctx.attempt.number"
_IDS = ("traceId", "spanId", "parentSpanId")
_KINDS: Final[dict[int, SpanKind]] = {
    trace_pb2.Span.SPAN_KIND_SERVER: "SERVER",
    trace_pb2.Span.SPAN_KIND_CLIENT: "CLIENT",
    trace_pb2.Span.SPAN_KIND_PRODUCER: "PRODUCER",
    trace_pb2.Span.SPAN_KIND_CONSUMER: "CONSUMER",
}
_LEVELS: Final[tuple[SpanLevel, ...]] = ("TRACE", "DEBUG", "INFO", "WARN", "ERROR", "ERROR")


@dataclass(frozen=True, kw_only=True)
class SentSpan:
    """A span with what its resource says of its run; the attempt may be unknown."""

    run_id: str
    attempt_number: int | None
    environment_id: str | None
    span: Span


@dataclass(kw_only=True)
class Export:
    """What an export request holds, and how many of its items can't be kept, and why."""

    spans: list[SentSpan] = field(default_factory=list[SentSpan])
    rejected: int = 0
    reasons: list[str] = field(default_factory=list[str])

    def reject(self, count: int, reason: str) -> None:
        """Leave items out."""
        self.rejected += count
        if count and reason not in self.reasons:
            self.reasons.append(reason)


def inflate(body: bytes, encoding: str) -> bytes:
    """A body without its compression; raises RequestError 400 or 413."""
    if encoding in ("", "identity"):
        return body
    if encoding not in ("gzip", "deflate"):
        raise RequestError(415, f"content-encoding {encoding!r} is not read here: use gzip")
    inflater = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
    try:
        found = inflater.decompress(body, MAX_BYTES + 1)
    except zlib.error as error:
        raise RequestError(400, f"the body is not {encoding}: {error}") from None
    if len(found) > MAX_BYTES:
        raise RequestError(413, f"the body has more than {MAX_BYTES:,} bytes when it is inflated")
    if not inflater.eof:
        raise RequestError(400, f"the body is cut off: the end of its {encoding} is missing")
    return found


def parse(body: bytes, content_type: str, message: RequestT) -> RequestT:
    """Read an export request into an empty message; raises RequestError 400."""
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type == PROTOBUF:
        try:
            message.ParseFromString(body)
        except DecodeError as error:
            raise RequestError(400, f"the body is not an OTLP protobuf: {error}") from None
        return message
    if media_type != JSON:
        raise RequestError(
            400, f"content-type {media_type[:80]!r}: send {PROTOBUF} or {JSON} of OTLP"
        )
    try:
        found = _with_base64_ids(json.loads(body))
        if not isinstance(found, dict):
            raise RequestError(400, "the body is not OTLP in JSON: it must be an object")
        ParseDict(cast("dict[str, object]", found), message, ignore_unknown_fields=True)
    except (ValueError, RecursionError, ParseError, TypeError, AttributeError) as error:
        raise RequestError(400, f"the body is not OTLP in JSON: {str(error)[:300]}") from None
    return message


def read_spans(request: ExportTraceServiceRequest) -> Export:
    """The spans of a request."""
    export = Export()
    for of_resource in request.resource_spans:
        spans = [span for scope in of_resource.scope_spans for span in scope.spans]
        place = _read_resource(of_resource.resource, len(spans), export)
        if place is not None:
            for span in spans:
                _take(export, place, span)
    return export


def read_logs(request: ExportLogsServiceRequest) -> Export:
    """The log records of a request, as the leaves that they are in a trace."""
    export = Export()
    for of_resource in request.resource_logs:
        records = [record for scope in of_resource.scope_logs for record in scope.log_records]
        place = _read_resource(of_resource.resource, len(records), export)
        if place is not None:
            for record in records:
                _take_record(export, place, record, len(export.spans))
    return export


@dataclass(frozen=True, kw_only=True)
class _Place:
    run_id: str
    attempt_number: int | None
    environment_id: str | None


def _read_resource(resource: Resource, count: int, export: Export) -> _Place | None:
    attributes = _attributes(resource.attributes)
    if attributes.get("$trigger") not in (True, "true"):
        export.reject(count, "the resource lacks the attribute $trigger = true")
        return None
    run_id = attributes.get("ctx.run.id")
    if not isinstance(run_id, str):
        export.reject(count, "the resource lacks the attribute ctx.run.id")
        return None
    environment_id = attributes.get("ctx.environment.id")
    return _Place(
        run_id=run_id,
        attempt_number=_number(attributes.get("ctx.attempt.number")),
        environment_id=environment_id if isinstance(environment_id, str) else None,
    )


def _take(export: Export, place: _Place, sent: trace_pb2.Span) -> None:
    attributes = _attributes(sent.attributes)
    is_partial = attributes.pop(_PARTIAL, None) in (True, "true")
    real_id = attributes.pop(_REAL_ID, None)
    span_id = real_id if isinstance(real_id, str) else sent.span_id.hex()
    if not is_span_id(span_id):
        export.reject(1, "a span lacks a span id of 8 bytes")
        return
    started_at = _instant(sent.start_time_unix_nano)
    ended_at = None if is_partial else _instant(sent.end_time_unix_nano)
    if started_at is None:
        export.reject(1, "a span lacks a time of start in nanoseconds since 1970")
        return
    if ended_at is None and not is_partial:
        ended_at = started_at
    events = _events(sent.events)
    names = {event.name for event in events}
    is_error = sent.status.code == trace_pb2.Status.STATUS_CODE_ERROR or "exception" in names
    if sent.status.message:
        attributes.setdefault("status.message", sent.status.message)
    parent_id = sent.parent_span_id.hex()
    export.spans.append(
        _sent(
            place,
            attributes,
            Span(
                span_id=span_id,
                parent_span_id=parent_id if is_span_id(parent_id) else None,
                name=sent.name,
                kind=_KINDS.get(sent.kind, "INTERNAL"),
                started_at=started_at,
                ended_at=ended_at,
                is_error=is_error,
                is_canceled="cancellation" in names,
                attributes=attributes,
                events=events,
                links=[
                    SpanLink(
                        trace_id=link.trace_id.hex(),
                        span_id=link.span_id.hex(),
                        attributes=_attributes(link.attributes),
                    )
                    for link in sent.links
                ],
            ),
        )
    )


def _take_record(export: Export, place: _Place, record: LogRecord, number: int) -> None:
    parent_id = record.span_id.hex()
    if len(record.trace_id) != 16 or not is_span_id(parent_id):
        export.reject(1, "a log record has no trace id or no span id")
        return
    instant = _instant(record.time_unix_nano) or _instant(record.observed_time_unix_nano)
    if instant is None:
        export.reject(1, "a log record has no time in nanoseconds since 1970")
        return
    severity = record.severity_number
    level = _LEVELS[min((severity - 1) // 4, 5)] if severity > 0 else "INFO"
    if record.body.WhichOneof("value") == "string_value":
        message = clip_text(record.body.string_value, MAX_LOG_MESSAGE_CHARACTERS)
    else:
        message = f"{record.severity_text or level} log"
    attributes = _attributes(record.attributes)
    export.spans.append(
        _sent(
            place,
            attributes,
            Span(
                span_id=_record_id(place, record, number),
                parent_span_id=parent_id,
                name=message,
                level=level,
                started_at=instant,
                ended_at=instant,
                is_error=level == "ERROR",
                attributes=attributes,
            ),
        )
    )


def _record_id(place: _Place, record: LogRecord, number: int) -> str:
    """The same when the same request is sent again, so that its records are kept once."""
    digest = hashlib.blake2b(f"{place.run_id} {number} ".encode(), digest_size=8)
    digest.update(record.SerializeToString(deterministic=True))
    return digest.hexdigest()


def _sent(place: _Place, attributes: dict[str, Json], span: Span) -> SentSpan:
    return SentSpan(
        run_id=place.run_id,
        attempt_number=_number(attributes.get(_ATTEMPT)) or place.attempt_number,
        environment_id=place.environment_id,
        span=span,
    )


def _events(sent: Iterable[trace_pb2.Span.Event]) -> list[SpanEvent]:
    return [
        SpanEvent(
            name=event.name,
            time=_instant(event.time_unix_nano) or _EPOCH,
            attributes=_attributes(event.attributes),
        )
        for event in sent
    ]


def _attributes(sent: Iterable[KeyValue]) -> dict[str, Json]:
    return {one.key: _value(one.value, 0) for one in sent}


def _value(value: AnyValue, depth: int) -> Json:
    kind = value.WhichOneof("value")
    if depth > _MAX_NESTING:
        return "... [nested too deep]"
    match kind:
        case "string_value":
            return value.string_value
        case "bool_value":
            return value.bool_value
        case "int_value":
            return value.int_value
        case "double_value":
            return value.double_value
        case "array_value":
            return [_value(one, depth + 1) for one in value.array_value.values]
        case "kvlist_value":
            return {one.key: _value(one.value, depth + 1) for one in value.kvlist_value.values}
        case "bytes_value":
            return base64.b64encode(value.bytes_value).decode()
        case _:
            return None


def _instant(nanoseconds: int) -> datetime | None:
    if not 0 < nanoseconds <= _MAX_NANOSECONDS:
        return None
    return _EPOCH + timedelta(microseconds=nanoseconds // 1_000)


def _number(value: Json) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    text = str(value)
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 9 else None


def _with_base64_ids(value: object) -> object:
    """OTLP's JSON has ids in hexadecimal, where the JSON of protobuf has base64."""
    if isinstance(value, list):
        return [_with_base64_ids(one) for one in cast("Sequence[object]", value)]
    if not isinstance(value, dict):
        return value
    found: dict[str, object] = {}
    for name, one in cast("dict[str, object]", value).items():
        if name in _IDS and isinstance(one, str):
            found[name] = _to_base64(name, one)
        elif name not in ("attributes", "body"):
            found[name] = _with_base64_ids(one)
        else:
            found[name] = one
    return found


def _to_base64(name: str, text: str) -> str:
    try:
        return base64.b64encode(binascii.unhexlify(text)).decode()
    except ValueError:
        raise ValueError(f"{name}: {text[:64]!r} is not hexadecimal") from None
