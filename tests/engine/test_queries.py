"""The loader of named SQL: names, parameters, and what only looks like one."""

import pytest

from runwell.engine.queries import load_queries, parse_queries

_TWO = """
-- name: find_thing
-- What it is for.
SELECT a::text, ':no', 'it''s :no' FROM things -- not :this
WHERE id = :thing_id AND at > :now AND (:thing_id IS NOT NULL);

-- name: list_things
-- All of them.
SELECT 1;
"""


def test_parameters_become_numbers_in_the_order_they_first_appear() -> None:
    query = parse_queries(_TWO).find_thing
    assert query.parameters == ("thing_id", "now")
    assert "id = $1 AND at > $2 AND ($1 IS NOT NULL)" in query.text
    assert query.arguments({"now": 2, "thing_id": 1}) == [1, 2]


def test_casts_quoted_texts_and_comments_are_left_alone() -> None:
    text = parse_queries(_TWO).find_thing.text
    assert "a::text, ':no', 'it''s :no'" in text
    assert "-- not :this" in text


def test_a_file_has_its_queries_in_order_and_each_ends_without_a_semicolon() -> None:
    queries = list(parse_queries(_TWO))
    assert [query.name for query in queries] == ["find_thing", "list_things"]
    assert [query.text.endswith(";") for query in queries] == [False, False]
    assert list(parse_queries("")) == []


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"thing_id": 1}, r"find_thing: missing \['now'\], unknown \[\]"),
        ({"thing_id": 1, "now": 2, "more": 3}, r"missing \[\], unknown \['more'\]"),
        ({}, r"missing \['now', 'thing_id'\]"),
    ],
)
def test_values_under_other_names_are_an_error_that_tells_them(
    given: dict[str, object], words: str
) -> None:
    with pytest.raises(TypeError, match=words):
        parse_queries(_TWO).find_thing.arguments(given)


def test_as_many_values_under_a_wrong_name_are_an_error_too() -> None:
    with pytest.raises(KeyError, match="now"):
        parse_queries(_TWO).find_thing.arguments({"thing_id": 1, "then": 2})


def test_a_query_that_is_not_there_and_one_that_is_there_twice_are_errors() -> None:
    with pytest.raises(AttributeError, match="no query named find_nothing"):
        _ = parse_queries(_TWO).find_nothing
    with pytest.raises(ValueError, match="two queries are named list_things"):
        parse_queries(_TWO + _TWO[_TWO.index("-- name: list_things") :])


def test_the_queries_of_a_module_are_read_from_its_file() -> None:
    assert load_queries("maintenance").delete_expired_keys.parameters == ("now", "most")
    with pytest.raises(FileNotFoundError):
        load_queries("nothing")
