"""Streams of runs: written while a body comes in, read as server-sent events."""

import asyncio
import contextlib
import re
import secrets
from collections.abc import Awaitable
from typing import cast, get_args

from starlette.requests import Request
from starlette.types import ASGIApp

from runwell.core.errors import RequestError
from runwell.core.payloads import check_text
from runwell.core.schemas import CreatedStream
from runwell.core.scopes import Resource
from runwell.engine import run_streams
from runwell.engine.db import DatabaseUnavailableError
from runwell.engine.run_streams import MAX_CHUNK_BYTES, StreamTarget, Writer
from runwell.server import auth
from runwell.server.allowed_runs import get_allowed_run
from runwell.server.backend import Backend
from runwell.server.http import Answer, ClientGoneError, answer, key_header, path_text
from runwell.server.line_bodies import read_line_groups
from runwell.server.operations import Operation, Parameter
from runwell.server.stream_answers import StreamAnswer

_WRITER_HEADER, _FIRST_HEADER = "x-client-id", "x-resume-from-chunk"
_WRITER_CHARACTERS = 128
# Said by a writer with a name that sends its chunks in several requests.
_CONTINUES_HEADER = "x-stream-continues"
# A task may think for long between two chunks.
_IDLE_SECONDS = 3_600.0
_MAX_TIMEOUT_SECONDS = 600
# Given to writers without a name: they can't go on with a stream after their connection broke.
_UNNAMED = "request:"
_EVENT_ID = re.compile(r"\d{1,16}-(\d{1,9})")


async def write(request: Request, backend: Backend) -> Answer:
    """Store the chunks of a body while it comes in."""
    environment = await backend.authenticate(request)
    run_id, key, target = path_text(request, "runId"), path_text(request, "key"), _target(request)
    name = key_header(request, _WRITER_HEADER, _WRITER_CHARACTERS)
    first = _number(request, _FIRST_HEADER, most=run_streams.MAX_CHUNKS) or 0
    writer = await run_streams.open_stream(
        backend.db,
        environment,
        run_id,
        target,
        key,
        writer=name or _UNNAMED + secrets.token_hex(8),
        now=backend.now(),
    )
    try:
        await _store(request, backend, writer, first)
    except (ClientGoneError, DatabaseUnavailableError):
        if name is None:
            await _close(backend, writer)
        raise
    except RequestError as error:
        if name is None or error.status not in (408, 503):
            await _close(backend, writer)
        raise
    if name is None or request.headers.get(_CONTINUES_HEADER) != "true":
        await _close(backend, writer)
    return Answer(b"")


async def read(request: Request, backend: Backend) -> ASGIApp:
    """Send a stream, from its begin or from after the event that the reader had last."""
    environment = await backend.authenticate(request)
    run_id, key = path_text(request, "runId"), path_text(request, "key")
    async with backend.db.transaction() as tx:
        if auth.may(request, Resource("runs", run_id)):
            auth.require(request, Resource("runs", run_id))
        await get_allowed_run(request, tx, environment, run_id)
    return StreamAnswer(
        request=request,
        backend=backend,
        run_id=run_id,
        key=key,
        after=_last_event(request),
        idle_seconds=_number(request, "timeout-seconds", most=_MAX_TIMEOUT_SECONDS),
        is_once=request.query_params.get("once") == "true",
    )


async def create(request: Request, backend: Backend) -> Answer:
    """Tell a client of 4.x how to write: by POST."""
    await _find_last(request, backend)
    return answer(CreatedStream(version="v1"), status=202, headers=(("x-stream-version", "v1"),))


async def find_position(request: Request, backend: Backend) -> Answer:
    """Tell a writer which chunk of its own was stored last."""
    last = await _find_last(request, backend)
    return Answer(b"", headers=(("x-last-chunk-index", str(-1 if last is None else last)),))


async def _find_last(request: Request, backend: Backend) -> int | None:
    return await run_streams.find_last_chunk(
        backend.db,
        await backend.authenticate(request),
        path_text(request, "runId"),
        _target(request),
        path_text(request, "key"),
        writer=key_header(request, _WRITER_HEADER, _WRITER_CHARACTERS) or "",
    )


async def _store(request: Request, backend: Backend, writer: Writer, first: int) -> None:
    groups = read_line_groups(request, limit=MAX_CHUNK_BYTES, idle_seconds=_IDLE_SECONDS)
    topic = run_streams.topic_of(writer.run_id, writer.key)
    with backend.polls.until_stop() as end:
        while True:
            lines = await _next_of(groups.__anext__(), end)
            if lines is None:
                return
            bodies = [_text(number, line) for number, line in lines]
            await run_streams.append_chunks(
                backend.db, writer, bodies, first=first, now=backend.now()
            )
            first += len(bodies)
            backend.signals.wake(topic)


async def _next_of(
    lines: Awaitable[list[tuple[int, bytes]]], end: asyncio.Future[bool]
) -> list[tuple[int, bytes]] | None:
    """What comes next; None at the end of the body. RequestError 503 when the server stops."""

    async def take() -> list[tuple[int, bytes]] | None:
        try:
            return await lines
        except StopAsyncIteration:
            return None

    task = asyncio.create_task(take(), name="stream_body")
    try:
        await asyncio.wait((task, end), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise RequestError(503, "the server stops: send the rest again in a second")
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait((task,))


async def _close(backend: Backend, writer: Writer) -> None:
    with contextlib.suppress(DatabaseUnavailableError):
        await run_streams.close_writer(backend.db, writer)
        backend.signals.wake(run_streams.topic_of(writer.run_id, writer.key))


def _text(number: int, line: bytes) -> str:
    try:
        text = line.removesuffix(b"\r").decode()
    except UnicodeDecodeError:
        raise RequestError(400, f"line {number} of the body is no UTF-8") from None
    check_text(text, what=f"line {number} of the body")
    return text


def _target(request: Request) -> StreamTarget:
    target = request.path_params.get("target", "self")
    if target not in get_args(StreamTarget):
        raise RequestError(
            404, f"{target[:32]!r} is no run to write to: it is self, parent or root"
        )
    return cast("StreamTarget", target)


def _number(request: Request, header: str, *, most: int) -> int | None:
    text = request.headers.get(header)
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < 10 and int(text) <= most):
        raise RequestError(
            400, f"the header {header} must be a number from 0 to {most:,}, not {text[:32]!r}"
        )
    return int(text)


def _last_event(request: Request) -> int:
    text = request.headers.get("last-event-id")
    if text is None:
        return -1
    found = _EVENT_ID.fullmatch(text)
    if found is None:
        raise RequestError(
            400, f"the header last-event-id must be the id of an event, not {text[:32]!r}"
        )
    return int(found[1])


_NO_RUN = (404, "There is no such run in the environment of the key.")
_WRITER = Parameter(
    name=_WRITER_HEADER,
    place="header",
    description="A text that is the same when a writer goes on after its connection broke",
)
_WRITE_PARAMETERS = (
    _WRITER,
    Parameter(
        name=_FIRST_HEADER,
        place="header",
        type="integer",
        description="The number that the first line has for the writer, from 0 on",
    ),
    Parameter(
        name=_CONTINUES_HEADER,
        place="header",
        description="`true`: this writer will send more, so the stream stays open",
    ),
)
_WRITE_REFUSALS = (
    _NO_RUN,
    (413, "A line, or the stream, is too large."),
    (422, "The run has ended, or has too many streams."),
)

operations: list[Operation] = [
    Operation(
        method="POST",
        path="/realtime/v1/streams/{runId}/{target}/{key}",
        endpoint=write,
        name="writeStream",
        summary="Write to a stream of a run, its parent or its root: one chunk a line",
        tag="realtime",
        answer_description="All chunks are stored, and the writer has ended.",
        parameters=_WRITE_PARAMETERS,
        refusals=_WRITE_REFUSALS,
    ),
    Operation(
        method="PUT",
        path="/realtime/v1/streams/{runId}/{target}/{key}",
        endpoint=create,
        name="createStream",
        summary="Ask how to write to a stream",
        tag="realtime",
        answer=CreatedStream,
        answer_status=202,
        answer_description="By POST to the same URL.",
        refusals=(_NO_RUN,),
    ),
    Operation(
        method="GET",
        path="/realtime/v1/streams/{runId}/{target}/{key}",
        endpoint=find_position,
        name="findStreamPosition",
        summary="Which chunk of a writer was stored last",
        tag="realtime",
        answer_description="In the header `x-last-chunk-index`; -1 when there is none.",
        parameters=(_WRITER,),
        refusals=(_NO_RUN,),
    ),
    Operation(
        method="GET",
        path="/realtime/v1/streams/{runId}/{key}",
        endpoint=read,
        name="readStream",
        summary="Read a stream of a run as server-sent events",
        tag="realtime",
        answer_description="One event a chunk, until the stream is closed or the run has ended.",
        parameters=(
            Parameter(
                name="last-event-id",
                place="header",
                description="The id of the last event that was received",
            ),
            Parameter(
                name="timeout-seconds",
                place="header",
                type="integer",
                description="End after so long without a chunk, 600 at most",
            ),
            Parameter(
                name="once",
                type="boolean",
                description="End as soon as there were chunks",
            ),
        ),
        refusals=(_NO_RUN,),
    ),
    Operation(
        method="POST",
        path="/realtime/v1/streams/{runId}/{key}",
        endpoint=write,
        name="writeOwnStream",
        summary="Write to a stream of a run",
        tag="realtime",
        answer_description="All chunks are stored, and the writer has ended.",
        parameters=_WRITE_PARAMETERS,
        refusals=_WRITE_REFUSALS,
    ),
]
