"""Whether the machine's processors are what runs wait for.

Then the worker may let calls to the server gather for some milliseconds: whoever waits for them
would wait for a processor anyway, and fewer calls leave more of it for the runs.
"""

import os
import time
from pathlib import Path

# What the kernel says is looked at again after this long.
_LOOK_SECONDS = 0.05
# From this share of the time spent waiting for a processor on, there are too few of them.
_CONTENDED_SHARE = 0.1
_SCHEDULE = Path("/proc/self/schedstat")


class Contention:
    """Knows how long this thread waited for a processor lately (on Linux; elsewhere never)."""

    def __init__(self, file: Path = _SCHEDULE) -> None:
        try:
            self._file = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self._file = -1
        self._looked_at = time.monotonic()
        self._waited_ns = self._read()
        self._is_high = False

    @property
    def is_high(self) -> bool:
        """Whether a wait of ours costs nobody anything."""
        now = time.monotonic()
        elapsed = now - self._looked_at
        if elapsed >= _LOOK_SECONDS:
            waited_ns = self._read()
            self._is_high = waited_ns - self._waited_ns > _CONTENDED_SHARE * elapsed * 1e9
            self._looked_at, self._waited_ns = now, waited_ns
        return self._is_high

    def close(self) -> None:
        """Look no more."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _read(self) -> int:
        # Of the main thread: time on a processor, time waiting for one, number of turns.
        if self._file < 0:
            return 0
        return int(os.pread(self._file, 128, 0).split()[1])
