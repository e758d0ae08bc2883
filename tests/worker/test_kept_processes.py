"""Processes that are kept for several runs, and those that are ready ahead."""

from pathlib import Path

from tests.worker.support.watched_worker import working, write_project

TASKS = """
    import asyncio, os, sys, contextvars

    variable = contextvars.ContextVar("variable", default=0)
    calls = 0

    @task(id="kept", keep_process=True)
    def kept(how: str = "") -> list[object]:
        global calls
        calls += 1
        print("call", calls)
        seen = [os.getpid(), calls, variable.get(), os.getcwd()]
        variable.set(1)
        os.chdir("/")
        sys.stdout = None
        if how == "raise":
            raise ValueError
        if how == "memory":
            raise MemoryError
        if how == "exit":
            os._exit(1)
        return seen

    @task(id="kept-async", keep_process=True)
    async def kept_async() -> list[object]:
        global calls
        calls += 1
        logger.info("call", number=calls)
        await asyncio.sleep(0)

        async def numbers():
            yield 1

        async for _ in numbers():
            pass
        return [os.getpid(), calls]

    @task(id="fresh")
    def fresh() -> list[object]:
        return [os.getpid(), calls]
"""


async def test_a_kept_process_serves_several_runs(tmp_path: Path) -> None:
    async with working(write_project(tmp_path, tasks=TASKS)) as worker:
        runs = [await worker.server.run("kept", "") for _ in range(5)]
        outputs = [run.items for run in runs]
        assert [output[1] for output in outputs] == [1, 2, 3, 4, 5]
        assert len({output[0] for output in outputs}) == 1
        assert all(output[2:] == [0, str(tmp_path)] for output in outputs)
        assert [run.messages for run in runs] == [[f"call {n}"] for n in range(1, 6)]
        asynchronous = [(await worker.server.run("kept-async")) for _ in range(3)]
        assert [run.items[1] for run in asynchronous] == [6, 7, 8]
        assert [run.messages for run in asynchronous] == [["call"]] * 3
        fresh = (await worker.server.run("fresh")).items
        assert fresh[1] == 0


async def test_an_error_keeps_the_process_and_what_spoils_it_does_not(tmp_path: Path) -> None:
    async with working(write_project(tmp_path, tasks=TASKS)) as worker:
        first = (await worker.server.run("kept", "")).items
        assert (await worker.server.run("kept", "raise")).failure.error.type == "BUILT_IN_ERROR"
        third = (await worker.server.run("kept", "")).items
        assert third[:2] == [first[0], 3]
        for how in ("memory", "exit"):
            assert (await worker.server.run("kept", how)).failure.error.type == "INTERNAL_ERROR"
            assert (await worker.server.run("kept", "")).items[1] == 1


async def test_a_kept_process_ends_after_so_many_runs(tmp_path: Path) -> None:
    async with working(write_project(tmp_path, tasks=TASKS), kept_process_runs=3) as worker:
        calls = [(await worker.server.run("kept", "")).items[1] for _ in range(7)]
        assert calls == [1, 2, 3, 1, 2, 3, 1]


async def test_many_short_runs_all_complete_once(tmp_path: Path) -> None:
    async with working(write_project(tmp_path, tasks=TASKS), capacity=8) as worker:
        runs = [
            worker.server.trigger(task_id, *payload)
            for _ in range(60)
            for task_id, *payload in (("kept", ""), ("kept-async",), ("fresh",))
        ]
        await worker.server.notify()
        await worker.server.until(lambda: all(run.end for run in runs), "all end")
        assert all(run.items for run in runs)
        assert [len(run.ends) for run in runs] == [1] * len(runs)
        kept = {run.items[0] for run in runs if run.task_id != "fresh"}
        fresh = {run.items[0] for run in runs if run.task_id == "fresh"}
        assert len(fresh) == 60
        assert len(kept) <= 16
        assert not kept & fresh
