"""Runs in processes of their own: what comes back of them."""

from pathlib import Path

from tests.worker.support.watched_worker import working, write_project


async def test_a_run_returns_its_output(tmp_path: Path) -> None:
    write_project(
        tmp_path,
        tasks="""
        @task(id="add")
        async def add(numbers: list[int]) -> int:
            return sum(numbers)

        @task(id="double")
        def double(number: int) -> int:
            return 2 * number
        """,
    )
    async with working(tmp_path) as worker:
        assert (await worker.server.run("add", [1, 2])).output == 3
        assert (await worker.server.run("double", 4)).output == 8
