"""Lists of schedules: pages by their number, which go on by themselves."""

from collections.abc import Callable, Coroutine
from typing import Self

from runwell.client.pages import BlockingPage, Page, around_number, number_query
from runwell.client.transport import Call, RequestOptions
from runwell.core.schedules import MAX_SCHEDULES_PER_PAGE, ScheduleList, ScheduleObject


class SchedulePage(Page[ScheduleObject, int]):
    """A page of schedules, newest first. `async for` goes on from it to the last schedule.

    Example:
        >>> from runwell import schedules
        >>> async def count_active() -> int:
        ...     return len([one async for one in schedules.list() if one.active])
    """

    def __init__(
        self, found: ScheduleList, ask: Callable[[int], Coroutine[object, None, Self]]
    ) -> None:
        at = found.pagination
        super().__init__(found.data, around_number(at.current_page, at.total_pages), ask)
        self.pagination = at


class BlockingSchedulePage(BlockingPage[ScheduleObject, int]):
    """A page of schedules, newest first. `for` goes on from it to the last schedule.

    Example:
        >>> from runwell.sync import schedules
        >>> def count_active() -> int:
        ...     return sum(1 for schedule in schedules.list() if schedule.active)
    """

    def __init__(self, found: ScheduleList, ask: Callable[[int], Self]) -> None:
        at = found.pagination
        super().__init__(found.data, around_number(at.current_page, at.total_pages), ask)
        self.pagination = at


def list_call(page: int, per_page: int | None, options: RequestOptions | None) -> Call:
    """The call that asks for a page."""
    query = number_query(page, per_page, MAX_SCHEDULES_PER_PAGE)
    return Call(method="GET", path="/api/v1/schedules", query=query, options=options)
