"""Schedules from code to run: servers that tick by themselves, and a worker that runs."""

import asyncio
from pathlib import Path

from runwell.client.api import ApiClient
from runwell.client.schedules import Schedules
from runwell.client.transport import ClientSettings
from tests.support.platform import Platform, open_session, temporary_platform
from tests.support.processes import ServerProcess


def schedules_of(platform: Platform) -> Schedules:
    settings = ClientSettings(base_url=platform.server.url, secret_key=platform.secret_key)
    return Schedules(ApiClient(lambda: settings))


# The tick of an hour comes now: as if the hour were full.
MAKE_DUE = """
UPDATE schedules SET next_tick_at = date_trunc('minute', now()), due_at = now()
WHERE public_id = ANY($1::text[]) RETURNING 1
"""
RUNS = """
SELECT schedule_id, array_agg(id) AS ids FROM runs WHERE schedule_id IS NOT NULL
GROUP BY schedule_id
"""


async def test_declared_and_created_schedules_trigger_runs_that_know_their_time(
    database_url: str,
) -> None:
    with temporary_platform(database_url=database_url) as platform:
        async with open_session(platform) as session:
            schedules = schedules_of(platform)
            (declared,) = [one async for one in schedules.list()]
            assert (declared.task, declared.timezone) == ("scheduled", "Europe/Berlin")
            made = await schedules.create(
                task="scheduled", cron="0 * * * *", deduplication_key="k", external_id="user_1"
            )
            await session.fetch(MAKE_DUE, [declared.id, made.id])
            await session.wait_for_row(
                "both have run",
                "SELECT 1 FROM runs WHERE schedule_id IS NOT NULL "
                "AND execution_status = 'FINISHED' HAVING count(*) = 2",
            )
            found = {row["schedule_id"]: row["ids"][0] for row in await session.fetch(RUNS)}
            run = await session.runs.retrieve(found[made.id])
            assert run.output == {
                "schedule_id": made.id,
                "external_id": "user_1",
                "timezone": "UTC",
                "upcoming": 5,
            }
            run = await session.runs.retrieve(found[declared.id])
            assert run.schedule is not None
            assert run.schedule.id == declared.id
            assert run.output == {
                "schedule_id": declared.id,
                "external_id": None,
                "timezone": "Europe/Berlin",
                "upcoming": 5,
            }


async def test_two_servers_and_a_kill_trigger_each_tick_once(
    tmp_path: Path, database_url: str
) -> None:
    with temporary_platform(database_url=database_url) as platform:
        second = ServerProcess(tmp_path / "second", database_url=database_url, lease_seconds=3)
        try:
            await asyncio.to_thread(second.wait_until_ready)
            async with open_session(platform) as session:
                schedules = schedules_of(platform)
                made = [
                    await schedules.create(
                        task="scheduled", cron="0 * * * *", deduplication_key=f"k{number}"
                    )
                    for number in range(30)
                ]
                ids = [schedule.id for schedule in made]
                # Both have found what is due when one of them dies: its transaction holds rows.
                async with session.hold("SELECT 1 FROM subqueues FOR UPDATE"):
                    await session.fetch(MAKE_DUE, ids)
                    await session.wait_until_blocked()
                    second.kill()
                await session.wait_for_row(
                    "all have run",
                    "SELECT 1 FROM runs WHERE schedule_id IS NOT NULL "
                    "AND execution_status = 'FINISHED' HAVING count(*) = 30",
                )
                runs = {row["schedule_id"]: row["ids"] for row in await session.fetch(RUNS)}
                assert set(runs) == set(ids)
                assert [len(found) for found in runs.values()] == [1] * 30
        finally:
            second.end()
