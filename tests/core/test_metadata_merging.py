"""Operations that are merged before they are sent, and sums that JSON can't hold."""

from runwell.core.metadata import (
    IncrementOperation,
    Operation,
    SetOperation,
    apply_operations,
    merge_operation,
)


def test_two_values_set_one_after_the_other_are_the_second_one() -> None:
    pending: list[Operation] = []
    for value in (1, 2):
        merge_operation(pending, SetOperation(key="a", value=value))
    merge_operation(pending, SetOperation(key="b", value=3))
    assert pending == [SetOperation(key="a", value=2), SetOperation(key="b", value=3)]


def test_increments_are_one_unless_their_sum_is_beyond_json() -> None:
    pending: list[Operation] = []
    for value in (1, 2):
        merge_operation(pending, IncrementOperation(key="a", value=value))
    assert pending == [IncrementOperation(key="a", value=3)]
    for _ in range(2):
        merge_operation(pending, IncrementOperation(key="a", value=1e308))
    assert len(pending) == 2


def test_an_increment_beyond_json_changes_nothing() -> None:
    huge = 10**400
    assert apply_operations({"a": huge}, [IncrementOperation(key="a", value=1.5)]) == {"a": huge}
