"""What follows a failed attempt: another one, or which end of the run. Pure decisions."""

from runwell.core.errors import (
    OUT_OF_MEMORY_CODES,
    SYSTEM_CODES,
    ErrorCode,
    InternalError,
    TaskRunError,
    is_retried,
)
from runwell.core.statuses import RunEvent


def decide_failure(
    error: TaskRunError,
    *,
    attempts_left: int,
    skip_retrying: bool,
    is_development: bool,
    has_larger_machine: bool = False,
) -> RunEvent:
    """RETRY, or how the run ends (`protocol.md` 3.6).

    With a larger machine, a run whose memory ran out goes on there whatever attempts are left: it
    does so once, since there is no larger one after it.
    """
    code = error.code if isinstance(error, InternalError) else None
    if code in OUT_OF_MEMORY_CODES and has_larger_machine and not skip_retrying:
        return RunEvent.RETRY
    if is_retried(error) and not skip_retrying and attempts_left > 0:
        return RunEvent.RETRY
    if code is None:
        return RunEvent.FAIL
    if code is ErrorCode.MAX_DURATION_EXCEEDED:
        return RunEvent.TIME_OUT
    if code in SYSTEM_CODES:
        return RunEvent.SYSTEM_FAIL
    if code is ErrorCode.TASK_RUN_HEARTBEAT_TIMEOUT and is_development:
        return RunEvent.INTERRUPT
    return RunEvent.CRASH
