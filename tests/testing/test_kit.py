import asyncio
import subprocess
import sys
from collections.abc import Generator
from datetime import timedelta
from pathlib import Path

import pytest

from runwell import Retry, RunContext, logger, metadata, schedules, tags, task, wait
from runwell.sdk.catalog import catalog
from runwell.sync import wait as blocking_wait
from runwell.testing import RunwellTest
from tests.support.plugin import PLUGIN

EXAMPLE = Path(__file__).parents[2] / "examples/tested"


@pytest.fixture(autouse=True)
def _forget_tasks() -> Generator[None]:
    # Tasks of these tests are theirs alone.
    before = [*catalog.tasks]
    yield
    catalog.tasks[:] = before


def test_the_example_project_tests_its_tasks() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *PLUGIN],
        cwd=EXAMPLE,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_days_of_waits_pass_at_once_and_in_order(runwell_test: RunwellTest) -> None:
    seen: list[str] = []

    @task(id="waits")
    async def waits() -> None:
        async def after(days: int) -> None:
            await wait.for_(days=days)
            seen.append(f"day {days}")

        await asyncio.gather(after(3), after(1), after(2))
        await wait.for_(days=365)
        seen.append("a year later")

    run = runwell_test.run(waits).assert_completed()
    assert seen == ["day 1", "day 2", "day 3", "a year later"]
    assert timedelta(days=368) <= run.elapsed < timedelta(days=369)


def test_a_plain_function_waits_too(runwell_test: RunwellTest) -> None:
    @task(id="plain")
    def plain(number: int, ctx: RunContext) -> int:
        blocking_wait.for_(hours=5)
        logger.info("waited", attempt=ctx.attempt.number)
        return number + 1

    run = runwell_test.run(plain, 1).assert_completed()
    assert (run.output, run.messages) == (2, ["waited"])


def test_retries_come_after_their_backoff(runwell_test: RunwellTest) -> None:
    attempts: list[int] = []

    @task(
        id="flaky", retry=Retry(max_attempts=3, min_timeout="1h", max_timeout="2h", randomize=False)
    )
    async def flaky(ctx: RunContext) -> str:
        attempts.append(ctx.attempt.number)
        if ctx.attempt.number < 3:
            raise ValueError("not yet")
        return "now"

    run = runwell_test.run(flaky).assert_completed()
    assert attempts == [1, 2, 3]
    assert run.elapsed >= timedelta(hours=3)


def test_delays_and_times_to_live_pass(runwell_test: RunwellTest) -> None:
    @task(id="later")
    async def later() -> None:
        await asyncio.sleep(0)

    run_id = runwell_test.trigger(later, delay="2d")
    runwell_test.settle()
    assert runwell_test.retrieve(run_id).status == "DELAYED"
    assert runwell_test.finish(run_id).elapsed >= timedelta(days=2)


def test_a_test_completes_a_token(runwell_test: RunwellTest) -> None:
    @task(id="asks")
    async def asks() -> object:
        token = await wait.create_token()
        metadata.set("token", token.id)
        return (await wait.for_token(token)).unwrap()

    run = runwell_test.start(asks)
    assert run.status == "FROZEN"
    runwell_test.complete_token(str(run.metadata["token"]), {"is_approved": True})
    assert runwell_test.finish(run).output == {"is_approved": True}


def test_a_run_that_can_not_end_says_so(runwell_test: RunwellTest) -> None:
    @task(id="stuck")
    async def stuck() -> None:
        await wait.for_token((await wait.create_token(timeout=None)).id)

    run = runwell_test.start(stuck)
    assert run.status == "FROZEN"
    with pytest.raises(AssertionError, match="is FROZEN"):
        run.assert_completed()


def test_children_are_runs_and_can_be_replaced(runwell_test: RunwellTest) -> None:
    @task(id="child")
    async def child(number: int) -> int:
        await wait.for_(days=1)
        return number * 2

    @task(id="parent")
    async def parent() -> list[int]:
        await tags.add("sum")
        return [await child.trigger_and_wait(number).unwrap() for number in (1, 2)]

    run = runwell_test.run(parent).assert_completed()
    assert run.output == [2, 4]
    assert [one.output for one in run.children] == [2, 4]
    assert run.tags == ["sum"]

    async def tenfold(number: int) -> int:
        return number * 10

    runwell_test.replace(child, tenfold)
    assert runwell_test.run(parent).output == [10, 20]
    assert len(runwell_test.runs(child)) == 4


def test_schedules_tick_while_time_passes(runwell_test: RunwellTest) -> None:
    @schedules.task(id="daily", cron="0 5 * * *")
    async def daily() -> None:
        await asyncio.sleep(0)

    runwell_test.advance("3d")
    assert len(runwell_test.runs(daily)) == 3


def test_crash_points_tell_what_runs_twice(runwell_test: RunwellTest) -> None:
    effects: list[str] = []

    @task(id="pays")
    async def pays() -> str:
        effects.append("paid")
        await wait.for_(days=1)
        effects.append("thanked")
        return "done"

    report = runwell_test.crash_points(pays)
    assert [crash.where for crash in report.crashes] == [
        "before a wait is stored",
        "after a wait is stored",
        "when a wait is over",
        "before its end is stored",
    ]
    assert {crash.status for crash in report.crashes} == {"COMPLETED"}
    repeated = [[text for _, text in crash.repeated] for crash in report.crashes]
    assert all('effects.append("paid")' in texts for texts in repeated)
    assert ['effects.append("thanked")' in texts for texts in repeated] == [False] * 3 + [True]
    assert effects.count("paid") == 9
    assert "ran again" in str(report)
