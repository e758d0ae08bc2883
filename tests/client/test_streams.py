"""Readers of streams get each value once, in order, until the stream is over."""

import asyncio

import pytest

from runwell.client.runs import BlockingRuns, Runs
from runwell.client.transport import NotFoundError
from runwell.core.payloads import Json
from tests.client.test_realtime import LossyTransport, client_of
from tests.server.serving import serving
from tests.server.test_streams import write


async def test_values_come_once_while_answers_get_lost(database_url: str) -> None:
    async with serving(database_url) as served:
        run_id = await served.trigger()
        reader = Runs(client_of(served, LossyTransport())).fetch_stream(run_id, "words")
        seen: list[Json] = []
        await write(served, run_id, "0", x_client_id="a", x_stream_continues="true")
        async for value in reader:
            seen.append(value)
            number = str(len(seen))
            if len(seen) < 5:
                await write(
                    served,
                    run_id,
                    number,
                    x_client_id="a",
                    x_resume_from_chunk=number,
                    x_stream_continues="true" if len(seen) < 4 else "false",
                )
        assert seen == [0, 1, 2, 3, 4]


async def test_callers_that_block_read_texts_of_several_lines_too(database_url: str) -> None:
    async with serving(database_url) as served:
        run_id = await served.trigger()
        await write(served, run_id, '"two\\nlines"', '{"a": [1]}', "no JSON")
        reader = BlockingRuns(client_of(served)).fetch_stream(run_id, "words")
        assert await asyncio.to_thread(list, reader) == ["two\nlines", {"a": [1]}, "no JSON"]


async def test_a_stream_of_no_run_is_refused(database_url: str) -> None:
    async with serving(database_url) as served:
        with pytest.raises(NotFoundError):
            await anext(aiter(Runs(client_of(served)).fetch_stream("run_x", "words")))
