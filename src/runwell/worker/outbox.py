"""Results that the server has not acknowledged, on disk, for the successor of a killed supervisor.

A file of JSON lines, appended to before a result is sent. There is no fsync: the file outlives the
supervisor, not the machine; when that loses power, the runs' leases end and they go on elsewhere.
"""

import json
import os
from collections import deque
from pathlib import Path
from typing import NamedTuple, cast

from pydantic import TypeAdapter, ValidationError

from runwell.core.payloads import Json
from runwell.core.protocol import RunReport

_REPORT: TypeAdapter[RunReport] = TypeAdapter(RunReport)
# A file with more than this of acknowledged lines is written anew.
_MAX_ACKNOWLEDGED_BYTES = 4 * 1024 * 1024


class Leftover(NamedTuple):
    """A result that an earlier supervisor, known to the server by this id, could not deliver."""

    number: int
    worker_id: str
    report: RunReport


class _Entry(NamedTuple):
    number: int
    offset: int
    length: int


class Outbox:
    """The unacknowledged results of this state folder, numbered in the order they happened."""

    def __init__(self, path: Path, limit_bytes: int) -> None:
        """Open the file and read what is left in it; it is created when missing."""
        self._path = path
        self._limit = limit_bytes
        self._entries: deque[_Entry] = deque()
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._size = 0
        self._next_number = 1
        self._worker_id = ""
        self.waiting_bytes = 0
        self.write_error: str | None = None
        """Why the last result could not be kept on disk (it is still sent), or None."""
        self.leftovers = self._read()

    @property
    def is_full(self) -> bool:
        """Whether no more runs should be taken until the server has acknowledged some results."""
        return self.waiting_bytes >= self._limit

    def name_worker(self, worker_id: str) -> None:
        """The results from here on are those of this worker id."""
        self._worker_id = worker_id
        self._write(b'{"worker":%s}\n' % json.dumps(worker_id).encode())

    def append(self, report: RunReport) -> tuple[int, int]:
        """Keep a result; returns its number, which `acknowledge` wants, and its size in bytes."""
        number = self._next_number
        self._next_number += 1
        body = report.model_dump_json(by_alias=True, exclude_none=True).encode()
        line = b'{"number":%d,"report":%s}\n' % (number, body)
        offset = self._size
        if self._write(line):
            self._entries.append(_Entry(number, offset, len(line)))
            self.waiting_bytes += len(line)
        return number, len(line)

    def acknowledge(self, number: int) -> None:
        """The server has all results up to this number."""
        done = 0
        while self._entries and self._entries[0].number <= number:
            entry = self._entries.popleft()
            self.waiting_bytes -= entry.length
            done += 1
        if not done:
            return
        self._write(b'{"acknowledged":%d}\n' % number)
        if self._size - self.waiting_bytes > _MAX_ACKNOWLEDGED_BYTES:
            self._compact()

    def close(self) -> None:
        """Close the file; an empty outbox leaves an empty file."""
        if not self._entries:
            os.ftruncate(self._file, 0)
        os.close(self._file)

    def _write(self, line: bytes) -> bool:
        try:
            os.lseek(self._file, self._size, os.SEEK_SET)
            done = 0
            while done < len(line):
                done += os.write(self._file, line[done:])
        except OSError as error:
            # A full disk must not end the worker: the result is in memory and on its way.
            self.write_error = f"{self._path}: {error.strerror}"
            return False
        self._size += len(line)
        self.write_error = None
        return True

    def _read(self) -> list[Leftover]:
        found: dict[int, tuple[Leftover, _Entry]] = {}
        worker_id = ""
        offset = 0
        with open(self._file, "rb", closefd=False) as file:
            for line in file:
                # A line torn by a kill or a full disk is no result: its run's lease ends instead.
                if not line.endswith(b"\n"):
                    break
                message = _parse(line)
                if message is None:
                    pass
                elif isinstance(message.get("worker"), str):
                    worker_id = cast("str", message["worker"])
                elif isinstance(message.get("acknowledged"), int):
                    acknowledged = cast("int", message["acknowledged"])
                    found = {n: entry for n, entry in found.items() if n > acknowledged}
                else:
                    entry = _read_entry(message, worker_id, offset, len(line))
                    if entry is not None:
                        found[entry[0].number] = entry
                offset += len(line)
        self._size = offset
        os.ftruncate(self._file, offset)
        self._entries.extend(entry for _, entry in found.values())
        self.waiting_bytes = sum(entry.length for entry in self._entries)
        self._next_number = max(found, default=0) + 1
        if not found:
            os.ftruncate(self._file, 0)
            self._size = 0
        return [leftover for leftover, _ in found.values()]

    def _compact(self) -> None:
        lines = [os.pread(self._file, e.length, e.offset) for e in self._entries]
        head = b'{"worker":%s}\n' % json.dumps(self._worker_id).encode()
        new_path = self._path.with_suffix(".new")
        try:
            new = os.open(new_path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with open(new, "wb", closefd=False) as file:
                file.writelines((head, *lines))
            new_path.replace(self._path)
        except OSError as error:
            # The old file is still good, only longer than it need be.
            self.write_error = f"{new_path}: {error.strerror}"
            return
        os.close(self._file)
        self._file = new
        offset = len(head)
        entries = [*self._entries]
        self._entries.clear()
        for entry in entries:
            self._entries.append(entry._replace(offset=offset))
            offset += entry.length
        self._size = offset


def _parse(line: bytes) -> dict[str, Json] | None:
    try:
        message = cast("object", json.loads(line))
    except ValueError:
        return None
    return cast("dict[str, Json]", message) if isinstance(message, dict) else None


def _read_entry(
    message: dict[str, Json], worker_id: str, offset: int, length: int
) -> tuple[Leftover, _Entry] | None:
    number = message.get("number")
    if not isinstance(number, int):
        return None
    try:
        report = _REPORT.validate_python(message.get("report"))
    except ValidationError:
        return None
    return Leftover(number, worker_id, report), _Entry(number, offset, length)
