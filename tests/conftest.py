"""Fixtures for all tests: a database of one's own, and `async def` tests.

- `database_url`: the DSN of a migrated database that nobody else uses.
- `db`: an open `Database` on it.
- `runner`: the event loop that an `async def` test and the async fixtures of it share.

An async fixture is a plain one that calls `runner.run(...)`; more often an async context manager of
`tests.support` within the test is simpler.
"""

import asyncio
import inspect
from collections.abc import Generator
from typing import Protocol

import hypothesis
import pytest
import uvloop

from runwell.engine.db import Database
from tests.support.database import PytestSession, temporary_database

# The same examples each time, and no opinion on how busy the machine is.
hypothesis.settings.register_profile("runwell", derandomize=True, deadline=None)
hypothesis.settings.load_profile("runwell")


class _WorkerNode(Protocol):
    """What xdist gives us of a worker that it is about to start."""

    workerinput: dict[str, str]


def pytest_configure(config: pytest.Config) -> None:
    """Begin the session, or join the one whose xdist worker this is."""
    given: dict[str, str] | None = getattr(config, "workerinput", None)
    PytestSession.current = (
        PytestSession.begin() if given is None else PytestSession.join(given["runwell_session"])
    )


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: _WorkerNode) -> None:
    """Tell an xdist worker which session it belongs to."""
    assert PytestSession.current is not None
    node.workerinput["runwell_session"] = str(PytestSession.current.directory)


def pytest_unconfigure() -> None:
    """End what the session started."""
    session, PytestSession.current = PytestSession.current, None
    if session is not None:
        session.end()


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run an `async def` test to its end, on the loop of its fixtures if it has some."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = inspect.signature(pyfuncitem.obj).parameters
    arguments = {name: pyfuncitem.funcargs[name] for name in names}
    test = pyfuncitem.obj(**arguments)
    runner = pyfuncitem.funcargs.get("runner")
    if isinstance(runner, asyncio.Runner):
        runner.run(test)
    else:
        with make_runner() as own:
            own.run(test)
    return True


def make_runner() -> asyncio.Runner:
    """An event loop of the kind that the server has."""
    return asyncio.Runner(loop_factory=uvloop.new_event_loop)


@pytest.fixture
def runner() -> Generator[asyncio.Runner]:
    """The event loop of an `async def` test and of what its fixtures opened."""
    with make_runner() as runner:
        yield runner


@pytest.fixture
def database_url() -> Generator[str]:
    """The DSN of a migrated database of one's own."""
    with temporary_database() as dsn:
        yield dsn


@pytest.fixture
def db(database_url: str, runner: asyncio.Runner) -> Generator[Database]:
    """An open `Database` on a migrated database of one's own."""
    database = runner.run(Database.open(database_url, min_size=1))
    yield database
    runner.run(database.close())
