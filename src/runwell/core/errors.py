"""The error tree, the codes of internal errors, and how an error travels as JSON.

    RunwellError                      all of ours; catch it to catch everything
      ConfigurationError              a setting, key or config file is wrong: fix it and start again
      InvalidPayloadError             a value can't be sent as a payload or output
      RequestError                    the server refuses a request; `.status` says how (4xx)
      InvalidTransitionError          a status can't follow another: a bug, or a race decided before
      TaskPayloadParsedError          a run's payload does not fit the task's annotation; no retry
      AbortTaskRunError               raised by a task: fail now, no retry
      OutOfMemoryError                raised by a task: treat it as an out-of-memory kill

    RunStopped(BaseException)         a signal, no error: a run is asked to stop, in its own code
      RunCanceled                     somebody canceled the run
      RunTimedOut                     the run exceeded its max duration

What a *caller of the API* sees is `ApiError` in `client/transport.py`.
Sources: docs `errors-retrying.md`, `machines.md`; `protocol.md` section 3.6.
"""

from enum import StrEnum
from typing import Annotated, Literal, assert_never

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel


class RunwellError(Exception):
    """Anything that Runwell raises on purpose: catch it to catch everything.

    Example:
        >>> from runwell import RunwellError, runs
        >>> async def show(run_id: str) -> None:
        ...     try:
        ...         print((await runs.retrieve(run_id)).status)
        ...     except RunwellError as error:
        ...         print(f"can't show {run_id}: {error}")
    """


class ConfigurationError(RunwellError):
    """A setting, a key or the config file is wrong or missing; the message says what to change."""


class InvalidPayloadError(RunwellError):
    """A value can't travel as a payload, output or metadata; the message names its place."""


class RequestError(RunwellError):
    """The server refuses a request. `status` is the HTTP status, the message is for the caller."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class InvalidTransitionError(RunwellError):
    """An event can't happen to a run in the status it has."""

    def __init__(self, run_id: str, status: str, event: str) -> None:
        super().__init__(f"run {run_id} is {status}: {event} can't happen to it there")
        self.run_id, self.status, self.event = run_id, status, event


class TaskPayloadParsedError(RunwellError):
    """The payload does not fit the annotation of the task's parameter. Never retried."""


class AbortTaskRunError(RunwellError):
    """Raise it in a task to fail the run at once, without further attempts.

    Example:
        >>> from runwell import AbortTaskRunError
        >>> raise AbortTaskRunError("the account is closed")
        Traceback (most recent call last):
        runwell.core.errors.AbortTaskRunError: the account is closed
    """


class OutOfMemoryError(RunwellError):
    """Raise it in a task that sees itself running out of memory.

    The attempt then ends as if the memory limit had been hit.

    Example:
        >>> from runwell import OutOfMemoryError
        >>> str(OutOfMemoryError())
        'MANUAL_OOM_KILL_ERROR'
    """

    def __init__(self, message: str = "MANUAL_OOM_KILL_ERROR") -> None:
        super().__init__(message)


class RunStopped(BaseException):
    """Raised inside a task that has to stop now; clean up and let it pass.

    It derives from BaseException so that `except Exception` can't swallow it. In `async` code it is
    an `asyncio.CancelledError` as well. A task that goes on is killed after a grace period.

    Example:
        >>> from runwell import RunStopped, logger, task
        >>> @task(id="long-import")
        ... async def long_import() -> None:
        ...     try:
        ...         ...  # what takes long
        ...     except RunStopped:
        ...         logger.warn("stopped halfway: the next run starts over")
        ...         raise
    """


class RunCanceled(RunStopped):
    """Raised inside a task whose run was canceled.

    Example:
        >>> from runwell import RunCanceled
        >>> issubclass(RunCanceled, Exception)
        False
    """


class RunTimedOut(RunStopped):
    """Raised inside a task whose run exceeded its max duration.

    Example:
        >>> from runwell import RunTimedOut
        >>> issubclass(RunTimedOut, Exception)
        False
    """


class ErrorCode(StrEnum):
    """Codes of internal errors, those that 3.3.17 clients know (protocol.md section 3.6)."""

    COULD_NOT_FIND_EXECUTOR = "COULD_NOT_FIND_EXECUTOR"
    COULD_NOT_FIND_TASK = "COULD_NOT_FIND_TASK"
    COULD_NOT_IMPORT_TASK = "COULD_NOT_IMPORT_TASK"
    CONFIGURED_INCORRECTLY = "CONFIGURED_INCORRECTLY"
    TASK_ALREADY_RUNNING = "TASK_ALREADY_RUNNING"
    TASK_EXECUTION_FAILED = "TASK_EXECUTION_FAILED"
    TASK_EXECUTION_ABORTED = "TASK_EXECUTION_ABORTED"
    TASK_PROCESS_EXITED_WITH_NON_ZERO_CODE = "TASK_PROCESS_EXITED_WITH_NON_ZERO_CODE"
    TASK_PROCESS_SIGKILL_TIMEOUT = "TASK_PROCESS_SIGKILL_TIMEOUT"
    TASK_PROCESS_SIGSEGV = "TASK_PROCESS_SIGSEGV"
    TASK_PROCESS_SIGTERM = "TASK_PROCESS_SIGTERM"
    TASK_PROCESS_OOM_KILLED = "TASK_PROCESS_OOM_KILLED"
    TASK_PROCESS_MAYBE_OOM_KILLED = "TASK_PROCESS_MAYBE_OOM_KILLED"
    TASK_RUN_CANCELLED = "TASK_RUN_CANCELLED"
    TASK_INPUT_ERROR = "TASK_INPUT_ERROR"
    TASK_OUTPUT_ERROR = "TASK_OUTPUT_ERROR"
    HANDLE_ERROR_ERROR = "HANDLE_ERROR_ERROR"
    GRACEFUL_EXIT_TIMEOUT = "GRACEFUL_EXIT_TIMEOUT"
    TASK_RUN_HEARTBEAT_TIMEOUT = "TASK_RUN_HEARTBEAT_TIMEOUT"
    TASK_RUN_CRASHED = "TASK_RUN_CRASHED"
    MAX_DURATION_EXCEEDED = "MAX_DURATION_EXCEEDED"
    DISK_SPACE_EXCEEDED = "DISK_SPACE_EXCEEDED"
    POD_EVICTED = "POD_EVICTED"
    POD_UNKNOWN_ERROR = "POD_UNKNOWN_ERROR"
    OUTDATED_SDK_VERSION = "OUTDATED_SDK_VERSION"
    TASK_DID_CONCURRENT_WAIT = "TASK_DID_CONCURRENT_WAIT"
    RECURSIVE_WAIT_DEADLOCK = "RECURSIVE_WAIT_DEADLOCK"


#: Codes after which another attempt may follow. An out-of-memory kill is retried by its own rule.
RETRIED_CODES = frozenset(
    {
        ErrorCode.TASK_EXECUTION_FAILED,
        ErrorCode.TASK_EXECUTION_ABORTED,
        ErrorCode.TASK_PROCESS_EXITED_WITH_NON_ZERO_CODE,
        ErrorCode.TASK_PROCESS_SIGSEGV,
        ErrorCode.TASK_PROCESS_SIGTERM,
        ErrorCode.TASK_INPUT_ERROR,
        ErrorCode.TASK_OUTPUT_ERROR,
        ErrorCode.HANDLE_ERROR_ERROR,
        ErrorCode.GRACEFUL_EXIT_TIMEOUT,
        ErrorCode.TASK_RUN_CRASHED,
        ErrorCode.TASK_RUN_HEARTBEAT_TIMEOUT,
        ErrorCode.POD_EVICTED,
        ErrorCode.POD_UNKNOWN_ERROR,
    }
)

#: Memory ran out: another attempt follows only on a larger machine.
OUT_OF_MEMORY_CODES = frozenset(
    {ErrorCode.TASK_PROCESS_OOM_KILLED, ErrorCode.TASK_PROCESS_MAYBE_OOM_KILLED}
)

#: Runwell could not do its part: the run ends as SYSTEM_FAILURE, not as CRASHED.
SYSTEM_CODES = frozenset(
    {
        ErrorCode.COULD_NOT_FIND_EXECUTOR,
        ErrorCode.COULD_NOT_FIND_TASK,
        ErrorCode.COULD_NOT_IMPORT_TASK,
        ErrorCode.CONFIGURED_INCORRECTLY,
    }
)

# An error is cut to this much before it is stored: one run must not fill the server's memory.
MAX_ERROR_CHARACTERS = 32_768


class _StoredError(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True)


class BuiltInError(_StoredError):
    """An exception with a name, a message and a stack trace."""

    type: Literal["BUILT_IN_ERROR"] = "BUILT_IN_ERROR"
    name: str
    message: str
    stack_trace: str


class StringError(_StoredError):
    """An error that is only a text."""

    type: Literal["STRING_ERROR"] = "STRING_ERROR"
    raw: str


class CustomError(_StoredError):
    """An error that is a JSON value (JavaScript can throw any object)."""

    type: Literal["CUSTOM_ERROR"] = "CUSTOM_ERROR"
    raw: str


class InternalError(_StoredError):
    """An error that Runwell found: the process died, the limit was hit, and so on."""

    type: Literal["INTERNAL_ERROR"] = "INTERNAL_ERROR"
    code: ErrorCode
    message: str | None = None
    stack_trace: str | None = None


TaskRunError = Annotated[
    BuiltInError | StringError | CustomError | InternalError, Field(discriminator="type")
]


def is_retried(error: TaskRunError) -> bool:
    """Whether another attempt may follow this error: all that a task raises, and some codes."""
    return not isinstance(error, InternalError) or error.code in RETRIED_CODES


def is_out_of_memory(error: TaskRunError) -> bool:
    """Whether an attempt failed because its memory ran out."""
    return isinstance(error, InternalError) and error.code in OUT_OF_MEMORY_CODES


def clip(text: str, limit: int = MAX_ERROR_CHARACTERS) -> str:
    """Cut a text in the middle, saying how much is gone; the start and the end stay readable."""
    if len(text) <= limit:
        return text
    half = (limit - 64) // 2
    return f"{text[:half]}\n... {len(text) - 2 * half} characters cut ...\n{text[-half:]}"


def serialize_error(error: TaskRunError) -> dict[str, str]:
    """The form `{message, name?, stackTrace?}` in which the API shows an error."""
    match error:
        case BuiltInError():
            return {"name": error.name, "message": error.message, "stackTrace": error.stack_trace}
        case StringError() | CustomError():
            return {"message": error.raw}
        case InternalError():
            message = f"{error.code}: {error.message}" if error.message else error.code.value
            shown = {"name": "Internal error", "message": message}
            if error.stack_trace:
                shown["stackTrace"] = error.stack_trace
            return shown
        case _:
            assert_never(error)
