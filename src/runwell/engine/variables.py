"""Environment variables of an environment: what its runs find in their process' environment.

Values are encrypted where they lie (`ciphers`), and each is bound to its environment and name.
Source: `protocol.md` section 7.2.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from runwell.core.errors import RequestError
from runwell.engine.ciphers import Cipher, UndecryptableError
from runwell.engine.db import Row, Transaction
from runwell.engine.environments import Environment
from runwell.engine.queries import load_queries

_sql = load_queries("variables")

MAX_VARIABLES: Final = 1_000
MAX_NAME_CHARACTERS: Final = 256
#: Of one value, in UTF-8: no process can be started with a longer one.
MAX_VALUE_BYTES: Final = 64 * 1024
#: Of all values of an environment.
MAX_TOTAL_BYTES: Final = 512 * 1024
#: What the worker itself sets.
RESERVED: Final = frozenset({"TRIGGER_SECRET_KEY", "TRIGGER_API_URL"})
_NAME: Final = re.compile(r"[A-Za-z0-9_]+")


@dataclass(frozen=True, kw_only=True)
class Variable:
    """A variable with its value; nobody but a run is shown that of one that `is_secret`."""

    name: str
    value: str
    is_secret: bool


@dataclass(frozen=True, kw_only=True)
class Variables:
    """All variables of an environment, as runs get them."""

    version: int
    values: dict[str, str]


class VariablesError(RequestError):
    """Variables that can't be taken; `problems` has each with its name."""

    def __init__(self, problems: Mapping[str, str]) -> None:
        first, *others = problems.items()
        more = f"; and {len(others)} more" if others else ""
        super().__init__(400, f"{first[0][:64] or 'a variable'}: {first[1]}{more}")
        self.problems = dict(problems)


async def read_default_key(tx: Transaction) -> str:
    """The key that encrypts where the settings give none: all servers of a database have it."""
    return str(await tx.fetch_value(_sql.find_default_key))


async def list_variables(
    tx: Transaction, environment: Environment, cipher: Cipher
) -> list[Variable]:
    """Every variable of an environment, by name."""
    rows = await tx.fetch(_sql.list_variables, environment_id=environment.id)
    return [_variable(environment, row, cipher) for row in rows]


async def read_all(tx: Transaction, environment: Environment, cipher: Cipher) -> Variables:
    """Every variable with its value, and by which number they are known."""
    version = await tx.fetch_value(_sql.read_version, environment_id=environment.id)
    found = await list_variables(tx, environment, cipher)
    return Variables(version=version, values={one.name: one.value for one in found})


async def get_variable(
    tx: Transaction, environment: Environment, name: str, cipher: Cipher
) -> Variable:
    """A variable; raises RequestError 404 without one."""
    row = await tx.fetch_one(_sql.find_variable, environment_id=environment.id, name=name)
    if row is None:
        raise _no_such_variable(environment, name)
    return _variable(environment, row, cipher)


async def create_variable(
    tx: Transaction,
    environment: Environment,
    variable: Variable,
    cipher: Cipher,
    *,
    now: datetime,
) -> None:
    """Create a variable; raises RequestError 400 for one that can't be, or has another value."""
    _check({variable.name: variable.value})
    await _lock(tx, environment)
    if not await _insert(tx, environment, variable, cipher, overrides=False, now=now):
        if await get_variable(tx, environment, variable.name, cipher) == variable:
            # Asked again because the answer was lost: it is as it should be.
            return
        raise VariablesError({variable.name: "it is there already: update it"})
    await _note_change(tx, environment)


async def update_variable(
    tx: Transaction,
    environment: Environment,
    name: str,
    value: str,
    cipher: Cipher,
    *,
    now: datetime,
) -> None:
    """Give a variable another value; raises RequestError 404 without one."""
    _check({name: value})
    await _lock(tx, environment)
    is_there = await tx.fetch_value(
        _sql.update_variable,
        environment_id=environment.id,
        name=name,
        encrypted_value=cipher.encrypt(value, place=_place(environment, name)),
        now=now,
    )
    if not is_there:
        raise _no_such_variable(environment, name)
    await _note_change(tx, environment)


async def delete_variable(tx: Transaction, environment: Environment, name: str) -> None:
    """Delete a variable; raises RequestError 404 without one."""
    await _lock(tx, environment)
    if not await tx.fetch_value(_sql.delete_variable, environment_id=environment.id, name=name):
        raise _no_such_variable(environment, name)
    await _note_change(tx, environment)


async def import_variables(
    tx: Transaction,
    environment: Environment,
    values: Mapping[str, str],
    cipher: Cipher,
    *,
    overrides: bool,
    is_secret: bool = False,
    now: datetime,
) -> None:
    """Create many, all or none. Those that are there keep their values unless it `overrides`.

    An empty value is passed over. Raises RequestError 400 that names what can't be.
    """
    given = {name: value for name, value in values.items() if value}
    _check(given)
    await _lock(tx, environment)
    for name, value in sorted(given.items()):
        variable = Variable(name=name, value=value, is_secret=is_secret)
        await _insert(tx, environment, variable, cipher, overrides=overrides, now=now)
    await _note_change(tx, environment)


def _check(values: Mapping[str, str]) -> None:
    problems: dict[str, str] = {}
    for name, value in values.items():
        if not _NAME.fullmatch(name) or len(name) > MAX_NAME_CHARACTERS:
            problems[name] = (
                f"a name has letters, digits and '_', {MAX_NAME_CHARACTERS} of them at most"
            )
        elif name in RESERVED:
            problems[name] = "it is set by the worker for each run"
        elif "\x00" in value:
            problems[name] = "the value has a NUL character, which no process' environment can have"
        elif len(value.encode("utf-8", "surrogatepass")) > MAX_VALUE_BYTES:
            problems[name] = f"the value is longer than {MAX_VALUE_BYTES:,} bytes"
        elif any("\ud800" <= letter <= "\udfff" for letter in value):
            problems[name] = "the value is no Unicode text: it has half of a surrogate pair"
    if problems:
        raise VariablesError(problems)


async def _insert(
    tx: Transaction,
    environment: Environment,
    variable: Variable,
    cipher: Cipher,
    *,
    overrides: bool,
    now: datetime,
) -> bool:
    place = _place(environment, variable.name)
    return bool(
        await tx.fetch_value(
            _sql.insert_variable,
            environment_id=environment.id,
            name=variable.name,
            encrypted_value=cipher.encrypt(variable.value, place=place),
            is_secret=variable.is_secret,
            overrides=overrides,
            now=now,
        )
    )


async def _lock(tx: Transaction, environment: Environment) -> None:
    """One change of an environment's variables at a time, so that the limits hold."""
    await tx.execute(_sql.lock_variables, environment_id=environment.id)


async def _note_change(tx: Transaction, environment: Environment) -> None:
    row = await tx.fetch_one(_sql.note_change, environment_id=environment.id)
    assert row is not None
    if row["number"] > MAX_VARIABLES:
        raise RequestError(
            422, f"an environment has {MAX_VARIABLES:,} variables at most: that would be more"
        )
    if row["bytes"] > MAX_TOTAL_BYTES:
        raise RequestError(
            422,
            f"the values of an environment's variables have {MAX_TOTAL_BYTES:,} bytes together at "
            "most: that would be more",
        )


def _variable(environment: Environment, row: Row, cipher: Cipher) -> Variable:
    name = row["name"]
    try:
        value = cipher.decrypt(row["encrypted_value"], place=_place(environment, name))
    except UndecryptableError as error:
        raise RequestError(
            500,
            f"the environment variable {name} can't be decrypted: {error}. Give the server the "
            "RUNWELL_ENCRYPTION_KEY that it had, or set the variable anew",
        ) from None
    return Variable(name=name, value=value, is_secret=row["is_secret"])


def _place(environment: Environment, name: str) -> str:
    return f"{environment.public_id}/{name}"


def _no_such_variable(environment: Environment, name: str) -> RequestError:
    return RequestError(
        404,
        f"there is no environment variable {name[:64]} in the environment {environment.slug} of "
        f"project {environment.project.ref}",
    )
