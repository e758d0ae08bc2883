"""Tasks that wait."""

import asyncio
import contextlib
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TypedDict

from trigger.tasks import Gate, wait_for_file

from runwell import (
    Failed,
    Ok,
    Retry,
    SubtaskUnwrapError,
    WaitRefusedError,
    idempotency_keys,
    logger,
    queue,
    task,
    wait,
)
from runwell.sync import batch as blocking_batch
from runwell.sync import wait as blocking_wait

one_at_a_time = queue("one-at-a-time", concurrency_limit=1)


@task(id="square")
async def square(number: int) -> int:
    return number * number


@task(id="refuse", retry=Retry(max_attempts=1))
async def refuse(reason: str) -> None:
    raise ValueError(reason)


@task(id="wait-a-moment")
async def wait_a_moment(seconds: float) -> float:
    began = time.monotonic()
    await wait.for_(seconds=seconds)
    return time.monotonic() - began


@task(id="block-a-moment")
def block_a_moment(seconds: float) -> float:
    began = time.monotonic()
    blocking_wait.for_(seconds=seconds)
    return time.monotonic() - began


@task(id="wait-until-past")
async def wait_until_past() -> str:
    past = datetime(2020, 1, 1, tzinfo=UTC)
    await wait.until(past)
    try:
        await wait.until(past, throw_if_in_the_past=True)
    except ValueError as error:
        return str(error)
    return "not raised"


@task(id="sum-of-squares")
async def sum_of_squares(numbers: list[int]) -> int:
    total = 0
    for number in numbers:
        total += await square.trigger_and_wait(number).unwrap()
    return total


@task(id="blocking-square")
def blocking_square(number: int) -> int:
    return square.sync.trigger_and_wait(number).unwrap()


@task(id="squares-at-once")
async def squares_at_once(numbers: list[int]) -> list[int]:
    results = await asyncio.gather(
        *(square.trigger_and_wait(number) for number in numbers), wait.for_(seconds=0.2)
    )
    return [result.output for result in results if isinstance(result, Ok)]


@task(id="first-of-two")
async def first_of_two() -> str:
    async def sleep(seconds: float) -> str:
        await wait.for_(seconds=seconds)
        return f"{seconds:g}"

    tasks = {asyncio.create_task(sleep(seconds)) for seconds in (0.2, 3600)}
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for left in pending:
        left.cancel()
    await asyncio.gather(*pending, return_exceptions=True)
    # What was given up does not hold the run up, nor the next wait.
    await wait.for_(seconds=0.1)
    return next(iter(done)).result()


@task(id="work-beside-a-wait")
async def work_beside_a_wait() -> list[str]:
    events: list[str] = []

    async def work() -> None:
        for number in range(3):
            await asyncio.sleep(0.05)
            events.append(f"worked {number}")

    async def rest() -> None:
        await wait.for_(seconds=0.5)
        events.append("rested")

    async with asyncio.TaskGroup() as group:
        group.create_task(work())
        group.create_task(rest())
    return events


class Ending(TypedDict):
    ok: bool
    status: str
    name: str | None
    message: str
    unwrapped: str


@task(id="see-a-failure")
async def see_a_failure(reason: str) -> Ending:
    result = await refuse.trigger_and_wait(reason)
    assert isinstance(result, Failed)
    try:
        await refuse.trigger_and_wait(reason).unwrap()
    except SubtaskUnwrapError as error:
        return Ending(
            ok=result.ok,
            status=result.status,
            name=result.error.name,
            message=result.error.message,
            unwrapped=error.task_id,
        )
    raise AssertionError("not raised")


@task(id="recurse", queue=one_at_a_time)
async def recurse(depth: int) -> str:
    if depth == 0:
        return "bottom"
    with contextlib.suppress(WaitRefusedError):
        return await recurse.trigger_and_wait(depth - 1).unwrap()
    return "refused"


@task(id="wait-with-a-limit", max_duration=5)
async def wait_with_a_limit() -> str:
    await wait.for_(seconds=6)
    return "waits don't count"


@task(id="wait-for-ever")
async def wait_for_ever() -> str:
    try:
        await wait.for_(days=365)
    finally:
        print("left")
    return "never"


@task(id="squares-as-a-batch")
async def squares_as_a_batch(numbers: list[int]) -> list[int]:
    result = await square.batch_trigger_and_wait(numbers)
    return [run.unwrap() for run in result.runs]


@task(id="blocking-batch")
def blocking_batch_of_two(number: int) -> list[object]:
    result = blocking_batch.trigger_by_task_and_wait([(square, number), (refuse, "no")])
    return [run.output if isinstance(run, Ok) else run.error.message for run in result.runs]


@task(id="repeat")
async def repeat(times: int) -> str:
    return "x" * times


@task(id="lengths-of-outputs")
async def lengths_of_outputs(times: int) -> list[int]:
    one = await repeat.trigger_and_wait(times).unwrap()
    batch = await repeat.batch_trigger_and_wait([times, 1])
    return [len(str(output)) for output in (one, *(run.unwrap() for run in batch.runs))]


@task(id="blocking-lengths-of-outputs")
def blocking_lengths_of_outputs(times: int) -> list[int]:
    one = repeat.sync.trigger_and_wait(times).unwrap()
    batch = blocking_batch.trigger_by_task_and_wait([(repeat, times), (repeat, 1)])
    return [len(str(output)) for output in (one, *(run.unwrap() for run in batch.runs))]


@task(id="wait-for-approval")
async def wait_for_approval(url_file: str) -> object:
    token = await wait.create_token(timeout="1m", tags=["approval"])
    await asyncio.to_thread(Path(url_file).write_text, f"{token.id} {token.url}")
    return await wait.for_token(token).unwrap()


@task(id="time-out")
async def time_out() -> str:
    result = await wait.for_token(await wait.create_token(timeout="1s"))
    return f"{result.ok} {result.error}"


@task(id="wait-for-request")
def wait_for_request(url_file: str) -> object:
    return blocking_wait.for_request(
        lambda url: Path(url_file).write_text(url, encoding="utf-8"), timeout="1m"
    )


@task(id="wait-for-payment")
async def wait_for_payment(order: int) -> object:
    return await wait.for_event("order.paid", filter={"order": order}, timeout="1m")


@task(id="wait-for-gated")
async def wait_for_gated(payload: Gate) -> str:
    key = idempotency_keys.create("child", scope="run")
    result = await wait_for_file.trigger_and_wait(payload, idempotency_key=key)
    return f"{result.ok}"


@task(id="traced")
async def traced(number: int) -> int:
    with logger.trace("work"):
        logger.info("at work")
        await wait.for_(seconds=0.01)
        return await square.trigger_and_wait(number).unwrap()
