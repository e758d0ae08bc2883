"""Metadata, tags, cancels and machines, on a real platform with its faults."""

import pytest

from runwell.client.metadata_changes import MetadataChanges
from tests.support.platform import Platform, Session, open_session
from tests.support.waiting import wait_until

pytestmark = pytest.mark.timeout(120)


async def _wait_for_metadata(session: Session, run_id: str, key: str) -> object:
    async def look() -> object:
        found = (await session.runs.retrieve(run_id)).metadata
        return None if found is None else found.get(key)

    return await wait_until(look, f"{run_id} has the metadata {key}", timeout=30)


async def test_a_run_changes_its_metadata_and_sees_it_at_once(platform: Platform) -> None:
    async with open_session(platform) as session:
        run = await session.tasks.trigger_and_poll(
            "count-up", 3, metadata={"n": 10}, tags="first", poll_interval=0.05, timeout=60
        )
        # The run stands for the parent and the root that it doesn't have.
        expected = {
            "n": 13,
            "state": "done",
            "log": [0, 1, 2],
            "total": 3,
            "children": [run.id],
        }
        assert run.output == run.metadata == expected
        assert run.tags == ["counted", "first", "up-to-3"]


async def test_children_tell_their_parent_how_far_they_are(platform: Platform) -> None:
    async with open_session(platform) as session:
        run = await session.tasks.trigger_and_poll(
            "count-in-children", [1, 2, 3, 4], poll_interval=0.05, timeout=60
        )
        assert run.metadata is not None
        assert run.metadata["total"] == 10
        children = run.metadata["children"]
        assert isinstance(children, list)
        assert sorted(map(str, children)) == sorted(c.id for c in run.related_runs.children)
        assert run.output == [10, len(str(children))]


@pytest.mark.parametrize(("how", "status"), [("return", "COMPLETED"), ("raise", "FAILED")])
async def test_changes_are_stored_with_the_end_of_the_attempt(
    platform: Platform, how: str, status: str
) -> None:
    async with open_session(platform) as session:
        gate = session.folder / "step"
        run_id = await session.trigger("flush-and-end", {"gate": str(gate), "how": how})
        assert await _wait_for_metadata(session, run_id, "n") == 1
        # What others change meanwhile stays.
        await session.runs.update_metadata(run_id, MetadataChanges().increment("n", 100))
        gate.touch()
        run = await session.runs.poll(run_id, poll_interval=0.05, timeout=60)
        assert (run.status, run.metadata) == (status, {"n": 111})


async def test_changes_outlive_the_process_that_made_them(platform: Platform) -> None:
    async with open_session(platform) as session:
        gate = session.folder / "step"
        run_id = await session.trigger("flush-and-end", {"gate": str(gate), "how": "die"})
        await _wait_for_metadata(session, run_id, "n")
        gate.touch()
        run = await session.runs.poll(run_id, poll_interval=0.05, timeout=60)
        assert (run.status, run.metadata) == ("CRASHED", {"n": 11})


async def test_changes_wait_for_a_server_that_is_away_and_count_once(platform: Platform) -> None:
    async with open_session(platform) as session:
        gate = session.folder / "step"
        run_id = await session.trigger("flush-and-end", {"gate": str(gate), "how": "return"})
        await _wait_for_metadata(session, run_id, "n")
        platform.server.kill()
        gate.touch()
        platform.server.restart()
        run = await session.runs.poll(run_id, poll_interval=0.05, timeout=60)
        assert (run.status, run.metadata) == ("COMPLETED", {"n": 11})


async def test_a_cancel_reaches_all_that_a_run_has_triggered(platform: Platform) -> None:
    async with open_session(platform) as session:
        gate = str(session.folder / "never")
        run_id = await session.trigger("have-children", gate)
        assert await _wait_for_metadata(session, run_id, "has_children")
        await wait_until(
            lambda: _count_children(session, run_id, 4), "it waits for a child", timeout=30
        )
        await session.runs.cancel(run_id)
        run = await session.runs.retrieve(run_id)
        ids = [run_id, *(child.id for child in run.related_runs.children)]
        assert len(ids) == 5
        statuses = await session.wait_until_all_finished(ids)
        assert set(statuses.values()) == {"CANCELED"}
        await session.check_settled(ids)


async def _count_children(session: Session, run_id: str, number: int) -> bool:
    run = await session.runs.retrieve(run_id)
    return len(run.related_runs.children) == number


async def test_a_run_whose_memory_ran_out_goes_on_on_a_larger_machine(platform: Platform) -> None:
    async with open_session(platform) as session:
        run = await session.tasks.trigger_and_poll(
            "need-memory", 300, poll_interval=0.05, timeout=60
        )
        assert (run.status, run.output) == ("COMPLETED", "small-2x")
        assert [attempt.machine for attempt in run.attempts] == ["micro", "small-2x"]
