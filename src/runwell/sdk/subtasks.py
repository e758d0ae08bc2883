"""What `trigger_and_wait` gives: the result of a run that the current run waited for."""

from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass
from typing import Generic, Literal, NoReturn, TypeVar

from runwell.core.errors import (
    InternalError,
    RunwellError,
    StringError,
    TaskRunError,
    serialize_error,
)
from runwell.core.payloads import Json, decode_packet
from runwell.core.waits import WaitResult

OutputT = TypeVar("OutputT")
OutputT_co = TypeVar("OutputT_co", covariant=True)


class SubtaskError(RunwellError):
    """What a run that was waited for ended with.

    `name` is the name of the exception there, `message` its text, `stack_trace` where it came from.

    Example:
        >>> from runwell import SubtaskError
        >>> str(SubtaskError("no such file", name="FileNotFoundError"))
        'FileNotFoundError: no such file'
    """

    def __init__(
        self, message: str, *, name: str | None = None, stack_trace: str | None = None
    ) -> None:
        super().__init__(f"{name}: {message}" if name else message)
        self.name = name
        self.message = message
        self.stack_trace = stack_trace


class SubtaskUnwrapError(RunwellError):
    """The run that was waited for did not complete; `cause` is what it ended with.

    Example:
        >>> from runwell import SubtaskError, SubtaskUnwrapError
        >>> error = SubtaskUnwrapError("run_1", "resize", SubtaskError("no such file"))
        >>> (error.run_id, error.task_id, str(error.cause))
        ('run_1', 'resize', 'no such file')
    """

    def __init__(self, run_id: str, task_id: str, cause: Exception) -> None:
        super().__init__(f"run {run_id} of task '{task_id}' did not complete: {cause}")
        self.run_id = run_id
        self.task_id = task_id
        self.cause = cause
        self.__cause__ = cause


@dataclass(frozen=True, kw_only=True)
class Ok(Generic[OutputT_co]):
    """A run that completed, with its output.

    Example:
        >>> from runwell import Ok
        >>> Ok(output=3, run_id="run_1", task_id="add").ok
        True
    """

    output: OutputT_co
    run_id: str
    task_id: str
    ok: Literal[True] = True

    def unwrap(self) -> OutputT_co:
        """The output."""
        return self.output


@dataclass(frozen=True, kw_only=True)
class Failed:
    """A run that ended in another way: `status` says in which, `error` with what.

    Example:
        >>> from runwell import Failed, SubtaskError
        >>> error = SubtaskError("no such file")
        >>> Failed(error=error, run_id="run_1", task_id="add", status="FAILED").ok
        False
    """

    error: SubtaskError
    run_id: str
    task_id: str
    status: str
    ok: Literal[False] = False

    def unwrap(self) -> NoReturn:
        """Raise SubtaskUnwrapError."""
        raise SubtaskUnwrapError(self.run_id, self.task_id, self.error)


class PendingResult(Generic[OutputT]):
    """What `trigger_and_wait` returns: await it for `Ok` or `Failed`, or await its `.unwrap()`."""

    def __init__(self, make: Callable[[], Awaitable["Ok[OutputT] | Failed"]]) -> None:
        self._make = make

    def __await__(self) -> Generator[object, object, "Ok[OutputT] | Failed"]:
        return self._make().__await__()

    async def unwrap(self) -> OutputT:
        """The output; raises SubtaskUnwrapError when the run did not complete."""
        return (await self._make()).unwrap()


def make_result(
    result: WaitResult, parse_output: Callable[[Json], OutputT]
) -> "Ok[OutputT] | Failed":
    """The result of a run as user code sees it."""
    run_id, task_id = result.run_id or "", result.task_id or ""
    if result.is_ok:
        output = parse_output(decode_packet(result.output, result.output_type))
        return Ok(output=output, run_id=run_id, task_id=task_id)
    status = result.status or "FAILED"
    stored = result.error or StringError(raw=f"the run ended as {status}")
    return Failed(error=make_error(stored), run_id=run_id, task_id=task_id, status=status)


def make_error(error: TaskRunError) -> SubtaskError:
    """A stored error as an exception."""
    shown = serialize_error(error)
    name = error.code.value if isinstance(error, InternalError) else shown.get("name")
    message = shown["message"]
    if isinstance(error, InternalError):
        message = error.message or "the run could not go on"
    return SubtaskError(message, name=name, stack_trace=shown.get("stackTrace"))
