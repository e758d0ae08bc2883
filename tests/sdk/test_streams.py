"""`metadata.stream`: values are passed on and stored, in order and once."""

import asyncio
import dataclasses
from collections.abc import AsyncGenerator, Iterator

import pytest

from runwell import InvalidPayloadError, configure, metadata
from runwell.sdk.runtime import activate
from runwell.sync import metadata as blocking_metadata
from tests.sdk.contexts import KeepingRuntime, make_context
from tests.server.serving import Served, serving
from tests.server.test_streams import next_chunk, read_whole, reading


@pytest.fixture(autouse=True)
def _configuration() -> Iterator[None]:
    yield
    configure()


async def runtime_of(served: Served, parent: str | None = None) -> KeepingRuntime:
    """A runtime of a run that the server has."""
    configure(base_url=served.url, secret_key=served.keys["dev"])
    options = {} if parent is None else {"parentRunId": parent}
    run_id = await served.trigger(options=options)
    context, runtime = make_context(), KeepingRuntime()
    runtime.ctx = dataclasses.replace(context, run=dataclasses.replace(context.run, id=run_id))
    return runtime


async def count(number: int) -> AsyncGenerator[dict[str, int]]:
    for index in range(number):
        await asyncio.sleep(0)
        yield {"n": index}


async def test_values_are_passed_on_and_stored_in_order(database_url: str) -> None:
    async with serving(database_url) as served:
        runtime = await runtime_of(served)
        with activate(runtime):
            passed = [value["n"] async for value in metadata.stream("words", count(200))]
            assert await metadata.stream("words", count(2)) == 2
        assert passed == list(range(200))
        stored = await read_whole(served, runtime.ctx.run.id)
        assert stored == [f'{{"n":{n}}}' for n in (*range(200), 0, 1)]
        assert runtime.read_metadata() == {
            "$$streams": ["words"],
            "$$streamsVersion": "v1",
            "$$streamsBaseUrl": served.url,
        }


async def test_a_value_is_read_while_the_source_has_more_to_come(database_url: str) -> None:
    async with serving(database_url) as served:
        runtime = await runtime_of(served)
        is_read = asyncio.Event()

        async def source() -> AsyncGenerator[str]:
            yield "first"
            await is_read.wait()
            yield "second"

        with activate(runtime):
            async with reading(served, runtime.ctx.run.id) as lines:
                sending = asyncio.create_task(_send("words", source()))
                assert await next_chunk(lines) == '"first"'
                is_read.set()
                assert await next_chunk(lines) == '"second"'
                assert [line async for line in lines if line] == [": end"]
            assert await sending == 2


async def _send(key: str, source: AsyncGenerator[str]) -> int:
    return await metadata.stream(key, source)


async def test_a_stream_is_closed_when_its_source_fails(database_url: str) -> None:
    async with serving(database_url) as served:
        runtime = await runtime_of(served)

        async def source() -> AsyncGenerator[object]:
            yield 1
            yield object()

        with activate(runtime), pytest.raises(InvalidPayloadError, match="the stream 'words'"):
            await metadata.stream("words", source())
        assert await read_whole(served, runtime.ctx.run.id) == ["1"]


async def test_the_stream_of_a_parent_is_that_of_another_run(database_url: str) -> None:
    async with serving(database_url) as served:
        parent = await served.trigger()
        runtime = await runtime_of(served, parent)
        with activate(runtime):
            assert await metadata.parent.stream("words", count(1)) == 1
        assert await read_whole(served, parent) == ['{"n":0}']


async def test_tasks_that_block_pass_values_on_too(database_url: str) -> None:
    async with serving(database_url) as served:
        runtime = await runtime_of(served)

        def work() -> list[int]:
            with activate(runtime):
                return list(blocking_metadata.stream("words", iter([1, 2, 3])))

        assert await asyncio.to_thread(work) == [1, 2, 3]
        assert await read_whole(served, runtime.ctx.run.id) == ["1", "2", "3"]


async def test_outside_of_a_run_values_are_only_passed_on() -> None:
    assert [value["n"] async for value in metadata.stream("words", count(2))] == [0, 1]
    assert list(blocking_metadata.stream("words", [1, 2])) == [1, 2]
