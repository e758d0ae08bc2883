"""Environment variables in the database: encrypted, limited, changed one at a time."""

import asyncio

import pytest

from runwell.core.errors import RequestError
from runwell.engine import environments, variables
from runwell.engine.ciphers import Cipher, UndecryptableError
from runwell.engine.db import Database, Transaction
from runwell.engine.environments import Environment
from runwell.engine.variables import Variable, VariablesError
from tests.support.factories import NOW, make_scene, read

CIPHER = Cipher(["k" * 32])


async def import_all(
    db: Database, environment: Environment, values: dict[str, str], *, overrides: bool = False
) -> None:
    await db.run(
        lambda tx: variables.import_variables(
            tx, environment, values, CIPHER, overrides=overrides, now=NOW
        )
    )


async def read_values(
    db: Database, environment: Environment, cipher: Cipher = CIPHER
) -> dict[str, str]:
    async with db.transaction() as tx:
        return (await variables.read_all(tx, environment, cipher)).values


def test_what_is_encrypted_is_read_with_the_same_key_at_the_same_place() -> None:
    old, new = "o" * 32, "n" * 32
    kept = Cipher([old]).encrypt("secret", place="env_1/A")
    assert b"secret" not in kept
    assert Cipher([old]).decrypt(kept, place="env_1/A") == "secret"
    assert Cipher([new, old]).decrypt(kept, place="env_1/A") == "secret"
    assert Cipher([old]).encrypt("secret", place="env_1/A") != kept
    for cipher, data, place in (
        (Cipher([new]), kept, "env_1/A"),
        (Cipher([old]), kept, "env_1/B"),
        (Cipher([old]), kept[:-1] + b"x", "env_1/A"),
        (Cipher([old]), kept[:8], "env_1/A"),
    ):
        with pytest.raises(UndecryptableError):
            cipher.decrypt(data, place=place)


async def test_nothing_readable_is_in_the_database(db: Database) -> None:
    scene = await make_scene(db)
    await import_all(db, scene.environment, {"TOKEN": "hunter2hunter2"})
    rows = await read(db, "SELECT encrypted_value FROM environment_variables")
    assert b"hunter2" not in rows[0]["encrypted_value"]
    assert await read_values(db, scene.environment) == {"TOKEN": "hunter2hunter2"}


async def test_another_key_is_told_of_without_the_value(db: Database) -> None:
    scene = await make_scene(db)
    await import_all(db, scene.environment, {"TOKEN": "x"})
    with pytest.raises(RequestError, match=r"TOKEN can't be decrypted.*RUNWELL_ENCRYPTION_KEY"):
        await read_values(db, scene.environment, Cipher(["z" * 32]))


async def test_an_import_keeps_what_is_there_unless_it_overrides(db: Database) -> None:
    scene = await make_scene(db)
    await import_all(db, scene.environment, {"A": "1", "B": "1", "EMPTY": ""})
    await import_all(db, scene.environment, {"A": "2", "C": "2"})
    assert await read_values(db, scene.environment) == {"A": "1", "B": "1", "C": "2"}
    await import_all(db, scene.environment, {"A": "3"}, overrides=True)
    assert (await read_values(db, scene.environment))["A"] == "3"


async def test_a_bad_one_of_many_leaves_all_as_it_was(db: Database) -> None:
    scene = await make_scene(db)
    bad = {
        "A": "1",
        "a-b": "1",
        "": "1",
        "TRIGGER_SECRET_KEY": "x",
        "NUL": "a\x00b",
        "LONG": "x" * 70_000,
        "HALF": "\ud800",
        "N" * 300: "1",
    }
    with pytest.raises(VariablesError) as raised:
        await import_all(db, scene.environment, bad)
    assert raised.value.problems.keys() == bad.keys() - {"A"}
    assert "x" * 100 not in str(raised.value.problems)
    assert await read_values(db, scene.environment) == {}


async def test_they_are_so_many_and_so_large_at_most(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = await make_scene(db)
    monkeypatch.setattr(variables, "MAX_VARIABLES", 2)
    await import_all(db, scene.environment, {"A": "1"})
    with pytest.raises(RequestError, match="2 variables at most"):
        await import_all(db, scene.environment, {"B": "1", "C": "1"})
    monkeypatch.setattr(variables, "MAX_TOTAL_BYTES", 100)
    with pytest.raises(RequestError, match="100 bytes together"):
        await import_all(db, scene.environment, {"A": "x" * 100}, overrides=True)
    assert await read_values(db, scene.environment) == {"A": "1"}


async def test_of_two_that_create_one_variable_one_is_refused(db: Database) -> None:
    scene = await make_scene(db)

    async def create(value: str) -> str:
        try:
            await db.run(
                lambda tx: variables.create_variable(
                    tx,
                    scene.environment,
                    Variable(name="A", value=value, is_secret=False),
                    CIPHER,
                    now=NOW,
                )
            )
        except VariablesError:
            return "refused"
        return value

    results = await asyncio.gather(create("1"), create("2"))
    assert "refused" in results
    kept = (await read_values(db, scene.environment))["A"]
    assert kept in results


async def test_every_change_is_counted(db: Database) -> None:
    scene = await make_scene(db)

    async def count() -> int:
        async with db.connection() as tx:
            return (await environments.get_by_id(tx, scene.environment.id)).variables_version

    seen = [await count()]
    await import_all(db, scene.environment, {"A": "1"})
    seen.append(await count())
    await db.run(
        lambda tx: variables.update_variable(tx, scene.environment, "A", "2", CIPHER, now=NOW)
    )
    seen.append(await count())
    await db.run(lambda tx: variables.delete_variable(tx, scene.environment, "A"))
    seen.append(await count())
    assert seen == sorted(set(seen))

    async def delete(tx: Transaction) -> None:
        await variables.delete_variable(tx, scene.environment, "A")

    async def update(tx: Transaction) -> None:
        await variables.update_variable(tx, scene.environment, "A", "2", CIPHER, now=NOW)

    for change in (delete, update):
        with pytest.raises(RequestError, match="there is no environment variable A"):
            await db.run(change)
    assert await count() == seen[-1]
