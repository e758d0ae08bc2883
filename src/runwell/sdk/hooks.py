"""Hooks: functions of the user that are called around the attempts of a run.

A task has them by its decorators (`@hello.on_start`), a project by the arguments of
`define_config`. This module is about declaring and reading them; `worker/hooks.py` calls them.
Sources: docs `tasks/overview.md`, `errors-retrying.md`.
"""

import inspect
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
    contextmanager,
)
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal, Protocol, TypedDict, TypeVar, cast, get_args

from runwell.client.options import Retry
from runwell.core.timing import Duration

HookName = Literal[
    "init",
    "cleanup",
    "middleware",
    "on_start",
    "on_success",
    "on_failure",
    "on_complete",
    "on_cancel",
    "on_wait",
    "on_resume",
    "handle_error",
]
WaitHookName = Literal["on_wait", "on_resume"]
HookFunction = Callable[..., object]
_FunctionT = TypeVar("_FunctionT", bound=HookFunction)

# What a hook gets by name, if it declares it, besides the payload.
_OFFERED: Final[dict[HookName, tuple[str, ...]]] = {
    "init": ("ctx",),
    "cleanup": ("ctx", "init"),
    "middleware": ("ctx", "init", "call_next"),
    "on_start": ("ctx",),
    "on_success": ("output", "ctx", "init"),
    "on_failure": ("error", "ctx", "init"),
    "on_complete": ("output", "error", "ctx", "init"),
    "on_cancel": ("ctx", "init"),
    "on_wait": ("wait", "ctx", "init"),
    "on_resume": ("wait", "ctx", "init"),
    "handle_error": ("error", "ctx", "init", "retry", "retry_at"),
}
# Values that a payload is easily mistaken for: whoever declares one means it.
_RESERVED: Final = frozenset(name for names in _OFFERED.values() for name in names)
_NAMED: Final = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


class HookOptions(TypedDict, total=False):
    """The hooks that `define_config` takes: they are called for every task of the project."""

    init: HookFunction
    cleanup: HookFunction
    middleware: HookFunction
    on_start: HookFunction
    on_success: HookFunction
    on_failure: HookFunction
    on_complete: HookFunction
    on_cancel: HookFunction
    on_wait: HookFunction
    on_resume: HookFunction
    handle_error: HookFunction


class ErrorHandling(TypedDict, total=False):
    """What a `handle_error` hook may return to change what follows an error.

    `skip_retrying` ends the run; `retry_at` (an aware datetime) or `retry_delay` (a duration) has
    another attempt start then, also after the last one; `retry` decides by other options; `error`
    is reported instead.

    Example:
        >>> from runwell import ErrorHandling, task
        >>> @task(id="call-api")
        ... async def call_api(url: str) -> None: ...
        >>> @call_api.handle_error
        ... def on_error(url: str, error: BaseException) -> ErrorHandling | None:
        ...     return {"retry_delay": "1m"} if isinstance(error, TimeoutError) else None
    """

    skip_retrying: bool
    retry_at: datetime
    retry_delay: Duration
    retry: Retry
    error: BaseException


@dataclass(frozen=True, kw_only=True, slots=True)
class Hook:
    """A hook: the user's function, and which values it takes."""

    name: HookName
    function: HookFunction
    payload: inspect.Parameter | None
    takes: tuple[str, ...]

    @property
    def is_async(self) -> bool:
        """Whether it is an `async def`."""
        return inspect.iscoroutinefunction(self.function)

    @property
    def is_generator(self) -> bool:
        """Whether it yields where the task runs."""
        return _is_generator(self.function)

    def as_manager(
        self, payload: object, values: Mapping[str, object]
    ) -> AbstractContextManager[object] | AbstractAsyncContextManager[object]:
        """A middleware that yields, as what stands around the task."""
        if inspect.isasyncgenfunction(self.function):
            make = cast("Callable[..., AsyncGenerator[object]]", self.call)
            return asynccontextmanager(make)(payload, values)
        return contextmanager(cast("Callable[..., Generator[object]]", self.call))(payload, values)

    def call(self, payload: object, values: Mapping[str, object]) -> object:
        """Call it with those of the values that it declares; a coroutine for an `async def`."""
        named = {name: values[name] for name in self.takes}
        if self.payload is None:
            return self.function(**named)
        if self.payload.kind is inspect.Parameter.KEYWORD_ONLY:
            return self.function(**{self.payload.name: payload}, **named)
        return self.function(payload, **named)


Hooks = Mapping[HookName, Hook]


class WaitHooks(Protocol):
    """Calls the hooks `on_wait` and `on_resume`, for whoever waits."""

    async def notify_wait(self, name: WaitHookName, wait: object) -> None:
        """Call them; `wait` is what they get under this name. Raises only RunStopped."""
        ...

    def notify_wait_blocking(self, name: WaitHookName, wait: object) -> None:
        """The same for code that is not in a coroutine."""
        ...


class HookDecorators:
    """The decorators of a task by which it gets its hooks, one of each kind."""

    def __init__(self, owner: str) -> None:
        self.owner = owner
        self.hooks: dict[HookName, Hook] = {}

    def init(self, function: _FunctionT, /) -> _FunctionT:
        """Call it before each attempt; what it returns is `init` for the task and other hooks.

        May take the payload and `ctx`. An error in it is logged, and `init` is None then.
        """
        return self._add("init", function)

    def cleanup(self, function: _FunctionT, /) -> _FunctionT:
        """Call it at the end of each attempt, however that ended.

        May take the payload, `ctx` and `init`. An error in it fails the attempt.
        """
        return self._add("cleanup", function)

    def middleware(self, function: _FunctionT, /) -> _FunctionT:
        """Put it around the task's function, which runs where it yields, or calls `call_next()`.

        With a `yield`, once, it reads like a `contextlib.contextmanager`, and what the task raises
        is raised there. Otherwise it takes `call_next`, which returns the output; write
        `await call_next()` in an `async def`. It may take the payload, `ctx` and `init`. An error
        in it is one of the task. What it keeps in `locals` is there for the task.
        """
        return self._add("middleware", function)

    def on_start(self, function: _FunctionT, /) -> _FunctionT:
        """Call it once in a run, before the first attempt.

        May take the payload and `ctx`. An error in it is logged.
        """
        return self._add("on_start", function)

    def on_success(self, function: _FunctionT, /) -> _FunctionT:
        """Call it when the task has returned.

        May take the payload, `output`, `ctx` and `init`. An error in it is logged.
        """
        return self._add("on_success", function)

    def on_failure(self, function: _FunctionT, /) -> _FunctionT:
        """Call it when the last attempt has failed.

        May take the payload, `error`, `ctx` and `init`. An error in it is logged. It is not called
        when the process is gone (crashed, out of memory), nor for a canceled run.
        """
        return self._add("on_failure", function)

    def on_complete(self, function: _FunctionT, /) -> _FunctionT:
        """Call it after `on_success` or `on_failure`: `error` is None when the task succeeded.

        May take the payload, `output`, `error`, `ctx` and `init`. An error in it is logged.
        """
        return self._add("on_complete", function)

    def on_cancel(self, function: _FunctionT, /) -> _FunctionT:
        """Call it when the run was canceled while it executes, within its grace period.

        May take the payload, `ctx` and `init`. An error in it is logged.
        """
        return self._add("on_cancel", function)

    def on_wait(self, function: _FunctionT, /) -> _FunctionT:
        """Call it before the task waits: for time, for runs, for a token.

        May take the payload, `wait`, `ctx` and `init`. An error in it is logged.
        """
        return self._add("on_wait", function)

    def on_resume(self, function: _FunctionT, /) -> _FunctionT:
        """Call it when a wait is over.

        May take the payload, `wait`, `ctx` and `init`. An error in it is logged.
        """
        return self._add("on_resume", function)

    def handle_error(self, function: _FunctionT, /) -> _FunctionT:
        """Call it when an attempt failed, to decide what follows: see `ErrorHandling`.

        May take the payload, `error`, `ctx`, `init`, `retry` (the options that hold) and `retry_at`
        (when the next attempt would start; None for never). It returns an `ErrorHandling` or None.
        """
        return self._add("handle_error", function)

    def _add(self, name: HookName, function: _FunctionT) -> _FunctionT:
        if name in self.hooks:
            raise ValueError(f"{self.owner} has a hook '{name}' already: put both into one")
        self.hooks[name] = read_hook(name, function, self.owner)
        return function


def read_hooks(options: Mapping[str, object], owner: str) -> dict[HookName, Hook]:
    """Read the hooks among the arguments of `define_config`; None stands for none."""
    hooks: dict[HookName, Hook] = {}
    for name, function in options.items():
        if name not in get_args(HookName):
            raise TypeError(f"{owner} has no option '{name}'")
        if function is not None:
            known = cast("HookName", name)
            hooks[known] = read_hook(known, function, owner)
    return hooks


def read_hook(name: HookName, function: object, owner: str) -> Hook:
    """Check that a function can be this hook; raises TypeError that says what it may take."""
    where = f"{owner}: the hook '{name}'"
    if not callable(function) or inspect.isclass(function):
        raise TypeError(f"{where} is {function!r}: it takes a function")
    is_generator = _is_generator(function)
    if is_generator and name != "middleware":
        raise TypeError(f"{where} is a generator: write a function that returns")
    parameters = dict(inspect.signature(function).parameters)
    offered = _OFFERED[name]
    takes = tuple(given for given in offered if given in parameters)
    for given in takes:
        if parameters.pop(given).kind not in _NAMED:
            raise TypeError(f"{where}: its parameter '{given}' is given by name")
    allowed = f"it may take the payload, and by their names {', '.join(offered)}"
    for parameter in parameters.values():
        if parameter.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD):
            raise TypeError(f"{where} takes *{parameter.name}: {allowed}")
        if parameter.name in _RESERVED:
            raise TypeError(f"{where} takes '{parameter.name}', which it is not given: {allowed}")
    if len(parameters) > 1:
        names = ", ".join(f"'{one}'" for one in parameters)
        raise TypeError(f"{where} takes {names}: {allowed}")
    if name == "middleware" and is_generator is ("call_next" in takes):
        raise TypeError(
            f"{where} yields where the task runs, and so takes no 'call_next'"
            if is_generator
            else f"{where} must take 'call_next', by which it runs the task, or yield once"
        )
    payload = next(iter(parameters.values()), None)
    return Hook(name=name, function=function, payload=payload, takes=takes)


def check_middleware(task: HookDecorators, of_project: Hooks, *, is_async: bool) -> None:
    """Refuse a blocking middleware around an `async def` task; raises TypeError."""
    for hooks in (task.hooks, of_project):
        middleware = hooks.get("middleware")
        if is_async and middleware is not None and not _fits_async(middleware):
            raise TypeError(
                f"{task.owner} is an `async def`, and the middleware around it a `def`: "
                "make the middleware an `async def` that writes `await call_next()`, or one that "
                "yields"
            )


def _fits_async(middleware: Hook) -> bool:
    return middleware.is_async or middleware.is_generator


def _is_generator(function: object) -> bool:
    return inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)
