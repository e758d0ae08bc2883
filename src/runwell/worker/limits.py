"""Limits of a child: its memory, watched from outside and stopped hard from inside; its lifeline.

The memory of a run is what its processes hold in RAM (RSS, the pages shared with the warm parent
included), as a container would count it. Polling catches slow growth; an allocation far beyond the
limit is refused by the kernel before it can hurt the machine.
"""

import asyncio
import ctypes
import os
import resource
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

from runwell.core.machines import MACHINES, MachineName

_PAGE = resource.getpagesize()
_GIGABYTE = 1024**3
_POLL_SECONDS = 0.1
# Runs below this share of their limit are looked at only every so many polls.
_CALM_SHARE = 0.4
_CALM_POLLS = 5
# Address space that is reserved and never touched (thread stacks, allocator arenas) counts in
# RLIMIT_DATA: below this a program that is far from its limit would be hit.
_HARD_FACTOR = 2
_HARD_MARGIN = 512 * 1024 * 1024
_PR_SET_PDEATHSIG = 1


def memory_limit(machine: MachineName) -> int:
    """The memory of a machine preset in bytes."""
    return round(MACHINES[machine].memory * _GIGABYTE)


class MemoryWatch:
    """Looks at the memory of running children and tells when one exceeds its limit."""

    def __init__(self) -> None:
        self._watched: dict[int, _Watched] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._polls = 0

    def watch(self, pid: int, limit: int, on_exceeded: Callable[[], None]) -> None:
        """Begin with a process; `on_exceeded` is called once."""
        self._watched[pid] = _Watched(limit, on_exceeded)
        if self._timer is None and sys.platform == "linux":
            self._timer = asyncio.get_running_loop().call_later(_POLL_SECONDS, self._poll)

    def forget(self, pid: int) -> int:
        """End with a process; returns the most memory that was seen, in bytes."""
        watched = self._watched.pop(pid, None)
        return watched.peak if watched is not None else 0

    def close(self) -> None:
        """Stop looking."""
        self._watched.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _poll(self) -> None:
        self._timer = None
        self._polls += 1
        is_full_poll = self._polls % _CALM_POLLS == 0
        for pid, watched in [*self._watched.items()]:
            if is_full_poll or watched.last >= _CALM_SHARE * watched.limit or not watched.peak:
                watched.last = memory_of_tree(pid)
                watched.peak = max(watched.peak, watched.last)
                if watched.last > watched.limit and not watched.told:
                    watched.told = True
                    watched.on_exceeded()
        if self._watched:
            self._timer = asyncio.get_running_loop().call_later(_POLL_SECONDS, self._poll)


class _Watched:
    __slots__ = ("last", "limit", "on_exceeded", "peak", "told")

    def __init__(self, limit: int, on_exceeded: Callable[[], None]) -> None:
        self.limit = limit
        self.on_exceeded = on_exceeded
        self.peak = 0
        self.last = 0
        self.told = False


def memory_of_tree(pid: int) -> int:
    """Bytes of RAM that a process and its descendants hold; 0 for one that is gone."""
    total = 0
    waiting = [pid]
    seen: set[int] = set()
    while waiting:
        current = waiting.pop()
        if current in seen:
            continue
        seen.add(current)
        try:
            total += int(_read(f"/proc/{current}/statm").split()[1]) * _PAGE
            threads = os.listdir(f"/proc/{current}/task")  # noqa: PTH208 (names only, and hot)
            for thread in threads:
                waiting += map(int, _read(f"/proc/{current}/task/{thread}/children").split())
        except (OSError, IndexError):
            # It ended while we looked, or the kernel does not list children.
            continue
    return total


class KernelKills:
    """Whether the kernel has killed processes of our control group for memory."""

    def __init__(self) -> None:
        self._seen = _count_kernel_kills()

    def has_grown(self) -> bool:
        """Whether there are more of them than when this was last asked."""
        before, self._seen = self._seen, _count_kernel_kills()
        return self._seen > before


def _count_kernel_kills() -> int:
    try:
        group = Path("/proc/self/cgroup").read_text().rsplit("::", 1)[1].strip()
        events = Path(f"/sys/fs/cgroup{group}/memory.events").read_text()
    except (OSError, IndexError):
        return 0
    for line in events.splitlines():
        name, _, count = line.partition(" ")
        if name == "oom_kill":
            return int(count)
    return 0


def stop_hard_above(limit: int) -> None:
    """In the child: have the kernel refuse memory far above the limit (Linux)."""
    if sys.platform != "linux":
        return
    ceiling = _HARD_FACTOR * limit + _HARD_MARGIN
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard != resource.RLIM_INFINITY:
        ceiling = min(ceiling, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (ceiling, hard))


def die_with_parent(number: int) -> None:
    """Have the kernel send this signal when the parent ends (Linux); 0 undoes it."""
    if sys.platform == "linux":
        _libc().prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)


def _read(path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, 65536)
    finally:
        os.close(fd)
