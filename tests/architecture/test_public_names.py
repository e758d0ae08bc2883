"""What users may rely on: `runwell.__all__`, each name with a docstring and a run example."""

import doctest
import inspect
import sys
from types import ModuleType
from typing import cast

import pytest

import runwell

NAMES = sorted(runwell.__all__)
# Types that a user meets and doesn't make; the class that has them shows them.
ONLY_MET = {name for name in NAMES if name.startswith("__")}


def value_of(name: str) -> object:
    return cast("object", getattr(runwell, name))


def document_of(value: object) -> str:
    if not inspect.isroutine(value) and not inspect.isclass(value):
        value = cast("object", type(value))
    return inspect.getdoc(value) or ""


def has_example(value: object) -> bool:
    # An error is raised and caught as the error above it in the tree is.
    shown = (value, *value.__bases__) if isinstance(value, type) else (value,)
    return any(">>> " in document_of(one) for one in shown if one is not object)


def test_the_names_offered_are_those_that_are_there() -> None:
    for name in NAMES:
        getattr(runwell, name)
    submodules = {name for name in dir(runwell) if isinstance(getattr(runwell, name), ModuleType)}
    public = {name for name in dir(runwell) if not name.startswith("_")} - submodules
    assert public - {"TYPE_CHECKING"} == set(NAMES) - ONLY_MET
    assert list(runwell.__all__) == sorted(set(runwell.__all__))


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'taks'"):
        value_of("taks")


def test_the_blocking_names_are_those_of_the_asynchronous_ones() -> None:
    import runwell.sync

    for name in runwell.sync.__all__:
        assert name in NAMES
        mirrored = cast("object", getattr(runwell.sync, name))
        assert methods_of(mirrored) == methods_of(value_of(name))


def methods_of(value: object) -> set[str]:
    return {name for name in dir(value) if not name.startswith("_")}


@pytest.mark.parametrize("name", sorted(set(NAMES) - ONLY_MET))
def test_a_public_name_has_a_docstring_of_a_sentence(name: str) -> None:
    first = document_of(value_of(name)).partition("\n")[0]
    assert first.endswith((".", ":")), f"runwell.{name}: {first!r}"


@pytest.mark.parametrize("name", sorted(set(NAMES) - ONLY_MET))
def test_a_public_name_has_an_example(name: str) -> None:
    assert has_example(value_of(name)), f"runwell.{name} has no example"


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
