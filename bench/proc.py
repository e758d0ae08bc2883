"""What Linux says about processes: processor time, memory, and who descends from whom."""

import contextlib
from pathlib import Path

_TICK_NS = 10_000_000


def tree(pid: int) -> list[int]:
    """The process and all that descend from it, as far as they live."""
    found = [pid]
    for member in found:
        found.extend(children(member))
    return found


def children(pid: int) -> list[int]:
    """The living children of a process, of all its threads."""
    pids: list[int] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            pids.extend(int(text) for text in path.read_text().split())
    return pids


def cpu_ns(pid: int) -> int:
    """Processor time of a living process's living threads in nanoseconds; 0 when it is gone."""
    total = 0
    for path in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        with contextlib.suppress(OSError):
            total += int(path.read_text().split()[0])
    return total


def tree_cpu_ns(pid: int) -> int:
    """Processor time of a process and its living descendants in nanoseconds."""
    return sum(cpu_ns(member) for member in tree(pid))


def ended_children_cpu_ns(pid: int) -> int:
    """Processor time of the children that the process has waited for, and theirs."""
    try:
        fields = _stat_fields(pid)
    except OSError:
        return 0
    # cutime and cstime are fields 16 and 17 of proc(5); the list starts at field 3.
    return (int(fields[13]) + int(fields[14])) * _TICK_NS


def pss_kb(pid: int) -> int:
    """Memory of a process in kB, where a page shared by n processes counts for one n-th."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
    return 0


def command_line(pid: int) -> str:
    """The arguments of a process, or what it calls itself, as one text; empty when it is gone."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    return ""


def parent(pid: int) -> int:
    """The pid of the parent; 0 when the process is gone."""
    with contextlib.suppress(OSError):
        return int(_stat_fields(pid)[1])
    return 0


def _stat_fields(pid: int) -> list[str]:
    # The name in parentheses may hold spaces and parentheses itself.
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
