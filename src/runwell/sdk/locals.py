"""`locals`: values that the hooks and the task of one attempt share.

Each attempt has values of its own. They are seen by everything that belongs to it: middleware,
hooks, the task, its threads and child tasks.
"""

from typing import Generic, TypeVar, cast

from runwell.core.errors import RunwellError
from runwell.sdk.runtime import find_runtime

T = TypeVar("T")


class LocalKey(Generic[T]):
    """A name under which `locals` keeps a value of one type; made by `locals.create`.

    Two keys with the same name are two keys.

    Example:
        >>> from runwell import LocalKey, locals
        >>> counter: LocalKey[int] = locals.create("counter")
        >>> counter
        <LocalKey 'counter'>
    """

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"<LocalKey {self.name!r}>"


class Locals:
    """Keeps values for one attempt, which its middleware, its hooks and the task share.

    Example:
        >>> import sqlite3
        >>> from collections.abc import AsyncIterator
        >>> from runwell import locals, task
        >>> database = locals.create("database", sqlite3.Connection)
        >>> @task(id="count-users")
        ... async def count_users() -> int:
        ...     return locals.get_or_raise(database).execute("SELECT 1").fetchone()[0]
        >>> @count_users.middleware
        ... async def connect() -> AsyncIterator[None]:
        ...     connection = locals.set(database, sqlite3.connect(":memory:"))
        ...     yield
        ...     connection.close()
    """

    __slots__ = ()

    def create(self, name: str, kind: type[T] | None = None, /) -> LocalKey[T]:
        """A key, at the top level of a file; `kind` is for type checkers only."""
        del kind
        return LocalKey(name)

    def set(self, key: LocalKey[T], value: T) -> T:
        """Keep a value until the attempt ends, and return it; raises RunwellError outside a run."""
        runtime = find_runtime()
        if runtime is None:
            raise RunwellError(
                f"locals.set('{key.name}') works inside of a run: there is no attempt to keep it"
            )
        runtime.locals[key] = value
        return value

    def get(self, key: LocalKey[T]) -> T | None:
        """The value of a key; None when none was set, and outside of a run."""
        runtime = find_runtime()
        return None if runtime is None else cast("T | None", runtime.locals.get(key))

    def get_or_raise(self, key: LocalKey[T]) -> T:
        """The value of a key; raises RunwellError when none was set in this attempt."""
        runtime = find_runtime()
        if runtime is None or key not in runtime.locals:
            raise RunwellError(
                f"nothing was set for locals '{key.name}' in this attempt: set it in a middleware "
                "or in `init`, which come before the task"
            )
        return cast("T", runtime.locals[key])


# The name of the platform's documentation; whoever needs the builtin imports `runwell` instead.
locals = Locals()  # noqa: A001
