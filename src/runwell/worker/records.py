"""The form of a captured line on a child's output pipe.

File descriptors 1 and 2 of a child are pipes that the supervisor reads. What Python code prints or
logs goes onto the first pipe too, as records between the raw bytes that C code and subprocesses
write there: one pipe has one order. A record is written by one `write` of at most PIPE_BUF bytes,
which the kernel never tears apart, so it survives whatever happens to the child afterwards.

The second pipe carries raw bytes only. Each record says how many bytes had been written to that
pipe before it, which is where its place among them is (see `positions`).
"""

import json
import select
import struct
import time
from typing import NamedTuple

from runwell.core.payloads import Json
from runwell.worker.texts import clean_json, clean_text

MAGIC = b"\x00\x1bRw"
_HEAD = struct.Struct(">4sBdQH")
HEAD_BYTES = _HEAD.size
# 4096 on Linux, 512 on macOS.
MAX_BODY_BYTES = select.PIPE_BUF - HEAD_BYTES

# Kinds of records: bytes of a stream, a log line, the first part of a longer body, a span that
# began or ended, and the span that what follows is written in (empty: none).
STDOUT, STDERR, LINE, PART, SPAN, WITHIN = 1, 2, 3, 4, 5, 6

LEVELS = ("TRACE", "DEBUG", "LOG", "INFO", "WARN", "ERROR")


class Record(NamedTuple):
    """One record. `err_position` is how many bytes the second pipe had got before it."""

    kind: int
    time: float
    err_position: int
    body: bytes


def now() -> float:
    """Seconds since the epoch; child and supervisor are on one machine."""
    return time.clock_gettime(time.CLOCK_REALTIME)


def encode_record(kind: int, instant: float, err_position: int, body: bytes) -> bytes:
    """A record as it goes onto the pipe; the body has at most MAX_BODY_BYTES."""
    return _HEAD.pack(MAGIC, kind, instant, err_position, len(body)) + body


def split_records(data: bytes) -> tuple[list[Record | bytes], bytes]:
    """Records and the raw bytes between them in their order, and the rest that waits for more."""
    items: list[Record | bytes] = []
    position = 0
    while True:
        found = data.find(MAGIC, position)
        if found < 0:
            # The start of a record never waits in the pipe without its end, but a read may cut it.
            end = len(data) - _magic_prefix_length(data, position)
            if end > position:
                items.append(data[position:end])
            return items, data[end:]
        if found > position:
            items.append(data[position:found])
        if len(data) - found < HEAD_BYTES:
            return items, data[found:]
        _, kind, instant, err_position, length = _HEAD.unpack_from(data, found)
        if length > MAX_BODY_BYTES:
            # Not ours: somebody wrote these bytes.
            items.append(data[found : found + len(MAGIC)])
            position = found + len(MAGIC)
            continue
        start = found + HEAD_BYTES
        if len(data) - start < length:
            return items, data[found:]
        items.append(Record(kind, instant, err_position, data[start : start + length]))
        position = start + length


def encode_line(level: str, message: str, attributes: dict[str, Json] | None) -> bytes:
    """The body of a LINE (in several parts if need be)."""
    return json.dumps((level, message, attributes), ensure_ascii=False).encode(
        "utf-8", "backslashreplace"
    )


class LoggedLine(NamedTuple):
    """What `encode_line` wrote."""

    level: str
    message: str
    attributes: dict[str, Json] | None


def decode_line(body: bytes) -> LoggedLine | None:
    """Read the body of a LINE; None when it is none: somebody wrote bytes that look like one."""
    try:
        level, message, attributes = json.loads(body)
    except (ValueError, TypeError, RecursionError):
        return None
    if level not in LEVELS or not isinstance(message, str):
        return None
    if b"\\u" in body:
        # The one place where a NUL or a lone surrogate can hide, which no report can hold.
        message, attributes = clean_text(message), clean_json(attributes)
    return LoggedLine(level, message, attributes if isinstance(attributes, dict) else None)


def _magic_prefix_length(data: bytes, start: int) -> int:
    for length in range(min(len(MAGIC) - 1, len(data) - start), 0, -1):
        if data.endswith(MAGIC[:length]):
            return length
    return 0
