"""Durations ("1h30m"), retry options with their backoff, and the clock.

Sources: `protocol.md` section 11.2 for the grammars, 3.6 for the backoff; docs
`errors-retrying.md`.
"""

import random
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Protocol

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from runwell.core.machines import MACHINES, MachineName

#: What the SDK takes wherever a length of time is meant; a number is seconds.
Duration = timedelta | str | int | float

#: The most attempts that a run can have, whatever asks for more.
MAX_ATTEMPTS = 250

_DURATION = re.compile(
    r"(?:(?P<weeks>\d+)w)?(?:(?P<days>\d+)d)?(?:(?P<hours>\d+)h)?(?:(?P<minutes>\d+)m)?(?:(?P<seconds>\d+)s)?"
)
_MAX_SECONDS = 100 * 366 * 24 * 3600
_MAX_SHOWN = 10**18


class Clock(Protocol):
    """Where the time comes from. Tests give their own."""

    def now(self) -> datetime:
        """The current instant, aware, in UTC."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """The current instant, aware, in UTC."""
        return datetime.now(UTC)


def parse_duration(value: Duration) -> timedelta:
    """A length of time as timedelta.

    Text is `<n>w<n>d<n>h<n>m<n>s`: at least one part, in this order, no spaces. A number is
    seconds. Raises ValueError for anything else, for what is negative, and for more than 100 years.

    >>> parse_duration("1h30m")
    datetime.timedelta(seconds=5400)
    """
    if isinstance(value, str):
        match = _DURATION.fullmatch(value)
        if not value or match is None:
            raise ValueError(
                f"{value[:64]!r} is not a duration: write it like '10s', '5m', '1h30m' or '2d'"
            )
        # Longer digit strings can't be meant, and would make a timedelta overflow.
        if any(len(digits) > 12 for digits in re.findall(r"\d+", value)):
            raise ValueError(f"{value[:64]!r} is too long a duration: 100 years at most")
        parts = {unit: int(number) for unit, number in match.groupdict(default="0").items()}
        seconds = float(
            parts["seconds"]
            + 60 * parts["minutes"]
            + 3600 * parts["hours"]
            + 86400 * parts["days"]
            + 604800 * parts["weeks"]
        )
    elif isinstance(value, timedelta):
        seconds = value.total_seconds()
    else:
        # Not a float yet: an integer may be too large for one, and even for its digits to be shown.
        seconds = value
    if not 0 <= seconds <= _MAX_SECONDS:
        is_endless = isinstance(value, int) and abs(value) > _MAX_SHOWN
        shown = "so large a number" if is_endless else repr(value)[:64]
        raise ValueError(f"{shown} is not a duration: it must be from 0 to 100 years")
    return timedelta(seconds=seconds)


def format_duration(seconds: float) -> str:
    """A short text for people.

    >>> format_duration(0.0123), format_duration(62.4)
    ('12ms', '1m 2s')
    """
    if seconds < 1:
        return f"{seconds * 1000:.0f}ms"
    if seconds < 60:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}m {rest}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h {minutes}m"


def parse_instant(value: str) -> datetime:
    """An ISO 8601 date as an aware instant in UTC; one without a zone is taken as UTC.

    Raises ValueError when the text is not such a date.
    """
    instant = datetime.fromisoformat(value)
    if instant.tzinfo is None:
        return instant.replace(tzinfo=UTC)
    try:
        return instant.astimezone(UTC)
    except OverflowError:
        raise ValueError(f"{value!r} lies outside the years 1 to 9999 in UTC") from None


def _in_utc(instant: datetime) -> datetime:
    try:
        return instant.astimezone(UTC)
    except OverflowError:
        raise ValueError("lies outside the years 1 to 9999 in UTC") from None


#: An instant as a program sends it: it must say its zone, and is kept in UTC.
Instant = Annotated[AwareDatetime, AfterValidator(_in_utc)]


def format_instant(instant: datetime) -> str:
    """An instant as JavaScript writes dates: in UTC, with milliseconds.

    >>> format_instant(datetime(2026, 3, 1, 9, tzinfo=UTC))
    '2026-03-01T09:00:00.000Z'
    """
    utc = instant.astimezone(UTC).replace(tzinfo=None)
    return f"{utc.isoformat(timespec='milliseconds')}Z"


class OutOfMemoryRetry(BaseModel):
    """Where an attempt is repeated whose memory ran out."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    machine: MachineName


class RetryOptions(BaseModel):
    """How often an attempt is repeated and how long is waited before; the API's field names."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, frozen=True, extra="ignore"
    )

    max_attempts: int = Field(default=3, ge=1, le=MAX_ATTEMPTS)
    factor: float = Field(default=2.0, ge=1, le=1000)
    min_timeout_in_ms: int = Field(default=1_000, ge=0, le=1000 * _MAX_SECONDS)
    max_timeout_in_ms: int = Field(default=60_000, ge=0, le=1000 * _MAX_SECONDS)
    randomize: bool = True
    out_of_memory: OutOfMemoryRetry | None = None


def retry_delay(
    options: RetryOptions,
    attempt: int,
    random_between: Callable[[float, float], float] | None = None,
) -> timedelta:
    """How long to wait after attempt number `attempt` (from 1) failed.

    min(max_timeout, r * min_timeout * factor ** (attempt - 1)), r uniform in 1..2 when randomized.
    """
    spread = (random_between or random.uniform)(1.0, 2.0) if options.randomize else 1.0
    # The exponent is bounded so that a large factor can't overflow a float.
    grown = options.factor ** min(attempt - 1, 100)
    milliseconds = min(options.max_timeout_in_ms, spread * options.min_timeout_in_ms * grown)
    return timedelta(milliseconds=round(milliseconds))


def larger_machine(options: RetryOptions, machine: MachineName) -> MachineName | None:
    """The machine on which a run goes on whose memory ran out; None when it was on one as large."""
    if options.out_of_memory is None:
        return None
    wanted = options.out_of_memory.machine
    return wanted if MACHINES[wanted].memory > MACHINES[machine].memory else None
