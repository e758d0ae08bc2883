"""Declaring hooks: what they may take, and what is refused where it is written."""

from collections.abc import Callable

import pytest

from runwell import RunContext, define_config, task
from runwell.sdk.hooks import HookOptions, read_hook


@task(id="hooked")
async def hooked(order: int, ctx: RunContext, init: str) -> str:
    return f"{order} {ctx} {init}"


def test_a_hook_gets_the_values_that_it_declares() -> None:
    def by_place(order: int, output: str, ctx: object, init: object) -> list[object]:
        return [order, output, ctx, init]

    def by_name(*, init: object, number: int) -> list[object]:
        return [init, number]

    def nothing() -> str:
        return "called"

    values = {"output": "out", "ctx": "c", "init": "i"}
    assert read_hook("on_success", by_place, "x").call(1, values) == [1, "out", "c", "i"]
    assert read_hook("on_success", by_name, "x").call(1, values) == ["i", 1]
    assert read_hook("on_success", nothing, "x").call(1, values) == "called"


def test_a_decorator_gives_the_function_back_and_only_one_of_a_kind_is_taken() -> None:
    @task(id="one")
    def one() -> None: ...

    @one.on_start
    def started() -> str:
        return "started"

    assert started() == "started"
    assert [*one.hooks] == ["on_start"]
    with pytest.raises(ValueError, match="task 'one' has a hook 'on_start' already"):
        one.on_start(started)


def takes_two(first: int, second: int) -> None: ...


def takes_output(output: object) -> None: ...


def takes_all(*everything: object) -> None: ...


def takes_by_place(ctx: object, /) -> None: ...


def takes_by_name(payload: object, *, ctx: RunContext) -> None: ...


def generates() -> object:
    yield 1


async def calls_and_yields(call_next: object) -> object:
    yield call_next


@pytest.mark.parametrize(
    ("name", "function", "message"),
    [
        ("on_start", takes_two, "takes 'first', 'second': it may take the payload, and by"),
        ("on_start", takes_output, "takes 'output', which it is not given: it may take the pay"),
        ("on_failure", takes_all, r"takes \*everything: it may take"),
        ("on_failure", takes_by_place, "its parameter 'ctx' is given by name"),
        ("cleanup", generates, "is a generator: write a function that returns"),
        ("cleanup", "clean", "is 'clean': it takes a function"),
        ("cleanup", int, "it takes a function"),
        ("middleware", takes_by_place, "given by name"),
        ("middleware", takes_by_name, "must take 'call_next', by which it runs the task, or yi"),
        ("middleware", calls_and_yields, "yields where the task runs, and so takes no 'call_ne"),
    ],
)
def test_what_can_not_be_called_is_refused(
    name: str, function: Callable[..., object], message: str
) -> None:
    with pytest.raises(TypeError, match=message):
        getattr(hooked, name)(function)
    with pytest.raises(TypeError, match=f"define_config: the hook '{name}'"):
        define_config(**{name: function})  # pyright: ignore[reportArgumentType] (what is refused)


def test_the_config_takes_every_hook_that_a_task_has() -> None:
    names = set(HookOptions.__annotations__)
    assert names == {name for name in names if callable(getattr(hooked, name))}
    config = define_config(on_start=takes_by_name, init=None)  # pyright: ignore[reportArgumentType] (None is taken)
    assert [*config.hooks] == ["on_start"]
    with pytest.raises(TypeError, match="define_config has no option 'on_begin'"):
        define_config(on_begin=takes_by_name)  # pyright: ignore[reportCallIssue] (what is refused)
