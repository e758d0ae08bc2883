"""Taking what a child writes: print, logging, warnings, the logger of runwell, raw descriptors.

`install_streams` runs in the warm parent before the user's files are imported, so that handlers
which keep a reference to `sys.stderr` keep one to ours; `OutputPipe.open` switches it in the child.
"""

import contextlib
import io
import logging
import os
import select
import sys
import threading
import warnings
from collections.abc import Callable
from typing import TextIO

from runwell.core.payloads import Json
from runwell.core.protocol import MAX_LOG_ATTRIBUTES_BYTES, MAX_LOG_MESSAGE_CHARACTERS
from runwell.worker.positions import WrittenPosition
from runwell.worker.records import (
    LINE,
    MAX_BODY_BYTES,
    PART,
    SPAN,
    STDERR,
    STDOUT,
    WITHIN,
    encode_line,
    encode_record,
    now,
)
from runwell.worker.texts import clean_json, clean_text

# What logging puts on a record by itself; anything else was given as `extra`.
_STANDARD_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class OutputPipe:
    """The child's end of its output: writes records that know their place among raw bytes."""

    def __init__(self, out_fd: int, err_fd: int, shared_fd: int) -> None:
        self._out_fd = out_fd
        self._err_position = WrittenPosition(shared_fd, err_fd)
        # Reentrant: a signal handler of the user may print while a print is under way.
        self._lock = threading.RLock()
        #: The span that the current code is in, as a number; 0: none. Lines say it.
        self.find_span: Callable[[], int] | None = None
        self._told_span = 0
        #: Who takes lines besides the server.
        self.on_line: Callable[[str, str, dict[str, Json] | None], None] | None = None

    def write_stream(self, kind: int, data: bytes) -> None:
        """Bytes that Python code wrote to stdout or stderr."""
        self._tell_span()
        if len(data) <= MAX_BODY_BYTES:
            self._write(kind, data)
            return
        with self._lock:
            for start in range(0, len(data), MAX_BODY_BYTES):
                self._write(kind, data[start : start + MAX_BODY_BYTES])

    def write_line(self, level: str, message: str, attributes: dict[str, Json] | None) -> None:
        """A line of `logger`, `logging` or `warnings`; a long one is cut with a mark."""
        self._tell_span()
        if self.on_line is not None:
            self.on_line(level, message, attributes)
        self._write_parts(LINE, encode_line(level, clip_message(clean_text(message)), attributes))

    def write_span(self, body: bytes) -> None:
        """A span that began or ended, as JSON."""
        self._write_parts(SPAN, body)

    def _tell_span(self) -> None:
        span = 0 if self.find_span is None else self.find_span()
        if span != self._told_span:
            self._told_span = span
            self._write(WITHIN, b"%016x" % span if span else b"")

    def _write_parts(self, kind: int, body: bytes) -> None:
        if len(body) <= MAX_BODY_BYTES:
            self._write(kind, body)
            return
        with self._lock:
            last = (len(body) - 1) // MAX_BODY_BYTES * MAX_BODY_BYTES
            for start in range(0, last, MAX_BODY_BYTES):
                self._write(PART, body[start : start + MAX_BODY_BYTES])
            self._write(kind, body[last:])

    def _write(self, kind: int, body: bytes) -> None:
        _write_whole(self._out_fd, encode_record(kind, now(), self._err_position.get(), body))


class CapturedStream(io.RawIOBase):
    """What is under `sys.stdout` and `sys.stderr`: a descriptor, or an output pipe once open."""

    def __init__(self, kind: int) -> None:
        super().__init__()
        self._kind = kind
        self._fd = kind
        self.pipe: OutputPipe | None = None
        self.name = "<stdout>" if kind == STDOUT else "<stderr>"
        self.mode = "wb"

    def write(self, data: object, /) -> int:
        """Write all of it."""
        written = bytes(memoryview(data))  # pyright: ignore[reportArgumentType] (any buffer)
        if self.pipe is not None:
            self.pipe.write_stream(self._kind, written)
        else:
            _write_whole(self._fd, written)
        return len(written)

    def writable(self) -> bool:
        """It is for writing."""
        return True

    def fileno(self) -> int:
        """The descriptor that subprocesses inherit."""
        return self._fd

    def close(self) -> None:
        """Stay open: what is written later, by a thread or a handler, must not raise."""


class CaptureHandler(logging.Handler):
    """Puts records of `logging` onto the output pipe with their level."""

    def __init__(self) -> None:
        super().__init__()
        self.pipe: OutputPipe | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """One line; nobody reads any before the pipe is open."""
        if self.pipe is None:
            return
        try:
            message = record.getMessage()
            if record.exc_info:
                message = f"{message}\n{_EXCEPTIONS.formatException(record.exc_info)}"
            if record.stack_info:
                message = f"{message}\n{record.stack_info}"
            self.pipe.write_line(_level_of(record.levelno), message, _attributes_of(record))
        # As logging's own handlers do: a bad format string is shown, not raised into the task.
        except Exception:  # noqa: BLE001
            self.handleError(record)


_EXCEPTIONS = logging.Formatter()


class Capture:
    """All of a process's captured output."""

    def __init__(self, stdout: TextIO, stderr: TextIO, streams: list[CapturedStream]) -> None:
        self._stdout, self._stderr = stdout, stderr
        self._streams = streams
        self._handler: CaptureHandler | None = None
        self._pipe: OutputPipe | None = None
        self._show_warning = warnings.showwarning

    def prepare(self) -> None:
        """Take over logging and warnings: all of `open` that can be done before the fork."""
        if self._handler is None:
            self._handler = CaptureHandler()
            self._take_logging(self._handler)
            self._show_warning = warnings.showwarning
            warnings.showwarning = self._write_warning

    def open(self, out_fd: int, err_fd: int, shared_fd: int) -> OutputPipe:
        """Begin to write onto pipes, in the child: descriptors 1 and 2 and all that Python has."""
        self.prepare()
        pipe = OutputPipe(out_fd, err_fd, shared_fd)
        os.dup2(out_fd, 1)
        os.dup2(err_fd, 2)
        self.switch(pipe)
        return pipe

    def switch(self, pipe: OutputPipe | None) -> None:
        """Write all that Python writes onto a pipe; None: as before there was any."""
        self._pipe = pipe
        for stream in self._streams:
            stream.pipe = pipe
        if self._handler is not None:
            self._handler.pipe = pipe

    def flush(self) -> None:
        """Write what is buffered: half a line without its end."""
        for stream in (self._stdout, self._stderr, sys.stdout, sys.stderr):
            # The user may have put anything there, None included.
            with contextlib.suppress(Exception):
                stream.flush()

    def restore(self) -> None:
        """Undo what a run did to `sys.stdout` and `sys.stderr`, for a kept process's next run."""
        sys.stdout, sys.stderr = self._stdout, self._stderr

    def _write_warning(
        self,
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if file is not None or self._pipe is None:
            self._show_warning(message, category, filename, lineno, file, line)
        else:
            text = f"{category.__name__}: {message}"
            self._pipe.write_line("WARN", text, {"file": clean_text(filename), "line": lineno})

    def _take_logging(self, handler: CaptureHandler) -> None:
        root = logging.getLogger()
        ours = (self._stdout, self._stderr)
        configured = bool(root.handlers)
        # A handler that prints to our own streams would show each line a second time.
        for other in [*root.handlers]:
            if getattr(other, "stream", None) in ours:
                root.removeHandler(other)
        root.addHandler(handler)
        if not configured:
            root.setLevel(logging.INFO)


def install_streams() -> Capture:
    """Replace `sys.stdout` and `sys.stderr` by streams that can be switched to an output pipe."""
    raw_stdout, raw_stderr = CapturedStream(STDOUT), CapturedStream(STDERR)
    stdout = io.TextIOWrapper(
        raw_stdout,
        encoding="utf-8",
        errors="backslashreplace",
        line_buffering=True,
    )
    stderr = io.TextIOWrapper(
        raw_stderr,
        encoding="utf-8",
        errors="backslashreplace",
        line_buffering=True,
    )
    sys.stdout, sys.stderr = stdout, stderr
    sys.__stdout__, sys.__stderr__ = stdout, stderr
    return Capture(stdout, stderr, [raw_stdout, raw_stderr])


def clip_message(text: str) -> str:
    """Cut a line that is too long, saying how much is gone."""
    if len(text) <= MAX_LOG_MESSAGE_CHARACTERS:
        return text
    kept = MAX_LOG_MESSAGE_CHARACTERS - 40
    return f"{text[:kept]}... [{len(text) - kept} characters cut]"


def clean_attributes(attributes: object) -> dict[str, Json] | None:
    """A line's attributes as JSON, left out with a mark when they are too much."""
    cleaned = clean_json(attributes)
    if not isinstance(cleaned, dict) or not cleaned:
        return None
    size = len(encode_line("LOG", "", cleaned))
    if size > MAX_LOG_ATTRIBUTES_BYTES:
        return {"left out": f"{size} bytes of attributes, {MAX_LOG_ATTRIBUTES_BYTES} at most"}
    return cleaned


def _write_whole(fd: int, data: bytes) -> None:
    while data:
        try:
            data = data[os.write(fd, data) :]
        except BlockingIOError:
            # A subprocess made the pipe, which it shares with us, non-blocking.
            select.select([], [fd], [])
        except OSError:
            # The supervisor is gone, and so are we in a moment.
            return


def _level_of(number: int) -> str:
    if number >= logging.ERROR:
        return "ERROR"
    if number >= logging.WARNING:
        return "WARN"
    if number >= logging.INFO:
        return "INFO"
    return "DEBUG" if number >= logging.DEBUG else "TRACE"


def _attributes_of(record: logging.LogRecord) -> dict[str, Json] | None:
    fields = vars(record)
    extra = {name: fields[name] for name in fields.keys() - _STANDARD_FIELDS}
    if record.name != "root":
        extra["logger"] = record.name
    return clean_attributes(extra) if extra else None
