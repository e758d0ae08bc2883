"""Lists of schedules: pages by their number, which go on by themselves."""

from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterator

from runwell.client.options import read_whole
from runwell.client.transport import Call, RequestOptions
from runwell.core.schedules import MAX_SCHEDULES_PER_PAGE, ScheduleList, ScheduleObject

MAX_PAGE = 1_000_000


class _Page:
    """What a page is for both kinds of caller."""

    def __init__(self, found: ScheduleList) -> None:
        self.data: list[ScheduleObject] = found.data
        self.pagination = found.pagination

    def has_next_page(self) -> bool:
        """Whether there are older schedules."""
        return self.pagination.current_page < self.pagination.total_pages

    def has_previous_page(self) -> bool:
        """Whether there are newer schedules."""
        return self.pagination.current_page > 1

    def _next(self) -> int:
        if not self.has_next_page():
            raise LookupError("this is the last page: ask has_next_page() first")
        return self.pagination.current_page + 1

    def _previous(self) -> int:
        if not self.has_previous_page():
            raise LookupError("this is the first page: ask has_previous_page() first")
        return self.pagination.current_page - 1


class SchedulePage(_Page):
    """A page of schedules, newest first. `async for` goes on from it to the last schedule.

    Example:
        >>> from runwell import schedules
        >>> async def count_active() -> int:
        ...     return len([one async for one in schedules.list() if one.active])
    """

    def __init__(
        self, found: ScheduleList, ask: Callable[[int], Coroutine[object, None, "SchedulePage"]]
    ) -> None:
        super().__init__(found)
        self._ask = ask

    async def get_next_page(self) -> "SchedulePage":
        """The page of older schedules; raises LookupError on the last one."""
        return await self._ask(self._next())

    async def get_previous_page(self) -> "SchedulePage":
        """The page of newer schedules; raises LookupError on the first one."""
        return await self._ask(self._previous())

    async def __aiter__(self) -> AsyncIterator[ScheduleObject]:
        page = self
        while True:
            for schedule in page.data:
                yield schedule
            if not page.has_next_page():
                return
            page = await page.get_next_page()


class BlockingSchedulePage(_Page):
    """A page of schedules, newest first. `for` goes on from it to the last schedule.

    Example:
        >>> from runwell.sync import schedules
        >>> def count_active() -> int:
        ...     return sum(1 for schedule in schedules.list() if schedule.active)
    """

    def __init__(self, found: ScheduleList, ask: Callable[[int], "BlockingSchedulePage"]) -> None:
        super().__init__(found)
        self._ask = ask

    def get_next_page(self) -> "BlockingSchedulePage":
        """The page of older schedules; raises LookupError on the last one."""
        return self._ask(self._next())

    def get_previous_page(self) -> "BlockingSchedulePage":
        """The page of newer schedules; raises LookupError on the first one."""
        return self._ask(self._previous())

    def __iter__(self) -> Iterator[ScheduleObject]:
        page = self
        while True:
            yield from page.data
            if not page.has_next_page():
                return
            page = page.get_next_page()


class ScheduleListing:
    """A list that is yet to be asked for: `await` it for a page, or `async for` over all."""

    def __init__(self, ask: Callable[[], Coroutine[object, None, SchedulePage]]) -> None:
        self._ask = ask

    def __await__(self) -> Generator[object, None, SchedulePage]:
        return self._ask().__await__()

    async def __aiter__(self) -> AsyncIterator[ScheduleObject]:
        async for schedule in await self:
            yield schedule


def list_call(page: int, per_page: int | None, options: RequestOptions | None) -> Call:
    """The call that asks for a page."""
    query = {"page": str(read_whole("page", page, 1, MAX_PAGE))}
    if per_page is not None:
        size = read_whole("per_page", per_page, 1, MAX_SCHEDULES_PER_PAGE)
        query["perPage"] = str(size)
    return Call(method="GET", path="/api/v1/schedules", query=query, options=options)
