"""Lines in reports: stored once, in their order, as the database can hold them."""

import json

from runwell.core.protocol import (
    MAX_LOG_ATTRIBUTES_BYTES,
    MAX_LOG_MESSAGE_CHARACTERS,
    LogsReport,
)
from runwell.core.spans import CapturedLine
from runwell.engine import logs, runs
from runwell.engine.db import Database
from tests.support.factories import (
    NOW,
    canceled,
    make_scene,
    make_task,
    write_lines,
)


async def test_lines_are_stored_once_in_their_order(db: Database) -> None:
    scene = await make_scene(db, make_task())
    worker = await scene.connect()
    await scene.trigger()
    run = await worker.start_one()
    await worker.report(write_lines(run, "c", "d", first=3), write_lines(run, "a", "b"))
    await worker.report(write_lines(run, "B", "C", "D", "e", first=2))
    async with db.connection() as tx:
        page = await runs.read_logs(tx, scene.environment, run.run_id, after=None, limit=100)
    assert [line.message for line in page.data] == ["a", "b", "c", "d", "e"]


async def test_lines_hold_what_the_database_holds(db: Database) -> None:
    scene = await make_scene(db, make_task())
    worker = await scene.connect()
    await scene.trigger()
    run = await worker.start_one()
    lines = [
        CapturedLine(seq=1, time=NOW, level="ERROR", message="a\x00b" + "x" * 9000),
        CapturedLine(seq=2, time=NOW, level="LOG", message="", attributes={"k\x00": ["\x00"]}),
        CapturedLine(seq=3, time=NOW, level="LOG", message="", attributes={"k": "x" * 99_999}),
    ]
    report = LogsReport(
        run_id=run.run_id, snapshot_id=run.snapshot_id, attempt_number=1, lines=lines
    )
    assert await worker.report(report) == ["accepted"]
    async with db.connection() as tx:
        page = await runs.read_logs(tx, scene.environment, run.run_id, after=None, limit=100)
    first, second, third = page.data
    assert first.message.startswith("a\ufffdbxxx")
    assert len(first.message) == MAX_LOG_MESSAGE_CHARACTERS
    assert second.attributes == {"k\ufffd": ["\ufffd"]}
    assert third.attributes == {"clipped": "100007 characters of attributes left out"}
    assert len(json.dumps(third.attributes)) < MAX_LOG_ATTRIBUTES_BYTES


async def test_lines_of_a_canceled_run_are_kept_until_it_has_stopped(db: Database) -> None:
    scene = await make_scene(db, make_task())
    worker = await scene.connect()
    await scene.trigger()
    run = await worker.start_one()
    await scene.cancel(run.run_id)
    assert await worker.report(
        write_lines(run, "stopping"), canceled(run), write_lines(run, "late", first=2)
    ) == ["accepted", "accepted", "stale"]
    async with db.connection() as tx:
        page = await logs.read_lines(tx, run.run_id, after=None, limit=100)
    assert [line.message for line in page.data] == ["stopping"]
