"""The server is killed while it makes a batch: all of its runs are there, once, or none."""

import asyncio

import pytest

from tests.support.platform import open_session, temporary_platform

pytestmark = pytest.mark.timeout(180)


async def test_a_batch_whose_server_is_killed_before_or_after_its_commit_is_made_once(
    database_url: str,
) -> None:
    with temporary_platform(database_url=database_url) as platform:
        async with open_session(platform) as session:
            payloads = [{"a": number, "b": 1} for number in range(200)]
            # Before: its runs are inserted, and what names them as items waits for a lock.
            async with session.hold("LOCK TABLE batch_items IN SHARE MODE"):
                triggering = asyncio.create_task(session.tasks.batch_trigger("add", payloads))
                await session.wait_until_blocked()
                platform.server.kill()
            await asyncio.to_thread(platform.mend)
            first = await triggering
            # After: the answers of some requests are lost with the server.
            others = [
                asyncio.create_task(session.tasks.batch_trigger("add", payloads[:50]))
                for _ in range(6)
            ]
            await asyncio.wait(others, return_when=asyncio.FIRST_COMPLETED)
            platform.server.kill()
            await asyncio.to_thread(platform.mend)
            handles = [first, *await asyncio.gather(*others)]
            run_ids = [run.id for handle in handles for run in handle.runs]
            assert len(set(run_ids)) == len(run_ids) == 200 + 6 * 50
            statuses = await session.wait_until_all_finished(run_ids)
            assert set(statuses.values()) == {"COMPLETED"}
            await session.check_settled(run_ids)
            for table, number in (("runs", len(run_ids)), ("batches", len(handles))):
                (row,) = await session.fetch(f"SELECT count(*) AS number FROM {table}")
                assert row["number"] == number
