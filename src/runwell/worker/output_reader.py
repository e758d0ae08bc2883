"""The supervisor's ends of a child's output pipes: reads them, and puts what they hold in order."""

import asyncio
import os
from collections import deque
from collections.abc import Callable

from runwell.worker.lines import HIGH_WATER_BYTES, LineCollector
from runwell.worker.records import (
    LINE,
    MARK,
    PART,
    STDERR,
    STDOUT,
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

    def __init__(self, out_fd: int, err_fd: int, on_stray: Callable[[bytes], None]) -> None:
        """`on_stray` gets what is written while there is no run."""
        self._loop = asyncio.get_running_loop()
        self._out_fd, self._err_fd = out_fd, err_fd
        self._on_stray = on_stray
        self._out_rest = b""
        self._err_rest = b""
        self._err_items: deque[Record | bytes] = deque()
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
            for stream, rest in ((STDOUT, self._out_rest), (STDERR, self._err_rest)):
                if rest:
                    self._collector.add_bytes(stream, rest, now())
            self._out_rest = self._err_rest = b""
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
        self._take_out(self._read(self._out_fd))
        self._hold_back()

    def _on_err(self) -> None:
        instant = now()
        self._fill_err_items()
        # Lines that were written before those bytes, and are still in the other pipe, go first.
        self._take_out(self._read(self._out_fd), instant)
        self._take_err_items()
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
            instant = now()
            was_err = self._fill_err_items()
            data = self._read(self._out_fd)
            self._take_out(data, instant)
            self._take_err_items()
            if not data and not was_err:
                return

    def _read(self, fd: int) -> bytes:
        if fd not in self._open:
            return b""
        try:
            data = os.read(fd, _READ_BYTES)
        except BlockingIOError:
            return b""
        if not data:
            self._loop.remove_reader(fd)
            self._open.discard(fd)
            os.close(fd)
        return data

    def _take_out(self, data: bytes, err_instant: float | None = None) -> None:
        if not data:
            return
        items, self._out_rest = split_records(self._out_rest + data)
        for item in items:
            if not isinstance(item, Record):
                self._take_bytes(STDOUT, item, now())
                continue
            if item.mark:
                self._take_err_until(item.mark)
            elif err_instant is not None and item.time > err_instant:
                self._take_err_items()
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

    def _take_bytes(self, stream: int, data: bytes, instant: float) -> None:
        if self._collector is not None:
            self._collector.add_bytes(stream, data, instant)
        else:
            self._on_stray(data)

    def _fill_err_items(self) -> bool:
        data = self._read(self._err_fd)
        if not data:
            return False
        items, self._err_rest = split_records(self._err_rest + data)
        self._err_items += items
        return True

    def _take_err_items(self) -> None:
        while self._err_items:
            self._take_err_item(self._err_items.popleft())

    def _take_err_until(self, mark: int) -> None:
        while True:
            while self._err_items:
                item = self._err_items.popleft()
                if isinstance(item, Record) and item.kind == MARK and item.mark == mark:
                    return
                self._take_err_item(item)
            if not self._fill_err_items():
                return

    def _take_err_item(self, item: Record | bytes) -> None:
        if isinstance(item, bytes):
            self._take_bytes(STDERR, item, now())
