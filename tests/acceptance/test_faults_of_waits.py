"""Whatever is killed while a run waits for another one: both end, once, and nothing stays open."""

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


async def _find_child(session: Session, parent_id: str) -> str:
    row = await session.wait_for_row(
        f"{parent_id} has a child", "SELECT id FROM runs WHERE parent_run_id = $1", parent_id
    )
    return str(row["id"])


async def _wait_until_waiting(session: Session) -> tuple[str, str]:
    parent_id = await session.trigger_gated("wait-for-gated")
    child_id = await _find_child(session, parent_id)
    await session.wait_for_execution(child_id)
    await session.wait_for_status(parent_id, "FROZEN")
    return parent_id, child_id


@contextlib.asynccontextmanager
async def _while_beginning(session: Session) -> AsyncGenerator[str]:
    """The transaction that writes the wait has begun."""
    async with session.hold("LOCK TABLE run_waits IN SHARE MODE"):
        parent_id = await session.trigger_gated("wait-for-gated")
        await _find_child(session, parent_id)
        await session.wait_until_blocked()
        yield parent_id


@contextlib.asynccontextmanager
async def _while_waiting(session: Session) -> AsyncGenerator[str]:
    """The parent is blocked, and the child is in the middle of its code."""
    parent_id, _ = await _wait_until_waiting(session)
    yield parent_id


@contextlib.asynccontextmanager
async def _while_the_child_completes(session: Session) -> AsyncGenerator[str]:
    """The transaction that ends the child, and completes its waitpoint, has begun."""
    parent_id, child_id = await _wait_until_waiting(session)
    async with session.hold("SELECT FROM runs WHERE id = $1 FOR UPDATE", child_id):
        session.open_gate()
        await session.wait_until_blocked()
        yield parent_id


@contextlib.asynccontextmanager
async def _while_continuing(session: Session) -> AsyncGenerator[str]:
    """The child has ended, and the transaction that lets the parent go on has begun."""
    parent_id, child_id = await _wait_until_waiting(session)
    async with session.hold("SELECT FROM runs WHERE id = $1 FOR UPDATE", parent_id):
        session.open_gate()
        await session.wait_for_status(child_id, "COMPLETED")
        await session.wait_until_blocked()
        yield parent_id


@contextlib.asynccontextmanager
async def _while_acknowledging(session: Session) -> AsyncGenerator[str]:
    """The parent has the result, and what the server is told of that isn't written yet."""
    parent_id, _ = await _wait_until_waiting(session)
    async with session.hold("SELECT FROM run_waits WHERE run_id = $1 FOR UPDATE", parent_id):
        session.open_gate()
        await session.wait_until_blocked()
        yield parent_id


Moment = Callable[[Session], AbstractAsyncContextManager[str]]
_MOMENTS: dict[str, Moment] = {
    "beginning": _while_beginning,
    "waiting": _while_waiting,
    "child completing": _while_the_child_completes,
    "continuing": _while_continuing,
    "acknowledging": _while_acknowledging,
}


@pytest.mark.parametrize("moment", _MOMENTS)
@pytest.mark.parametrize("victim", VICTIMS)
async def test_a_run_that_waits_survives_the_end_of_anything_at_any_time(
    platform: Platform, victim: Victim, moment: str
) -> None:
    async with open_session(platform) as session:
        async with _MOMENTS[moment](session) as parent_id:
            session.kill(victim)
        platform.mend()
        session.open_gate()
        child_id = await _find_child(session, parent_id)
        statuses = await session.wait_until_all_finished([parent_id, child_id])
        await session.check_settled([parent_id, child_id])
        await session.wait_for_row(
            "nothing is waited for any more",
            """
            SELECT 1 WHERE NOT EXISTS (SELECT FROM run_waits)
                AND NOT EXISTS (SELECT FROM run_wakes) AND NOT EXISTS (SELECT FROM resuming_runs)
                AND NOT EXISTS (SELECT FROM waitpoints WHERE status = 'PENDING')
            """,
        )
        # The key of the child holds through the attempts of its parent.
        assert len(await session.fetch("SELECT FROM runs WHERE parent_run_id = $1", parent_id)) == 1
    assert set(statuses.values()) == {"COMPLETED"}
