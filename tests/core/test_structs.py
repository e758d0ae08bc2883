"""Structs of msgspec, and what there is without it."""

import sys

import msgspec
import pytest

from runwell.core.structs import is_struct_type, struct_from_json, struct_schema, struct_to_json


class Name(msgspec.Struct, rename="camel"):
    """Something with other names on the wire."""

    first_name: str


class Team(msgspec.Struct):
    """Something that holds others."""

    names: list[Name]


class Tree(msgspec.Struct):
    """Something that holds its own kind."""

    parts: list["Tree"] = []


class Pair(msgspec.Struct, array_like=True):
    """Something that is a list on the wire."""

    left: int


def test_a_struct_reads_back_as_it_was() -> None:
    team = Team([Name("Ada")])
    assert struct_to_json(team) == {"names": [{"firstName": "Ada"}]}
    assert struct_from_json(struct_to_json(team), Team) == team


def test_what_does_not_fit_is_said_with_its_place() -> None:
    with pytest.raises(ValueError, match=r"Expected `str`, got `int` - at `\$.names\[0\].first"):
        struct_from_json({"names": [{"firstName": 1}]}, Team)


def test_what_is_no_struct_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_struct_type(Team)
    assert not is_struct_type(int)
    assert not is_struct_type(Team([]))
    with pytest.raises(TypeError, match="object objects have no JSON form"):
        struct_to_json(object())
    monkeypatch.delitem(sys.modules, "msgspec")
    assert not is_struct_type(Team)
    with pytest.raises(TypeError, match="Team objects have no JSON form"):
        struct_to_json(Team([]))


def test_a_schema_holds_the_schemas_of_what_is_inside() -> None:
    schema = struct_schema(Name)
    assert (schema["title"], schema["required"]) == ("Name", ["firstName"])
    names = struct_schema(Team)["properties"]["names"]  # pyright: ignore[reportIndexIssue, reportUnknownVariableType] (a dictionary)
    assert names == {"type": "array", "items": schema}
    tree: dict[str, object] = {"type": "array", "default": [], "items": {}}
    assert struct_schema(Tree)["properties"] == {"parts": tree}
    assert struct_schema(Pair)["type"] == "array"
