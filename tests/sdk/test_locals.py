"""`locals`: what an attempt keeps, and where it is not kept."""

import threading

import pytest

from runwell import LocalKey, RunwellError, locals  # noqa: A004 (the documentation's name)
from runwell.sdk.runtime import activate
from tests.sdk.contexts import KeepingRuntime


def test_a_value_is_kept_for_one_attempt_only() -> None:
    key = locals.create("count", int)
    with activate(KeepingRuntime()):
        assert locals.get(key) is None
        assert locals.set(key, 1) == 1
        assert locals.get(key) == locals.get_or_raise(key) == 1
    with activate(KeepingRuntime()):
        assert locals.get(key) is None
        with pytest.raises(RunwellError, match="nothing was set for locals 'count' in this att"):
            locals.get_or_raise(key)


def test_two_keys_with_one_name_are_two() -> None:
    one: LocalKey[int] = locals.create("same")
    other: LocalKey[int] = locals.create("same")
    with activate(KeepingRuntime()):
        locals.set(one, 1)
        assert locals.get(other) is None


def test_a_thread_of_the_run_sees_its_values() -> None:
    key, found = locals.create("name", str), list[str | None]()
    with activate(KeepingRuntime()):
        locals.set(key, "Ada")
        thread = threading.Thread(target=lambda: found.append(locals.get(key)))
        thread.start()
        thread.join()
    assert found == ["Ada"]


def test_outside_of_a_run_there_is_nothing_to_keep_it() -> None:
    key = locals.create("name", str)
    assert locals.get(key) is None
    with pytest.raises(RunwellError, match=r"locals.set\('name'\) works inside of a run"):
        locals.set(key, "Ada")
