"""What is done while a process dies at a failpoint, and what must be true of it afterwards."""

import argparse
import asyncio
import random
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from runwell.core.failpoints import HOLD, KILL
from runwell.engine.embedded import EmbeddedPostgres
from tests.support.crash_cases import CASES, CUT
from tests.support.crash_works import WORKS, Work
from tests.support.invariants import BROKEN
from tests.support.platform import Session, open_session, temporary_platform
from tests.support.waiting import wait_until

_MEND_SECONDS = 0.2
_END_CONNECTIONS = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND application_name <> 'tests'
"""
_NOTHING_IS_OPEN = """
SELECT 1 WHERE NOT EXISTS (SELECT FROM run_waits) AND NOT EXISTS (SELECT FROM run_wakes)
    AND NOT EXISTS (SELECT FROM resuming_runs)
    AND NOT EXISTS (SELECT FROM waitpoints WHERE status = 'PENDING')
"""


async def crash(session: Session, work: str, point: str, action: str) -> None:
    """Do the work while something happens at a point; AssertionError tells what came of it."""
    platform = session.platform
    chosen = WORKS[work]
    platform.arm(point, HOLD if action == CUT else action)
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
        if action == CUT:
            await _cut(session, point)
        run_ids = await doing
    finally:
        doing.cancel()
    session.open_gate()
    await _check(session, run_ids, chosen.status)


async def _cut(session: Session, point: str) -> None:
    """End the server's connections while it stands still at a point, and let it go on."""
    await session.fetch(_END_CONNECTIONS)
    session.platform.release(point)


async def _check(session: Session, run_ids: Sequence[str], status: str) -> None:
    statuses = await session.wait_until_all_finished(run_ids)
    assert set(statuses.values()) == {status}
    await session.wait_for_row("nothing is open", _NOTHING_IS_OPEN)
    await session.check_settled(run_ids)
    for problem, query in BROKEN.items():
        assert not await session.fetch(query), problem


@dataclass
class _Tally:
    """How often each point was armed, and how often a process came by."""

    armed: Counter[str] = field(default_factory=Counter[str])
    hit: Counter[str] = field(default_factory=Counter[str])
    rounds: int = 0

    def print(self) -> None:
        """All of it: a point that nobody came by proves nothing."""
        for name in sorted(self.armed):
            print(f"{self.hit[name]:4} of {self.armed[name]:4} times: {name}")
        print(
            f"{self.rounds} rounds, {self.hit.total()} of {self.armed.total()} armed points hit "
            f"({len(+self.hit)} different ones of {len(CASES)}): nothing lost"
        )


async def _storm(minutes: float, seed: int) -> _Tally:
    """Do all kinds of work at once while two points are armed at a time, again and again."""
    chance = random.Random(seed)
    ends_at = time.monotonic() + 60 * minutes
    tally = _Tally()
    works = {name: work for name, work in WORKS.items() if not work.needs_worker}
    cases = [case for case in CASES if case[0] in works]
    with (
        tempfile.TemporaryDirectory(prefix="rw-", ignore_cleanup_errors=True) as folder,
        EmbeddedPostgres.start(Path(folder) / "database") as postgres,
        temporary_platform(database_url=postgres.dsn, lease_seconds=2) as platform,
    ):
        while time.monotonic() < ends_at:
            platform.disarm()
            platform.mend()
            platform.wait_until_whole()
            chosen = {point: action for _, point, action in chance.sample(cases, 2)}
            for point, action in chosen.items():
                platform.arm(point, HOLD if action == CUT else action)
            async with open_session(platform) as session:
                hit = await _do_all(session, list(works.values()), chosen)
            tally.armed.update(f"{point} {action}" for point, action in chosen.items())
            tally.hit.update(f"{point} {chosen[point]}" for point in hit)
            told = ", ".join(
                f"{point} {action}{'' if point in hit else ' (not hit)'}"
                for point, action in chosen.items()
            )
            print(f"round {tally.rounds}: {told}", flush=True)
            tally.rounds += 1
    return tally


async def _do_all(
    session: Session, works: Sequence[Work], chosen: Mapping[str, str]
) -> Sequence[str]:
    """Do all works at once, mend what dies, check what came of it; returns the points hit."""
    platform = session.platform
    doing = [asyncio.ensure_future(work.begin(session)) for work in works]
    to_cut = {point for point, action in chosen.items() if action == CUT}
    while not all(one.done() for one in doing):
        for point in {point for point in to_cut if platform.is_hit(point)}:
            to_cut.remove(point)
            await _cut(session, point)
        # What is started may die before it is ready: nobody waits for that.
        for process in (platform.server, platform.worker):
            if not process.is_running:
                process.start_again()
        await asyncio.sleep(_MEND_SECONDS)
    session.open_gate()
    hit = [point for point in chosen if platform.is_hit(point)]
    platform.disarm()
    platform.mend()
    for work, begun in zip(works, doing, strict=True):
        await _check(session, begun.result(), work.status)
    return hit


def main() -> None:
    """The long form: `make crashes`."""
    parser = argparse.ArgumentParser(prog="crashes", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    given = parser.parse_args()
    print(f"seed {given.seed}")
    with asyncio.Runner() as runner:
        runner.run(_storm(given.minutes, given.seed)).print()


if __name__ == "__main__":
    main()
