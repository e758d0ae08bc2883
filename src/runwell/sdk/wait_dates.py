"""The dates that waits are until, and the events that they are for, read from what users give."""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from runwell.client.options import read_instant
from runwell.core.payloads import Json
from runwell.core.timing import Clock, SystemClock
from runwell.core.waits import DateWait

# A century: the most that a date can be away.
_MAX_WAIT = timedelta(days=36_525)
# A test that skips time gives all runs of its process another one.
_clock: Clock = SystemClock()


@contextmanager
def use_clock(clock: Clock) -> Generator[None]:
    """Count the lengths of waits from another clock's time, in all of this process."""
    global _clock
    before, _clock = _clock, clock
    try:
        yield
    finally:
        _clock = before


def event_match(name: str, wanted: Mapping[str, Json] | None) -> dict[str, object]:
    """An event with what its payload must have, as the API takes it."""
    return {"name": name} if wanted is None else {"name": name, "filter": dict(wanted)}


def date_wait(date: datetime, wait_id: str) -> DateWait:
    """A wait until an instant."""
    return DateWait(wait_id=wait_id, date=date)


def length_of(**parts: float) -> timedelta:
    """The sum of these lengths; raises ValueError that names a bad one."""
    for unit, number in parts.items():
        if not number >= 0:
            raise ValueError(f"wait.for_({unit}={number!r}): it takes a number from 0 on")
    try:
        return timedelta(**parts)
    except OverflowError:
        raise ValueError("wait.for_ waits for a century at most") from None


def date_after(length: timedelta, months: int) -> datetime:
    """The instant after so many calendar months and this length; raises ValueError."""
    if months < 0:
        raise ValueError("wait.for_: months and years are numbers from 0 on")
    if length > _MAX_WAIT or months > 1_200:
        raise ValueError("wait.for_ waits for a century at most")
    now = _clock.now()
    return _add_months(now, months) + length if months else now + length


def _add_months(instant: datetime, months: int) -> datetime:
    """The same day of a later month, or that month's last day when it is shorter."""
    month = instant.month - 1 + months
    first = instant.replace(year=instant.year + month // 12, month=month % 12 + 1, day=1)
    following = (first + timedelta(days=31)).replace(day=1)
    last_day = (following - timedelta(days=1)).day
    return first.replace(day=min(instant.day, last_day))


def read_date(date: datetime, *, throw_if_in_the_past: bool) -> datetime:
    """An aware instant in UTC; raises ValueError."""
    instant = read_instant("wait.until", date).astimezone(UTC)
    if throw_if_in_the_past and instant < _clock.now():
        raise ValueError(f"wait.until: {instant.isoformat()} is in the past")
    return instant
