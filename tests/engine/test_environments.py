"""The first project of a database, and who a secret key stands for."""

import asyncio
from datetime import timedelta

from runwell.engine import environments
from runwell.engine.db import Database, Transaction
from runwell.engine.environments import Environment
from tests.support.factories import NOW, read


async def _create(db: Database, name: str = "Local") -> dict[str, str] | None:
    return await db.run(lambda tx: environments.create_first_project(tx, now=NOW, name=name))


async def _find(db: Database, key: str, *, seconds: int = 0) -> Environment | None:
    async with db.connection() as tx:
        return await environments.find_by_secret_key(tx, key, now=NOW + timedelta(seconds=seconds))


async def _list_keys(db: Database, *, seconds: int = 0) -> dict[str, str]:
    async with db.connection() as tx:
        return await environments.list_local_keys(tx, now=NOW + timedelta(seconds=seconds))


async def _add_key(db: Database, key: str, *, of: str, **expires: int) -> None:
    await read(
        db,
        """INSERT INTO api_keys (environment_id, secret_key, created_at, expires_at)
        SELECT environment_id, :key, created_at + interval '1 second', :expires_at
        FROM api_keys WHERE secret_key = :of RETURNING id""",
        key=key,
        of=of,
        expires_at=NOW + timedelta(**expires) if expires else None,
    )


async def test_the_first_project_has_three_environments_with_a_key_each(db: Database) -> None:
    keys = await _create(db, "Shop")
    assert keys is not None
    assert {slug: key[: len(slug) + 4] for slug, key in keys.items()} == {
        "dev": "tr_dev_",
        "stg": "tr_stg_",
        "prod": "tr_prod_",
    }
    found = {slug: await _find(db, key) for slug, key in keys.items()}
    kinds = {slug: environment and environment.type for slug, environment in found.items()}
    assert kinds == {"dev": "DEVELOPMENT", "stg": "STAGING", "prod": "PRODUCTION"}
    dev = found["dev"]
    assert dev is not None
    assert dev.is_development
    assert (dev.slug, dev.project.name, dev.organization.name) == ("dev", "Shop", "Shop")
    assert dev.project.ref.startswith("proj_")
    assert dev.project.slug.startswith("shop-")
    assert dev.concurrency_limit == environments.DEFAULT_CONCURRENCY_LIMIT
    rows = await read(db, "SELECT running FROM environment_concurrency")
    assert [row["running"] for row in rows] == [0, 0, 0]


async def test_a_second_first_project_is_none_and_the_keys_stay(db: Database) -> None:
    keys = await _create(db)
    assert await _create(db) is None
    assert await _list_keys(db) == keys


async def test_servers_that_start_at_once_make_one_project(database_url: str) -> None:
    async with await Database.open(database_url, min_size=4) as db:
        made = await asyncio.gather(*(_create(db) for _ in range(8)))
        assert len([keys for keys in made if keys is not None]) == 1
        assert len(await read(db, "SELECT id FROM projects")) == 1
        assert len(await read(db, "SELECT id FROM environments")) == 3


async def test_a_project_that_is_half_made_is_not_there_at_all(db: Database) -> None:
    async def fail(tx: Transaction) -> None:
        await environments.create_first_project(tx, now=NOW)
        raise RuntimeError

    try:
        await db.run(fail)
    except RuntimeError:
        assert await _list_keys(db) == {}
    assert await _create(db) is not None


async def test_a_key_that_is_unknown_stands_for_nobody(db: Database) -> None:
    keys = await _create(db)
    assert keys is not None
    for key in ("", "tr_dev_x", keys["dev"][:-1], keys["dev"].upper(), f"{keys['dev']} "):
        assert await _find(db, key) is None


async def test_a_key_stands_for_its_environment_until_it_expires(db: Database) -> None:
    keys = await _create(db)
    assert keys is not None
    await _add_key(db, "tr_dev_short", of=keys["dev"], seconds=10)
    assert await _find(db, "tr_dev_short", seconds=9) == await _find(db, keys["dev"])
    assert await _find(db, "tr_dev_short", seconds=10) is None
    assert await _find(db, keys["dev"], seconds=10**9) is not None


async def test_the_local_keys_are_the_newest_that_live(db: Database) -> None:
    keys = await _create(db)
    assert keys is not None
    await _add_key(db, "tr_dev_short", of=keys["dev"], seconds=10)
    assert await _list_keys(db) == keys | {"dev": "tr_dev_short"}
    assert await _list_keys(db, seconds=10) == keys
