"""Interpreters that a run starts by `python`: their output in its log, and their end with it."""

from pathlib import Path

import pytest

from tests.support.waiting import wait_until
from tests.worker.support.watched_worker import is_gone, working, write_project

TASKS = """
import os, time
from runwell import python
from runwell.sync import python as blocking_python

SPEAKS = "import sys; print('out'); print('err', file=sys.stderr)"
HANGS = "import os, time; print(os.getpid()); time.sleep(100)"

@task(id="speaks-later")
async def speaks_later() -> str:
    print("before")
    result = await python.run_inline(SPEAKS)
    print("after")
    return result.stdout

@task(id="speaks-now")
def speaks_now() -> str:
    print("before")
    result = blocking_python.run_inline(SPEAKS)
    print("after")
    return result.stdout

@task(id="hangs-later")
async def hangs_later() -> None:
    await python.run_inline(HANGS)

@task(id="hangs-now")
def hangs_now() -> None:
    blocking_python.run_inline(HANGS)
"""


@pytest.mark.parametrize("kind", ["later", "now"])
async def test_output_is_in_the_log_and_a_cancel_kills(tmp_path: Path, kind: str) -> None:
    write_project(tmp_path, tasks=TASKS)
    async with working(tmp_path) as worker:
        run = await worker.server.run(f"speaks-{kind}")
        assert run.output == "out\n"
        lines = [(line.level, line.message) for line in run.lines.values()]
        assert (lines[0], lines[-1]) == (("LOG", "before"), ("LOG", "after"))
        assert sorted(lines[1:-1]) == [("ERROR", "err"), ("LOG", "out")]
        run = worker.server.trigger(f"hangs-{kind}")
        await worker.server.notify()
        await worker.server.until(lambda: bool(run.messages), "it runs")
        await worker.server.cancel(run)
        await worker.server.until(lambda: run.end is not None, "it ends")
        await wait_until(lambda: is_gone(int(run.messages[0])), "its interpreter ends")
