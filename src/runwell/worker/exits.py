"""What the end of a child's process meant, when it did not report an end itself."""

import os
import signal
from dataclasses import dataclass

from runwell.core.errors import ErrorCode, InternalError, clip

_MAX_TAIL_CHARACTERS = 4_096
# Above this share of its limit, a process that somebody killed was probably killed for its memory.
_NEAR_LIMIT = 0.8


@dataclass(frozen=True, kw_only=True)
class Exit:
    """How a process ended: `status` is that of `wait`, memory in bytes, times in seconds."""

    status: int
    peak_memory: int = 0
    cpu_seconds: float = 0


@dataclass(frozen=True, kw_only=True)
class Circumstances:
    """What the supervisor knows of the process besides its exit."""

    memory_limit: int
    peak_memory: int = 0
    over_limit: bool = False
    kernel_out_of_memory: bool = False
    last_words: str = ""


def explain_exit(end: Exit, seen: Circumstances) -> InternalError:
    """The error of a run whose process ended before the run did."""
    if seen.over_limit:
        return _error(
            ErrorCode.TASK_PROCESS_OOM_KILLED,
            f"Your task ran out of memory: it used {_megabytes(seen.peak_memory)} MB and its "
            f"machine has {_megabytes(seen.memory_limit)} MB. Try increasing the machine specs. "
            "If this doesn't fix it there might be a memory leak.",
            seen,
        )
    number = -os.waitstatus_to_exitcode(end.status)
    if number <= 0:
        return _error(
            ErrorCode.TASK_PROCESS_EXITED_WITH_NON_ZERO_CODE,
            f"the task's process exited with code {-number} before the task returned",
            seen,
        )
    name = signal_name(number)
    message = f"the task's process was ended by {name}"
    match number:
        case signal.SIGKILL if _looks_out_of_memory(end, seen):
            return _error(
                ErrorCode.TASK_PROCESS_MAYBE_OOM_KILLED,
                f"{message}, probably because memory ran out: it used "
                f"{_megabytes(max(seen.peak_memory, end.peak_memory))} MB of "
                f"{_megabytes(seen.memory_limit)} MB",
                seen,
            )
        case signal.SIGSEGV | signal.SIGBUS:
            return _error(ErrorCode.TASK_PROCESS_SIGSEGV, message, seen)
        case signal.SIGTERM:
            return _error(ErrorCode.TASK_PROCESS_SIGTERM, message, seen)
        case _:
            return _error(ErrorCode.TASK_RUN_CRASHED, message, seen)


def signal_name(number: int) -> str:
    """`SIGKILL` for 9, and so on."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _looks_out_of_memory(end: Exit, seen: Circumstances) -> bool:
    peak = max(seen.peak_memory, end.peak_memory)
    return seen.kernel_out_of_memory or peak >= _NEAR_LIMIT * seen.memory_limit


def _error(code: ErrorCode, message: str, seen: Circumstances) -> InternalError:
    if seen.last_words:
        message = f"{message}\nlast lines of stderr:\n{clip(seen.last_words, _MAX_TAIL_CHARACTERS)}"
    return InternalError(code=code, message=message)


def _megabytes(size: int) -> int:
    return round(size / 1024 / 1024)
