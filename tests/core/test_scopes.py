"""Scopes of public access tokens."""

import pytest

from runwell.core.scopes import (
    MAX_SCOPES,
    NestedScopes,
    Resource,
    allows,
    check_scopes,
    flatten_scopes,
)

RUN = [Resource("runs", "run_1"), Resource("tags", "user:42")]
SUPER = ("read:runs", "read:all", "admin")


@pytest.mark.parametrize(
    ("scopes", "passes"),
    [
        (["read:runs:run_1"], True),
        (["read:tags:user:42"], True),
        (["read:tags"], True),
        (["admin"], True),
        (["read:all"], True),
        (["read:runs:run_2"], False),
        (["read:runs:run_10"], False),
        (["read:tags:user"], False),
        (["write:runs:run_1"], False),
        (["read"], False),
        (["runs:run_1", "READ:RUNS:run_1"], False),
        ([], False),
    ],
)
def test_a_scope_lets_pass_what_it_names_as_a_whole(scopes: list[str], passes: bool) -> None:
    assert allows(scopes, "read", RUN, SUPER) is passes


def test_all_of_a_type_is_named_by_the_type_alone() -> None:
    assert allows(["read:tasks"], "read", [Resource("tasks")])
    assert not allows(["read:tasks:a"], "read", [Resource("tasks")])


@pytest.mark.parametrize(
    ("nested", "flat"),
    [
        (
            {"read": {"runs": ["run_1", "run_2"], "tags": "t"}, "write": {"tasks": True}},
            ["read:runs:run_1", "read:runs:run_2", "read:tags:t", "write:tasks"],
        ),
        ({"read": True, "admin": True, "write": False}, ["read", "admin"]),
        ({"read": {"runs": False, "tags": []}}, []),
        ({}, []),
    ],
)
def test_nested_scopes_become_flat_ones(nested: NestedScopes, flat: list[str]) -> None:
    assert flatten_scopes(nested) == flat


@pytest.mark.parametrize(
    ("nested", "said"),
    [
        ({"read": "runs"}, "scopes['read'] takes True or a dict"),
        ({"read": {"runs": [1]}}, r"scopes['read']['runs'] takes True, an id or several"),
        ({"read": {"runs": ""}}, "takes True, an id"),
        ({"read": {"runs": "x" * 600}}, "is no scope"),
    ],
)
def test_scopes_that_are_none_are_refused_with_their_place(nested: NestedScopes, said: str) -> None:
    with pytest.raises(ValueError, match="scope") as raised:
        flatten_scopes(nested)
    assert said in str(raised.value)


def test_a_token_has_so_many_scopes_at_most() -> None:
    check_scopes(["read"] * MAX_SCOPES)
    with pytest.raises(ValueError, match="100 scopes at most"):
        check_scopes(["read"] * (MAX_SCOPES + 1))
