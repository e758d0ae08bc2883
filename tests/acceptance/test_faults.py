"""Whatever is killed, and whenever: every run ends, once, and nothing stays counted.

Moments are held still by locks in the database, so that each kill comes exactly then.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager

import pytest

from tests.support.platform import (
    VICTIMS,
    Platform,
    Session,
    Victim,
    open_session,
)

pytestmark = pytest.mark.timeout(180)


class _Held:
    """A run that is held at one moment; `run_id` is known once its trigger was answered."""

    def __init__(self, triggering: "asyncio.Task[str]") -> None:
        self.triggering = triggering

    async def run_id(self) -> str:
        return await self.triggering


@contextlib.asynccontextmanager
async def _while_triggered(session: Session) -> AsyncGenerator[_Held]:
    """Within the transaction that creates the run."""
    async with session.hold("LOCK TABLE runs IN SHARE MODE"):
        triggering = asyncio.create_task(session.trigger_gated())
        await session.wait_until_blocked()
        yield _Held(triggering)


@contextlib.asynccontextmanager
async def _while_queued(session: Session) -> AsyncGenerator[_Held]:
    """In the queue, with a worker's dequeue waiting for it."""
    async with session.hold("SELECT FROM environment_concurrency FOR UPDATE"):
        run_id = await session.trigger_gated()
        await session.wait_until_blocked()
        yield _held(run_id)


@contextlib.asynccontextmanager
async def _while_dequeued(session: Session) -> AsyncGenerator[_Held]:
    """In the worker's hands, whose word that the attempt starts isn't written yet."""
    async with session.hold("LOCK TABLE run_attempts IN SHARE MODE"):
        run_id = await session.trigger_gated()
        await session.wait_for_status(run_id, "DEQUEUED")
        await session.wait_for_execution(run_id)
        yield _held(run_id)


@contextlib.asynccontextmanager
async def _while_executing(session: Session) -> AsyncGenerator[_Held]:
    """In the middle of the task's code."""
    run_id = await session.trigger_gated()
    await session.wait_for_status(run_id, "EXECUTING")
    await session.wait_for_execution(run_id)
    yield _held(run_id)


@contextlib.asynccontextmanager
async def _while_completing(session: Session) -> AsyncGenerator[_Held]:
    """The task has returned, and the transaction that writes its result has begun."""
    run_id = await session.trigger_gated()
    await session.wait_for_status(run_id, "EXECUTING")
    async with session.hold("SELECT FROM runs WHERE id = $1 FOR UPDATE", run_id):
        session.open_gate()
        await session.wait_until_blocked()
        yield _held(run_id)


def _held(run_id: str) -> _Held:
    async def answer() -> str:
        return run_id

    return _Held(asyncio.create_task(answer()))


Moment = Callable[[Session], AbstractAsyncContextManager[_Held]]
_MOMENTS: dict[str, Moment] = {
    "trigger": _while_triggered,
    "queued": _while_queued,
    "dequeued": _while_dequeued,
    "executing": _while_executing,
    "completing": _while_completing,
}


@pytest.mark.parametrize("moment", _MOMENTS)
@pytest.mark.parametrize("victim", VICTIMS)
async def test_a_run_survives_the_end_of_anything_at_any_time(
    platform: Platform, victim: Victim, moment: str
) -> None:
    async with open_session(platform) as session:
        async with _MOMENTS[moment](session) as held:
            session.kill(victim)
        platform.mend()
        session.open_gate()
        run_id = await held.run_id()
        statuses = await session.wait_until_all_finished([run_id])
        await session.check_settled([run_id])
    assert statuses[run_id] == "COMPLETED"
