"""A platform for the tests of one file, made whole before each of them."""

from collections.abc import Generator

import pytest

from tests.support.platform import Platform, temporary_platform


@pytest.fixture(scope="module")
def shared_platform() -> Generator[Platform]:
    """One platform for all of these tests: each leaves it whole, and has runs of its own."""
    with temporary_platform() as platform:
        yield platform


@pytest.fixture
def platform(shared_platform: Platform) -> Platform:
    """The platform with all of it running."""
    shared_platform.mend()
    shared_platform.wait_until_whole()
    return shared_platform
