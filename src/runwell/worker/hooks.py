"""An attempt of a task with hooks: what is called when, and what an error in it does.

    on_start (before the first attempt) - init - middleware, and in it the task's function;
    on_success, or handle_error and after the last attempt on_failure; on_complete; cleanup

For a canceled run: on_cancel, cleanup. The project's hooks come before those of the task where
something begins (on_start, init, middleware), and after them where something ends. A task without
hooks doesn't come here.

All of it is one coroutine. For an `async def` task it runs in the event loop. For a `def` task it
never suspends: what is asynchronous in it runs in the loop by itself, so that the task's own
function is called outside of a running loop.
Sources: docs `tasks/overview.md`, `errors-retrying.md`; `protocol.md` section 8.3.
"""

import asyncio
import inspect
from collections.abc import Awaitable, Coroutine, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import NamedTuple, Never, Protocol, cast

from runwell.core.errors import (
    AbortTaskRunError,
    RunCanceled,
    RunStopped,
    TaskPayloadParsedError,
    is_out_of_memory,
)
from runwell.core.payloads import Json
from runwell.sdk.hooks import Hook, HookName, Hooks, WaitHookName
from runwell.sdk.runtime import Runtime
from runwell.sdk.task import AnyTask
from runwell.sdk.tracing import TracedBlock
from runwell.worker.async_runs import AsyncRuns
from runwell.worker.failures import describe_bad_output, describe_exception, format_stack
from runwell.worker.retrying import AttemptFailure, BadHandlingError, RetryPlan
from runwell.worker.texts import safe_text


class Output(NamedTuple):
    """The attempt succeeded; its output as JSON text."""

    text: str | None


class Stopped(NamedTuple):
    """The attempt was asked to stop, and has."""


Ended = Output | AttemptFailure | Stopped


class StopFlag(Protocol):
    """Knows whether the run was asked to stop."""

    @property
    def raised(self) -> RunStopped | None:
        """What was raised in the task, if anything was."""
        ...


class HookedAttempt:
    """One attempt of a task with hooks."""

    def __init__(
        self,
        task: AnyTask,
        of_project: Hooks,
        runtime: Runtime,
        plan: RetryPlan,
        stop: StopFlag,
        async_runs: AsyncRuns,
        *,
        is_first: bool,
    ) -> None:
        self._task = task
        self._before: tuple[Hooks, Hooks] = (of_project, task.hooks)
        self._after: tuple[Hooks, Hooks] = (task.hooks, of_project)
        self._runtime = runtime
        self._plan = plan
        self._stop = stop
        self._async_runs = async_runs
        self._is_first = is_first
        self._payload: object = None
        self._init: object = None
        self._output: object = None
        self._must_clean_up = False

    async def execute(self, payload: Json) -> Ended:
        """Do all of it; what the user's code raises becomes part of the result."""
        try:
            ended = await self._attempt(payload)
            error = await self._clean_up()
            if error is None:
                return ended
            if isinstance(ended, AttemptFailure):
                # What failed first is what must be repaired.
                self._log("cleanup", error)
                return ended
            return await self._fail(error)
        except RunStopped as stop:
            return await self._end_early(stop)

    @property
    def has_wait_hooks(self) -> bool:
        """Whether `notify_wait` would call any hook."""
        return any(name in hooks for hooks in self._before for name in ("on_wait", "on_resume"))

    async def notify_wait(self, name: WaitHookName, wait: object) -> None:
        """The run is about to wait, or goes on."""
        await self._notify(name, self._before if name == "on_resume" else self._after, wait=wait)

    def notify_wait_blocking(self, name: WaitHookName, wait: object) -> None:
        """The same for code that is not in a coroutine."""
        _finish(self.notify_wait(name, wait))

    async def _attempt(self, payload: Json) -> Ended:
        self._payload = payload
        try:
            self._payload = self._task.parse_payload(payload)
            self._must_clean_up = True
            if self._is_first:
                await self._notify("on_start", self._before)
            await self._initialise()
            text = await self._run()
        except (RunStopped, GeneratorExit):
            raise
        # All that user code can raise, KeyboardInterrupt and SystemExit included.
        except BaseException as error:  # noqa: BLE001
            self._raise_stop()
            return await self._fail(error)
        await self._notify("on_success", self._after, output=self._output)
        await self._notify("on_complete", self._after, output=self._output, error=None)
        return Output(text)

    async def _initialise(self) -> None:
        values: list[object] = []
        for hook in _hooks("init", self._before):
            try:
                values.append(await self._call(hook))
            except (RunStopped, GeneratorExit):
                raise
            except BaseException as error:  # noqa: BLE001 (as documented, it is ignored)
                self._log("init", error)
        given = [value for value in values if value is not None]
        if given and all(isinstance(value, dict) for value in given):
            self._init = {
                key: value
                for one in cast("list[dict[object, object]]", given)
                for key, value in one.items()
            }
        else:
            self._init = given[-1] if given else None

    async def _run(self) -> str | None:
        await self._enter([*_hooks("middleware", self._before)])
        self._raise_stop()
        try:
            return self._task.encode_output(self._output)
        # The user's own serialisers may raise anything.
        except Exception as error:  # noqa: BLE001
            raise _BadOutputError(error) from None

    async def _enter(self, middlewares: list[Hook]) -> object:
        """Run the first of these, in which the others run, and innermost the task."""
        if not middlewares:
            self._output = await self._call_task()
            return self._output
        middleware, *inner = middlewares
        if middleware.is_generator:
            await self._enter_manager(middleware, inner)
            return self._output
        was_called = False

        def call_next() -> object:
            nonlocal was_called
            if was_called:
                raise RuntimeError("call_next() was called a second time: a task runs once")
            was_called = True
            begun = self._enter(inner)
            return begun if middleware.is_async else _finish(begun)

        await self._call(middleware, call_next=call_next)
        return self._output

    async def _enter_manager(self, middleware: Hook, inner: list[Hook]) -> None:
        ctx = self._runtime.ctx if "ctx" in middleware.takes else None
        manager = middleware.as_manager(self._payload, {"ctx": ctx, "init": self._init})
        if isinstance(manager, AbstractContextManager):
            with manager:
                await self._enter(inner)
            return
        await self._settle(manager.__aenter__())
        try:
            await self._enter(inner)
        except BaseException as error:
            if not await self._settle(manager.__aexit__(type(error), error, error.__traceback__)):
                raise
        else:
            await self._settle(manager.__aexit__(None, None, None))

    async def _call_task(self) -> object:
        ctx = self._runtime.ctx if self._task.takes_context else None
        value = self._task.call(cast("Never", self._payload), ctx, self._init)
        return await cast("Awaitable[object]", value) if self._task.is_async else value

    async def _fail(self, error: BaseException) -> AttemptFailure:
        """The attempt has failed: what follows, and who is told."""
        if isinstance(error, _BadOutputError):
            told, described, is_fatal = error.reason, describe_bad_output(error.reason), False
        else:
            told, (described, is_fatal) = error, describe_exception(error)
        failure = self._plan.usual(told, described, skip_retrying=is_fatal)
        if is_out_of_memory(described):
            # There may be none left to call anything with.
            return replace(failure, is_spent=isinstance(error, MemoryError))
        hook = next(_hooks("handle_error", self._after), None)
        if hook is not None and not isinstance(error, AbortTaskRunError | TaskPayloadParsedError):
            failure, told = await self._ask(hook, failure, told)
        if failure.next_at is None:
            await self._notify("on_failure", self._after, error=told)
            await self._notify("on_complete", self._after, output=None, error=told)
        return failure

    async def _ask(
        self, hook: Hook, failure: AttemptFailure, error: BaseException
    ) -> tuple[AttemptFailure, BaseException]:
        try:
            answer = await self._call(
                hook, error=error, retry=self._plan.retry, retry_at=failure.next_at
            )
            return self._plan.decide(answer, failure, error)
        except (RunStopped, GeneratorExit):
            raise
        except BadHandlingError as bad:
            return self._plan.broken(bad), error
        except BaseException as raised:  # noqa: BLE001 (whatever the user's hook raises)
            return self._plan.broken(raised), error

    async def _clean_up(self) -> BaseException | None:
        """Call the cleanup hooks, once; the first error in them."""
        if not self._must_clean_up:
            return None
        self._must_clean_up = False
        first: BaseException | None = None
        for hook in _hooks("cleanup", self._after):
            try:
                await self._call(hook)
            except (RunStopped, GeneratorExit):
                raise
            except BaseException as error:  # noqa: BLE001 (whatever the user's hook raises)
                if first is None:
                    first = error
                else:
                    self._log("cleanup", error)
        return first

    async def _end_early(self, stop: RunStopped) -> Stopped:
        """The run was canceled or is over its time; the process is killed if this takes long."""
        try:
            if self._task.is_async:
                # It has arrived: what is awaited from here on is not canceled by it.
                task = asyncio.current_task()
                assert task is not None
                task.uncancel()
            if isinstance(stop, RunCanceled):
                await self._notify("on_cancel", self._after)
            else:
                await self._notify("on_failure", self._after, error=stop)
                await self._notify("on_complete", self._after, output=None, error=stop)
            error = await self._clean_up()
        except RunStopped as again:
            # A run that is over its time is canceled meanwhile.
            return await self._end_early(again)
        if error is not None:
            self._log("cleanup", error)
        return Stopped()

    async def _notify(self, name: HookName, order: tuple[Hooks, Hooks], **values: object) -> None:
        """Call hooks that can't change anything: an error in one is logged."""
        for hook in _hooks(name, order):
            try:
                await self._call(hook, **values)
            except (RunStopped, GeneratorExit):
                raise
            except BaseException as error:  # noqa: BLE001 (as documented, it is ignored)
                self._log(name, error)

    async def _call(self, hook: Hook, **values: object) -> object:
        ctx = self._runtime.ctx if "ctx" in hook.takes else None
        with TracedBlock(f"{hook.name}()", {"$style.icon": "function"}):
            value = hook.call(self._payload, {"ctx": ctx, "init": self._init, **values})
            return await self._settle(value) if inspect.isawaitable(value) else value

    async def _settle(self, awaitable: Awaitable[object]) -> object:
        return await awaitable if _is_in_loop() else self._async_runs.run_aside(awaitable)

    def _raise_stop(self) -> None:
        """One that was asked to stop has not succeeded, and what it raised is not its error."""
        if self._stop.raised is not None:
            raise self._stop.raised

    def _log(self, name: HookName, error: BaseException) -> None:
        message = f"the hook '{name}' raised {type(error).__name__}: {safe_text(error)}"
        self._runtime.emit_line("ERROR", message, {"hook": name, "stack": format_stack(error)})


def run_to_end(coroutine: Coroutine[object, object, Ended]) -> Ended:
    """Run the attempt of a `def` task, which never suspends."""
    return cast("Ended", _finish(coroutine))


class _BadOutputError(Exception):
    """What the task returned has no JSON form."""

    def __init__(self, reason: Exception) -> None:
        super().__init__(reason)
        self.reason = reason


def _hooks(name: HookName, order: tuple[Hooks, Hooks]) -> Iterator[Hook]:
    return (hooks[name] for hooks in order if name in hooks)


def _finish(coroutine: Coroutine[object, object, object]) -> object:
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    coroutine.close()
    raise RuntimeError(
        "something asynchronous can't be waited for here: a blocking function is in the way"
    )


def _is_in_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
