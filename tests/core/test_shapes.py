"""Rows of shapes: names of statuses, and arrays as text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runwell.core.shapes import array_text, read_array, read_stored_status, stored_status
from runwell.core.statuses import RunStatus


@pytest.mark.parametrize("status", RunStatus)
def test_every_status_has_a_name_that_is_read_back(status: RunStatus) -> None:
    assert read_stored_status(stored_status(status, is_4x=True)) is status


def test_a_client_of_3x_is_told_no_status_that_it_does_not_know() -> None:
    assert stored_status(RunStatus.DEQUEUED, is_4x=False) == "EXECUTING"
    assert stored_status(RunStatus.QUEUED, is_4x=False) == "PENDING"


def test_another_name_is_refused() -> None:
    with pytest.raises(ValueError, match="'QUEUED' is no status"):
        read_stored_status("QUEUED")


@given(st.lists(st.text()))
def test_texts_survive_the_form_of_an_array(texts: list[str]) -> None:
    assert read_array(array_text(texts)) == texts
