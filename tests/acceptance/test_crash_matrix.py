"""The crash matrix: at every boundary of every operation a process dies or an answer is lost.

Afterwards every run has ended once, nothing is waited for, and all counts are zero.
"""

from collections.abc import Generator

import pytest

from tests.support.crash_cases import CASES, choose_cases
from tests.support.crashes import crash
from tests.support.database import temporary_database
from tests.support.platform import Platform, open_session, temporary_platform

pytestmark = pytest.mark.timeout(120)

# The others take minutes: `make crash-matrix` has them.
_BY_EACH_RUN = choose_cases()


@pytest.fixture(scope="module")
def crashing_platform() -> Generator[Platform]:
    """A platform on a database that outlives its server."""
    with (
        temporary_database() as database_url,
        temporary_platform(database_url=database_url, lease_seconds=2) as platform,
    ):
        yield platform


@pytest.mark.parametrize(
    ("work", "point", "action"),
    [
        case if case in _BY_EACH_RUN else pytest.param(*case, marks=pytest.mark.whole_matrix)
        for case in CASES
    ],
)
async def test_nothing_is_lost_or_done_twice(
    crashing_platform: Platform, work: str, point: str, action: str
) -> None:
    crashing_platform.disarm()
    crashing_platform.mend()
    crashing_platform.wait_until_whole()
    async with open_session(crashing_platform) as session:
        await crash(session, work, point, action)
