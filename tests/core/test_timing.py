"""Durations, instants and the backoff between attempts."""

import contextlib
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from runwell.core.timing import (
    RetryOptions,
    SystemClock,
    format_duration,
    parse_duration,
    parse_instant,
    retry_delay,
)

retry_options = st.builds(
    RetryOptions,
    max_attempts=st.integers(1, 250),
    factor=st.floats(1, 1000),
    min_timeout_in_ms=st.integers(0, 10**9),
    max_timeout_in_ms=st.integers(0, 10**9),
    randomize=st.booleans(),
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0s", 0),
        ("10s", 10),
        ("5m", 300),
        ("1h30m", 5400),
        ("2d", 172_800),
        ("1w", 604_800),
        ("1w2d3h4m5s", 788_645),
        (90, 90),
        (0.25, 0.25),
        (timedelta(hours=1), 3600),
    ],
)
def test_a_duration_is_read(text: str | float | timedelta, seconds: float) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "10", "s", "1.5s", "5m1h", "1h 30m", "-1s", "1y", "10S"])
def test_what_is_no_duration_says_how_one_looks(text: str) -> None:
    with pytest.raises(ValueError, match="write it like '10s', '5m', '1h30m' or '2d'"):
        parse_duration(text)


@pytest.mark.parametrize(
    "value",
    [
        "9999999999999s",
        "99999d",
        "9" * 5_000 + "w",
        -1,
        10**400,
        -(10**5_000),
        float("nan"),
        float("inf"),
        timedelta(seconds=-1),
    ],
    ids=range(9),
)
def test_a_duration_is_from_nothing_to_a_century(value: str | float | timedelta) -> None:
    with pytest.raises(ValueError, match="100 years") as refused:
        parse_duration(value)
    assert len(str(refused.value)) < 150


@given(*(st.integers(1, 500) for _ in range(5)))
def test_the_parts_of_a_duration_add_up(
    weeks: int, days: int, hours: int, minutes: int, seconds: int
) -> None:
    expected = timedelta(weeks=weeks, days=days, hours=hours, minutes=minutes, seconds=seconds)
    assert parse_duration(f"{weeks}w{days}d{hours}h{minutes}m{seconds}s") == expected


@given(st.text())
def test_any_text_is_a_duration_or_a_value_error(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert parse_duration(text) >= timedelta(0)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0ms"),
        (0.0123, "12ms"),
        (1, "1.0s"),
        (59.94, "59.9s"),
        (62.4, "1m 2s"),
        (3599.4, "59m 59s"),
        (3600, "1h 0m"),
        (90_061, "25h 1m"),
    ],
)
def test_a_duration_is_shown_in_the_units_that_matter(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    "text",
    [
        "2025-03-13T12:00:00Z",
        "2025-03-13T12:00:00",
        "2025-03-13T13:00:00+01:00",
        "2025-03-13T12:00:00.000Z",
        "20250313T120000",
    ],
)
def test_an_instant_is_read_and_taken_to_utc(text: str) -> None:
    instant = parse_instant(text)
    assert instant == datetime(2025, 3, 13, 12, tzinfo=UTC)
    assert instant.tzinfo is UTC


def test_what_is_no_instant_is_an_error() -> None:
    with pytest.raises(ValueError, match="tomorrow"):
        parse_instant("tomorrow")


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00+02:00", "9999-12-31T23:59:59-02:00"])
def test_an_instant_beyond_the_calendar_is_an_error_that_says_so(text: str) -> None:
    with pytest.raises(ValueError, match="lies outside the years 1 to 9999 in UTC"):
        parse_instant(text)


@given(st.datetimes(timezones=st.just(timezone(timedelta(hours=2)))))
def test_an_instant_reads_back_what_isoformat_writes(instant: datetime) -> None:
    try:
        expected = instant.astimezone(UTC)
    except OverflowError:  # the first and last hours of the calendar
        return
    assert parse_instant(instant.isoformat()) == expected


def test_the_clock_is_aware_and_in_utc() -> None:
    assert SystemClock().now().utcoffset() == timedelta(0)


def test_the_backoff_grows_by_its_factor_up_to_its_bound() -> None:
    options = RetryOptions(
        factor=2, min_timeout_in_ms=1000, max_timeout_in_ms=5000, randomize=False
    )
    delays = [retry_delay(options, attempt).total_seconds() for attempt in range(1, 6)]
    assert delays == [1, 2, 4, 5, 5]


def test_a_random_backoff_is_between_once_and_twice_its_length() -> None:
    options = RetryOptions(min_timeout_in_ms=1000)
    bounds: list[tuple[float, float]] = []

    def draw(low: float, high: float) -> float:
        bounds.append((low, high))
        return high

    assert retry_delay(options, 1, draw) == timedelta(seconds=2)
    assert bounds == [(1, 2)]


@given(retry_options, st.integers(1, 250))
def test_a_backoff_never_exceeds_its_bound(options: RetryOptions, attempt: int) -> None:
    delay = retry_delay(options, attempt)
    assert timedelta(0) <= delay <= timedelta(milliseconds=options.max_timeout_in_ms)


@given(retry_options, st.integers(1, 249))
def test_a_backoff_without_chance_never_shrinks(options: RetryOptions, attempt: int) -> None:
    fixed = options.model_copy(update={"randomize": False})
    assert retry_delay(fixed, attempt) <= retry_delay(fixed, attempt + 1)


@pytest.mark.parametrize(
    "options",
    [{"max_attempts": 0}, {"factor": 0.5}, {"factor": 1e9}, {"min_timeout_in_ms": 10**400}],
)
def test_senseless_retry_options_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        RetryOptions.model_validate(options)
