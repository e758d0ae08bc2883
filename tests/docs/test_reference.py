"""The pages of reference about the public names: current, and complete."""

import re
import runpy
from pathlib import Path
from typing import cast

import runwell

DOCS = Path(__file__).parents[2] / "docs"
NAMES_PAGE = DOCS / "reference/typescript-names.md"
_ROW = re.compile(r"^\| (.+?) \| (.+) \|$", re.MULTILINE)


def test_the_page_of_the_python_api_is_written_from_the_names_of_today() -> None:
    written = runpy.run_path(str(DOCS / "write_reference.py"))["write"]()
    assert (DOCS / "reference/python-api.md").read_text(encoding="utf-8") == written, (
        "run: python docs/write_reference.py"
    )


def python_names() -> list[tuple[str, bool]]:
    """The names in the column of Python, and whether the page says that they are there."""
    found: list[tuple[str, bool]] = []
    for typescript, python in _ROW.findall(NAMES_PAGE.read_text(encoding="utf-8")):
        if typescript in ("TypeScript", "---"):
            continue
        for code in re.findall(r"`([^`]+)`", python):
            if code.startswith("."):
                # What a thing has that stands before it.
                continue
            match = re.match(r"(?:await |with |@)?([A-Za-z_][\w.]*)", code)
            assert match is not None, code
            found.append((match[1], "not yet" not in python))
    return found


def exists(name: str) -> bool:
    root, *parts = name.split(".")
    if root != "hello" and root not in runwell.__all__:
        return False
    value = cast("object", getattr(runwell, "Task" if root == "hello" else root))
    for part in parts:
        if not hasattr(value, part):
            return False
        value = cast("object", getattr(value, part))
    return True


def test_every_python_name_that_a_typescript_one_is_mapped_to_is_there() -> None:
    # Words of the language, and files.
    others = {"async", "def", "isinstance", "ctx", "except", "trigger_config.py", "Exception"}
    for name, is_there in python_names():
        if name not in others:
            assert exists(name) is is_there, f"{NAMES_PAGE.name}: `{name}`, said to be {is_there=}"


def test_every_public_name_is_on_the_page() -> None:
    words = set(re.findall(r"\w+", NAMES_PAGE.read_text(encoding="utf-8")))
    missing = {name for name in runwell.__all__ if not name.startswith("__")} - words
    assert not missing, f"put them into {NAMES_PAGE.name}"
