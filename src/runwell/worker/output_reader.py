"""The supervisor's ends of a child's output pipes: reads them, and puts what they hold in order."""

import asyncio
import os
from collections.abc import Callable

from runwell.worker.lines import HIGH_WATER_BYTES, LineCollector
from runwell.worker.positions import ReadPosition
from runwell.worker.records import (
    LINE,
    PART,
    SPAN,
    STDERR,
    STDOUT,
    WITHIN,
    Record,
    decode_line,
    now,
    split_records,
)

_READ_BYTES = 65536
# A flood beyond the limit is read at this pace: the child must not be stopped for ever, nor may it
# keep the supervisor busy with what nobody keeps.
_FLOOD_PAUSE_SECONDS = 0.02
# What is left in the pipes at the end of a run is at most their size; a subprocess that goes on
# writing must not hold up the end.
_MAX_FINAL_READS = 32


class OutputReader:
    """Reads both pipes of a child and gives what it reads to the collector of its run."""

    def __init__(
        self,
        out_fd: int,
        err_fd: int,
        err_position: ReadPosition,
        on_stray: Callable[[bytes], None],
    ) -> None:
        """`on_stray` gets what is written while there is no run."""
        self._loop = asyncio.get_running_loop()
        self._out_fd, self._err_fd = out_fd, err_fd
        self._on_stray = on_stray
        self._out_rest = b""
        self._err_position = err_position
        # Bytes that were read, and whose place among the records is not known yet.
        self._err_waiting = bytearray()
        self._err_taken = 0
        self._parts: list[bytes] = []
        self._open = {out_fd, err_fd}
        self._is_paused = False
        self._flood_timer: asyncio.TimerHandle | None = None
        self._collector: LineCollector | None = None
        for fd in (out_fd, err_fd):
            os.set_blocking(fd, False)
        self._listen()

    def begin(self, collector: LineCollector) -> None:
        """What is read from here on belongs to this run."""
        self._drain()
        self._collector = collector

    def finish(self) -> None:
        """The run has ended: take what its process wrote before, whoever still holds the pipes."""
        self._drain()
        if self._collector is not None:
            if self._out_rest:
                self._collector.add_bytes(STDOUT, self._out_rest, now())
            self._out_rest = b""
            self._collector.end(now())
        self._collector = None
        self._parts.clear()
        self.resume()

    def resume(self) -> None:
        """Read again, after the unsent lines of the run have been taken."""
        if self._is_paused and self._flood_timer is None:
            self._is_paused = False
            self._listen()

    def close(self) -> None:
        """Close the pipes; who still writes to them gets an error."""
        self._unlisten()
        if self._flood_timer is not None:
            self._flood_timer.cancel()
        for fd in self._open:
            os.close(fd)
        self._open.clear()

    def _listen(self) -> None:
        for fd, read in ((self._out_fd, self._on_out), (self._err_fd, self._on_err)):
            if fd in self._open:
                self._loop.add_reader(fd, read)

    def _unlisten(self) -> None:
        for fd in self._open:
            self._loop.remove_reader(fd)

    def _on_out(self) -> None:
        self._take_what_waits(with_err=False)
        self._hold_back()

    def _on_err(self) -> None:
        self._take_what_waits(with_err=True)
        self._hold_back()

    def _hold_back(self) -> None:
        collector = self._collector
        if collector is None or self._is_paused:
            return
        if collector.is_over_limit:
            self._pause()
            self._flood_timer = self._loop.call_later(_FLOOD_PAUSE_SECONDS, self._after_flood)
        elif collector.unsent_bytes > HIGH_WATER_BYTES:
            self._pause()

    def _pause(self) -> None:
        self._is_paused = True
        self._unlisten()

    def _after_flood(self) -> None:
        self._flood_timer = None
        self.resume()

    def _drain(self) -> None:
        for _ in range(_MAX_FINAL_READS):
            if not self._take_what_waits(with_err=True):
                break
        self._take_err_until(self._err_position.value)

    def _take_what_waits(self, *, with_err: bool) -> bool:
        """Read once; whether there was anything."""
        was_err = with_err and self._fill_err(_READ_BYTES)
        data = self._read(self._out_fd, _READ_BYTES)
        self._take_out(data)
        if len(data) < _READ_BYTES:
            # That was all: no record comes any more that was written before the other bytes.
            self._take_err_until(self._err_position.value)
        return was_err or bool(data)

    def _read(self, fd: int, size: int) -> bytes:
        if fd not in self._open:
            return b""
        try:
            data = os.read(fd, size)
        except BlockingIOError:
            return b""
        if not data:
            self._loop.remove_reader(fd)
            self._open.discard(fd)
            os.close(fd)
        return data

    def _take_out(self, data: bytes) -> None:
        if not data:
            return
        items, self._out_rest = split_records(self._out_rest + data)
        for item in items:
            if not isinstance(item, Record):
                self._take_bytes(STDOUT, item, now())
                continue
            if item.err_position > self._err_taken:
                self._take_err_until(item.err_position, item.time)
            self._take_record(item)

    def _take_record(self, record: Record) -> None:
        # Any other kind is bytes of somebody's that only look like a record.
        if record.kind in (STDOUT, STDERR):
            self._take_bytes(record.kind, record.body, record.time)
        elif record.kind == PART:
            self._parts.append(record.body)
        elif record.kind == LINE:
            line = decode_line(b"".join((*self._parts, record.body)))
            self._parts.clear()
            if line is not None and self._collector is not None:
                self._collector.add_logged(line, record.time)
        elif record.kind == SPAN:
            body = b"".join((*self._parts, record.body))
            self._parts.clear()
            if self._collector is not None:
                self._collector.add_span(body)
        elif record.kind == WITHIN and self._collector is not None:
            self._collector.go_on_within(record.body)

    def _take_bytes(self, stream: int, data: bytes, instant: float) -> None:
        if self._collector is not None:
            self._collector.add_bytes(stream, data, instant)
        else:
            self._on_stray(data)

    def _fill_err(self, size: int) -> bool:
        self._err_position.begin_read()
        data = self._read(self._err_fd, size)
        self._err_position.end_read(len(data))
        self._err_waiting += data
        return bool(data)

    def _take_err_until(self, position: int, instant: float | None = None) -> None:
        """Take the bytes of the second pipe up to a position: never one more than that."""
        while (missing := position - self._err_position.value) > 0:
            if not self._fill_err(min(missing, _READ_BYTES)):
                break
        count = min(position - self._err_taken, len(self._err_waiting))
        if count:
            data = bytes(self._err_waiting[:count])
            del self._err_waiting[:count]
            self._err_taken += count
            self._take_bytes(STDERR, data, instant or now())
