"""The driver: to asyncio it is the user's coroutine, but for the signals that stop a run."""

import asyncio
import contextlib
import types
from collections.abc import Coroutine, Generator

import pytest

from runwell.core.errors import RunCanceled, RunTimedOut
from runwell.worker.driver import AsyncRunCanceled, AsyncRunTimedOut, Driver


@types.coroutine
def _leaf(value: object) -> Generator[object, object, object]:
    return (yield value)


async def _in_task(
    coroutine: Coroutine[object, object, object],
) -> tuple[asyncio.Task[object], Driver]:
    """A task around the driver of a coroutine, which has run up to its first wait."""
    driver = Driver(coroutine)
    task = asyncio.get_running_loop().create_task(driver)
    await asyncio.sleep(0)
    return task, driver


def test_what_is_awaited_is_passed_on_and_what_comes_back_passed_in() -> None:
    async def doubles() -> object:
        return (await _leaf("asked"), await _leaf("asked again"))

    driver = Driver(doubles())
    assert driver.send(None) == "asked"
    assert driver.send(1) == "asked again"
    with pytest.raises(StopIteration) as ended:
        driver.send(2)
    assert ended.value.value == (1, 2)


def test_an_error_is_raised_where_the_user_awaits_in_each_form_that_throw_has() -> None:
    async def catches() -> object:
        caught: list[str] = []
        for _ in range(3):
            try:
                await _leaf(None)
            except ValueError as error:
                caught.append(str(error))
        return caught

    driver = Driver(catches())
    driver.send(None)
    driver.throw(ValueError("an instance"))
    driver.throw(ValueError, ValueError("a type and an instance"))
    with pytest.raises(StopIteration) as ended:
        driver.throw(ValueError)
    assert ended.value.value == ["an instance", "a type and an instance", ""]


async def test_a_task_around_it_returns_raises_and_is_the_current_one() -> None:
    async def returns() -> object:
        await asyncio.sleep(0)
        return asyncio.current_task()

    async def fails() -> object:
        async with asyncio.timeout(0):
            await asyncio.Event().wait()

    task = asyncio.get_running_loop().create_task(Driver(returns()))
    assert await task is task
    with pytest.raises(TimeoutError):
        await Driver(fails())


@pytest.mark.parametrize(
    ("stop", "kind"),
    [(RunCanceled("stop"), AsyncRunCanceled), (RunTimedOut("late"), AsyncRunTimedOut)],
)
async def test_the_cancellation_that_stops_a_run_says_why_and_cleans_up(
    stop: RunCanceled | RunTimedOut, kind: type[BaseException]
) -> None:
    caught: list[BaseException] = []

    async def works() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError as error:
            caught.append(error)
            await asyncio.sleep(0)
            raise

    task, driver = await _in_task(works())
    driver.stop_with(stop)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [(type(error), error.args) for error in caught] == [(kind, stop.args)]
    assert isinstance(caught[0], type(stop))


async def test_only_the_next_cancellation_is_the_signal() -> None:
    seen: list[type[BaseException]] = []

    async def stubborn() -> None:
        for _ in range(2):
            with contextlib.suppress(asyncio.CancelledError):
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError as error:
                    seen.append(type(error))
                    raise

    task, driver = await _in_task(stubborn())
    driver.stop_with(RunCanceled("stop"))
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()
    await task
    assert seen == [AsyncRunCanceled, asyncio.CancelledError]


async def test_a_cancellation_that_the_user_asked_for_stays_what_it_is() -> None:
    async def cancels_a_part() -> str:
        part = asyncio.ensure_future(asyncio.Event().wait())
        await asyncio.sleep(0)
        part.cancel()
        try:
            await part
        except asyncio.CancelledError as error:
            return type(error).__name__
        return "nothing"

    assert await Driver(cancels_a_part()) == "CancelledError"


def test_debuggers_see_the_users_coroutine() -> None:
    async def waits() -> None:
        await _leaf(None)

    coroutine = waits()
    driver = Driver(coroutine)
    assert (driver.cr_code, driver.cr_frame) == (coroutine.cr_code, coroutine.cr_frame)
    assert not driver.cr_suspended
    driver.send(None)
    assert driver.cr_suspended
    assert driver.cr_await is coroutine.cr_await is not None
    assert not driver.cr_running
    driver.close()
    assert driver.cr_frame is None
    with pytest.raises(RuntimeError, match="cannot reuse"):
        driver.send(None)
