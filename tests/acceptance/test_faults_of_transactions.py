"""An application or a server dies around a commit: each committed trigger has one run."""

import asyncio
import signal
import subprocess
import sys

import psycopg
import pytest

from runwell.client.management import BlockingTasks
from runwell.core.failpoints import FAIL, KILL, LOSE
from tests.support.platform import Platform, open_session, temporary_platform
from tests.support.waiting import wait_until

pytestmark = pytest.mark.timeout(120)

#: Triggers, and is killed as the first argument says.
APPLICATION = """
import os, signal, sys
import psycopg
from runwell.sync import tasks

moment, dsn, payload = sys.argv[1:]
with psycopg.connect(dsn) as connection:
    with tasks.in_transaction(connection):
        print(tasks.trigger("chaos-child", int(payload)).id, flush=True)
    if moment == "after":
        connection.commit()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def run_application(platform: Platform, dsn: str, moment: str, payload: int) -> str:
    """Run it to its end; returns the id that the handle of its trigger had."""
    ended = subprocess.run(
        [sys.executable, "-c", APPLICATION, moment, dsn, str(payload)],
        env={
            "TRIGGER_SECRET_KEY": platform.secret_key,
            "TRIGGER_API_URL": platform.server.url,
        },
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        timeout=60,
    )
    assert ended.returncode == -signal.SIGKILL
    return ended.stdout.strip()


async def test_each_committed_trigger_has_one_run_whoever_dies(database_url: str) -> None:
    with temporary_platform(database_url=database_url) as platform:
        async with open_session(platform) as session:
            lost = await asyncio.to_thread(run_application, platform, database_url, "before", 1)
            kept = await asyncio.to_thread(run_application, platform, database_url, "after", 2)
            ids = [kept]
            for point, action in [
                ("pending_triggers.commit", KILL),
                ("pending_triggers.committed", KILL),
                ("pending_triggers.commit", LOSE),
                ("pending_triggers.commit", FAIL),
            ]:
                platform.arm(point, action)
                with psycopg.connect(database_url) as connection:
                    tasks = BlockingTasks(session.client)
                    with tasks.in_transaction(connection):
                        ids.append(tasks.trigger("chaos-child", 3).id)
                await wait_until(lambda point=point: platform.is_hit(point), f"{point} is hit")
                if action == KILL:
                    await wait_until(
                        lambda point=point: platform.has_lost_a_process(point), "the server died"
                    )
                    await asyncio.to_thread(platform.mend)
                await session.wait_until_all_finished([ids[-1]])
                platform.disarm()
            statuses = await session.wait_until_all_finished(ids)
            assert set(statuses.values()) == {"COMPLETED"}
            found = {row["id"] for row in await session.fetch("SELECT id FROM runs")}
            assert found == set(ids)
            assert lost not in found
