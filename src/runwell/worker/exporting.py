"""The project's own exporters, in the process of a run: nothing of theirs slows or fails it.

What they are given is sent by threads of this process, and the run's end waits for them for two
seconds at most.
"""

import contextlib
import importlib
import logging
import threading
import time
from collections.abc import Callable, Generator, Mapping
from typing import Any, Final, cast

from opentelemetry._logs import SeverityNumber
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from runwell.core.payloads import Json
from runwell.sdk.telemetry import Telemetry

#: What a run waits at its end for all exporters together.
FLUSH_SECONDS: Final = 2.0
_SEVERITIES: Final = {
    "TRACE": SeverityNumber.TRACE,
    "DEBUG": SeverityNumber.DEBUG,
    "LOG": SeverityNumber.INFO,
    "INFO": SeverityNumber.INFO,
    "WARN": SeverityNumber.WARN,
    "ERROR": SeverityNumber.ERROR,
}
# Instrumentations of HTTP clients: module, and class in it.
_HTTP: Final = (
    ("opentelemetry.instrumentation.httpx", "HTTPXClientInstrumentor"),
    ("opentelemetry.instrumentation.requests", "RequestsInstrumentor"),
    ("opentelemetry.instrumentation.aiohttp_client", "AioHttpClientInstrumentor"),
    ("opentelemetry.instrumentation.urllib", "URLLibInstrumentor"),
)

_log = logging.getLogger("runwell.telemetry")


class Exporting:
    """The exporters and processors of a project; made in the process that they are to work in."""

    def __init__(self, telemetry: Telemetry, provider: TracerProvider, resource: Resource) -> None:
        """Begin: exporters get what is traced from here on."""
        self._processors: list[SpanProcessor] = [
            *(cast("SpanProcessor", one) for one in telemetry.span_processors),
            *(BatchSpanProcessor(cast("Any", one)) for one in telemetry.exporters),
        ]
        for processor in self._processors:
            provider.add_span_processor(_Harmless(processor))
        self._logs = LoggerProvider(resource=resource, shutdown_on_exit=False)
        self._has_logs = bool(telemetry.log_exporters)
        for one in telemetry.log_exporters:
            self._logs.add_log_record_processor(BatchLogRecordProcessor(cast("Any", one)))
        self._logger = self._logs.get_logger("runwell")

    @property
    def line_taker(self) -> Callable[[str, str, Mapping[str, Json] | None], None] | None:
        """Who takes lines; None without exporters of them."""
        return self._take_line if self._has_logs else None

    def flush(self) -> None:
        """Have everything sent, or give up."""
        # In threads: not every processor keeps to the time that it is given.
        threads = [
            threading.Thread(target=_flush, args=(one,), daemon=True)
            for one in (*self._processors, *((self._logs,) if self._has_logs else ()))
        ]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + FLUSH_SECONDS
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        if any(thread.is_alive() for thread in threads):
            _log.warning("exporters of telemetry were given up after %s seconds", FLUSH_SECONDS)

    def _take_line(self, level: str, message: str, attributes: Mapping[str, Json] | None) -> None:
        with contextlib.suppress(Exception):
            instant = time.time_ns()
            self._logger.emit(
                timestamp=instant,
                observed_timestamp=instant,
                severity_number=_SEVERITIES[level],
                severity_text=level,
                body=message,
                attributes=cast("Any", dict(attributes or {})),
            )


def instrument(telemetry: Telemetry) -> None:
    """Have libraries traced, those of HTTP and the project's own; once in a process."""
    found: list[object] = []
    if telemetry.instrument_http:
        for module, name in _HTTP:
            # Not installed, or not with the library that it is for.
            with contextlib.suppress(Exception):
                found.append(getattr(importlib.import_module(module), name)())
    for one in (*found, *telemetry.instrumentations):
        with _nothing_raised(type(one).__name__):
            cast("Any", one).instrument()


class _Harmless(SpanProcessor):
    """A processor whose errors are not those of the code that it looks at."""

    def __init__(self, processor: SpanProcessor) -> None:
        self._processor = processor

    def on_start(self, span: Any, parent_context: Any = None) -> None:  # noqa: ANN401 (as the SDK has it)
        with _nothing_raised("span processor"):
            self._processor.on_start(span, parent_context)

    def on_end(self, span: Any) -> None:  # noqa: ANN401 (as the SDK has it)
        with _nothing_raised("span processor"):
            self._processor.on_end(span)


def _flush(one: SpanProcessor | LoggerProvider) -> None:
    with _nothing_raised("flush"):
        one.force_flush(round(FLUSH_SECONDS * 1000))


@contextlib.contextmanager
def _nothing_raised(what: str) -> Generator[None]:
    try:
        yield
    # Telemetry must not fail what it looks at, whatever it does.
    except Exception as error:  # noqa: BLE001
        _log.warning("telemetry failed (%s): %s: %s", what, type(error).__name__, error)
