"""PostgreSQL goes away again and again while runs of every kind are on their way.

`make chaos` is the long form, `tests/acceptance/test_chaos.py` the short one. The database belongs
to this program, not to the server: so that it can stay away for as long as it likes.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from runwell.client.schedules import Schedules
from runwell.client.tokens import complete_flow, create_flow
from runwell.engine.embedded import EmbeddedPostgres
from tests.support.invariants import BROKEN
from tests.support.platform import AWAY, Session, open_session, temporary_platform

_STALLED_SECONDS = 60.0
_POLL_SECONDS = 0.2
_CHILDREN = 4
_BATCH = 10
# Killed; ended without a checkpoint; shut down in order, with all sessions thrown out.
_WAYS = (signal.SIGKILL, signal.SIGQUIT, signal.SIGINT)

_ENDED = "SELECT count(*) AS number FROM runs WHERE execution_status = 'FINISHED'"
_MAKE_DUE = """
UPDATE schedules SET next_tick_at = date_trunc('minute', now()), due_at = now()
WHERE public_id = $1 RETURNING 1
"""
# Each finds what must not be, when all has ended.
_LEFT_OVER = {
    "a run ended other than once": """
        SELECT r.id, r.status, count(s.id) FROM runs r LEFT JOIN run_snapshots s
            ON s.run_id = r.id AND s.execution_status = 'FINISHED'
        GROUP BY r.id HAVING count(s.id) <> 1""",
    "a run has other than one accepted result": """
        SELECT r.id, r.status, array_agg(a.status) FROM runs r
        LEFT JOIN run_attempts a ON a.run_id = r.id
        GROUP BY r.id HAVING count(*) FILTER (WHERE a.status = 'COMPLETED') <> 1
            OR count(*) FILTER (WHERE a.status = 'EXECUTING') <> 0""",
    "a run did not complete": "SELECT id, status, error FROM runs WHERE status <> 'COMPLETED'",
    "a wait is open": "SELECT * FROM run_waits",
    "a wake is open": "SELECT * FROM run_wakes",
    "a run waits for a slot": "SELECT * FROM resuming_runs",
    "a waitpoint is open": "SELECT id, type FROM waitpoints WHERE status = 'PENDING'",
    "a batch is incomplete": """
        SELECT b.id FROM batches b WHERE b.run_count <> (
            SELECT count(*) FROM batch_items i WHERE i.batch_id = b.id)""",
    "a parent has other than four children": f"""
        SELECT p.id, count(c.id) FROM runs p LEFT JOIN runs c ON c.parent_run_id = p.id
        WHERE p.task_id = 'chaos-parent' GROUP BY p.id HAVING count(c.id) <> {_CHILDREN}""",
    "a tick has other than one run": """
        SELECT s.public_id, count(r.id) FROM schedules s
        LEFT JOIN runs r ON r.schedule_id = s.public_id
        WHERE s.task_id = 'chaos-scheduled' GROUP BY s.public_id HAVING count(r.id) <> 1""",
}


@dataclass(frozen=True, kw_only=True)
class Storm:
    """How much work there is, and how often its database goes away."""

    seed: int
    runs: int
    """A multiple of 100."""
    seconds: float
    """The time over which the work is triggered."""
    gap: tuple[float, float]
    """Seconds between two restarts, at least and at most."""
    restarts: int | None = None
    """None: until all runs have ended."""
    lease_seconds: int | None = None
    """Of the workers; None: the real one."""
    most_down: float = 2.0
    """Seconds that the database is away, at most, beside what it needs to start."""


@dataclass(frozen=True, kw_only=True)
class Survived:
    """What there was, once it is over."""

    runs: int
    restarts: int
    attempts: int
    """More than there are runs: of those whose worker could not renew its lease, for example."""
    seconds: float

    def __str__(self) -> str:
        """One sentence."""
        return (
            f"{self.runs} runs in {self.attempts} attempts and {self.seconds:.0f} s survived "
            f"{self.restarts} restarts"
        )


async def survive(storm: Storm, *, say: Callable[[str], None] = print) -> Survived:
    """Run it all on a platform of its own; AssertionError tells what was lost or done twice."""
    say(f"seed {storm.seed}: {storm.runs} runs")
    with (
        tempfile.TemporaryDirectory(prefix="rw-", ignore_cleanup_errors=True) as folder,
        EmbeddedPostgres.start(Path(folder) / "database") as postgres,
        temporary_platform(
            database_url=postgres.dsn, lease_seconds=storm.lease_seconds
        ) as platform,
    ):
        async with open_session(platform) as session:
            return await _Chaos(storm, session, postgres, say).go()


class _Chaos:
    def __init__(
        self,
        storm: Storm,
        session: Session,
        postgres: EmbeddedPostgres,
        say: Callable[[str], None],
    ) -> None:
        self._storm, self._session, self._postgres, self._say = storm, session, postgres, say
        self._restarts = 0
        self._all_ended = asyncio.Event()
        self._expected: dict[str, object] = {}
        self._began = time.monotonic()

    async def go(self) -> Survived:
        work = await self._plan()
        self._began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._restart_again_and_again())
            for act, at in work:
                group.create_task(_later(at, act))
            group.create_task(self._wait_for_all())
        seconds = time.monotonic() - self._began
        await self._check()
        (row,) = await self._session.fetch("SELECT count(*) AS number FROM run_attempts")
        return Survived(
            runs=self._storm.runs,
            restarts=self._restarts,
            attempts=row["number"],
            seconds=seconds,
        )

    async def _plan(self) -> list[tuple[Callable[[], Awaitable[None]], float]]:
        """What is done, and how many seconds from the start: half of the runs are in families."""
        hundreds, rest = divmod(self._storm.runs, 100)
        assert hundreds > 0, "there are 100 runs at least"
        assert rest == 0, "the runs are a multiple of 100"
        chance = random.Random(f"{self._storm.seed} work")
        schedules = Schedules(self._session.client)
        acts: list[Callable[[], Awaitable[None]]] = []
        for number in range(10 * hundreds):
            acts.append(lambda number=number: self._trigger_family(number))
            made = await schedules.create(
                # Its ticks come when they are told to, and no others.
                task="chaos-scheduled",
                cron="0 5 1 1 *",
                deduplication_key=f"{number}",
                missed_ticks="catch-up",
            )
            acts.append(lambda schedule_id=made.id: self._make_due(schedule_id))
        for number in range(20 * hundreds):
            # Before the wait is written, at that moment, or while the run waits.
            delay = chance.uniform(0, 3)
            acts.append(lambda number=number, delay=delay: self._approve(number, delay))
        acts += [
            lambda number=number: self._trigger_batch(number * _BATCH)
            for number in range(2 * hundreds)
        ]
        return [(act, chance.uniform(0, self._storm.seconds)) for act in acts]

    async def _trigger_family(self, number: int) -> None:
        run_id = await self._session.trigger("chaos-parent", number)
        first = 2 * number
        self._expected[run_id] = [first, *(2 * (first + more) for more in range(3))]

    async def _trigger_batch(self, number: int) -> None:
        numbers = range(number, number + _BATCH)
        handle = await self._session.tasks.batch_trigger("chaos-child", numbers)
        self._expected |= {run.id: 2 * one for run, one in zip(handle.runs, numbers, strict=True)}

    async def _approve(self, number: int, delay: float) -> None:
        client = self._session.client
        token = await client.run(create_flow(client, timeout="1h"))
        run_id = await self._session.trigger("chaos-token", {"token": token.id, "number": number})
        await asyncio.sleep(delay)
        await client.run(complete_flow(client, token.id, f"yes to {number}", None))
        # A second answer changes nothing.
        await client.run(complete_flow(client, token.id, "no", None))
        self._expected[run_id] = [number, f"yes to {number}"]

    async def _make_due(self, schedule_id: str) -> None:
        await self._session.wait_for_row("the schedule is due", _MAKE_DUE, schedule_id)

    async def _restart_again_and_again(self) -> None:
        chance = random.Random(f"{self._storm.seed} restarts")
        while self._restarts != self._storm.restarts:
            gap, down = chance.uniform(*self._storm.gap), chance.uniform(0, self._storm.most_down)
            way = chance.choice(_WAYS)
            with contextlib.suppress(TimeoutError):
                if self._storm.restarts is None:
                    await asyncio.wait_for(self._all_ended.wait(), gap)
                    return
                await asyncio.sleep(gap)
            os.kill(self._postgres.pid, way)
            await asyncio.sleep(down)
            await asyncio.to_thread(self._postgres.restart)
            self._restarts += 1
            at = time.monotonic() - self._began
            self._say(f"{at:6.1f} s: back after {way.name} and {down:.1f} s")

    async def _wait_for_all(self) -> None:
        last, since = 0, time.monotonic()
        while last < self._storm.runs:
            await asyncio.sleep(_POLL_SECONDS)
            with contextlib.suppress(*AWAY):
                (row,) = await self._session.fetch(_ENDED)
                if row["number"] > last:
                    last, since = row["number"], time.monotonic()
            stalled = time.monotonic() - since
            if stalled > max(_STALLED_SECONDS, self._storm.seconds):
                raise AssertionError(await self._describe_the_rest(last, stalled))
        self._all_ended.set()

    async def _describe_the_rest(self, ended: int, seconds: float) -> str:
        rows = await self._session.fetch(
            "SELECT task_id, execution_status AS status, count(*) AS number, min(id) AS id "
            "FROM runs WHERE execution_status <> 'FINISHED' GROUP BY 1, 2"
        )
        missing = await self._session.fetch(_LEFT_OVER["a tick has other than one run"])
        return (
            f"{ended} of {self._storm.runs} runs have ended, and none for {seconds:.0f} s; "
            f"the rest: {[dict(row) for row in rows]}; "
            f"schedules without their run: {[dict(row) for row in missing]}"
        )

    async def _check(self) -> None:
        (row,) = await self._session.fetch("SELECT count(*) AS number FROM runs")
        assert row["number"] == self._storm.runs, "a run is lost, or was triggered twice"
        # The last of what was reported may still be on its way through the server.
        await self._session.wait_for_row(
            "no wake is open", "SELECT 1 WHERE NOT EXISTS (SELECT FROM run_wakes)"
        )
        for problem, query in (_LEFT_OVER | BROKEN).items():
            rows = await self._session.fetch(query)
            assert not rows, f"{problem}: {[dict(row) for row in rows[:10]]} of {len(rows)}"
        await self._session.check_settled([])
        outputs = {
            row["id"]: json.loads(row["output"])
            for row in await self._session.fetch("SELECT id, output FROM runs")
        }
        wrong = {
            run_id: (outputs.get(run_id), right)
            for run_id, right in self._expected.items()
            if outputs.get(run_id) != right
        }
        assert not wrong, f"outputs differ (there is, there should be): {wrong}"


async def _later(seconds: float, act: Callable[[], Awaitable[None]]) -> None:
    await asyncio.sleep(seconds)
    await act()


def main() -> None:
    """The long form."""
    parser = argparse.ArgumentParser(prog="chaos", description=__doc__)
    parser.add_argument("--runs", type=int, default=2_000, help="a multiple of 100")
    parser.add_argument("--seconds", type=float, default=150, help="to trigger them in")
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    parser.add_argument("--lease-seconds", type=int, help="of the workers; else the real ones")
    given = parser.parse_args()
    storm = Storm(
        seed=given.seed,
        runs=given.runs,
        seconds=given.seconds,
        gap=(5, 40),
        lease_seconds=given.lease_seconds,
    )
    print(asyncio.run(survive(storm)))


if __name__ == "__main__":
    main()
