"""The small values that users pass as options, when they define a task and when they trigger it.

Durations, instants, queues, retries and machines, read into the form that the API takes. Bad
values raise ValueError with the name of the option and what it takes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal

from pydantic import ValidationError

from runwell.core.machines import MachineName
from runwell.core.payloads import Json
from runwell.core.protocol import (
    MAX_RATE_LIMIT,
    MAX_RATE_WINDOW_SECONDS,
    QueueManifest,
    RateLimitManifest,
)
from runwell.core.timing import Duration, OutOfMemoryRetry, RetryOptions, parse_duration

#: What `machine=` takes: the name of a preset, or the member of `MachineName`.
MachineOption = (
    MachineName
    | Literal["micro", "small-1x", "small-2x", "medium-1x", "medium-2x", "large-1x", "large-2x"]
)

MIN_DURATION_SECONDS = 5
MAX_DURATION_SECONDS = 2_147_483_647
MAX_CONCURRENCY_LIMIT = 100_000
MAX_QUEUE_NAME_CHARACTERS = 128
MAX_DEBOUNCE_KEY_CHARACTERS = 512


class timeout:  # noqa: N801 (read as a namespace: `timeout.NONE`)
    """Special values of `max_duration`.

    Example:
        >>> from runwell import task, timeout
        >>> @task(id="endless", max_duration=timeout.NONE)
        ... async def endless() -> None: ...
        >>> endless.manifest("trigger/endless.py", "endless").max_duration
        2147483647
    """

    #: No limit, also where the config file sets one.
    NONE: Final = MAX_DURATION_SECONDS


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine preset: how much memory and processor a run may use.

    Example:
        >>> from runwell import Machine, Retry, task
        >>> @task(id="resize", retry=Retry(out_of_memory=Machine("large-1x")))
        ... async def resize(url: str) -> None: ...
    """

    preset: MachineOption

    def __post_init__(self) -> None:
        read_machine(self.preset)


@dataclass(frozen=True, kw_only=True, slots=True)
class Retry:
    """How often an attempt is repeated after an error, and how long is waited before each.

    The wait after attempt `n` is `min_timeout * factor ** (n - 1)`, at most `max_timeout`; with
    `randomize` it is up to twice as long, so that failed runs don't come back all at once.

    An attempt whose memory ran out is not repeated, unless `out_of_memory` names a larger machine:
    then the run goes on there, once more even if that was its last attempt.

    Example:
        >>> from runwell import Retry, task
        >>> @task(id="fetch-page", retry=Retry(max_attempts=5, min_timeout="2s"))
        ... async def fetch_page(url: str) -> str:
        ...     return url
    """

    max_attempts: int = 3
    factor: float = 2
    min_timeout: Duration = "1s"
    max_timeout: Duration = "60s"
    randomize: bool = True
    out_of_memory: Machine | MachineOption | None = None

    def __post_init__(self) -> None:
        self.to_options()

    def to_options(self) -> RetryOptions:
        """The form that the API and the engine take."""
        shortest = read_duration("min_timeout", self.min_timeout)
        longest = read_duration("max_timeout", self.max_timeout)
        try:
            return RetryOptions(
                max_attempts=self.max_attempts,
                factor=self.factor,
                min_timeout_in_ms=round(shortest.total_seconds() * 1000),
                max_timeout_in_ms=round(longest.total_seconds() * 1000),
                randomize=self.randomize,
                out_of_memory=_read_out_of_memory(self.out_of_memory),
            )
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(str(part) for part in first["loc"])
            raise ValueError(f"Retry({name}={first['input']!r}): {first['msg']}") from None


@dataclass(frozen=True, kw_only=True, slots=True)
class RateLimit:
    """How many runs of a queue may start in any `window` of time: `limit` at most.

    The others wait in the queue, and start as soon as there is room: nothing is dropped. It holds
    for the queue as a whole, or with `per="key"` for each of its concurrency keys. What counts is
    when a worker takes a run; every attempt counts.

    Example:
        >>> from runwell import Queue, RateLimit, task
        >>> limits = [RateLimit(limit=100, window="1m"), RateLimit(limit=5, window="1s", per="key")]
        >>> @task(id="call-api", queue=Queue(rate_limit=limits))
        ... async def call_api(path: str) -> None: ...
    """

    limit: int
    window: Duration
    per: Literal["queue", "key"] = "queue"

    def __post_init__(self) -> None:
        self.to_manifest()

    def to_manifest(self) -> RateLimitManifest:
        """The form that the API takes; raises ValueError that names what is wrong."""
        if self.per not in ("queue", "key"):
            raise ValueError(f"per={self.per!r}: it takes 'queue' or 'key'")
        seconds = read_whole_seconds("window", self.window)
        if not 1 <= seconds <= MAX_RATE_WINDOW_SECONDS:
            raise ValueError(f"window={self.window!r}: it takes a second to 366 days")
        return RateLimitManifest(
            limit=read_whole("limit", self.limit, 1, MAX_RATE_LIMIT),
            window_seconds=seconds,
            per=self.per,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Queue:
    """Where runs wait, how many of them execute at once, and how many start in a while.

    As a task's option, a queue without a name is the task's own; tasks that name the same queue
    share its limits. As an option of a trigger, it names another queue for this run, and a
    concurrency limit that is given changes that of the queue.

    Example:
        >>> from runwell import Queue, task
        >>> @task(id="one-at-a-time", queue=Queue(concurrency_limit=1))
        ... async def one_at_a_time() -> None: ...
    """

    name: str | None = None
    concurrency_limit: int | None = None
    rate_limit: RateLimit | Sequence[RateLimit] | None = None

    def __post_init__(self) -> None:
        if self.name is not None:
            check_queue_name(self.name)
        limit = self.concurrency_limit
        if limit is not None and not (_is_whole(limit) and 0 <= limit <= MAX_CONCURRENCY_LIMIT):
            raise ValueError(
                f"concurrency_limit={limit!r}: it takes a whole number from 0 to "
                f"{MAX_CONCURRENCY_LIMIT:,}, or None for no limit of its own"
            )
        self.to_manifest("any")

    def to_manifest(self, default_name: str) -> QueueManifest:
        """The form that the API takes, with a name for a queue that has none."""
        given = self.rate_limit
        limits: list[object] = (
            [] if given is None else [given] if isinstance(given, RateLimit) else list(given)
        )
        rates = [limit.to_manifest() for limit in limits if isinstance(limit, RateLimit)]
        if len(rates) < len(limits) or len({rate.per for rate in rates}) < len(rates):
            raise ValueError(
                f"rate_limit={given!r}: it takes RateLimit(limit=..., window=...), or a list of "
                "one for the queue and one with per='key'"
            )
        return QueueManifest(
            name=self.name or default_name,
            concurrency_limit=self.concurrency_limit,
            rate_limits=rates,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Debounce:
    """Makes one run of many triggers: the last of them has passed for `delay` when it is queued.

    Triggers of a task with the same `key` push the one run that is delayed, at most to `max_delay`
    after the first of them. With the mode "leading" it gets the payload of the first trigger; with
    "trailing" that of the last one, and its tags, metadata, machine and limits too.

    Example:
        >>> from runwell import Debounce, tasks
        >>> async def on_change(document_id: str) -> None:
        ...     debounce = Debounce(key=document_id, delay="5s", mode="trailing", max_delay="1m")
        ...     await tasks.trigger("index-document", document_id, debounce=debounce)
    """

    key: str
    delay: Duration
    mode: Literal["leading", "trailing"] = "leading"
    max_delay: Duration | None = None

    def __post_init__(self) -> None:
        self.to_fields()

    def to_fields(self) -> dict[str, Json]:
        """The form that the API takes."""
        if not 1 <= len(self.key) <= MAX_DEBOUNCE_KEY_CHARACTERS:
            raise ValueError(
                f"Debounce(key={self.key!r}): it takes a text of 1 to "
                f"{MAX_DEBOUNCE_KEY_CHARACTERS} characters"
            )
        if self.mode not in ("leading", "trailing"):
            raise ValueError(f"Debounce(mode={self.mode!r}): choose leading or trailing")
        delay = read_whole_seconds("delay", self.delay)
        if not delay:
            raise ValueError(f"Debounce(delay={self.delay!r}): it must be longer than nothing")
        fields: dict[str, Json] = {"key": self.key, "delay": f"{delay}s", "mode": self.mode}
        if self.max_delay is not None:
            longest = read_whole_seconds("max_delay", self.max_delay)
            if longest < delay:
                raise ValueError(
                    f"Debounce(max_delay={self.max_delay!r}) is shorter than its delay, which is "
                    f"{self.delay!r}"
                )
            fields["maxDelay"] = f"{longest}s"
        return fields


def check_queue_name(name: str) -> None:
    """Refuse a name that the API would change or cut; raises ValueError."""
    allowed = name.isascii() and all(c.isalnum() or c in "_/-" for c in name)
    if not allowed or not 1 <= len(name) <= MAX_QUEUE_NAME_CHARACTERS:
        raise ValueError(
            f"queue name {name!r}: it takes 1 to {MAX_QUEUE_NAME_CHARACTERS} of the characters "
            "A-Z a-z 0-9 _ - /"
        )


def read_duration(option: str, value: object) -> timedelta:
    """A length of time; raises ValueError that names the option."""
    if isinstance(value, bool) or not isinstance(value, str | int | float | timedelta):
        raise ValueError(
            f"{option}={value!r}: it takes a timedelta, a number of seconds or a text like '1h30m'"
        )
    try:
        return parse_duration(value)
    except ValueError as error:
        raise ValueError(f"{option}: {error}") from None


def read_whole_seconds(option: str, value: Duration) -> int:
    """A length of time in seconds, rounded up: the API knows no parts of a second."""
    return math.ceil(read_duration(option, value).total_seconds())


def read_max_duration(value: Duration) -> int:
    """The seconds that an attempt may take; raises ValueError when it is under the minimum."""
    seconds = read_whole_seconds("max_duration", value)
    if not MIN_DURATION_SECONDS <= seconds <= MAX_DURATION_SECONDS:
        raise ValueError(
            f"max_duration={value!r}: it takes at least {MIN_DURATION_SECONDS} seconds; "
            "timeout.NONE turns the limit off"
        )
    return seconds


def read_machine(value: MachineOption) -> MachineName:
    """The preset with that name; raises ValueError that lists the presets."""
    try:
        return MachineName(value)
    except ValueError:
        names = ", ".join(MachineName)
        raise ValueError(
            f"machine={value!r} is not a machine preset: choose one of {names}"
        ) from None


def _read_out_of_memory(value: Machine | MachineOption | None) -> OutOfMemoryRetry | None:
    if value is None:
        return None
    preset = value.preset if isinstance(value, Machine) else value
    return OutOfMemoryRetry(machine=read_machine(preset))


def read_whole(option: str, value: int, low: int, high: int) -> int:
    """A whole number in a range; raises ValueError that names the option."""
    if not _is_whole(value) or not low <= value <= high:
        raise ValueError(f"{option}={value!r}: it takes a whole number from {low} to {high}")
    return value


def read_instant(option: str, value: datetime) -> datetime:
    """An aware instant; raises ValueError for one without a time zone."""
    if value.tzinfo is None:
        raise ValueError(
            f"{option}={value!r} has no time zone: write datetime.now(UTC) + ..., or give tzinfo="
        )
    return value


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
