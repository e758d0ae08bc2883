"""The database goes away while runs are on their way, and nothing is lost or done twice."""

import random

import pytest

from tests.support.chaos import Storm, survive


@pytest.mark.timeout(300)
async def test_runs_of_every_kind_survive_restarts_of_the_database() -> None:
    # The long form: `make chaos`. The leases are so short that they end while it is away.
    storm = Storm(
        seed=random.randrange(2**32),
        runs=100,
        seconds=9,
        gap=(0.5, 4),
        restarts=3,
        lease_seconds=3,
    )
    survived = await survive(storm)
    assert (survived.runs, survived.restarts) == (100, 3)
