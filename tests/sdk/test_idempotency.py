"""Idempotency keys from user code."""

import json
from collections.abc import Generator

import pytest

from runwell import configure, idempotency_keys, task
from runwell.sync import idempotency_keys as blocking_keys
from tests.support.api_server import answer, api_server


@pytest.fixture(autouse=True)
def configured() -> Generator[None]:
    """What a test configures is forgotten after it."""
    yield
    configure()


@task(id="welcome")
async def welcome(address: str) -> None: ...


async def test_a_key_is_reset_by_what_the_trigger_was_given() -> None:
    with api_server() as api:
        configure(base_url=api.url, secret_key="tr_dev_x")
        api.will(*[answer(200, {"id": "k", "wasTaken": True})] * 3)
        key = idempotency_keys.create(["user_1", "welcome"])
        assert await idempotency_keys.reset(welcome, key)
        assert await idempotency_keys.reset("welcome", ["user_1", "welcome"])
        assert api.seen[0].path == api.seen[1].path == f"/api/v1/idempotencyKeys/{key}/reset"
        assert json.loads(api.seen[1].body) == {"taskIdentifier": "welcome"}


def test_blocking_callers_make_and_reset_keys_too() -> None:
    with api_server() as api:
        configure(base_url=api.url, secret_key="tr_dev_x")
        api.will(answer(200, {"id": "k", "wasTaken": False}))
        key = blocking_keys.create("user_1", scope="global")
        assert key == idempotency_keys.create("user_1", scope="global")
        assert not blocking_keys.reset(welcome, key)
