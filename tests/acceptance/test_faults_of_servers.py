"""Servers and PostgreSQL go away while many runs are on their way: none is lost or doubled."""

import asyncio
import contextlib
import os
import signal
from pathlib import Path

import pytest

from tests.support.platform import open_session, temporary_platform
from tests.support.processes import ServerProcess
from tests.support.waiting import wait_until

pytestmark = pytest.mark.timeout(240)


@pytest.mark.parametrize("way", [signal.SIGTERM, signal.SIGKILL])
async def test_a_server_restarted_while_fifty_runs_execute_loses_none(
    way: signal.Signals, database_url: str
) -> None:
    with temporary_platform("--capacity", "50", database_url=database_url) as platform:
        async with open_session(platform) as session:
            run_ids = await asyncio.gather(*(session.trigger_gated() for _ in range(50)))
            await wait_until(
                lambda: len(session.list_executions()) == 50, "all execute", timeout=60
            )
            if way == signal.SIGKILL:
                platform.server.kill()
            else:
                assert await asyncio.to_thread(platform.server.stop) == 0
            # Half of them end while there is no server.
            session.open_gate()
            await asyncio.to_thread(platform.server.restart)
            statuses = await session.wait_until_all_finished(run_ids)
            assert set(statuses.values()) == {"COMPLETED"}
            await session.check_settled(run_ids)
            # The worker held them all the while: none was begun twice.
            assert len(session.list_executions()) == 50


async def test_everything_killed_at_once_loses_nothing_that_was_answered() -> None:
    with temporary_platform() as platform:
        async with open_session(platform) as session:
            session.open_gate()
            run_ids = await asyncio.gather(*(session.trigger_gated() for _ in range(40)))
            await wait_until(lambda: len(session.list_executions()) > 5, "some have begun")
            platform.worker.kill()
            platform.server.kill()
            with contextlib.suppress(OSError, IndexError):
                # It is going already, as its owner has gone.
                os.kill(platform.postmaster_pid, signal.SIGKILL)
            await asyncio.to_thread(platform.mend)
            statuses = await session.wait_until_all_finished(run_ids)
            assert set(statuses.values()) == {"COMPLETED"}
            await session.check_settled(run_ids)


async def test_triggers_that_fall_into_a_restart_make_one_run_each() -> None:
    with temporary_platform() as platform:
        async with open_session(platform) as session:
            run_ids: list[str] = []

            async def trigger_some() -> None:
                while len(run_ids) < 100:
                    run_id = await session.trigger("add", {"a": 1, "b": 2})
                    run_ids.append(run_id)

            async with asyncio.TaskGroup() as callers:
                for _ in range(4):
                    callers.create_task(trigger_some())
                for count in (10, 50):
                    await wait_until(
                        lambda count=count: len(run_ids) >= count, f"{count} were triggered"
                    )
                    platform.server.kill()
                    await asyncio.to_thread(platform.server.restart)
            assert len(set(run_ids)) == len(run_ids) >= 100
            statuses = await session.wait_until_all_finished(run_ids)
            assert set(statuses.values()) == {"COMPLETED"}
            await session.check_settled(run_ids)
            # A trigger whose answer was lost was sent again, and is still one run.
            (counted,) = await session.fetch("SELECT count(*) FROM runs")
            assert counted["count"] == len(run_ids)


async def test_a_delay_that_ends_while_there_is_no_server_ends_with_the_next_one() -> None:
    with temporary_platform() as platform:
        async with open_session(platform) as session:
            run_id = await session.trigger("add", {"a": 1, "b": 2}, delay="1s")
            platform.server.kill()
            due = asyncio.create_task(asyncio.sleep(1))
            await due
            await asyncio.to_thread(platform.server.restart)
            statuses = await session.wait_until_all_finished([run_id])
            assert statuses[run_id] == "COMPLETED"
            await session.check_settled([run_id])


async def test_two_servers_on_one_database_share_the_work(
    database_url: str, tmp_path: Path
) -> None:
    with temporary_platform("--capacity", "4", database_url=database_url) as platform:
        second = ServerProcess(tmp_path / "second", database_url=database_url, lease_seconds=3)
        try:
            await asyncio.to_thread(second.wait_until_ready)
            assert second.secret_key == platform.secret_key
            other = platform.start_worker("other", url=second.url)
            try:
                async with open_session(platform) as session:
                    # Eight are more than one worker takes: each server hands out some.
                    run_ids = [await session.trigger_gated() for _ in range(8)]
                    await wait_until(
                        lambda: len(session.list_executions()) == 8, "all execute", timeout=60
                    )
                    by_parent = {one.parent_pid for one in session.list_executions()}
                    assert len(by_parent) == 2
                    # What was given out by the one that dies is finished through the other, or
                    # by the one that comes back: here it does not.
                    platform.server.kill()
                    session.open_gate()
                    await session.wait_until_all_finished(run_ids)
                    await session.check_settled(run_ids)
            finally:
                await asyncio.to_thread(other.end)
        finally:
            await asyncio.to_thread(second.end)
