"""How much may be asked: token buckets per credential, and how many requests are under way at once.

A server counts for itself: with several a credential may ask each of them so much. That keeps the
hot paths free of another round trip, and is enough for what it is for, that nobody's loop takes a
server from the others. Worker calls are never refused: what was accepted goes on.
"""

import contextlib
import math
import re
from collections import OrderedDict
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from runwell.core.errors import ConfigurationError, RequestError
from runwell.core.timing import parse_duration

_MAX_BUCKETS: Final = 10_000
_LIMIT: Final = re.compile(r"(\d{1,9})/([0-9a-z]+)(?::(\d{1,9}))?")
_RETRY_AFTER_SECONDS: Final = 1


@dataclass(frozen=True, kw_only=True)
class Rate:
    """So many requests are given back in each period, and so many may come at once."""

    refill: int
    period_seconds: float
    burst: int


@dataclass(frozen=True, kw_only=True)
class RequestLimits:
    """What holds for each credential and for the server; None is no limit."""

    secret_keys: Rate | None = None
    public_tokens: Rate | None = None
    max_requests: int | None = None


#: A fuse against a loop that has gone wild: a healthy program never meets it.
DEFAULT_SECRET_KEYS: Final = "10000/1s:20000"
DEFAULT_PUBLIC_TOKENS: Final = "100/10s:300"
DEFAULT_MAX_REQUESTS: Final = 1_000


class RateLimitedError(RequestError):
    """A credential has asked too much; `reset_at` is when it may ask again, in milliseconds."""

    def __init__(self, rate: Rate, wait_seconds: float, now: datetime) -> None:
        self.limit = rate.burst
        self.seconds = max(1, math.ceil(wait_seconds))
        self.reset_at = math.ceil((now.timestamp() + wait_seconds) * 1000)
        super().__init__(
            429,
            f"too many requests with this credential: {rate.burst:,} at once, and {rate.refill:,} "
            f"more every {rate.period_seconds:g} seconds; try again in {self.seconds} s",
        )


class OverloadedError(RequestError):
    """The server has too much to do; nothing has happened, and trying again later works."""

    def __init__(self, requests: int) -> None:
        super().__init__(
            503,
            f"this server has {requests:,} requests under way and takes no more now: try again in "
            f"{_RETRY_AFTER_SECONDS} s",
        )


class Buckets:
    """A token bucket for each credential, by its hash; those asked longest ago are forgotten."""

    def __init__(self, rate: Rate) -> None:
        self._rate = rate
        self._kept: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, credential_hash: str, now: datetime) -> None:
        """Count a request; raises RateLimitedError when there is nothing left for it."""
        rate, instant = self._rate, now.timestamp()
        per_second = rate.refill / rate.period_seconds
        left, seen_at = self._kept.get(credential_hash, (float(rate.burst), instant))
        left = min(rate.burst, left + max(0.0, instant - seen_at) * per_second)
        is_allowed = left >= 1
        self._kept[credential_hash] = (left - 1 if is_allowed else left, instant)
        self._kept.move_to_end(credential_hash)
        if len(self._kept) > _MAX_BUCKETS:
            self._kept.popitem(last=False)
        if not is_allowed:
            raise RateLimitedError(rate, (1 - left) / per_second, now)


class Doorkeeper:
    """Counts requests, and refuses what is too much."""

    def __init__(self, limits: RequestLimits) -> None:
        self._secret_keys = Buckets(limits.secret_keys) if limits.secret_keys else None
        self._public_tokens = Buckets(limits.public_tokens) if limits.public_tokens else None
        self._max_requests = limits.max_requests
        self.under_way = 0

    def count(self, credential_hash: str, now: datetime, *, is_public: bool) -> None:
        """Count a request of a credential; raises RateLimitedError."""
        buckets = self._public_tokens if is_public else self._secret_keys
        if buckets is not None:
            buckets.take(credential_hash, now)

    @contextlib.contextmanager
    def admitted(self) -> Generator[None]:
        """A request that is under way within the block; raises OverloadedError."""
        if self._max_requests is not None and self.under_way >= self._max_requests:
            raise OverloadedError(self.under_way)
        self.under_way += 1
        try:
            yield
        finally:
            self.under_way -= 1


def read_request_limits(given: Mapping[str, str]) -> RequestLimits:
    """The limits of the environment; raises ConfigurationError that says what to change."""
    return RequestLimits(
        secret_keys=_rate(given, "RUNWELL_RATE_LIMIT", DEFAULT_SECRET_KEYS),
        public_tokens=_rate(given, "RUNWELL_PUBLIC_RATE_LIMIT", DEFAULT_PUBLIC_TOKENS),
        max_requests=_max_requests(given.get("RUNWELL_MAX_REQUESTS", "").strip()),
    )


def _rate(given: Mapping[str, str], name: str, default: str) -> Rate | None:
    text = given.get(name, "").strip().lower() or default
    if text == "off":
        return None
    match = _LIMIT.fullmatch(text)
    try:
        period = parse_duration(match[2]).total_seconds() if match else 0.0
    except ValueError:
        period = 0.0
    refill = int(match[1]) if match else 0
    burst = int(match[3]) if match and match[3] else refill
    if not refill or not burst or not period:
        raise ConfigurationError(
            f"{name} is {text[:64]!r}: write it like 250/10s:750 (250 requests every 10 seconds, "
            "750 at once), or off"
        )
    return Rate(refill=refill, period_seconds=period, burst=burst)


def _max_requests(text: str) -> int | None:
    if text.lower() == "off":
        return None
    if not text:
        return DEFAULT_MAX_REQUESTS
    if not (text.isascii() and text.isdecimal() and 1 <= int(text[:9]) <= 1_000_000):
        raise ConfigurationError(
            f"RUNWELL_MAX_REQUESTS is {text[:64]!r}: it must be a number from 1 to 1000000, or off"
        )
    return int(text)
