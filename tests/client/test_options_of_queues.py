"""Queues and rate limits as users write them."""

from datetime import timedelta
from typing import cast

import pytest

from runwell.client.options import Queue, RateLimit


def test_a_rate_limit_is_sent_in_seconds_and_says_what_it_is_for() -> None:
    limits = [
        RateLimit(limit=100, window="1m30s"),
        RateLimit(limit=1, window=timedelta(milliseconds=1500), per="key"),
    ]
    manifest = Queue(name="q", concurrency_limit=3, rate_limit=limits).to_manifest("unused")
    assert manifest.model_dump(by_alias=True) == {
        "name": "q",
        "concurrencyLimit": 3,
        "rateLimits": [
            {"limit": 100, "windowSeconds": 90, "per": "queue"},
            {"limit": 1, "windowSeconds": 2, "per": "key"},
        ],
    }


def test_one_rate_limit_needs_no_list_and_no_name() -> None:
    manifest = Queue(rate_limit=RateLimit(limit=1, window=5)).to_manifest("task/a")
    assert (manifest.name, manifest.rate_limits[0].window_seconds) == ("task/a", 5)
    assert Queue(rate_limit=[]).to_manifest("a").rate_limits == []


@pytest.mark.parametrize(
    ("limit", "window", "per", "said"),
    [
        (0, "1m", "queue", "limit=0"),
        (True, "1m", "queue", "limit=True"),
        (1_000_001, "1m", "queue", "limit=1000001"),
        (1, "minute", "queue", "window: 'minute' is not a duration"),
        (1, 0, "queue", "window=0: it takes a second"),
        (1, "367d", "queue", "window='367d'"),
        (1, "1m", "tenant", "per='tenant': it takes 'queue' or 'key'"),
    ],
)
def test_a_rate_limit_that_can_not_be_is_refused(
    limit: int, window: str, per: str, said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        RateLimit(limit=limit, window=window, per=cast("None", per))  # pyright: ignore[reportArgumentType] (what a user may write)


@pytest.mark.parametrize(
    "rate_limit",
    [
        [RateLimit(limit=1, window=1), RateLimit(limit=2, window=1)],
        [10],
        "10/m",
    ],
)
def test_what_is_no_rate_limit_is_refused(rate_limit: object) -> None:
    with pytest.raises(ValueError, match=r"rate_limit=.*it takes RateLimit"):
        Queue(rate_limit=cast("RateLimit", rate_limit))
