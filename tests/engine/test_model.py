"""The engine says what its model says, after each of many random steps."""

from collections.abc import Callable
from datetime import datetime

import pytest

from runwell.engine.db import Database
from tests.support.database import open_database
from tests.support.model import Model, ModelRun
from tests.support.walks import seeds, walk


@pytest.mark.parametrize("seed", seeds(12))
async def test_the_engine_and_its_model_say_the_same(db: Database, seed: int) -> None:
    await walk(db, seed, steps=120)


def _never_retry(model: Model, run: ModelRun, _at: datetime | None, end: str) -> None:
    model.finish(run, end)


def _count_every_attempt(model: Model, run: ModelRun) -> None:
    model.release(run)
    run.execution, run.status = "QUEUED", "QUEUED"


def _keep_all_slots(model: Model, _place: object = None) -> int:
    return sum(run.lease is not None for run in model.runs.values())


def _forget_no_key(model: Model, task: str, key: str | None, _now: datetime) -> str | None:
    return model.keys[task, key][0] if key and (task, key) in model.keys else None


@pytest.mark.parametrize(
    ("rule", "broken"),
    [
        ("fail", _never_retry),
        ("hand_back", _count_every_attempt),
        ("running", _keep_all_slots),
        ("find_by_key", _forget_no_key),
    ],
)
async def test_a_rule_that_differs_is_found(
    monkeypatch: pytest.MonkeyPatch, rule: str, broken: Callable[..., object]
) -> None:
    monkeypatch.setattr(Model, rule, broken)
    with pytest.raises(AssertionError, match="walks it again"):
        await _walk_twenty_ways()


async def _walk_twenty_ways() -> None:
    for seed in range(20):
        async with open_database() as db:
            await walk(db, seed, steps=120)
