"""User-like code that the type checkers read and nobody runs: `@task` keeps the types."""

from dataclasses import dataclass
from typing import assert_type

from runwell.core.payloads import Json
from runwell.core.schedules import ScheduledPayload
from runwell.sdk.definitions import task
from runwell.sdk.hooks import ErrorHandling
from runwell.sdk.runtime import RunContext
from runwell.sdk.schedules import Cron, schedules
from runwell.sdk.task import Task


@dataclass
class Order:
    number: int


@task(id="a")
async def with_payload(payload: Order) -> str:
    return str(payload.number)


@task(id="b")
async def with_both(payload: Order, ctx: RunContext) -> int:
    return ctx.attempt.number


@task(id="c")
async def bare() -> list[str]:
    return []


@task(id="d")
async def only_context(ctx: RunContext) -> bool:
    return ctx.run.is_test


@task(id="e")
async def with_default(name: str = "world") -> str:
    return name


@task(id="f")
async def with_default_and_context(name: str = "world", *, ctx: RunContext) -> str:
    return name


@task(id="g")
def blocking(payload: Order) -> str:
    return str(payload.number)


@task(id="h")
def blocking_both(payload: Order, *, ctx: RunContext) -> int:
    return ctx.attempt.number


@task(id="i")
def blocking_bare() -> None: ...


@task(id="j")
def blocking_default(count: int = 1) -> int:
    return count


@task(id="k")
def blocking_context(ctx: RunContext) -> str:
    return ctx.run.id


@task(id="l")
def blocking_default_and_context(count: int = 1, *, ctx: RunContext) -> int:
    return count


@task(id="m")
async def with_init(payload: Order, init: list[int]) -> int:
    return len(init)


@task(id="n")
async def with_all(payload: Order, ctx: RunContext, init: list[int]) -> int:
    return len(init)


@task(id="o")
def blocking_init(init: list[int]) -> int:
    return len(init)


@task(id="p")
async def bare_all(ctx: RunContext, init: dict[str, str]) -> int:
    return len(init)


@task(id="q")
def default_init(count: int = 1, *, init: str) -> str:
    return init


@with_all.init
async def connect(payload: Order, ctx: RunContext) -> list[int]:
    return [payload.number]


@with_all.on_success
def note(payload: Order, output: int) -> None: ...


@with_all.handle_error
def decide(error: BaseException) -> ErrorHandling | None:
    return {"skip_retrying": True}


assert_type(with_init, Task[Order, int])
assert_type(with_all, Task[Order, int])
assert_type(blocking_init, Task[None, int])
assert_type(bare_all, Task[None, int])
assert_type(default_init, Task[int | None, str])
assert_type(note(Order(1), 2), None)
assert_type(with_payload, Task[Order, str])
assert_type(with_both, Task[Order, int])
assert_type(bare, Task[None, list[str]])
assert_type(only_context, Task[None, bool])
assert_type(with_default, Task[str | None, str])
assert_type(with_default_and_context, Task[str | None, str])
assert_type(blocking, Task[Order, str])
assert_type(blocking_both, Task[Order, int])
assert_type(blocking_bare, Task[None, None])
assert_type(blocking_default, Task[int | None, int])
assert_type(blocking_context, Task[None, str])
assert_type(blocking_default_and_context, Task[int | None, int])


@schedules.task(id="s", cron="0 9 * * *")
async def scheduled(payload: ScheduledPayload) -> int:
    return payload.timestamp.year


@schedules.task(id="t", cron=Cron("0 9 * * *", timezone="Europe/Berlin", spread="10m"))
def scheduled_with_both(payload: ScheduledPayload, ctx: RunContext) -> str:
    return ctx.run.id


@schedules.task(id="u")
async def scheduled_bare() -> bool:
    return True


@schedules.task(id="v")
def scheduled_context(ctx: RunContext) -> bytes:
    return ctx.run.id.encode()


assert_type(scheduled, Task[ScheduledPayload, int])
assert_type(scheduled_with_both, Task[ScheduledPayload, str])
assert_type(scheduled_bare, Task[None, bool])
assert_type(scheduled_context, Task[None, bytes])


@schedules.task(id="w")
async def scheduled_all(payload: ScheduledPayload, ctx: RunContext, init: list[int]) -> int:
    return len(init)


@schedules.task(id="x")
def scheduled_init(init: list[int]) -> str:
    return str(init)


@schedules.task(id="y")
async def scheduled_payload_init(payload: ScheduledPayload, init: str) -> str:
    return init


@schedules.task(id="z")
def scheduled_context_init(ctx: RunContext, init: str) -> bool:
    return ctx.run.is_test


assert_type(scheduled_all, Task[ScheduledPayload, int])
assert_type(scheduled_init, Task[None, str])
assert_type(scheduled_payload_init, Task[ScheduledPayload, str])
assert_type(scheduled_context_init, Task[None, bool])


def parse_order(value: Json) -> Order:
    return Order(int(str(value)))


@task(id="r", schema=parse_order)
async def with_schema(payload: Order) -> int:
    return payload.number


assert_type(with_schema, Task[Order, int])
