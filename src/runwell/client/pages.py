"""Pages of a list: what is on one, and how to come to the others, for both kinds of caller.

What a list is of says only which pages lie around one (`Around`): cursors or numbers.
"""

from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine, Generator, Iterator
from dataclasses import dataclass
from typing import Generic, Self, TypeVar, cast

from runwell.client.options import read_whole

ItemT = TypeVar("ItemT")
PlaceT = TypeVar("PlaceT")
PageT = TypeVar("PageT")

MAX_PAGE = 1_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Around(Generic[PlaceT]):
    """What to ask for the next page, and for the previous one; None where there is none."""

    next: PlaceT | None
    previous: PlaceT | None


class _Page(Generic[ItemT, PlaceT]):
    """What a page is for both kinds of caller."""

    def __init__(self, data: list[ItemT], around: Around[PlaceT]) -> None:
        self.data = data
        self._around = around

    def has_next_page(self) -> bool:
        """Whether there are more behind this page."""
        return self._around.next is not None

    def has_previous_page(self) -> bool:
        """Whether there are more before this page."""
        return self._around.previous is not None

    def _next(self) -> PlaceT:
        if self._around.next is None:
            raise LookupError("this is the last page: ask has_next_page() first")
        return self._around.next

    def _previous(self) -> PlaceT:
        if self._around.previous is None:
            raise LookupError("this is the first page: ask has_previous_page() first")
        return self._around.previous


class Page(_Page[ItemT, PlaceT]):
    """A page; `async for` goes on from it to the last item of the list."""

    def __init__(
        self,
        data: list[ItemT],
        around: Around[PlaceT],
        ask: Callable[[PlaceT], Coroutine[object, None, Self]],
    ) -> None:
        super().__init__(data, around)
        self._ask = ask

    async def get_next_page(self) -> Self:
        """The page behind this one; raises LookupError on the last one."""
        return await self._ask(self._next())

    async def get_previous_page(self) -> Self:
        """The page before this one; raises LookupError on the first one."""
        return await self._ask(self._previous())

    async def __aiter__(self) -> AsyncIterator[ItemT]:
        page = self
        while True:
            for item in page.data:
                yield item
            if not page.has_next_page():
                return
            page = await page.get_next_page()


class BlockingPage(_Page[ItemT, PlaceT]):
    """A page; `for` goes on from it to the last item of the list."""

    def __init__(
        self, data: list[ItemT], around: Around[PlaceT], ask: Callable[[PlaceT], Self]
    ) -> None:
        super().__init__(data, around)
        self._ask = ask

    def get_next_page(self) -> Self:
        """The page behind this one; raises LookupError on the last one."""
        return self._ask(self._next())

    def get_previous_page(self) -> Self:
        """The page before this one; raises LookupError on the first one."""
        return self._ask(self._previous())

    def __iter__(self) -> Iterator[ItemT]:
        page = self
        while True:
            yield from page.data
            if not page.has_next_page():
                return
            page = page.get_next_page()


class Listing(Generic[ItemT, PageT]):
    """A list that is yet to be asked for: `await` it for a page, or `async for` over all items."""

    def __init__(self, ask: Callable[[], Coroutine[object, None, PageT]]) -> None:
        self._ask = ask

    def __await__(self) -> Generator[object, None, PageT]:
        return self._ask().__await__()

    async def __aiter__(self) -> AsyncIterator[ItemT]:
        async for item in cast("AsyncIterable[ItemT]", await self):
            yield item


def around_number(current: int, total: int) -> Around[int]:
    """What lies around a page that is known by its number, from 1 on."""
    return Around(
        next=current + 1 if current < total else None,
        previous=current - 1 if current > 1 else None,
    )


def number_query(page: int, per_page: int | None, most: int) -> dict[str, str]:
    """The query that asks for a page by its number; raises ValueError for what is none."""
    query = {"page": str(read_whole("page", page, 1, MAX_PAGE))}
    if per_page is not None:
        query["perPage"] = str(read_whole("per_page", per_page, 1, most))
    return query
