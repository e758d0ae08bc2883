"""Cron patterns: what they match, in the time of a zone, over changes of its clock.

cronsim reads patterns and walks over dates; which instants those are, in a zone whose clock is put
forward and back, is decided here. The rule: a tick is never lost and never doubled. What falls into
an hour that a clock leaves out happens once, right after it; what falls into an hour that comes
twice happens the first time. A pattern that the change leaves as it is, as one for every hour of
the day, goes on evenly.
Source: docs `tasks/scheduled.md`; `protocol.md` section 11.3.
"""

import copy
import difflib
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import cast
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from cronsim import CronSim, CronSimError

MAX_PATTERN_CHARACTERS = 512
DEFAULT_TIMEZONE = "UTC"

_FIELDS = {
    "minute": "0 to 59",
    "hour": "0 to 23",
    "day-of-month": "1 to 31, L for the last day, LW for the last weekday",
    "month": "1 to 12, or JAN to DEC",
    "day-of-week": "0 to 7 (0 and 7 are Sunday), SUN to SAT, or 5L for the month's last Friday",
}
_FIELDS_IN_ORDER = tuple(_FIELDS)
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 (the time on a wall, in no zone)
_MINUTE = timedelta(minutes=1)
# No clock is put forward and back again within this time.
_STEP = timedelta(days=5)
# How many answers are kept: schedules of one pattern and zone tick together.
_KEPT = 50_000


def check_pattern(pattern: str) -> str:
    """A pattern with single spaces; raises ValueError that says what is wrong, in which field.

    >>> check_pattern(" 0  9 * * 1L ")
    '0 9 * * 1L'
    """
    shown = repr(pattern if len(pattern) <= 64 else f"{pattern[:61]}...")
    if len(pattern) > MAX_PATTERN_CHARACTERS:
        raise ValueError(
            f"{shown} is no cron pattern: it has more than {MAX_PATTERN_CHARACTERS} characters"
        )
    parts = pattern.split()
    if len(parts) != len(_FIELDS):
        raise ValueError(
            f"{shown} is no cron pattern: it has {len(parts)} fields, and 5 are needed: minute, "
            "hour, day of month, month, day of week. There are no seconds"
        )
    try:
        rule = _parse(" ".join(parts))
    except CronSimError as error:
        field = str(error).removeprefix("Bad ")
        part = parts[_FIELDS_IN_ORDER.index(field)]
        name = field.replace("-", " ")
        raise ValueError(
            f"{shown} is no cron pattern: its {name} {part[:64]!r} can't be. It takes "
            f"{_FIELDS[field]}; lists (1,2), ranges (1-5) and steps (*/10) of these, and *"
        ) from None
    if _next_wall(rule, _EPOCH) is None:
        raise ValueError(f"{shown} is a cron pattern that no date ever matches")
    return " ".join(parts)


def describe_pattern(pattern: str) -> str:
    """A pattern in words.

    >>> describe_pattern("0 9 * * 1L")
    'At 09:00 on the last Monday of the month'
    """
    return _parse(pattern).explain()


def check_timezone(name: str) -> str:
    """The name of a time zone; raises ValueError, with what may have been meant."""
    known = _known_timezones()
    if name in known:
        return name
    folded = {zone.lower(): zone for zone in sorted(known)}
    near = difflib.get_close_matches(name[:64].lower(), folded, n=1)
    hint = f": did you mean {folded[near[0]]!r}?" if near else ", as 'Europe/Berlin' is"
    raise ValueError(f"{name[:64]!r} is not the name of a time zone{hint}")


@lru_cache(maxsize=1)
def list_timezones() -> tuple[str, ...]:
    """Time zones to choose from: UTC, then those named by place, sorted."""
    places = {zone for zone in _known_timezones() if "/" in zone and not zone.startswith("Etc/")}
    return (DEFAULT_TIMEZONE, *sorted(places))


def next_ticks(pattern: str, timezone: str, after: datetime, count: int) -> list[datetime]:
    """The first `count` ticks after an instant, in UTC; fewer when no more follow in 50 years.

    Raises ValueError for a pattern or zone that `check_pattern` and `check_timezone` refuse.

    >>> noon = datetime(2026, 3, 1, 12, tzinfo=UTC)
    >>> [tick.hour for tick in next_ticks("0 */8 * * *", "UTC", noon, 3)]
    [16, 0, 8]
    """
    ticks: list[datetime] = []
    tick: datetime | None = after.astimezone(UTC)
    while len(ticks) < count and (tick := _next_tick(pattern, timezone, tick)) is not None:
        ticks.append(tick)
    return ticks


def last_tick(pattern: str, timezone: str, after: datetime, until: datetime) -> datetime | None:
    """The latest tick after one instant and up to another; None when there is none between."""
    rule, zone = _parse(pattern), ZoneInfo(timezone)
    low, high = after.astimezone(UTC), until.astimezone(UTC)
    last = _first_after(rule, zone, low)
    if last is None or last > high:
        return None
    # The later one begins to look, the later the tick: halve until nothing is left between.
    low = last
    while high - low > _MINUTE:
        middle = low + (high - low) // 2
        tick = _first_after(rule, zone, middle)
        if tick is not None and tick <= until:
            low = last = tick
        else:
            high = middle
    # Ticks are whole minutes apart.
    tick = _first_after(rule, zone, low)
    return tick if tick is not None and tick <= until else last


@lru_cache(maxsize=_KEPT)
def _parse(pattern: str) -> CronSim:
    # Without a zone: cronsim's own rule for changes of the clock loses ticks of patterns like
    # `*/15 2 * * *`, and doubles them in autumn.
    return CronSim(pattern, _EPOCH)


@lru_cache(maxsize=1)
def _known_timezones() -> frozenset[str]:
    return frozenset(available_timezones() - {"Factory", "localtime"})


def _next_wall(rule: CronSim, after: datetime) -> datetime | None:
    """The next time on a wall that a pattern matches; both without a zone."""
    walk = copy.copy(rule)
    walk.dt = after.replace(second=0, microsecond=0)
    return next(walk, None)


@lru_cache(maxsize=_KEPT)
def _next_tick(pattern: str, timezone: str, after: datetime) -> datetime | None:
    try:
        return _first_after(_parse(pattern), ZoneInfo(timezone), after)
    except (CronSimError, ZoneInfoNotFoundError) as error:
        raise ValueError(f"{pattern!r} in {timezone!r} can't be read: {error}") from None


def _first_after(rule: CronSim, zone: ZoneInfo, after: datetime) -> datetime | None:
    at, offset = after, _offset(zone, after)
    wall = _at_wall(at, offset)
    while True:
        found = _next_wall(rule, wall)
        if found is None:
            return None
        tick = (found - offset).replace(tzinfo=UTC)
        change = _next_change(zone, at, tick)
        if change is None:
            if not _is_repeated(rule, zone, tick):
                return tick
            wall = found
            continue
        at, before = change, offset
        offset = _offset(zone, at)
        wall = _at_wall(at, offset)
        is_left_out = offset > before and found < wall
        if is_left_out and not _is_even(rule, offset - before):
            return at
        # What the new time begins with is to be found too.
        wall -= _MINUTE


def _next_change(zone: ZoneInfo, after: datetime, until: datetime) -> datetime | None:
    """The first instant after one and up to another at which the clock of a zone is changed."""
    for year in range(after.year, until.year + 1):
        for change in _changes_of_year(zone, year):
            if change > until:
                return None
            if change > after:
                return change
    return None


@lru_cache(maxsize=_KEPT)
def _changes_of_year(zone: ZoneInfo, year: int) -> tuple[datetime, ...]:
    """When the clock of a zone is put forward or back in a year of UTC."""
    low = datetime(year, 1, 1, tzinfo=UTC) - _MINUTE
    end = datetime(year, 12, 31, 23, 59, tzinfo=UTC)
    changes: list[datetime] = []
    while low < end:
        step = high = min(low + _STEP, end)
        offset = _offset(zone, low)
        if _offset(zone, high) != offset:
            while high - low > _MINUTE:
                middle = low + (high - low) // (2 * _MINUTE) * _MINUTE
                if _offset(zone, middle) == offset:
                    low = middle
                else:
                    high = middle
            changes.append(high)
        low = step
    return tuple(changes)


def _is_repeated(rule: CronSim, zone: ZoneInfo, tick: datetime) -> bool:
    """Whether a tick is the second one of its time on the wall, and must not be."""
    local = tick.astimezone(zone)
    if local.fold == 0:
        return False
    back = cast("timedelta", local.replace(fold=0).utcoffset()) - _offset(zone, tick)
    return not _is_even(rule, back)


def _is_even(rule: CronSim, change: timedelta) -> bool:
    """Whether a pattern is the same after a clock was put forward or back by so much."""
    minutes = change // _MINUTE
    return (
        len(rule.hours) == 24
        and {(minute + minutes) % 60 for minute in rule.minutes} == rule.minutes
    )


def _offset(zone: ZoneInfo, instant: datetime) -> timedelta:
    return cast("timedelta", instant.astimezone(zone).utcoffset())


def _at_wall(instant: datetime, offset: timedelta) -> datetime:
    return instant.replace(tzinfo=None) + offset
