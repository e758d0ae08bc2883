"""The pytest plugin: the fixture `runwell_test`, on one PostgreSQL for the whole session."""

from collections.abc import Generator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from runwell.testing.host import Host
    from runwell.testing.kit import RunwellTest


@pytest.fixture(scope="session")
def runwell_host() -> Generator["Host"]:
    """The PostgreSQL and the server of this session, started when the first test wants them."""
    from runwell.testing.host import Host

    with Host.start() as host:
        yield host


@pytest.fixture
def runwell_test(
    runwell_host: "Host", pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch
) -> Generator["RunwellTest"]:
    """An empty Runwell of this test's own, in which its tasks run and time is skipped."""
    from runwell.testing.kit import RunwellTest

    with RunwellTest.open(runwell_host, pytestconfig.rootpath) as test:
        monkeypatch.setenv("TRIGGER_API_URL", test.base_url)
        monkeypatch.setenv("TRIGGER_SECRET_KEY", test.secret_key)
        yield test
