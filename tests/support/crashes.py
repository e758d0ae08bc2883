"""What is done while a process dies at a failpoint, and what must be true of it afterwards."""

import argparse
import asyncio
import json
import random
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from runwell.client.bulk_actions import BulkRuns
from runwell.client.schedules import Schedules
from runwell.client.tokens import complete_flow, create_flow
from runwell.core.failpoints import FAIL, KILL, LOSE
from runwell.engine.embedded import EmbeddedPostgres
from tests.support.invariants import BROKEN
from tests.support.platform import Session, open_session, temporary_platform
from tests.support.waiting import wait_until

_MEND_SECONDS = 0.2
_MAKE_DUE = """
UPDATE schedules SET next_tick_at = date_trunc('minute', now()), due_at = now()
WHERE public_id = $1 RETURNING 1
"""
_NOTHING_IS_OPEN = """
SELECT 1 WHERE NOT EXISTS (SELECT FROM run_waits) AND NOT EXISTS (SELECT FROM run_wakes)
    AND NOT EXISTS (SELECT FROM resuming_runs)
    AND NOT EXISTS (SELECT FROM waitpoints WHERE status = 'PENDING')
"""


@dataclass(frozen=True)
class Work:
    """What one case does: `begin` does it and returns the ids of the runs there must be."""

    begin: Callable[[Session], Awaitable[Sequence[str]]]
    status: str = "COMPLETED"


async def _tour(session: Session) -> list[str]:
    client = session.client
    token = await client.run(create_flow(client, timeout="1h"))
    run_id = await session.trigger("tour", token.id)
    await session.wait_for_row(
        "the token is waited for",
        "SELECT 1 FROM run_waits w JOIN runs r ON r.id = w.run_id "
        "WHERE r.id = $1 AND w.waitpoint_id = $2 AND r.status = 'FROZEN'",
        run_id,
        token.id,
    )
    await client.run(complete_flow(client, token.id, "yes", None))
    await session.wait_until_all_finished([run_id])
    (row,) = await session.fetch("SELECT output, metadata FROM runs WHERE id = $1", run_id)
    assert json.loads(row["output"]) == [2, 4, 6, "yes"]
    assert json.loads(row["metadata"])["step"] == "done"
    children = await session.fetch("SELECT id FROM runs WHERE root_run_id = $1", run_id)
    assert len(children) == 3, "a child was triggered twice, or not at all"
    return [run_id, *(child["id"] for child in children)]


async def _trigger_batch(session: Session) -> list[str]:
    handle = await session.tasks.batch_trigger("add", [{"a": n, "b": 1} for n in range(20)])
    batches = await session.fetch("SELECT run_count FROM batches WHERE id = $1", handle.batch_id)
    assert [row["run_count"] for row in batches] == [20]
    items = await session.fetch("SELECT FROM batch_items WHERE batch_id = $1", handle.batch_id)
    assert len(items) == 20
    return [run.id for run in handle.runs]


async def _cancel(session: Session) -> list[str]:
    run_id = await session.trigger_gated()
    await session.wait_for_execution(run_id)
    await session.runs.cancel(run_id)
    return [run_id]


async def _cancel_many(session: Session) -> list[str]:
    run_ids = [await session.trigger("add", {"a": 1, "b": 2}, delay="1h") for _ in range(5)]
    made = await BulkRuns(session.client).bulk_cancel(run_ids=run_ids)
    await session.wait_for_row(
        "the bulk action is complete",
        "SELECT 1 FROM bulk_actions WHERE public_id = $1 AND status = 'COMPLETED' "
        "AND succeeded = 5",
        made.id,
    )
    return run_ids


async def _tick(session: Session) -> list[str]:
    schedules = Schedules(session.client)
    made = await schedules.create(
        task="chaos-scheduled",
        cron="0 5 1 1 *",
        deduplication_key="crash",
        missed_ticks="catch-up",
    )
    await session.fetch(_MAKE_DUE, made.id)
    row = await session.wait_for_row(
        "the tick has its run", "SELECT id FROM runs WHERE schedule_id = $1", made.id
    )
    run_ids = [row["id"]]
    await session.wait_until_all_finished(run_ids)
    rows = await session.fetch("SELECT id FROM runs WHERE schedule_id = $1", made.id)
    assert len(rows) == 1, "a tick triggered twice"
    await schedules.delete(made.id)
    return run_ids


WORKS = {
    "tour": Work(_tour),
    "batch": Work(_trigger_batch),
    "cancel": Work(_cancel, "CANCELED"),
    "bulk": Work(_cancel_many, "CANCELED"),
    "tick": Work(_tick),
}

_OPERATION = ((KILL, "begin"), (KILL, "answer"), (LOSE, "answer"))
_WRITTEN = ((KILL, "commit"), (LOSE, "commit"))


def _cases(work: str, scope: str, moments: Sequence[tuple[str, str]]) -> list[tuple[str, str, str]]:
    return [(work, f"{scope}.{moment}", action) for action, moment in moments]


#: What is done, where a process comes by, and what happens to it there.
CASES: tuple[tuple[str, str, str], ...] = (
    # One statement triggers a run: it has no moment before its commit.
    *_cases("tour", "triggerTask", _OPERATION),
    *_cases("tour", "dequeue", _OPERATION),
    *_cases("tour", "report", (*_OPERATION, *_WRITTEN)),
    *_cases("tour", "wait", (*_OPERATION, *_WRITTEN)),
    *_cases("tour", "resume", _OPERATION),
    *_cases("tour", "heartbeat", _OPERATION),
    *_cases("tour", "completeToken", _OPERATION),
    *_cases("tour", "waits", ((KILL, "commit"), (FAIL, "commit"), (KILL, "done"))),
    *_cases("tour", "dates", ((KILL, "done"), (FAIL, "done"))),
    *_cases("batch", "triggerBatch", (*_OPERATION, *_WRITTEN)),
    *_cases("cancel", "cancelRun", (*_OPERATION, *_WRITTEN)),
    *_cases("bulk", "createBulkAction", (*_OPERATION, *_WRITTEN)),
    *_cases("bulk", "bulk_actions", ((KILL, "commit"), (FAIL, "commit"), (KILL, "done"))),
    *_cases("tick", "schedules", ((KILL, "commit"), (FAIL, "commit"), (KILL, "done"))),
    *_cases("tour", "worker-dequeue", ((KILL, "send"), (KILL, "answered"))),
    *_cases("tour", "worker-report", ((KILL, "send"), (KILL, "answered"))),
    *_cases("tour", "worker-wait", ((KILL, "send"), (KILL, "answered"))),
    *_cases("tour", "worker-resume", ((KILL, "send"), (KILL, "answered"))),
    *_cases("tour", "worker-heartbeat", ((KILL, "answered"),)),
    *_cases("tour", "task-metadata", ((KILL, "send"), (KILL, "sent"))),
    *_cases("tour", "task-wait", ((KILL, "send"), (KILL, "sent"))),
    *_cases("tour", "task-complete", ((KILL, "send"), (KILL, "sent"))),
    *_cases("tour", "parent", ((KILL, "forked"),)),
)


async def crash(session: Session, work: str, point: str, action: str) -> None:
    """Do the work while something happens at a point; AssertionError tells what came of it."""
    platform = session.platform
    chosen = WORKS[work]
    platform.arm(point, action)
    doing = asyncio.ensure_future(chosen.begin(session))
    try:
        # Some points are come by a moment after the work is done.
        await wait_until(
            lambda: platform.is_hit(point) or (doing.done() and doing.exception()),
            f"{work} comes by {point}",
            timeout=30,
        )
        if action == KILL and platform.is_hit(point):
            await wait_until(lambda: platform.has_lost_a_process(point), f"{point} kills")
            # In this thread: what it starts ends with the thread that started it.
            platform.mend()
        run_ids = await doing
    finally:
        doing.cancel()
    session.open_gate()
    await _check(session, run_ids, chosen.status)


async def _check(session: Session, run_ids: Sequence[str], status: str) -> None:
    statuses = await session.wait_until_all_finished(run_ids)
    assert set(statuses.values()) == {status}
    await session.wait_for_row("nothing is open", _NOTHING_IS_OPEN)
    await session.check_settled(run_ids)
    for problem, query in BROKEN.items():
        assert not await session.fetch(query), problem


async def _storm(minutes: float, seed: int) -> int:
    """Do all kinds of work at once while two points are armed at a time, again and again."""
    chance = random.Random(seed)
    ends_at = time.monotonic() + 60 * minutes
    rounds = 0
    with (
        tempfile.TemporaryDirectory(prefix="rw-", ignore_cleanup_errors=True) as folder,
        EmbeddedPostgres.start(Path(folder) / "database") as postgres,
        temporary_platform(database_url=postgres.dsn, lease_seconds=2) as platform,
    ):
        while time.monotonic() < ends_at:
            platform.disarm()
            platform.mend()
            platform.wait_until_whole()
            chosen = chance.sample(CASES, 2)
            for _, point, action in chosen:
                platform.arm(point, action)
            print(
                f"round {rounds}: {', '.join(f'{point} {action}' for _, point, action in chosen)}"
            )
            async with open_session(platform) as session:
                doing = [asyncio.ensure_future(work.begin(session)) for work in WORKS.values()]
                while not all(one.done() for one in doing):
                    # What is started may die before it is ready: nobody waits for that.
                    for process in (platform.server, platform.worker):
                        if not process.is_running:
                            process.start_again()
                    await asyncio.sleep(_MEND_SECONDS)
                session.open_gate()
                platform.disarm()
                platform.mend()
                for work, begun in zip(WORKS.values(), doing, strict=True):
                    await _check(session, begun.result(), work.status)
            rounds += 1
    return rounds


def main() -> None:
    """The long form: `make crashes`."""
    parser = argparse.ArgumentParser(prog="crashes", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    given = parser.parse_args()
    print(f"seed {given.seed}")
    with asyncio.Runner() as runner:
        print(f"{runner.run(_storm(given.minutes, given.seed))} rounds: nothing lost")


if __name__ == "__main__":
    main()
