"""Cron patterns, and which instants they are in zones whose clocks change."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim
from hypothesis import given, settings
from hypothesis import strategies as st

from runwell.core.cron import (
    check_pattern,
    check_timezone,
    describe_pattern,
    last_tick,
    list_timezones,
    next_ticks,
)

MINUTE = timedelta(minutes=1)
BERLIN, NEW_YORK, LORD_HOWE = "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"


def ticks(pattern: str, zone: str, start: str, count: int) -> list[str]:
    """The next ticks after a time on the wall, as times on the wall with their offset."""
    after = datetime.fromisoformat(start).replace(tzinfo=ZoneInfo(zone))
    found = next_ticks(pattern, zone, after, count)
    assert all(tick.tzinfo is UTC for tick in found)
    return [tick.astimezone(ZoneInfo(zone)).strftime("%m-%d %H:%M %z") for tick in found]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*/20 * * * *", ["03-01 12:20", "03-01 12:40", "03-01 13:00"]),
        ("0 0 L * *", ["03-31 00:00", "04-30 00:00", "05-31 00:00"]),
        ("30 4 * * 1L", ["03-30 04:30", "04-27 04:30", "05-25 04:30"]),
        ("0 9 * * 7L", ["03-29 09:00", "04-26 09:00", "05-31 09:00"]),
        ("0 9 * * 0", ["03-08 09:00", "03-15 09:00", "03-22 09:00"]),
        ("0 9 * * 7", ["03-08 09:00", "03-15 09:00", "03-22 09:00"]),
        ("0 9 * * mon-wed", ["03-02 09:00", "03-03 09:00", "03-04 09:00"]),
        ("0 9 1 jan,jul *", ["07-01 09:00", "01-01 09:00", "07-01 09:00"]),
        # Where both days are given, either may match.
        ("0 9 3 * 2", ["03-03 09:00", "03-10 09:00", "03-17 09:00"]),
        ("0 9 4 * 2", ["03-03 09:00", "03-04 09:00", "03-10 09:00"]),
        ("0 0 29 2 *", ["02-29 00:00", "02-29 00:00", "02-29 00:00"]),
        ("5/20 10-12/2 * * *", ["03-01 12:05", "03-01 12:25", "03-01 12:45"]),
    ],
)
def test_a_pattern_matches_as_documented(pattern: str, expected: list[str]) -> None:
    found = ticks(check_pattern(pattern), "UTC", "2026-03-01T12:00", 3)
    assert [tick.removesuffix(" +0000") for tick in found] == expected


@pytest.mark.parametrize(
    ("pattern", "zone", "start", "expected"),
    [
        # An hour is left out: what falls into it happens once, right after it.
        ("30 2 * * *", BERLIN, "2026-03-28T12:00", ["03-29 03:00 +0200", "03-30 02:30 +0200"]),
        ("*/15 2 * * *", BERLIN, "2026-03-28T12:00", ["03-29 03:00 +0200", "03-30 02:00 +0200"]),
        ("0 2,3 * * *", BERLIN, "2026-03-28T12:00", ["03-29 03:00 +0200", "03-30 02:00 +0200"]),
        ("0 */2 * * *", BERLIN, "2026-03-29T00:00", ["03-29 03:00 +0200", "03-29 04:00 +0200"]),
        ("30 2 * * *", NEW_YORK, "2026-03-07T12:00", ["03-08 03:00 -0400", "03-09 02:30 -0400"]),
        ("0 2 * * *", LORD_HOWE, "2026-10-03T12:00", ["10-04 02:30 +1100", "10-05 02:00 +1100"]),
        ("0 * * * *", LORD_HOWE, "2026-10-04T01:30", ["10-04 02:30 +1100", "10-04 03:00 +1100"]),
        ("0 0 * * *", "Africa/Cairo", "2026-04-23T12:00", ["04-24 01:00 +0300"]),
        # An hour comes twice: what falls into it happens the first time.
        ("30 2 * * *", BERLIN, "2026-10-24T12:00", ["10-25 02:30 +0200", "10-26 02:30 +0100"]),
        ("30 1 * * *", NEW_YORK, "2026-10-31T12:00", ["11-01 01:30 -0400", "11-02 01:30 -0500"]),
        ("45 1 * * *", LORD_HOWE, "2026-04-04T12:00", ["04-05 01:45 +1100", "04-06 01:45 +1030"]),
        ("0 */2 * * *", BERLIN, "2026-10-25T01:00", ["10-25 02:00 +0200", "10-25 04:00 +0100"]),
        ("45 * * * *", LORD_HOWE, "2026-04-05T01:00", ["04-05 01:45 +1100", "04-05 02:45 +1030"]),
        # Patterns that the change leaves as they are go on evenly.
        ("0 * * * *", BERLIN, "2026-03-29T00:30", ["03-29 01:00 +0100", "03-29 03:00 +0200"]),
        ("0 * * * *", BERLIN, "2026-10-25T01:30", ["10-25 02:00 +0200", "10-25 02:00 +0100"]),
        ("*/30 * * * *", LORD_HOWE, "2026-04-05T01:10", ["04-05 01:30 +1100", "04-05 01:30 +1030"]),
        ("*/30 * * * *", LORD_HOWE, "2026-10-04T01:10", ["10-04 01:30 +1030", "10-04 02:30 +1100"]),
        # The change is at midnight, and the day after it isn't the pattern's.
        (
            "0 * * * 6",
            "Asia/Beirut",
            "2026-10-24T22:30",
            ["10-24 23:00 +0300", "10-24 23:00 +0200"],
        ),
        # A whole day was left out.
        ("0 9 30 12 *", "Pacific/Apia", "2011-12-01T00:00", ["12-31 00:00 +1400"]),
    ],
)
def test_no_tick_is_lost_or_doubled_by_a_change_of_the_clock(
    pattern: str, zone: str, start: str, expected: list[str]
) -> None:
    assert ticks(pattern, zone, start, len(expected)) == expected


def expected_ticks(pattern: str, zone: ZoneInfo, start: datetime, end: datetime) -> list[datetime]:
    """The rule, minute by minute: slow, and plain to see."""
    rule = CronSim(pattern, datetime(2000, 1, 1))  # noqa: DTZ001 (a time on the wall)

    def matches(wall: datetime) -> bool:
        return next(CronSim(pattern, wall - MINUTE)) == wall

    def is_even(change: timedelta) -> bool:
        shifted = {(minute + change // MINUTE) % 60 for minute in rule.minutes}
        return len(rule.hours) == 24 and shifted == rule.minutes

    found: list[datetime] = []
    instant = start + MINUTE
    while instant <= end:
        local, before = instant.astimezone(zone), (instant - MINUTE).astimezone(zone)
        wall, previous = local.replace(tzinfo=None, fold=0), before.replace(tzinfo=None, fold=0)
        jump = wall - previous - MINUTE
        left_out = [previous + MINUTE * n for n in range(1, 1 + max(0, jump // MINUTE))]
        is_made_up = any(map(matches, left_out)) and not is_even(jump)
        back = local.replace(fold=0).utcoffset() or timedelta(0)
        repeated = back - (local.utcoffset() or timedelta(0))
        is_due = matches(wall) and (local.fold == 0 or is_even(repeated))
        if is_made_up or is_due:
            found.append(instant)
        instant += MINUTE
    return found


def field(low: int, high: int) -> st.SearchStrategy[str]:
    """A field of a pattern: often `*`, else steps, ranges, lists."""
    number = st.integers(low, high)
    return st.one_of(
        st.just("*"),
        st.integers(1, high).map(lambda step: f"*/{step}"),
        number.map(str),
        st.tuples(number, number).map(lambda pair: f"{min(pair)}-{max(pair)}"),
        st.lists(number, min_size=1, max_size=4).map(lambda many: ",".join(map(str, many))),
    )


CHANGES = [
    (BERLIN, datetime(2026, 3, 29, 1, tzinfo=UTC)),
    (BERLIN, datetime(2026, 10, 25, 1, tzinfo=UTC)),
    (NEW_YORK, datetime(2026, 3, 8, 7, tzinfo=UTC)),
    (NEW_YORK, datetime(2026, 11, 1, 6, tzinfo=UTC)),
    (LORD_HOWE, datetime(2026, 4, 4, 15, tzinfo=UTC)),
    (LORD_HOWE, datetime(2026, 10, 3, 15, 30, tzinfo=UTC)),
    ("Asia/Beirut", datetime(2026, 10, 24, 21, tzinfo=UTC)),
    ("Africa/Cairo", datetime(2026, 4, 23, 22, tzinfo=UTC)),
    ("Africa/Casablanca", datetime(2026, 2, 15, 2, tzinfo=UTC)),
    ("UTC", datetime(2026, 3, 1, tzinfo=UTC)),
]


@settings(max_examples=60, deadline=None)
@given(
    minute=field(0, 59),
    hour=field(0, 23),
    weekday=st.sampled_from(["*", "*", "*", "0", "6", "1-5", "6,0"]),
    change=st.sampled_from(CHANGES),
    before=st.integers(1, 150),
)
def test_ticks_are_those_of_the_rule(
    minute: str, hour: str, weekday: str, change: tuple[str, datetime], before: int
) -> None:
    pattern = f"{minute} {hour} * * {weekday}"
    zone, instant = change
    start, end = instant - before * MINUTE, instant + 180 * MINUTE
    expected = expected_ticks(pattern, ZoneInfo(zone), start, end)
    found = next_ticks(pattern, zone, start, len(expected) + 1)
    assert [tick for tick in found if tick <= end] == expected
    assert last_tick(pattern, zone, start, end) == (expected[-1] if expected else None)
    # Where one begins to look changes nothing.
    for tick in expected:
        assert next_ticks(pattern, zone, tick - timedelta(seconds=1), 1) == [tick]


def test_the_last_tick_of_years_is_found_at_once() -> None:
    start, end = datetime(2016, 1, 1, tzinfo=UTC), datetime(2026, 3, 1, 12, 0, 30, tzinfo=UTC)
    assert last_tick("* * * * *", "UTC", start, end) == datetime(2026, 3, 1, 12, tzinfo=UTC)
    assert last_tick("0 9 1 1 *", BERLIN, start, end) == datetime(2026, 1, 1, 8, tzinfo=UTC)
    assert last_tick("0 0 29 2 *", "UTC", start, end) == datetime(2024, 2, 29, tzinfo=UTC)
    assert last_tick("0 0 29 2 *", "UTC", datetime(2024, 3, 1, tzinfo=UTC), end) is None


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("61 * * * *", "its minute '61' can't be. It takes 0 to 59"),
        ("* 24 * * *", "its hour '24' can't be. It takes 0 to 23"),
        ("0 0 32 * *", "its day of month '32' can't be"),
        ("0 0 L-1 * *", "its day of month 'L-1' can't be. It takes 1 to 31, L for the last day"),
        ("0 0 30 2 *", "its day of month '30' can't be"),
        ("0 0 * 13 *", "its month '13' can't be. It takes 1 to 12, or JAN to DEC"),
        ("0 0 * * 8", "its day of week '8' can't be"),
        ("0 0 * * fri-mon", "its day of week 'fri-mon' can't be"),
        ("*/0 * * * *", "its minute '*/0' can't be"),
        ("9" * 300 + " * * * *", "its minute '9999"),
        ("0 0 * *", "it has 4 fields, and 5 are needed"),
        ("0 0 0 * * *", "it has 6 fields, and 5 are needed"),
        ("@daily", "it has 1 fields, and 5 are needed"),
        ("", "it has 0 fields, and 5 are needed"),
        ("1," * 600 + "1 * * * *", "it has more than 512 characters"),
    ],
)
def test_a_pattern_that_cannot_be_is_refused_with_its_field(pattern: str, message: str) -> None:
    with pytest.raises(ValueError, match="is no cron pattern") as caught:
        check_pattern(pattern)
    assert message in str(caught.value)
    assert len(str(caught.value)) < 400


def test_a_pattern_that_no_date_matches_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    # The patterns of this kind that cronsim doesn't know as such are those it gives up on.
    def no_day(_rule: CronSim, _day: date) -> bool:
        return False

    monkeypatch.setattr(CronSim, "match_day", no_day)
    with pytest.raises(ValueError, match="no date ever matches"):
        check_pattern("17 3 * * *")
    assert next_ticks("18 3 * * *", "UTC", datetime(2026, 3, 1, tzinfo=UTC), 2) == []


def test_patterns_and_zones_that_were_never_checked_are_refused_when_used() -> None:
    now = datetime(2026, 3, 1, tzinfo=UTC)
    for pattern, zone in (("x * * * *", "UTC"), ("* * * * *", "Mars/Olympus")):
        with pytest.raises(ValueError, match="can't be read"):
            next_ticks(pattern, zone, now, 1)


def test_patterns_are_described_in_words() -> None:
    assert describe_pattern("0 9 * * *") == "At 09:00 every day"
    assert describe_pattern("30 4 * * 1L") == "At 04:30 on the last Monday of the month"


def test_zones_are_those_of_iana() -> None:
    zones = list_timezones()
    assert zones[0] == "UTC"
    assert list(zones[1:]) == sorted(zones[1:])
    assert {BERLIN, NEW_YORK, LORD_HOWE, "Asia/Tokyo"} < set(zones)
    assert all(check_timezone(zone) == zone for zone in zones)
    assert check_timezone("EST") == "EST"


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("europe/berlin", "did you mean 'Europe/Berlin'?"),
        ("America/NewYork", "did you mean 'America/New_York'?"),
        ("", "as 'Europe/Berlin' is"),
        ("../../etc/passwd", "is not the name of a time zone"),
        ("x" * 10_000, "is not the name of a time zone"),
    ],
)
def test_a_zone_that_is_not_there_is_refused_with_one_that_is(name: str, hint: str) -> None:
    with pytest.raises(ValueError, match="is not the name of a time zone") as caught:
        check_timezone(name)
    assert hint in str(caught.value)
    assert len(str(caught.value)) < 200
