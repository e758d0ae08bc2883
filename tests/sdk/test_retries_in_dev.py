"""`Retries(enabled_in_dev=False)`, from the config file to what a worker reports."""

from pathlib import Path

import pytest

from runwell.core.protocol import FailReport
from tests.worker.support.watched_worker import working, write_project

TASKS = """
@task(id="fail")
async def fail() -> None:
    raise ValueError("no")

@task(id="typed")
def typed(number: int) -> None: ...
"""


@pytest.mark.parametrize("enabled", [True, False])
async def test_a_failed_attempt_in_dev_is_repeated_unless_that_is_turned_off(
    tmp_path: Path, enabled: bool
) -> None:
    write_project(tmp_path, tasks=TASKS)
    (tmp_path / "trigger_config.py").write_text(
        "from runwell import Retries, define_config\n"
        f"config = define_config(retries=Retries(enabled_in_dev={enabled}))\n"
    )
    async with working(tmp_path) as worker:
        failed = (await worker.server.run("fail")).end
        assert isinstance(failed, FailReport)
        assert failed.skip_retrying is not enabled
        # What is never repeated stays so.
        unfit = (await worker.server.run("typed", "x")).end
        assert isinstance(unfit, FailReport)
        assert unfit.skip_retrying
