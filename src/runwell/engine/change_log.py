"""What changed, as it changes: one reader of the log of changes for all subscribers of a server.

The log is the table of snapshots and that of other changes, with ids of one sequence. While anybody
is subscribed it is read every 10 ms, by index from where the last reading ended; an id that is not
there yet, since its transaction has not committed, is asked for until that transaction has ended.
Who waits is woken through a topic, and reads its runs itself (`shapes.py`): a wake-up is a hint.
"""

import asyncio
import logging
import time
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar

from runwell.engine.db import Database, DatabaseUnavailableError
from runwell.engine.queries import load_queries
from runwell.engine.shapes import Shape
from runwell.engine.views import View

_sql = load_queries("change_log")

KeyT = TypeVar("KeyT")

INTERVAL_SECONDS: Final = 0.01
_RETRY_SECONDS = 1.0
# A topic is kept for so long after it was last asked for: its subscriber is back in a moment.
_KEPT_SECONDS = 60.0
# Entries of the log that a reading takes, and how far back the first one looks for gaps.
_MOST = 2_000
_BEHIND = 1_000
#: More ids that are not there yet are not asked for: their subscribers look by themselves.
MAX_GAPS = 20_000
# A topic remembers which runs changed until there are more of them.
_MAX_REMEMBERED = 1_000
#: Entries that are no snapshots are kept for this long.
LOG_LIFETIME = timedelta(minutes=10)
SWEEP_ROWS = 5_000

_log = logging.getLogger(__name__)


class Topic:
    """A shape that somebody is subscribed to."""

    __slots__ = (
        "changed", "environment_id", "looks", "since", "used_at", "version", "waiting",
    )  # fmt: skip

    def __init__(self, environment_id: int, since: View | None) -> None:
        self.environment_id = environment_id
        self.version = 0
        #: Of those who wait; set to True when the shape may have changed.
        self.waiting: set[asyncio.Future[bool]] = set()
        self.used_at = time.monotonic()
        #: Which runs of the shape changed since this view; None: that isn't known.
        self.since = since
        self.changed: dict[str, None] = {}
        #: What was found for this version; whoever has the same question gets the same answer.
        self.looks: dict[object, asyncio.Future[Any]] = {}

    def note(self, run_ids: Iterable[str], view: View) -> None:
        """These runs have changed: wake whoever waits."""
        self.version += 1
        self.looks.clear()
        self.changed.update(dict.fromkeys(run_ids))
        if len(self.changed) > _MAX_REMEMBERED:
            self.restart(view)
        self.wake()

    def restart(self, since: View | None) -> None:
        """Remember changes from here on."""
        self.changed.clear()
        self.since = since

    def wake(self) -> None:
        """Let whoever waits look."""
        waiting, self.waiting = self.waiting, set()
        for future in waiting:
            if not future.done():
                future.set_result(True)


class Changes:
    """The reader of a server, and its topics."""

    def __init__(self, db: Database) -> None:
        """Read nothing yet: that begins with the first topic."""
        self._db = db
        self._runs: dict[str, Topic] = {}
        self._batches: dict[str, Topic] = {}
        # By environment and first tag, and then by all tags.
        self._tags: dict[tuple[int, str], dict[frozenset[str], Topic]] = {}
        self._has_topics = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._identity: str | None = None
        self._high = 0
        self._gaps: dict[int, int] = {}
        self._begun_at = View(0)
        self._is_complete = False
        #: What all that has been read shows.
        self.view = View(0)

    @property
    def missing(self) -> int:
        """How many entries of the log are waited for."""
        return len(self._gaps)

    async def aclose(self) -> None:
        """End what the first topic began."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))
            self._task = None

    async def identify(self) -> str:
        """What is another text once the database is another one, or an older state of it."""
        if self._identity is None:
            (row,) = await self._db.fetch(_sql.identify_database)
            self._identity = str(row[0])
        return self._identity

    def find_topic(self, shape: Shape) -> Topic | None:
        """The topic of a shape if there is one."""
        if isinstance(shape.of, tuple):
            found = self._tags.get(_place(shape), {}).get(frozenset(shape.of))
        else:
            found = (self._runs if shape.kind == "run" else self._batches).get(shape.of)
        return None if found is None or found.environment_id != shape.environment_id else found

    def topic(self, shape: Shape) -> Topic:
        """The topic of a shape, which exists for a while from here on."""
        found = self.find_topic(shape)
        if found is None:
            found = Topic(shape.environment_id, self.view if self._is_complete else None)
            if isinstance(shape.of, tuple):
                self._tags.setdefault(_place(shape), {})[frozenset(shape.of)] = found
            else:
                (self._runs if shape.kind == "run" else self._batches)[shape.of] = found
            self._has_topics.set()
            if self._task is None:
                self._task = asyncio.create_task(self._run(), name="changes")
        found.used_at = time.monotonic()
        return found

    async def step(self) -> int:
        """Read the log once, and wake whom it concerns; returns how many entries there were."""
        (row,) = await self._db.fetch(
            _sql.list_changes, high=self._high, gaps=list(self._gaps), most=_MOST
        )
        view, ids = View.parse(row["view"]), list[int](row["ids"])
        if ids:
            self._advance(ids, view)
            await self._tell(list(dict.fromkeys(row["run_ids"])), view)
        # Not before everybody has been told.
        self.view = view
        # All that had an id when these gaps were seen, and so a number below, have ended.
        xmin = view.xmin
        if self._gaps and min(self._gaps.values()) <= xmin:
            self._gaps = {id_: seen for id_, seen in self._gaps.items() if seen > xmin}
        if not self._is_complete and xmin >= self._begun_at.xmax:
            self._is_complete = True
            for topic in self._all():
                topic.restart(self.view)
        return len(ids)

    async def begin(self) -> None:
        """Begin at the end of the log."""
        (row,) = await self._db.fetch(_sql.begin, behind=_BEHIND)
        self.view = self._begun_at = View.parse(row["view"])
        self._high = row["high"]
        self._is_complete = False
        missing = set(range(max(1, self._high - _BEHIND + 1), self._high + 1)).difference(
            row["ids"]
        )
        self._gaps = dict.fromkeys(missing, self.view.xmax)

    async def _run(self) -> None:
        while True:
            await self._has_topics.wait()
            try:
                await self._follow()
            except DatabaseUnavailableError as error:
                _log.warning("changes_lost", extra={"fields": {"error": str(error)}})
            # Subscribers must outlive any single failure, as runs do.
            except Exception:  # noqa: BLE001
                _log.exception("changes_failed")
            # Another server may have taken the database's place.
            self._identity = None
            self._is_complete = False
            await asyncio.sleep(0 if not self._has_topics.is_set() else _RETRY_SECONDS)

    async def _follow(self) -> None:
        await self.begin()
        # What happened until here is unknown: let all look.
        for topic in self._all():
            topic.restart(None)
            topic.version += 1
            topic.looks.clear()
            topic.wake()
        tidied_at = time.monotonic()
        while self._has_topics.is_set():
            await asyncio.sleep(INTERVAL_SECONDS)
            while await self.step() >= _MOST:
                pass
            if time.monotonic() > tidied_at + _KEPT_SECONDS / 4:
                tidied_at = time.monotonic()
                self._forget_idle(tidied_at - _KEPT_SECONDS)

    def _advance(self, ids: list[int], view: View) -> None:
        for id_ in ids:
            self._gaps.pop(id_, None)
        high = max(self._high, *ids)
        if high - self._high + len(self._gaps) > MAX_GAPS:
            # Whom that concerns is not known any more.
            self._gaps.clear()
            for topic in self._all():
                topic.restart(None)
            self._begun_at, self._is_complete = view, False
        elif high > self._high:
            missing = set(range(self._high + 1, high)).difference(ids)
            self._gaps.update(dict.fromkeys(missing, view.xmax))
        self._high = high

    async def _tell(self, run_ids: list[str], view: View) -> None:
        for run_id in run_ids:
            topic = self._runs.get(run_id)
            if topic is not None:
                topic.note((run_id,), view)
        if not self._tags and not self._batches:
            return
        for topic, changed in (await self._find_others(run_ids)).items():
            topic.note(changed, view)

    async def _find_others(self, run_ids: list[str]) -> dict[Topic, list[str]]:
        rows = await self._db.fetch(_sql.list_memberships, run_ids=run_ids)
        found: dict[Topic, list[str]] = {}
        for row in rows:
            for batch_id in row["batch_ids"]:
                if (topic := self._batches.get(batch_id)) is not None:
                    found.setdefault(topic, []).append(row["id"])
            tags = frozenset(row["tags"])
            for tag in tags:
                for wanted, topic in self._tags.get((row["environment_id"], tag), {}).items():
                    if wanted <= tags:
                        found.setdefault(topic, []).append(row["id"])
        return found

    def _all(self) -> list[Topic]:
        tagged = [topic for topics in self._tags.values() for topic in topics.values()]
        return [*self._runs.values(), *self._batches.values(), *tagged]

    def _forget_idle(self, before: float) -> None:
        _drop_idle(self._runs, before)
        _drop_idle(self._batches, before)
        for topics in self._tags.values():
            _drop_idle(topics, before)
        self._tags = {place: topics for place, topics in self._tags.items() if topics}
        if not (self._runs or self._batches or self._tags):
            self._has_topics.clear()


async def delete_old_changes(db: Database, *, now: datetime) -> int:
    """Delete entries of the log that everybody has passed; SWEEP_ROWS when there may be more."""
    (row,) = await db.fetch(_sql.delete_old_changes, before=now - LOG_LIFETIME, most=SWEEP_ROWS)
    return int(row[0])


def _place(shape: Shape) -> tuple[int, str]:
    return shape.environment_id, shape.of[0]


def _drop_idle(topics: dict[KeyT, Topic], before: float) -> None:
    idle = [key for key, topic in topics.items() if not topic.waiting and topic.used_at < before]
    for key in idle:
        del topics[key]
