"""How the SDK waits: the current run begins a wait, and goes on with its outcome."""

import secrets
from collections.abc import Callable

from runwell.core.errors import InternalError, RunwellError
from runwell.core.waits import Wait, WaitOutcome, WaitResult
from runwell.sdk.runtime import Runtime, find_runtime
from runwell.sdk.subtasks import make_error


class WaitRefusedError(RunwellError):
    """A wait that can't be: for a run that isn't there, or one that would never end.

    `code` is `RECURSIVE_WAIT_DEADLOCK` for the latter (docs `queue-concurrency.md`).

    Example:
        >>> from runwell import WaitRefusedError
        >>> WaitRefusedError("there is no such run").code is None
        True
    """

    def __init__(self, message: str, code: str | None = None) -> None:
        super().__init__(f"{code}: {message}" if code else message)
        self.code = code


async def wait_for_outcome(make: Callable[[str], Wait], *, what: str) -> list[WaitResult]:
    """Wait, as a coroutine of the current run; raises RunwellError outside of one."""
    runtime, wait = find_current(what), make(_new_id())
    hooks = runtime.wait_hooks
    if hooks is None:
        return _read(await runtime.begin_wait(wait))
    await hooks.notify_wait("on_wait", wait)
    outcome = await runtime.begin_wait(wait)
    await hooks.notify_wait("on_resume", wait)
    return _read(outcome)


def block_for_outcome(make: Callable[[str], Wait], *, what: str) -> list[WaitResult]:
    """Wait, and block the calling thread of the current run; raises RunwellError outside of one."""
    runtime, wait = find_current(what), make(_new_id())
    hooks = runtime.wait_hooks
    if hooks is None:
        return _read(runtime.wait(wait))
    hooks.notify_wait_blocking("on_wait", wait)
    outcome = runtime.wait(wait)
    hooks.notify_wait_blocking("on_resume", wait)
    return _read(outcome)


def find_current(what: str) -> Runtime:
    """The current run's runtime; raises RunwellError that names `what` outside of a run."""
    runtime = find_runtime()
    if runtime is None:
        raise RunwellError(f"{what} works inside of a run: call it from the code of a task")
    return runtime


def _new_id() -> str:
    return secrets.token_hex(8)


def _read(outcome: WaitOutcome) -> list[WaitResult]:
    if outcome.error is not None:
        error = make_error(outcome.error)
        code = outcome.error.code if isinstance(outcome.error, InternalError) else None
        raise WaitRefusedError(error.message, code)
    return outcome.results
