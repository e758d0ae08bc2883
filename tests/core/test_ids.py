"""Public ids and versions."""

from datetime import UTC, date, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runwell.core.ids import (
    ALPHABET,
    ID_LENGTH,
    Version,
    id_for_key,
    make_id,
    make_project_ref,
    make_request_key,
    make_secret_key,
    run_id_for_request,
)

NOW = datetime(2025, 3, 13, 12, 0, tzinfo=UTC)
instants = st.datetimes(
    # Hypothesis takes its bounds without a zone.
    min_value=datetime(2000, 1, 1),  # noqa: DTZ001
    max_value=datetime(2500, 1, 1),  # noqa: DTZ001
    timezones=st.just(UTC),
)


def test_an_id_has_its_prefix_and_only_letters_of_the_alphabet() -> None:
    prefix, _, rest = make_id("batch").partition("_")
    assert (prefix, len(rest)) == ("batch", ID_LENGTH)
    assert set(rest) <= set(ALPHABET)


@given(instants, st.timedeltas(timedelta(milliseconds=1), timedelta(days=3650)))
def test_ids_sort_by_the_time_they_were_made(instant: datetime, later: timedelta) -> None:
    assert make_id("run", instant) < make_id("run", instant + later)


def test_ids_of_one_instant_differ() -> None:
    assert len({make_id("run", NOW) for _ in range(1000)}) == 1000


@given(instants, st.integers(1, 2**62))
def test_one_request_key_is_one_run_however_often_it_is_sent(
    instant: datetime, environment_id: int
) -> None:
    key = make_request_key(instant)
    ids = {
        run_id_for_request(environment_id, key, instant + timedelta(seconds=seconds))
        for seconds in (0, 5, 599)
    }
    assert len(ids) == 1


def test_the_run_of_a_request_sorts_by_the_time_of_the_request() -> None:
    key = make_request_key(NOW)
    run_id = run_id_for_request(1, key, NOW + timedelta(minutes=5))
    assert run_id is not None
    assert make_id("run", NOW - timedelta(milliseconds=1)) < run_id
    assert run_id < make_id("run", NOW + timedelta(milliseconds=1))


def test_two_environments_never_share_the_run_of_a_key() -> None:
    key = make_request_key(NOW)
    assert run_id_for_request(1, key, NOW) != run_id_for_request(2, key, NOW)


@pytest.mark.parametrize(
    "key", ["", "order-1", str(UUID(int=4, version=4)), "01958f51-0f00-7000-8000-000000000000"]
)
def test_a_key_that_says_nothing_about_now_makes_no_id(key: str) -> None:
    assert run_id_for_request(1, key, NOW) is None


def test_a_text_has_one_id_in_each_environment() -> None:
    found = id_for_key("bulk", 1, "my words")
    assert found == id_for_key("bulk", 1, "my words")
    assert found.startswith("bulk_")
    assert len(found) == len("bulk_") + 21
    assert len({found, id_for_key("bulk", 2, "my words"), id_for_key("bulk", 1, "others")}) == 3


def test_a_request_key_is_a_uuid_of_version_7_with_its_time() -> None:
    key = UUID(make_request_key(NOW))
    assert (key.version, key.variant) == (7, "specified in RFC 4122")
    assert key.int >> 80 == int(NOW.timestamp() * 1000)
    assert UUID(make_request_key()).version == 7


def test_a_secret_key_names_its_environment() -> None:
    key = make_secret_key("dev")
    assert key.startswith("tr_dev_")
    assert len(key) == len("tr_dev_") + 20
    assert key != make_secret_key("dev")


def test_a_project_ref_is_lower_case() -> None:
    ref = make_project_ref()
    assert ref.startswith("proj_")
    assert ref.removeprefix("proj_").islower()
    assert len(ref) == len("proj_") + 20


@given(st.dates(min_value=date(1000, 1, 1)), st.integers(0, 10**9 - 1))
def test_a_version_reads_back_what_it_writes(day: date, number: int) -> None:
    version = Version(day, number)
    assert Version.parse(str(version)) == version


def test_versions_of_a_day_sort_by_number_and_not_by_text() -> None:
    assert Version.parse("20250313.10") > Version.parse("20250313.9")


@pytest.mark.parametrize(
    "text",
    [
        *["", "20250313", "20250313.", "20250313.a", "2025031.1", "1.1", "20250313.9999999999"],
        *["20251399.1", "20250229.1", "20250313.1\n", "²0250313.1"],
    ],
)
def test_what_is_no_version_says_how_one_looks(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected YYYYMMDD\.N, like 20250313\.1"):
        Version.parse(text)
