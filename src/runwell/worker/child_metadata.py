"""The metadata of the run in this process: what it knows of it, and what it tells of changes.

Each change goes to the supervisor at once: it outlives this process.
"""

import threading

from runwell.core.errors import InvalidPayloadError
from runwell.core.metadata import (
    Metadata,
    Operation,
    Target,
    apply_operations,
    change_in_place,
)
from runwell.core.payloads import MAX_METADATA_BYTES, encode_json
from runwell.core.protocol import DequeuedRun
from runwell.worker.inbox import Inbox
from runwell.worker.messages import METADATA, MetadataChange, frame


class ChildMetadata:
    """Changes are numbered from 1 on: by their numbers none is stored twice."""

    def __init__(self, run: DequeuedRun, inbox: Inbox) -> None:
        self._lease_id = run.snapshot_id
        self._relatives = {"parent": run.parent_run_id, "root": run.root_run_id}
        self._inbox = inbox
        self._lock = threading.RLock()
        self._metadata: Metadata = run.metadata or {}
        self._number = 0
        # At most so many bytes of JSON; counted exactly only when that is near the limit.
        self._size: int | None = None

    def change(self, target: Target, operation: Operation) -> None:
        """Change metadata; raises InvalidPayloadError when the run's own would be too large."""
        with self._lock:
            if target == "run" or self._relatives[target] is None:
                self._change_own(operation)
            self._number += 1
            change = MetadataChange(number=self._number, target=target, operation=operation)
            self._send(change)

    def read(self) -> Metadata:
        """What the run knows."""
        return self._metadata

    def replace(self, metadata: Metadata) -> None:
        """What the server has."""
        with self._lock:
            self._metadata, self._size = metadata, None

    def flush(self) -> tuple[int, int]:
        """Have all be stored at once; the lease, and the number of the last change."""
        with self._lock:
            if self._number:
                self._send(MetadataChange(number=self._number))
            return self._lease_id, self._number

    def _change_own(self, operation: Operation) -> None:
        if self._size is None:
            self._size = _size_of(self._metadata)
        grown = self._size + len(operation.model_dump_json())
        if grown > MAX_METADATA_BYTES:
            changed = apply_operations(self._metadata, [operation])
            grown = _size_of(changed)
            if grown > MAX_METADATA_BYTES:
                raise InvalidPayloadError(
                    f"the metadata would be {grown:,} bytes of JSON, and at most "
                    f"{MAX_METADATA_BYTES:,} are kept: store it elsewhere and keep a reference"
                )
            self._metadata = changed
        else:
            change_in_place(self._metadata, operation)
        self._size = grown

    def _send(self, change: MetadataChange) -> None:
        self._inbox.send(frame(METADATA, change.model_dump_json(by_alias=True).encode()))


def _size_of(metadata: Metadata) -> int:
    return len(encode_json(metadata).encode())
