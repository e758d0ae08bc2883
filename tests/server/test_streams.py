"""Streams over HTTP: read while they are written, whole for every reader, resumable."""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator
from datetime import timedelta

import httpx

from runwell.engine import run_streams
from tests.server.serving import Served, error_of, serving


def stream_path(run_id: str, key: str = "words") -> str:
    return f"/realtime/v1/streams/{run_id}/{key}"


async def write(served: Served, run_id: str, *lines: str, **headers: str) -> httpx.Response:
    return await served.client.post(
        f"/realtime/v1/streams/{run_id}/self/words",
        content="".join(f"{line}\n" for line in lines),
        headers={name.replace("_", "-"): value for name, value in headers.items()},
    )


@contextlib.asynccontextmanager
async def reading(
    served: Served, run_id: str, **headers: str
) -> AsyncGenerator[AsyncIterator[str]]:
    """The lines of an answer that is under way."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    async with served.client.stream("GET", stream_path(run_id), headers=sent) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "text/event-stream"
        yield (line async for line in answer.aiter_lines())


async def next_chunk(lines: AsyncIterator[str]) -> str:
    async with asyncio.timeout(10):
        async for line in lines:
            if line.startswith("data: "):
                return line.removeprefix("data: ")
    raise AssertionError("the stream has ended")


async def read_whole(served: Served, run_id: str, **headers: str) -> list[str]:
    async with asyncio.timeout(10), reading(served, run_id, **headers) as lines:
        return [line[6:] async for line in lines if line.startswith("data: ")]


async def test_readers_get_each_chunk_while_the_writer_is_at_work(database_url: str) -> None:
    async with serving(database_url) as served:
        run_id = await served.trigger()
        given: asyncio.Queue[bytes | None] = asyncio.Queue()

        async def body() -> AsyncGenerator[bytes]:
            while (part := await given.get()) is not None:
                yield part

        async with reading(served, run_id) as first, reading(served, run_id) as second:
            # Where the body is cut says nothing about its lines.
            sending = asyncio.create_task(
                served.client.post(f"/realtime/v1/streams/{run_id}/self/words", content=body())
            )
            given.put_nowait(b'"one"\n\n{"tw')
            assert await next_chunk(first) == '"one"'
            assert await next_chunk(second) == '"one"'
            given.put_nowait(b'o": 2}\n"last"')
            assert await next_chunk(first) == '{"two": 2}'
            given.put_nowait(None)
            assert (await sending).status_code == 200
            rest = [line async for line in first if line]
            assert [line for line in rest if line.startswith("data")] == ['data: "last"']
            assert rest[-1] == ": end"
        # Who comes late gets all of it.
        assert await read_whole(served, run_id) == ['"one"', '{"two": 2}', '"last"']


async def test_a_reader_goes_on_after_the_event_that_it_had_last(database_url: str) -> None:
    async with serving(database_url) as served:
        run_id = await served.trigger()
        await write(served, run_id, "1", "2", "3")
        async with reading(served, run_id) as lines:
            ids = [line[4:] async for line in lines if line.startswith("id: ")]
        assert await read_whole(served, run_id, last_event_id=ids[0]) == ["2", "3"]
        assert await read_whole(served, run_id, last_event_id=ids[2]) == []


async def test_chunks_sent_again_by_the_same_writer_are_there_once(database_url: str) -> None:
    async with serving(database_url) as served:
        run_id = await served.trigger()
        await write(served, run_id, "1", "2", x_client_id="a")
        await write(served, run_id, "1", "2", "3", x_client_id="a")
        await write(served, run_id, "3", "4", x_client_id="a", x_resume_from_chunk="2")
        await write(served, run_id, "9", x_client_id="b")
        assert await read_whole(served, run_id) == ["1", "2", "3", "4", "9"]
        position = await served.client.head(
            f"/realtime/v1/streams/{run_id}/self/words", headers={"x-client-id": "a"}
        )
        assert position.headers["x-last-chunk-index"] == "3"


async def test_a_writer_with_a_name_goes_on_after_its_connection_broke(database_url: str) -> None:
    async with serving(database_url) as served:
        run_id = await served.trigger()

        is_read = asyncio.Event()

        async def broken() -> AsyncGenerator[bytes]:
            yield b"1\n2"
            await is_read.wait()
            raise ConnectionResetError

        async with reading(served, run_id) as lines:
            sending = asyncio.create_task(
                served.client.post(
                    f"/realtime/v1/streams/{run_id}/self/words",
                    content=broken(),
                    headers={"x-client-id": "a"},
                )
            )
            assert await next_chunk(lines) == "1"
            is_read.set()
            with contextlib.suppress(ConnectionResetError):
                await sending
            # The stream is not closed: half a line is no chunk, and the rest is still to come.
            await write(served, run_id, "1", "2", x_client_id="a")
            assert [line async for line in lines if line.startswith("data")] == ["data: 2"]


async def test_a_writer_may_send_its_chunks_in_several_requests(database_url: str) -> None:
    async with serving(database_url) as served:
        run_id = await served.trigger()
        async with reading(served, run_id) as lines:
            await write(served, run_id, "1", x_client_id="a", x_stream_continues="true")
            assert await next_chunk(lines) == "1"
            await write(served, run_id, "2", x_client_id="a", x_resume_from_chunk="1")
            assert [line async for line in lines if line.startswith("data")] == ["data: 2"]


async def test_a_child_writes_to_the_streams_of_its_parent_and_root(database_url: str) -> None:
    async with serving(database_url) as served:
        root = await served.trigger()
        parent = await served.trigger(options={"parentRunId": root})
        child = await served.trigger(options={"parentRunId": parent})
        for target in ("self", "parent", "root"):
            path = f"/realtime/v1/streams/{child}/{target}/words"
            answer = await served.client.post(path, content=json.dumps(target))
            assert answer.status_code == 200
        for run_id, chunk in ((child, '"self"'), (parent, '"parent"'), (root, '"root"')):
            assert await read_whole(served, run_id) == [chunk]


async def test_a_stream_ends_with_its_run_and_takes_nothing_afterwards(database_url: str) -> None:
    async with serving(database_url) as served:
        run_id = await served.trigger()
        async with reading(served, run_id) as lines:
            canceled = await served.client.post(f"/api/v2/runs/{run_id}/cancel")
            assert canceled.status_code == 200
            assert [line async for line in lines if line][-1] == ": end"
        late = await write(served, run_id, "1")
        assert late.status_code == 422
        assert "has ended" in error_of(late)


async def test_bad_streams_are_refused_with_what_is_wrong(database_url: str) -> None:
    async with serving(database_url) as served:
        run_id = await served.trigger()
        wrong = [
            (await write(served, "run_x", "1"), 404, "no run run_x"),
            (await write(served, run_id, "1", x_resume_from_chunk="-1"), 400, "x-resume"),
            (await write(served, run_id, "\0"), 400, "line 1"),
            (await write(served, run_id, "x" * (run_streams.MAX_CHUNK_BYTES + 1)), 413, "line 1"),
            (
                await served.client.post(f"/realtime/v1/streams/{run_id}/uncle/words", content="1"),
                404,
                "self, parent or root",
            ),
            (await served.client.get(stream_path("run_x")), 404, "no run run_x"),
            (
                await served.client.get(stream_path(run_id), headers={"last-event-id": "x"}),
                400,
                "last-event-id",
            ),
        ]
        for answer, status, words in wrong:
            assert answer.status_code == status
            assert words in error_of(answer)


async def test_a_stream_takes_no_more_than_its_bound(database_url: str) -> None:
    async with serving(database_url) as served:
        run_id = await served.trigger()
        large = "x" * run_streams.MAX_CHUNK_BYTES
        for _ in range(16):
            assert (await write(served, run_id, large)).status_code == 200
        full = await write(served, run_id, "y")
        assert full.status_code == 413
        assert "is full" in error_of(full)


async def test_streams_are_deleted_a_day_after_the_end_of_their_run(database_url: str) -> None:
    async with serving(database_url) as served:
        ended, going_on = await served.trigger(), await served.trigger()
        for run_id in (ended, going_on):
            await write(served, run_id, "1")
        await served.client.post(f"/api/v2/runs/{ended}/cancel")
        now = served.backend.now()
        assert await run_streams.delete_old_streams(served.backend.db, now=now) == 0
        later = now + run_streams.LIFETIME + timedelta(minutes=1)
        assert await run_streams.delete_old_streams(served.backend.db, now=later) == 2
        assert await run_streams.delete_old_streams(served.backend.db, now=later) == 0
        assert await read_whole(served, ended) == []
        assert await read_whole(served, going_on) == ["1"]
