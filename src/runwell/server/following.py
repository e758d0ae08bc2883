"""Subscriptions: what has a shape to say since an offset, at once or when something changes.

Nothing is remembered of a subscriber: its offset says what it has seen, to any server of the
database. Those who ask the same of the same shape at the same time share one reading and its text.
"""

import asyncio
import hashlib
import re
import time
from collections.abc import Coroutine
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

from starlette.requests import Request

from runwell.core.errors import RequestError
from runwell.core.shapes import ARRAY_COLUMNS, COLUMN_TYPES
from runwell.core.timing import parse_duration
from runwell.engine import shapes
from runwell.engine.batches import no_such_batch
from runwell.engine.change_log import Topic
from runwell.engine.environments import Environment, no_such_run
from runwell.engine.shapes import Found, Shape
from runwell.engine.views import View
from runwell.server.backend import Backend
from runwell.server.http import Answer
from runwell.server.polling import end_wait
from runwell.server.run_objects import is_4x
from runwell.server.shape_rows import (
    REQUIRED_COLUMNS,
    encode_rows,
    refetch_answer,
    shape_answer,
)

#: A live request is held for so long.
LIVE_SECONDS: Final = 20.0
_MAX_OFFSET_CHARACTERS = 8_000
_HANDLE = re.compile(r"([0-9a-f]{24})-(\d{13})")
_AFTER = re.compile(r"[0-9A-Za-z]{1,64}")
_PAYLOAD_COLUMNS = ("payload", "payloadType")
_ALL_COLUMNS: Final = frozenset((*COLUMN_TYPES, *ARRAY_COLUMNS))
# How long an answer may serve others who ask the same.
_SHARED_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Offset:
    """All that `view` shows has been seen; on the way there, the runs until `after`.

    On the way from `since`: of what had been seen by then, only what changed is sent.
    """

    view: View
    after: str | None = None
    since: View | None = None

    @classmethod
    def parse(cls, text: str) -> "Offset":
        """Read what `str` gave; raises RequestError 400 for anything else."""
        view, _, rest = text.partition("~")
        after, _, since = rest.partition("~")
        try:
            if len(text) > _MAX_OFFSET_CHARACTERS or (rest and not _AFTER.fullmatch(after)):
                raise ValueError(text)
            return cls(
                View.from_offset(view),
                f"run_{after}" if rest else None,
                View.from_offset(since) if since else None,
            )
        except ValueError:
            raise RequestError(
                400,
                f"offset: {text[:64]!r} is no offset: begin with -1, and then send the value of "
                "the header electric-offset of the answer before",
            ) from None

    def __str__(self) -> str:
        text = self.view.offset
        if self.after is not None:
            text += "~" + self.after.removeprefix("run_")
        return text if self.since is None else f"{text}~{self.since.offset}"


@dataclass(frozen=True, slots=True)
class _News:
    """What is to be said: messages, and the offset after them."""

    messages: list[bytes]
    offset: Offset


async def follow(
    request: Request, backend: Backend, environment: Environment, shape: Shape
) -> Answer:
    """Answer a request about a shape; raises RequestError 400 or 404."""
    query = request.query_params
    text = query.get("offset")
    if text is None:
        raise RequestError(400, "offset: it is missing; begin with offset=-1")
    offset = None if text == "-1" else Offset.parse(text)
    given = query.get("handle") or query.get("shape_id")
    if offset is not None and not given:
        raise RequestError(
            400, "handle: it is missing; send the value of the header electric-handle with offset"
        )
    await _check(backend, environment, shape)
    name = await _name_of(backend, shape)
    handle = _HANDLE.fullmatch(given or "")
    made_at = int(handle[2]) if handle is not None and handle[1] == name else None
    if made_at is None:
        fresh = f"{name}-{time.time_ns() // 1_000_000}"
        if offset is not None:
            return refetch_answer(fresh)
        given, made_at = fresh, int(fresh[-13:])
    assert given is not None
    period = query.get("createdAt")
    if period and shape.kind == "tags":
        shape = replace(shape, created_from=_created_from(period, made_at))
    subscription = _Subscription(request, backend, shape, given)
    return await subscription.answer(offset, is_live=query.get("live") == "true")


class _Subscription:
    """One request about a shape."""

    def __init__(
        self,
        request: Request,
        backend: Backend,
        shape: Shape,
        handle: str,
    ) -> None:
        self._request = request
        self._backend = backend
        self._shape = shape
        self._handle = handle
        self._is_4x = is_4x(request)
        self._is_old = "x-trigger-electric-version" not in request.headers
        skipped = set(request.query_params.get("skipColumns", "").split(",")) - REQUIRED_COLUMNS
        self._without = tuple(sorted(skipped & _ALL_COLUMNS))

    async def answer(self, offset: Offset | None, *, is_live: bool) -> Answer:
        if offset is None or offset.after is not None or not is_live:
            return self._say(await self._read_next(offset))
        return self._say(await self._wait(offset))

    async def _read_next(self, offset: Offset | None) -> _News:
        """The next part of all, or of what changed."""
        since, after, target = None, None, None
        if offset is not None:
            after = offset.after
            since, target = (offset.view, None) if after is None else (offset.since, offset.view)
        found = await self._read(since, after=after)
        target = target or found.view
        messages = self._encode(found, operation="insert")
        if found.has_more:
            return _News(messages, Offset(target, found.runs[-1].id, since))
        return _News(messages, Offset(target))

    async def _wait(self, offset: Offset) -> _News:
        """What changed, as soon as something has; nothing after a while."""
        topic, polls = self._backend.changes.topic(self._shape), self._backend.polls
        loop, deadline = asyncio.get_running_loop(), time.monotonic() + LIVE_SECONDS
        question = (str(offset), self._is_4x, self._without, self._shape.created_from)
        while True:
            version = topic.version
            news = topic.looks.get(question)
            if news is None:
                news = _share(topic, question, self._look(topic, offset))
            found: _News = await asyncio.shield(news)
            left = deadline - time.monotonic()
            if found.messages or left <= 0 or polls.is_stopping:
                return found
            if topic.version != version:
                continue
            async with polls.hold(self._request) as end:
                topic.waiting.add(end)
                timer = loop.call_later(left, end_wait, end)
                try:
                    is_woken = await end
                finally:
                    timer.cancel()
                    topic.waiting.discard(end)
            if not is_woken:
                return found

    async def _look(self, topic: Topic, offset: Offset) -> _News:
        since = offset.view
        known = self._backend.changes.view
        if not self._is_of_one and topic.since is not None and since.covers(topic.since):
            # What changed is known, as far as the log has been read.
            if not known.covers(since) or not topic.changed:
                return _News([], offset)
            found = await shapes.read_runs(
                self._backend.db,
                self._shape,
                list(topic.changed),
                since=since,
                until=known,
                with_payload=not self._is_of_one,
            )
            target = known
        else:
            found = await self._read(since, with_payload=not self._is_of_one)
            target = found.view
        if not found.runs:
            return _News([], offset)
        # One that has a tag, or is in a batch, since just now isn't known there: it comes whole.
        messages = self._encode(found, operation="update" if self._is_of_one else "insert")
        if found.has_more:
            return _News(messages, Offset(target, found.runs[-1].id, since))
        return _News(messages, Offset(target))

    @property
    def _is_of_one(self) -> bool:
        return self._shape.kind == "run"

    async def _read(
        self, since: View | None, *, after: str | None = None, with_payload: bool = True
    ) -> Found:
        if self._shape.kind == "tags":
            return await shapes.read_tagged_runs(
                self._backend.db, self._shape, since=since, after=after
            )
        return await shapes.read_runs(
            self._backend.db,
            self._shape,
            None if isinstance(self._shape.of, tuple) or not self._is_of_one else (self._shape.of,),
            since=since,
            after=after,
            with_payload=with_payload and "payload" not in self._without,
        )

    def _encode(self, found: Found, *, operation: str) -> list[bytes]:
        without = self._without if operation == "insert" else (*self._without, *_PAYLOAD_COLUMNS)
        return encode_rows(
            found.runs,
            operation=operation,
            is_4x=self._is_4x,
            without=without,
        )

    def _say(self, news: _News) -> Answer:
        return shape_answer(
            news.messages,
            handle=self._handle,
            offset=str(news.offset),
            is_up_to_date=news.offset.after is None,
            is_old=self._is_old,
        )


async def _check(backend: Backend, environment: Environment, shape: Shape) -> None:
    """Raise RequestError 404 when there is no such run or batch."""
    if isinstance(shape.of, tuple) or backend.changes.find_topic(shape) is not None:
        return
    if shape.kind == "run":
        if not await shapes.has_run(backend.db, environment, shape.of):
            raise no_such_run(shape.of, environment)
    elif not await shapes.has_batch(backend.db, environment, shape.of):
        raise no_such_batch(shape.of, environment)


async def _name_of(backend: Backend, shape: Shape) -> str:
    """What names a shape of this database: the first part of its handles."""
    of = shape.of if isinstance(shape.of, str) else "\x1f".join(shape.of)
    identity = await backend.changes.identify()
    text = f"{identity}\x1e{shape.environment_id}\x1e{shape.kind}\x1e{of}"
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _created_from(period: str, made_at: int) -> datetime:
    """Since when runs count: the same for as long as the handle is used."""
    try:
        lifetime = parse_duration(period)
        return datetime.fromtimestamp(made_at / 1000, UTC) - lifetime
    except (ValueError, OverflowError) as error:
        raise RequestError(400, f"createdAt: {error}") from None


def _share(topic: Topic, question: object, look: Coroutine[Any, Any, _News]) -> asyncio.Task[_News]:
    loop = asyncio.get_running_loop()
    task = topic.looks[question] = loop.create_task(look)

    def forget() -> None:
        if topic.looks.get(question) is task:
            del topic.looks[question]

    loop.call_later(_SHARED_SECONDS, forget)
    return task
