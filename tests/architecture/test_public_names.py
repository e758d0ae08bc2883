"""What users may rely on: `runwell.__all__`, each name with a docstring and a run example."""

import doctest
import inspect
import sys
from types import ModuleType

import pytest

import runwell

NAMES = sorted(runwell.__all__)
# Types that a user meets and doesn't make; the class that has them shows them.
ONLY_MET = {name for name in NAMES if name.startswith("__")}


def document_of(name: str) -> str:
    value = getattr(runwell, name)
    described = value if inspect.isroutine(value) or inspect.isclass(value) else type(value)
    return inspect.getdoc(value if isinstance(value, ModuleType) else described) or ""


def test_the_names_offered_are_those_that_are_there() -> None:
    public = {
        name
        for name, value in vars(runwell).items()
        if not name.startswith("_")
        and not (isinstance(value, ModuleType) and value.__name__ == f"runwell.{name}")
    }
    listed = {name for name in NAMES if not name.startswith("_")}
    modules = {name for name in listed if isinstance(getattr(runwell, name), ModuleType)}
    assert listed - modules == public - modules
    assert list(runwell.__all__) == sorted(set(runwell.__all__))


def test_help_lists_every_public_name() -> None:
    assert set(NAMES) <= set(dir(runwell))


@pytest.mark.parametrize("name", sorted(set(NAMES) - ONLY_MET))
def test_a_public_name_has_a_docstring_of_a_sentence(name: str) -> None:
    first = document_of(name).partition("\n")[0]
    assert first.endswith((".", ":")), f"runwell.{name}: {first!r}"


@pytest.mark.parametrize("name", sorted(set(NAMES) - ONLY_MET))
def test_a_public_name_has_an_example(name: str) -> None:
    assert ">>> " in document_of(name), f"runwell.{name} has no example"


def examples() -> list[doctest.DocTest]:
    # A name is shown in the module that defines it, which is not a public one.
    finder = doctest.DocTestFinder(exclude_empty=True)
    modules = {
        sys.modules[found]
        for found in sorted(sys.modules)
        if found.startswith(("runwell.core", "runwell.sdk", "runwell.client"))
    }
    return [
        test
        for module in sorted(modules, key=lambda module: module.__name__)
        for test in finder.find(module)
        if test.examples
    ]


@pytest.mark.parametrize("example", examples(), ids=lambda example: example.name)
def test_an_example_works_as_shown(example: doctest.DocTest) -> None:
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE | doctest.IGNORE_EXCEPTION_DETAIL
    failed = doctest.DocTestRunner(optionflags=flags).run(example).failed
    assert not failed, f"{example.name} (the report is above)"
