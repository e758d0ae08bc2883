"""From what a child wrote to the lines of an attempt: split, numbered, clipped, counted."""

from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Literal

from runwell.core.payloads import Json
from runwell.core.protocol import (
    MAX_LOG_BYTES_PER_RUN,
    MAX_LOG_LINES_PER_RUN,
    MAX_LOG_MESSAGE_CHARACTERS,
)
from runwell.core.spans import CapturedLine, Span, is_span_id
from runwell.worker.capture import clip_message
from runwell.worker.records import STDERR, STDOUT, LoggedLine
from runwell.worker.span_collector import SpanCollector

Level = Literal["TRACE", "DEBUG", "LOG", "INFO", "WARN", "ERROR"]

_LEVEL_OF_STREAM: dict[int, Level] = {STDOUT: "LOG", STDERR: "ERROR"}
# No character takes more bytes than this, so no more of a line is ever needed.
_MAX_LINE_BYTES = 4 * MAX_LOG_MESSAGE_CHARACTERS
_LINE_OVERHEAD_BYTES = 100
_LAST_WORDS = 30
#: A run with more than this unsent is not read from until the server has taken some.
HIGH_WATER_BYTES = 1024 * 1024
#: All runs of a worker together: beyond it lines are dropped, with a mark.
MAX_UNSENT_BYTES = 64 * 1024 * 1024


class LineBudget:
    """How much the lines of all runs, unsent yet, take in the supervisor's memory."""

    def __init__(self) -> None:
        self.unsent_bytes = 0

    @property
    def is_spent(self) -> bool:
        """Whether lines must be dropped now."""
        return self.unsent_bytes >= MAX_UNSENT_BYTES


class LineCollector:
    """The lines of one attempt. `on_waiting` is called when there is something to send again."""

    def __init__(
        self,
        budget: LineBudget,
        on_waiting: Callable[[], None],
        on_line: Callable[[str, str], None] | None = None,
    ) -> None:
        self._budget = budget
        self._on_waiting = on_waiting
        self._on_line = on_line
        self._partial = {STDOUT: bytearray(), STDERR: bytearray()}
        self._cut = {STDOUT: 0, STDERR: 0}
        self._waiting: list[CapturedLine] = []
        self._spans = SpanCollector()
        self._within: str | None = None
        self._seq = 0
        self._kept_bytes = 0
        self._dropped = 0
        self._last_time = 0.0
        self._last_words: deque[str] = deque(maxlen=_LAST_WORDS)
        self.unsent_bytes = 0
        self.is_over_limit = False

    @property
    def last_words(self) -> str:
        """The last lines of stderr, for the message of a crash."""
        return "\n".join(self._last_words)

    def add_bytes(self, stream: int, data: bytes, instant: float) -> None:
        """Bytes of a stream; what ends with a line break is a line."""
        partial = self._partial[stream]
        *whole, rest = data.split(b"\n")
        for piece in whole:
            if partial or self._cut[stream]:
                self._extend(stream, piece)
                self._add_stream_line(stream, self._take_partial(stream), instant)
            else:
                self._add_stream_line(stream, piece, instant)
        if rest:
            self._extend(stream, rest)

    def add_logged(self, line: LoggedLine, instant: float) -> None:
        """A line of `logger`, `logging` or `warnings`."""
        if line.level == "ERROR":
            self._last_words.append(line.message)
        self._add(line.level, line.message, line.attributes, instant)  # pyright: ignore[reportArgumentType] (checked when decoded)

    def end(self, instant: float) -> None:
        """The attempt is over: half a line is a line."""
        for stream in (STDOUT, STDERR):
            if self._partial[stream]:
                self._add_stream_line(stream, self._take_partial(stream), instant)
        if self._dropped:
            self._note_dropped(instant)

    def take(self) -> list[CapturedLine]:
        """The lines that are to be sent now."""
        self._spans.take()
        return self._take()

    def take_all(self) -> tuple[list[CapturedLine], list[Span]]:
        """The lines and the spans that are to be sent now."""
        return self._take(), self._spans.take()

    def add_span(self, body: bytes) -> None:
        """A span that began or ended."""
        was_empty = not self._waiting and not self._spans.has_some
        if self._budget.is_spent or not (size := self._spans.add(body)):
            return
        self.unsent_bytes += size
        self._budget.unsent_bytes += size
        if was_empty:
            self._on_waiting()

    def go_on_within(self, span_id: bytes) -> None:
        """What follows is written in this span; empty: in none."""
        text = span_id.decode("ascii", "replace")
        self._within = text if is_span_id(text) else None

    def _take(self) -> list[CapturedLine]:
        taken, self._waiting = self._waiting, []
        self._budget.unsent_bytes -= self.unsent_bytes
        self.unsent_bytes = 0
        return taken

    def _extend(self, stream: int, piece: bytes) -> None:
        partial = self._partial[stream]
        if b"\r" in piece and not piece.endswith(b"\r"):
            # A progress bar draws over itself: what the terminal would show is what counts.
            piece = piece[piece.rindex(b"\r") + 1 :]
            partial.clear()
            self._cut[stream] = 0
        room = max(0, _MAX_LINE_BYTES - len(partial))
        partial += piece[:room]
        self._cut[stream] += max(0, len(piece) - room)

    def _take_partial(self, stream: int) -> bytes:
        piece = bytes(self._partial[stream])
        cut = self._cut[stream]
        self._partial[stream].clear()
        self._cut[stream] = 0
        if cut:
            piece = piece[: MAX_LOG_MESSAGE_CHARACTERS - 40] + b"... [%d bytes cut]" % (
                cut + max(0, len(piece) - MAX_LOG_MESSAGE_CHARACTERS + 40)
            )
        return piece

    def _add_stream_line(self, stream: int, piece: bytes, instant: float) -> None:
        piece = piece.removesuffix(b"\r")
        if b"\r" in piece:
            piece = piece[piece.rindex(b"\r") + 1 :]
        text = piece.decode("utf-8", "replace")
        if "\x00" in text:
            text = text.replace("\x00", "\ufffd")
        text = clip_message(text)
        if stream == STDERR:
            self._last_words.append(text)
        self._add(_LEVEL_OF_STREAM[stream], text, None, instant)

    def _add(
        self, level: Level, message: str, attributes: dict[str, Json] | None, instant: float
    ) -> None:
        if self._on_line is not None:
            self._on_line(level, message)
        if self.is_over_limit:
            return
        if self._budget.is_spent:
            self._dropped += 1
            return
        if self._dropped:
            self._note_dropped(instant)
        size = len(message) + _LINE_OVERHEAD_BYTES + (len(str(attributes)) if attributes else 0)
        self._kept_bytes += size
        if self._seq >= MAX_LOG_LINES_PER_RUN - 1 or self._kept_bytes > MAX_LOG_BYTES_PER_RUN:
            self.is_over_limit = True
            level, attributes, size = "WARN", None, _LINE_OVERHEAD_BYTES
            message = (
                f"[more than {MAX_LOG_LINES_PER_RUN:,} lines or "
                f"{MAX_LOG_BYTES_PER_RUN // 1024 // 1024} MB: what follows is not kept]"
            )
        self._append(level, message, attributes, instant, size)

    def _note_dropped(self, instant: float) -> None:
        message = f"[{self._dropped:,} lines were dropped: the server did not take them in time]"
        self._dropped = 0
        self._append("WARN", message, None, instant, _LINE_OVERHEAD_BYTES)

    def _append(
        self,
        level: Level,
        message: str,
        attributes: dict[str, Json] | None,
        instant: float,
        size: int,
    ) -> None:
        self._seq += 1
        # Threads and processes that write at once may be a moment out of order; numbers decide.
        self._last_time = max(self._last_time, instant)
        if not self._waiting and not self._spans.has_some:
            self._on_waiting()
        # Every field is made here and of the right type: validating it again would cost more.
        self._waiting.append(
            CapturedLine.model_construct(
                seq=self._seq,
                time=datetime.fromtimestamp(self._last_time, UTC),
                level=level,
                message=message,
                attributes=attributes,
                span_id=self._within,
            )
        )
        self.unsent_bytes += size
        self._budget.unsent_bytes += size
