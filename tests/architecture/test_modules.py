"""Modules stay small, are named by what they are about, and say it."""

import ast
from pathlib import Path

import pytest

from tests.architecture.tree import PACKAGE, list_modules, parse, show

MOST_LINES = 400
BANNED_NAMES = {
    "base",
    "common",
    "data",
    "handler",
    "helpers",
    "info",
    "manager",
    "misc",
    "processor",
    "service",
    "utils",
}
# SQL is text in engine/sql; these take it as an argument or run a server's own statements.
SQL_WORDS = ("SELECT ", "INSERT INTO ", "UPDATE ", "DELETE FROM ")
MAY_HOLD_SQL = {
    # What must work before there is a schema, or on another database than ours.
    "engine/migrations.py",
    "engine/notifications.py",
    # One call of a function, on connections of applications and in the words of each driver.
    "client/app_connections.py",
}

MODULES = list_modules("src")


def words_of(name: str) -> set[str]:
    words = set(name.removesuffix(".py").strip("_").split("_"))
    return words | {f"{word}s" for word in words} | {word.removesuffix("s") for word in words}


@pytest.mark.parametrize("path", list_modules("src", "tests", "bench", "examples"), ids=show)
def test_a_module_is_not_too_long(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= MOST_LINES, f"{show(path)} has {lines} lines: split it by noun"


@pytest.mark.parametrize("path", MODULES, ids=show)
def test_a_module_is_named_by_what_it_is_about(path: Path) -> None:
    for part in path.relative_to(PACKAGE).parts:
        banned = words_of(part) & BANNED_NAMES
        assert not banned, f"{show(path)}: {banned} says nothing about what is in it"


@pytest.mark.parametrize("path", MODULES, ids=show)
def test_a_module_says_what_it_is_about(path: Path) -> None:
    if path.name == "_version.py":
        return
    docstring = ast.get_docstring(parse(path))
    assert docstring, f"{show(path)} has no docstring"
    assert docstring.splitlines()[0].rstrip().endswith((".", ":")), (
        f"{show(path)}: the first line of a docstring is a sentence"
    )


@pytest.mark.parametrize("path", MODULES, ids=show)
def test_python_holds_no_sql(path: Path) -> None:
    if path.relative_to(PACKAGE).as_posix() in MAY_HOLD_SQL:
        return
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            assert not node.value.lstrip().startswith(SQL_WORDS), (
                f"{show(path)}:{node.lineno} holds SQL: queries are text in engine/sql"
            )


@pytest.mark.parametrize("path", MODULES, ids=show)
def test_nothing_is_left_for_later(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for mark in ("NotImplementedError", "TODO", "FIXME", "XXX"):
        assert mark not in text, f"{show(path)} has a {mark}"
