"""Middleware that yields, and the values that it shares with the task by `locals`."""

from pathlib import Path

import pytest

from runwell.core.errors import BuiltInError
from tests.worker.support.watched_worker import working, write_project

SHARING = """
import asyncio, threading
from concurrent.futures import ThreadPoolExecutor
from runwell import Retry, locals

name = locals.create("name", str)

def see(where):
    print(where, locals.get_or_raise(name))

def give_hooks(one):
    @one.init
    def init(payload):
        locals.set(name, payload)
        see("init")
    @one.on_success
    async def on_success():
        see("on_success")
    @one.on_failure
    def on_failure(error):
        see("on_failure")
    @one.cleanup
    async def cleanup():
        see("cleanup")

@task(id="later", retry=Retry(max_attempts=1))
async def later(payload: str) -> str:
    see("task")
    await asyncio.to_thread(see, "to_thread")
    await asyncio.create_task(asyncio.to_thread(see, "child task"))
    with ThreadPoolExecutor(1) as pool:
        await asyncio.get_running_loop().run_in_executor(pool, see, "executor")
        pool.submit(see, "pool").result()
    if payload == "fails":
        raise ValueError("no")
    return payload

@task(id="now", retry=Retry(max_attempts=1))
def now(payload: str) -> str:
    see("task")
    thread = threading.Thread(target=see, args=("thread",))
    thread.start()
    thread.join()
    if payload == "fails":
        raise ValueError("no")
    return payload

@later.middleware
async def around(payload):
    locals.set(name, payload + "!")
    await asyncio.sleep(0)
    try:
        yield
        see("middleware")
    except ValueError as error:
        print("middleware got", error)
        raise
    finally:
        await asyncio.sleep(0)
        print("middleware ends")

now.middleware(around)
give_hooks(later)
give_hooks(now)

@task(id="swallows")
async def swallows() -> int:
    raise ValueError("no")

@swallows.middleware
def swallow():
    try:
        yield
    except ValueError:
        print("swallowed")

@task(id="twice", retry=Retry(max_attempts=1))
def twice() -> int:
    return 1

@twice.middleware
def yields_twice():
    yield
    yield

@task(id="cancels")
async def cancels() -> None:
    print("waiting")
    await asyncio.sleep(100)

@cancels.middleware
async def around_cancel():
    try:
        yield
    finally:
        print("middleware ends")
"""


@pytest.mark.parametrize(
    ("task_id", "inside"),
    [
        ("later", ["task", "to_thread", "child task", "executor", "pool"]),
        ("now", ["task", "thread"]),
    ],
)
async def test_middleware_that_yields_shares_values_with_the_task_and_its_hooks(
    tmp_path: Path, task_id: str, inside: list[str]
) -> None:
    write_project(tmp_path, tasks=SHARING)
    async with working(tmp_path, capacity=1) as worker:
        run = await worker.server.run(task_id, "Ada")
        assert run.messages == [
            "init Ada",
            *(f"{place} Ada!" for place in inside),
            "middleware Ada!",
            "middleware ends",
            "on_success Ada!",
            "cleanup Ada!",
        ]
        assert run.output == "Ada"
        failed = await worker.server.run(task_id, "fails", max_attempts=1)
        assert failed.messages == [
            "init fails",
            *(f"{place} fails!" for place in inside),
            "middleware got no",
            "middleware ends",
            "on_failure fails!",
            "cleanup fails!",
        ]
        error = failed.failure.error
        assert isinstance(error, BuiltInError)
        assert (error.name, error.message) == ("ValueError", "no")


async def test_middleware_that_yields_decides_about_errors_and_yields_once(tmp_path: Path) -> None:
    write_project(tmp_path, tasks=SHARING)
    async with working(tmp_path) as worker:
        swallowed = await worker.server.run("swallows")
        assert (swallowed.messages, swallowed.output) == (["swallowed"], None)
        error = (await worker.server.run("twice")).failure.error
        assert isinstance(error, BuiltInError)
        assert error.message == "generator didn't stop"


async def test_middleware_that_yields_ends_when_the_run_is_canceled(tmp_path: Path) -> None:
    write_project(tmp_path, tasks=SHARING)
    async with working(tmp_path) as worker:
        run = worker.server.trigger("cancels")
        await worker.server.notify()
        await worker.server.until(lambda: "waiting" in run.messages, "it runs")
        await worker.server.cancel(run)
        await worker.server.until(lambda: run.end is not None, "it ends")
        assert run.messages == ["waiting", "middleware ends"]
