"""The log of changes: nothing is lost, in whatever order transactions commit."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runwell.engine import change_log, run_tags, shapes
from runwell.engine.change_log import Changes, Topic
from runwell.engine.db import Database
from runwell.engine.shapes import Shape
from runwell.engine.views import View
from tests.support.factories import Scene, make_scene, make_task, one_transaction, read, start
from tests.support.waiting import wait_until


def run_shape(scene: Scene, run_id: str) -> Shape:
    return Shape(kind="run", environment_id=scene.environment.id, of=run_id)


def tag_shape(scene: Scene, *tags: str) -> Shape:
    return Shape(kind="tags", environment_id=scene.environment.id, of=tags)


class Reader:
    """A reader that the test steps, with the topics it watches."""

    def __init__(self, db: Database) -> None:
        self.changes = Changes(db)

    async def watch(self, shape: Shape) -> Topic:
        topic = self.changes.topic(shape)
        # The test reads the log itself.
        await self.changes.aclose()
        return topic


async def begin(db: Database) -> Reader:
    reader = Reader(db)
    await reader.changes.begin()
    await reader.changes.step()
    return reader


async def become_complete(reader: Reader, topic: Topic) -> None:
    """Until all transactions have ended that ran when it began, those of other databases too."""

    async def is_complete() -> bool:
        await reader.changes.step()
        return topic.since is not None

    await wait_until(is_complete, "it knows what changed")


async def test_every_event_of_a_run_is_told(db: Database) -> None:
    scene = await make_scene(db, make_task())
    reader = await begin(db)
    run_id = (await scene.trigger()).run_id
    topic = await reader.watch(run_shape(scene, run_id))
    worker = await scene.connect()
    for act in (lambda: worker.dequeue(1), lambda: scene.cancel(run_id)):
        await reader.changes.step()
        version = topic.version
        await act()
        await reader.changes.step()
        assert topic.version == version + 1
    assert await reader.changes.step() == 0


async def test_a_change_that_commits_after_later_ones_is_told(db: Database) -> None:
    scene = await make_scene(db, make_task())
    early, late = await scene.trigger_many(2)
    reader = await begin(db)
    topics = [await reader.watch(run_shape(scene, run_id)) for run_id in (early, late)]
    async with one_transaction(db) as held:
        await scene.cancel(early, db=held)
        await scene.cancel(late)
        await reader.changes.step()
        assert [topic.version for topic in topics] == [0, 1]
    await reader.changes.step()
    assert [topic.version for topic in topics] == [1, 1]


async def test_what_never_commits_is_not_asked_for_for_ever(db: Database) -> None:
    scene = await make_scene(db, make_task())
    reader = await begin(db)
    early, late = await scene.trigger_many(2)
    with contextlib.suppress(ZeroDivisionError):
        async with one_transaction(db) as held:
            await scene.cancel(early, db=held)
            await scene.cancel(late)
            raise ZeroDivisionError
    await reader.changes.step()

    async def has_none() -> bool:
        await reader.changes.step()
        return not reader.changes.missing

    await wait_until(has_none, "it asks for nothing")


async def test_a_change_under_way_when_the_reader_begins_is_told(db: Database) -> None:
    scene = await make_scene(db, make_task())
    early, late = await scene.trigger_many(2)
    async with one_transaction(db) as held:
        await scene.cancel(early, db=held)
        await scene.cancel(late)
        reader = await begin(db)
        topic = await reader.watch(run_shape(scene, early))
        await reader.changes.step()
        assert (topic.version, topic.since) == (0, None)
    await reader.changes.step()
    assert topic.version == 1


async def test_a_view_tells_what_was_not_committed_then(db: Database) -> None:
    scene = await make_scene(db, make_task())
    early, late = await scene.trigger_many(2)
    shape = tag_shape(scene)
    async with one_transaction(db) as held:
        await scene.cancel(early, db=held)
        await scene.cancel(late)
        seen = await shapes.read_runs(db, shape, [early, late], since=None)
        assert [run.status for run in seen.runs] == ["QUEUED", "CANCELED"]
    since = View.from_offset(seen.view.offset)
    assert since == seen.view
    found = await shapes.read_runs(db, shape, [early, late], since=since)
    assert [(run.id, run.status) for run in found.runs] == [(early, "CANCELED")]
    assert not (await shapes.read_runs(db, shape, [early, late], since=found.view)).runs


async def test_a_change_after_the_log_was_read_is_told_once(db: Database) -> None:
    scene = await make_scene(db, make_task())
    first, second = await scene.trigger_many(2, tags=["a"])
    shape = tag_shape(scene, "a")
    reader = await begin(db)
    topic = await reader.watch(shape)
    await become_complete(reader, topic)
    since = reader.changes.view
    await scene.cancel(first)
    await reader.changes.step()
    until = reader.changes.view
    await scene.cancel(second)
    assert list(topic.changed) == [first]
    found = await shapes.read_runs(db, shape, [first, second], since=since, until=until)
    assert [run.id for run in found.runs] == [first]
    await reader.changes.step()
    found = await shapes.read_runs(
        db, shape, list(topic.changed), since=until, until=reader.changes.view
    )
    assert [run.id for run in found.runs] == [second]


async def test_a_tag_brings_a_run_to_those_who_follow_it(db: Database) -> None:
    scene = await make_scene(db, make_task())
    run_id = (await scene.trigger(tags=["a"])).run_id
    reader = await begin(db)
    topic = await reader.watch(tag_shape(scene, "a", "b"))
    other = await reader.watch(tag_shape(scene, "a", "c"))
    await become_complete(reader, topic)
    await run_tags.add_tags(db, scene.environment, run_id, ["b"], now=scene.now)
    await reader.changes.step()
    assert (list(topic.changed), other.version) == ([run_id], 0)


async def test_more_gaps_than_are_asked_for_make_all_look(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(change_log, "MAX_GAPS", 5)
    scene = await make_scene(db, make_task())
    reader = await begin(db)
    topic = await reader.watch(tag_shape(scene, "a"))
    await become_complete(reader, topic)
    before = topic.since
    await scene.trigger_many(10, tags=["a"])
    await become_complete(reader, topic)
    assert topic.since != before
    assert topic.changed == {}


async def test_a_worker_that_starts_a_run_is_seen_without_a_further_write(db: Database) -> None:
    scene = await make_scene(db, make_task())
    worker = await scene.connect()
    await scene.trigger()
    run = await worker.dequeue_one()
    before = await read(db, "SELECT count(*) AS number FROM run_changes")
    assert await worker.report(start(run, scene.now)) == ["accepted"]
    after = await read(db, "SELECT count(*) AS number FROM run_changes")
    assert before[0]["number"] == after[0]["number"] == 0


async def test_old_entries_of_the_log_are_deleted(db: Database) -> None:
    scene = await make_scene(db, make_task())
    run_id = (await scene.trigger()).run_id
    await run_tags.add_tags(db, scene.environment, run_id, ["b"], now=scene.now)
    (row,) = await read(db, "SELECT created_at FROM run_changes")
    later = row["created_at"] + change_log.LOG_LIFETIME
    assert await change_log.delete_old_changes(db, now=later) == 0
    assert await change_log.delete_old_changes(db, now=later.replace(year=later.year + 1)) == 1


def make_view(xmax: int, back: frozenset[int]) -> View:
    return View(xmax, frozenset(xmax - number for number in back if number < xmax))


views = st.builds(make_view, st.integers(1, 60), st.frozensets(st.integers(1, 50), max_size=5))


@given(views)
def test_a_view_survives_its_forms(view: View) -> None:
    assert View.from_offset(view.offset) == view
    assert View.parse(str(view)) == view


@given(views, views)
def test_a_view_covers_another_when_it_shows_all_that_the_other_one_shows(
    one: View, other: View
) -> None:
    def shows(view: View) -> set[int]:
        return set(range(1, view.xmax)) - view.running

    assert one.covers(other) == (shows(one) >= shows(other) and one.xmax >= other.xmax)
