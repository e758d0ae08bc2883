"""Waiting for what other processes do and nobody announces to us."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar, cast

T = TypeVar("T")

_POLL_SECONDS = 0.01


async def wait_until(
    predicate: Callable[[], T | Awaitable[T]],
    what: str,
    timeout: float = 40,  # noqa: ASYNC109 - it ends in an AssertionError that says what was awaited
) -> T:
    """Ask until the answer is truthy and return it; fails with `what` after `timeout` seconds.

    The predicate may be a coroutine function. An error that it raises ends the waiting.
    """
    deadline = time.monotonic() + timeout
    while True:
        answer = predicate()
        value = cast("T", await answer if inspect.isawaitable(answer) else answer)
        if value:
            return value
        _check(deadline, what, timeout, value)
        await asyncio.sleep(_POLL_SECONDS)


def wait_until_sync(predicate: Callable[[], T], what: str, timeout: float = 40) -> T:
    """The blocking twin of `wait_until`."""
    deadline = time.monotonic() + timeout
    while True:
        value = predicate()
        if value:
            return value
        _check(deadline, what, timeout, value)
        time.sleep(_POLL_SECONDS)


def _check(deadline: float, what: str, timeout: float, value: object) -> None:
    assert time.monotonic() < deadline, (
        f"not within {timeout:g} seconds: {what} (last answer: {value!r})"
    )
