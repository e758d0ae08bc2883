"""Whether all that a run's event loop does is wait for waits: then the run is blocked.

A run that waits gives its slots back, so it must do nothing else meanwhile. Every unfinished task
of the loop is looked at: one that awaits a wait is idle, and so is one that only gathers others. A
task that awaits anything else (a socket, a sleep, a lock), or a timer, may wake up by itself: the
run counts as executing then, and keeps its slots.
"""

import asyncio
from collections.abc import Collection
from types import CodeType
from typing import Any

from runwell.worker.wait_future import WaitFuture

# Functions of asyncio in which a task stands only to wait for other tasks, which are looked at too.
_GATHERING: frozenset[CodeType] = frozenset(
    function.__code__
    for function in (
        getattr(asyncio.tasks, "_wait", None),
        getattr(asyncio.tasks, "_wait_for_one", None),
        asyncio.wait_for,
        asyncio.TaskGroup.__aexit__,
        getattr(asyncio.TaskGroup, "_aexit", None),
    )
    if function is not None
)


def is_idle(loop: asyncio.AbstractEventLoop, own_timers: Collection[asyncio.TimerHandle]) -> bool:
    """Whether only the end of a wait can make this loop do anything, `own_timers` apart."""
    if any(
        not timer.cancelled() and timer not in own_timers
        for timer in getattr(loop, "_scheduled", ())
    ):
        return False
    tasks = asyncio.all_tasks(loop)
    return bool(tasks) and all(_is_idle_task(task) for task in tasks)


def _is_idle_task(task: "asyncio.Task[Any]") -> bool:
    awaited = getattr(task, "_fut_waiter", None)
    if awaited is None:
        # It is about to take a step.
        return False
    if isinstance(awaited, (WaitFuture, asyncio.Task)):
        return True
    children = getattr(awaited, "_children", None)
    if children is not None:
        # What `gather` awaits for several others.
        return all(isinstance(child, (WaitFuture, asyncio.Task)) for child in children)
    return _innermost_code(task.get_coro()) in _GATHERING


def _innermost_code(coroutine: object) -> CodeType | None:
    while (inner := getattr(coroutine, "cr_await", None)) is not None and hasattr(inner, "cr_code"):
        coroutine = inner
    return getattr(coroutine, "cr_code", None)
