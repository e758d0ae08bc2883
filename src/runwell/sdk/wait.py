"""`wait`: let a run wait for a length of time or until an instant.

Sources: docs `wait.md`, `wait-for.md`, `wait-until.md`. While it waits a run keeps its process and
its memory, gives back its slot of the environment's concurrency, and counts no duration.
"""

from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final

from runwell.client.options import read_instant
from runwell.core.waits import DateWait
from runwell.sdk.waiting import block_for_outcome, wait_for_outcome

# A century: the most that a date can be away.
_MAX_WAIT = timedelta(days=36_525)


class WaitFunctions:
    """Lets the current run wait.

    Example:
        >>> from runwell import task, wait
        >>> @task(id="remind")
        ... async def remind(address: str) -> None:
        ...     await wait.for_(days=3)
        ...     print("sending a reminder to", address)
    """

    __slots__ = ()

    async def for_(
        self,
        *,
        seconds: float = 0,
        minutes: float = 0,
        hours: float = 0,
        days: float = 0,
        weeks: float = 0,
        months: int = 0,
        years: int = 0,
    ) -> None:
        """Wait for the sum of these; a month is one of the calendar.

        Raises ValueError for a negative length or one of more than a century, and RunwellError
        outside of a run.
        """
        length = _length(seconds=seconds, minutes=minutes, hours=hours, days=days, weeks=weeks)
        date = _date_after(length, months + 12 * years)
        await wait_for_outcome(partial(_date_wait, date), what="wait.for_")

    async def until(self, date: datetime, *, throw_if_in_the_past: bool = False) -> None:
        """Wait until an instant; one that has passed is not waited for.

        `date` must be aware. With `throw_if_in_the_past` one that has passed raises ValueError.
        Raises RunwellError outside of a run.
        """
        instant = _read_date(date, throw_if_in_the_past=throw_if_in_the_past)
        await wait_for_outcome(partial(_date_wait, instant), what="wait.until")


class BlockingWaitFunctions:
    """Lets the current run wait, blocking the thread that calls.

    Example:
        >>> from runwell import task
        >>> from runwell.sync import wait
        >>> @task(id="remind")
        ... def remind(address: str) -> None:
        ...     wait.for_(days=3)
        ...     print("sending a reminder to", address)
    """

    __slots__ = ()

    def for_(
        self,
        *,
        seconds: float = 0,
        minutes: float = 0,
        hours: float = 0,
        days: float = 0,
        weeks: float = 0,
        months: int = 0,
        years: int = 0,
    ) -> None:
        """Wait for the sum of these; a month is one of the calendar.

        Raises ValueError for a negative length or one of more than a century, and RunwellError
        outside of a run.
        """
        length = _length(seconds=seconds, minutes=minutes, hours=hours, days=days, weeks=weeks)
        date = _date_after(length, months + 12 * years)
        block_for_outcome(partial(_date_wait, date), what="wait.for_")

    def until(self, date: datetime, *, throw_if_in_the_past: bool = False) -> None:
        """Wait until an instant; one that has passed is not waited for.

        `date` must be aware. With `throw_if_in_the_past` one that has passed raises ValueError.
        Raises RunwellError outside of a run.
        """
        instant = _read_date(date, throw_if_in_the_past=throw_if_in_the_past)
        block_for_outcome(partial(_date_wait, instant), what="wait.until")


wait: Final = WaitFunctions()
blocking_wait: Final = BlockingWaitFunctions()


def _date_wait(date: datetime, wait_id: str) -> DateWait:
    return DateWait(wait_id=wait_id, date=date)


def _length(**parts: float) -> timedelta:
    for unit, number in parts.items():
        if not number >= 0:
            raise ValueError(f"wait.for_({unit}={number!r}): it takes a number from 0 on")
    try:
        return timedelta(**parts)
    except OverflowError:
        raise ValueError("wait.for_ waits for a century at most") from None


def _date_after(length: timedelta, months: int) -> datetime:
    if months < 0:
        raise ValueError("wait.for_: months and years are numbers from 0 on")
    if length > _MAX_WAIT or months > 1_200:
        raise ValueError("wait.for_ waits for a century at most")
    now = datetime.now(UTC)
    return _add_months(now, months) + length if months else now + length


def _add_months(instant: datetime, months: int) -> datetime:
    """The same day of a later month, or that month's last day when it is shorter."""
    month = instant.month - 1 + months
    first = instant.replace(year=instant.year + month // 12, month=month % 12 + 1, day=1)
    following = (first + timedelta(days=31)).replace(day=1)
    last_day = (following - timedelta(days=1)).day
    return first.replace(day=min(instant.day, last_day))


def _read_date(date: datetime, *, throw_if_in_the_past: bool) -> datetime:
    instant = read_instant("wait.until", date).astimezone(UTC)
    if throw_if_in_the_past and instant < datetime.now(UTC):
        raise ValueError(f"wait.until: {instant.isoformat()} is in the past")
    return instant
