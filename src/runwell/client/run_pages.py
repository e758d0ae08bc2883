"""Lists of runs: filters, and pages that go on by themselves."""

from collections.abc import Callable, Coroutine, Sequence
from datetime import datetime
from typing import Self, TypedDict, cast

from runwell.client.options import read_duration, read_instant, read_whole
from runwell.client.pages import Around, BlockingPage, Page
from runwell.client.transport import Call, RequestOptions
from runwell.core.schemas import RunList, RunListItem
from runwell.core.timing import Duration

MAX_PAGE_SIZE = 100


class RunFilters(TypedDict, total=False):
    """What `runs.list` takes by name. A filter of None counts as not given.

    `limit` is the size of a page, up to 100; `after` and `before` are cursors of a page. Where
    several values are given, any of them matches. `from_` and `to` are aware instants between which
    the runs were created, `period` the length of time before now in which they were.
    """

    limit: int | None
    after: str | None
    before: str | None
    status: str | Sequence[str] | None
    task_identifier: str | Sequence[str] | None
    version: str | Sequence[str] | None
    tag: str | Sequence[str] | None
    batch: str | None
    schedule: str | None
    bulk_action: str | None
    is_test: bool | None
    from_: datetime | None
    to: datetime | None
    period: Duration | None
    request_options: RequestOptions | None


class RunPage(Page[RunListItem, RunFilters]):
    """A page of runs, newest first. `async for` goes on from it to the last run.

    Example:
        >>> from runwell import runs
        >>> async def count_failed() -> int:
        ...     return len([run async for run in runs.list(status="FAILED")])
    """

    def __init__(
        self,
        found: RunList,
        filters: RunFilters,
        ask: Callable[[RunFilters], Coroutine[object, None, Self]],
    ) -> None:
        super().__init__(found.data, _around(found, filters), ask)
        self.pagination = found.pagination


class BlockingRunPage(BlockingPage[RunListItem, RunFilters]):
    """A page of runs, newest first. `for` goes on from it to the last run.

    Example:
        >>> from runwell.sync import runs
        >>> def count_failed() -> int:
        ...     return sum(1 for run in runs.list(status="FAILED"))
    """

    def __init__(
        self, found: RunList, filters: RunFilters, ask: Callable[[RunFilters], Self]
    ) -> None:
        super().__init__(found.data, _around(found, filters), ask)
        self.pagination = found.pagination


def _around(found: RunList, filters: RunFilters) -> Around[RunFilters]:
    after, before = found.pagination.next, found.pagination.previous
    return Around(
        next=None if after is None else {**filters, "after": after, "before": None},
        previous=None if before is None else {**filters, "before": before, "after": None},
    )


def list_call(filters: RunFilters) -> Call:
    """The call that asks for a page; raises TypeError and ValueError for what it can't be."""
    query: dict[str, str] = {}
    for name, value in filters.items():
        if name not in RunFilters.__annotations__:
            known = ", ".join(RunFilters.__annotations__)
            raise TypeError(f"runs.list has no filter '{name}': there are {known}")
        if value is not None and name in _PARAMETERS:
            parameter, write = _PARAMETERS[name]
            query[parameter] = write(name, value)
    return Call(
        method="GET", path="/api/v1/runs", query=query, options=filters.get("request_options")
    )


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{name}={value!r}: it takes a text")
    return value


def _texts(name: str, value: object) -> str:
    texts = [value] if isinstance(value, str) else list(cast("Sequence[object]", value))
    for text in texts:
        if not isinstance(text, str) or not text or "," in text:
            raise ValueError(f"{name}: {text!r} can't be asked for: it takes texts without commas")
    return ",".join(cast("list[str]", texts))


def _instant(name: str, value: object) -> str:
    if not isinstance(value, datetime):
        raise ValueError(f"{name}={value!r}: it takes an aware datetime")
    return str(int(read_instant(name, value).timestamp() * 1000))


def _period(name: str, value: object) -> str:
    return f"{read_duration(name, value).total_seconds():.0f}s"


def _size(name: str, value: object) -> str:
    return str(read_whole(name, cast("int", value), 1, MAX_PAGE_SIZE))


def _boolean(name: str, value: object) -> str:
    if not isinstance(value, bool):
        raise ValueError(f"{name}={value!r}: it takes True or False")
    return "true" if value else "false"


_PARAMETERS: dict[str, tuple[str, Callable[[str, object], str]]] = {
    "limit": ("page[size]", _size),
    "after": ("page[after]", _text),
    "before": ("page[before]", _text),
    "status": ("filter[status]", _texts),
    "task_identifier": ("filter[taskIdentifier]", _texts),
    "version": ("filter[version]", _texts),
    "tag": ("filter[tag]", _texts),
    "batch": ("filter[batch]", _text),
    "schedule": ("filter[schedule]", _text),
    "bulk_action": ("filter[bulkAction]", _text),
    "is_test": ("filter[isTest]", _boolean),
    "from_": ("filter[createdAt][from]", _instant),
    "to": ("filter[createdAt][to]", _instant),
    "period": ("filter[createdAt][period]", _period),
}
