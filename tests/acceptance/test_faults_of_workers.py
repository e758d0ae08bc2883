"""Workers die, hang and come back: their runs go on, and end once."""

import asyncio
import os
import signal
import time

import pytest

from tests.support.platform import FINISH_SECONDS, Victim, open_session, temporary_platform
from tests.support.waiting import wait_until

pytestmark = pytest.mark.timeout(240)


async def test_a_dead_workers_runs_go_on_elsewhere_within_30_seconds() -> None:
    # With the lease that users have.
    with temporary_platform(lease_seconds=None) as platform:
        async with open_session(platform) as session:
            run_ids = [await session.trigger_gated() for _ in range(3)]
            for run_id in run_ids:
                await session.wait_for_status(run_id, "EXECUTING")
            other = platform.start_worker("other")
            try:
                platform.worker.kill()
                died_at = time.monotonic()
                await wait_until(
                    lambda: len(session.list_executions()) == 6,
                    "all execute again",
                    timeout=FINISH_SECONDS,
                )
                assert time.monotonic() - died_at < FINISH_SECONDS
                session.open_gate()
                await session.wait_until_all_finished(run_ids)
                await session.check_settled(run_ids)
            finally:
                await asyncio.to_thread(other.end)


async def test_a_worker_that_was_only_slow_is_told_that_its_runs_are_lost() -> None:
    with temporary_platform(lease_seconds=1) as platform:
        async with open_session(platform) as session:
            run_id = await session.trigger_gated()
            first = await session.wait_for_execution(run_id)
            await session.wait_for_status(run_id, "EXECUTING")
            other = platform.start_worker("other")
            try:
                os.kill(platform.worker.pid, signal.SIGSTOP)
                await wait_until(
                    lambda: len(session.list_executions(run_id)) == 2,
                    "it executes elsewhere",
                    timeout=FINISH_SECONDS,
                )
                os.kill(platform.worker.pid, signal.SIGCONT)
                # The one that came back ends its execution: its result would be refused.
                await wait_until(lambda: not _is_there(first.pid), "the first execution has ended")
                session.open_gate()
                statuses = await session.wait_until_all_finished([run_id])
                assert statuses[run_id] == "COMPLETED"
                await session.check_settled([run_id])
            finally:
                await asyncio.to_thread(other.end)


@pytest.mark.parametrize("victim", ["task_process", "warm_parent", "supervisor"])
async def test_the_same_holds_where_each_run_gets_a_fresh_interpreter(victim: Victim) -> None:
    with temporary_platform("--mode", "spawn") as platform:
        async with open_session(platform) as session:
            run_id = await session.trigger_gated()
            await session.wait_for_status(run_id, "EXECUTING")
            await session.wait_for_execution(run_id)
            session.kill(victim)
            platform.mend()
            session.open_gate()
            statuses = await session.wait_until_all_finished([run_id])
            assert statuses[run_id] == "COMPLETED"
            await session.check_settled([run_id])


async def test_a_run_with_one_attempt_ends_once_when_its_worker_dies() -> None:
    with temporary_platform() as platform:
        async with open_session(platform) as session:
            run_id = await session.trigger_gated("wait-for-file-once")
            await session.wait_for_status(run_id, "EXECUTING")
            platform.worker.kill()
            platform.worker.start_again()
            statuses = await session.wait_until_all_finished([run_id])
            # In a development environment; elsewhere it would have crashed.
            assert statuses[run_id] == "INTERRUPTED"
            await session.check_settled([run_id])
            assert len(session.list_executions(run_id)) == 1


async def test_results_that_the_server_could_not_take_outlive_their_supervisor() -> None:
    with temporary_platform() as platform:
        async with open_session(platform) as session:
            run_ids = [await session.trigger_gated() for _ in range(5)]
            for run_id in run_ids:
                await session.wait_for_status(run_id, "EXECUTING")
            platform.server.kill()
            session.open_gate()
            await wait_until(
                lambda: platform.worker.log.count("COMPLETED") == 5, "the worker has all results"
            )
            platform.worker.kill()
            await asyncio.to_thread(platform.mend)
            statuses = await session.wait_until_all_finished(run_ids)
            assert set(statuses.values()) == {"COMPLETED"}
            await session.check_settled(run_ids)
            assert len(session.list_executions()) == 5, "what had a result was executed again"


async def test_a_run_canceled_while_its_worker_hangs_and_dies_is_canceled() -> None:
    with temporary_platform() as platform:
        async with open_session(platform) as session:
            run_id = await session.trigger_gated()
            await session.wait_for_status(run_id, "EXECUTING")
            os.kill(platform.worker.pid, signal.SIGSTOP)
            await session.runs.cancel(run_id)
            platform.worker.kill()
            platform.worker.start_again()
            statuses = await session.wait_until_all_finished([run_id])
            assert statuses[run_id] == "CANCELED"
            await session.check_settled([run_id])


async def test_a_worker_that_is_stopped_hands_back_what_does_not_finish() -> None:
    with temporary_platform() as platform:
        other = platform.start_worker("other", options=("--grace", "0"))
        try:
            async with open_session(platform) as session:
                # More than one worker holds.
                run_ids = [await session.trigger_gated() for _ in range(12)]
                await wait_until(lambda: len(session.list_executions()) == 12, "all execute")
                assert await asyncio.to_thread(other.stop) == 0
                session.open_gate()
                statuses = await session.wait_until_all_finished(run_ids)
                assert set(statuses.values()) == {"COMPLETED"}
                await session.check_settled(run_ids)
        finally:
            await asyncio.to_thread(other.end)


def _is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
