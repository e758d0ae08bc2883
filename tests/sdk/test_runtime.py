"""The context of a run, and how code finds the run that it belongs to."""

import asyncio
import dataclasses
import threading

import pytest

from runwell.core.machines import MachineName
from runwell.sdk.runtime import activate, current_runtime, find_runtime
from tests.sdk.contexts import NOW, KeepingRuntime, make_context


def test_the_context_has_the_documented_fields() -> None:
    context = make_context(batch_id="batch_1")
    assert dataclasses.asdict(context) == {
        "task": {"id": "hello", "file_path": "trigger/a.py", "export_name": "hello"},
        "attempt": {
            "id": "attempt_1",
            "number": 2,
            "started_at": NOW,
            "background_worker_id": "worker_1",
            "status": "EXECUTING",
        },
        "run": {
            "id": "run_1",
            "created_at": NOW,
            "started_at": NOW,
            "context": {"from": "test"},
            "tags": ("a",),
            "is_test": False,
            "idempotency_key": None,
            "max_attempts": 3,
            "max_duration": 300,
            "duration_ms": 0,
            "cost_in_cents": 0,
            "base_cost_in_cents": 0,
            "version": "20250102.1",
        },
        "queue": {"id": "queue_1", "name": "task/hello"},
        "environment": {"id": "env_1", "slug": "dev", "type": "DEVELOPMENT"},
        "organization": {"id": "org_1", "slug": "acme", "name": "Acme"},
        "project": {"id": "p_1", "ref": "proj_a", "slug": "shop", "name": "Shop"},
        "batch": {"id": "batch_1"},
        "machine": {"name": MachineName.MICRO, "cpu": 0.25, "memory": 0.25, "cents_per_ms": 0},
    }


def test_a_run_outside_of_a_batch_has_none() -> None:
    assert make_context().batch is None


@pytest.mark.parametrize("kind", ["PRODUCTION", "STAGING", "DEVELOPMENT", "PREVIEW"])
def test_the_type_of_the_environment_is_told(kind: str) -> None:
    assert make_context(environment_type=kind).environment.type == kind


def test_an_environment_of_a_type_from_the_future_counts_as_production() -> None:
    assert make_context(environment_type="MOON").environment.type == "PRODUCTION"


def test_the_context_does_not_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        make_context().run.id = "run_2"  # pyright: ignore[reportAttributeAccessIssue] (what is refused)


def test_there_is_a_current_run_only_while_one_is_active() -> None:
    runtime = KeepingRuntime()
    assert find_runtime() is None
    with activate(runtime):
        assert find_runtime() is runtime
        with activate(KeepingRuntime()):
            assert find_runtime() is not runtime
        assert find_runtime() is runtime
    assert find_runtime() is None


def test_a_thread_that_a_run_starts_belongs_to_it() -> None:
    runtime, found = KeepingRuntime(), list[object]()
    with activate(runtime):
        thread = threading.Thread(target=lambda: found.append(find_runtime()))
        thread.start()
        thread.join()
    assert found == [runtime]


def test_a_child_may_set_the_variable_itself() -> None:
    runtime = KeepingRuntime()

    async def main() -> object:
        current_runtime.set(runtime)
        return await asyncio.to_thread(find_runtime)

    assert asyncio.run(main()) is runtime
    assert find_runtime() is None
