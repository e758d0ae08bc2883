"""What else the machine does while it is measured: waiting until it is quiet, telling if not."""

import asyncio
import os
import resource
import time
from pathlib import Path

_LOOK_SECONDS = 0.06
_QUIET_SHARE = 0.8
_TICK_SECONDS = 0.01


async def wait_until_quiet(patience_seconds: float, *, looks: int = 1) -> bool:
    """Wait until `looks` looks in a row found the processors with next to nothing to do.

    False when that was in vain.
    """
    deadline, quiet = time.monotonic() + patience_seconds, 0
    while True:
        start, idle = time.monotonic(), _idle_seconds()
        await asyncio.sleep(_LOOK_SECONDS)
        share = (_idle_seconds() - idle) / (time.monotonic() - start) / _processors()
        quiet = quiet + 1 if share >= _QUIET_SHARE else 0
        if quiet >= looks:
            return True
        if time.monotonic() > deadline:
            return False


class Company:
    """Measures how many processors others kept busy, from when it was made."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._idle = _idle_seconds()
        self._own = _own_seconds()

    def processors(self) -> float:
        """How many processors were busy on average with what is no descendant of this process.

        Descendants count once they have ended and were waited for.
        """
        seconds = time.monotonic() - self._start
        busy = _processors() * seconds - (_idle_seconds() - self._idle)
        return max(0.0, (busy - (_own_seconds() - self._own)) / seconds)


def _processors() -> int:
    return os.cpu_count() or 1


def _idle_seconds() -> float:
    fields = Path("/proc/stat").read_text().partition("\n")[0].split()
    # Waiting for a disk is idling too.
    return (int(fields[4]) + int(fields[5])) * _TICK_SECONDS


def _own_seconds() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)
