"""Django's tasks on a real platform: what is enqueued runs, and Django reads how it went."""

import importlib
import sys
from collections.abc import Generator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import django
import pytest
from django.core.exceptions import ImproperlyConfigured
from django.utils.functional import empty
from django_tasks import TaskResult, TaskResultStatus, task_backends
from django_tasks.exceptions import InvalidTaskError, TaskResultDoesNotExist
from django_tasks.signals import task_enqueued

from runwell import ConfigurationError, configure
from runwell.core.schemas import RunError
from runwell.django import RunwellBackend
from runwell.django.framework import find_origin
from runwell.django.requests import find_class_path
from runwell.sync import runs
from tests.support.database import temporary_database
from tests.support.processes import ServerProcess, WorkerProcess
from tests.support.waiting import wait_until_sync

PROJECT = Path(__file__).parent / "sample_project"


@pytest.fixture(scope="module")
def shop_database() -> Generator[str]:
    with temporary_database() as url:
        yield url


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, shop_database: str) -> Generator[Any]:
    """The tasks of a Django project, with a platform that runs them."""
    folder = tmp_path_factory.mktemp("django")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(PROJECT), *sys.path])
        patch.setenv("DJANGO_SETTINGS_MODULE", "shop.settings")
        # Other tests of this process may have given Django settings of theirs.
        patch.setattr("django.conf.settings._wrapped", empty)
        django.setup()
        tasks = importlib.import_module("shop.tasks")
        server = ServerProcess(folder / "server", database_url=shop_database)
        try:
            server.wait_until_ready()
            key = server.secret_key
            configure(base_url=server.url, secret_key=key)
            worker = WorkerProcess(folder / "worker", PROJECT, url=server.url, secret_key=key)
            try:
                wait_until_sync(lambda: bool(worker.task_processes), "the worker", timeout=30)
                yield tasks
            finally:
                worker.end()
        finally:
            configure()
            server.end()
        for name in [name for name in sys.modules if name.partition(".")[0] == "shop"]:
            del sys.modules[name]


def wait_for(result: "TaskResult[Any]") -> "TaskResult[Any]":
    """Refresh a result until its task has ended."""

    def look() -> bool:
        result.refresh()
        return result.is_finished

    wait_until_sync(look, "the task has ended", timeout=30)
    return result


def test_an_enqueued_task_runs_and_its_result_is_there(shop: Any) -> None:
    seen: list[str] = []

    def note(task_result: "TaskResult[Any]", **_more: object) -> None:
        seen.append(task_result.id)

    task_enqueued.connect(note)
    try:
        result = shop.write_mail.enqueue("ada", copies=2)
    finally:
        task_enqueued.disconnect(note)
    assert (result.status, result.attempts) == (TaskResultStatus.READY, 0)
    assert seen == [result.id]

    wait_for(result)
    assert result.status == TaskResultStatus.SUCCESSFUL
    assert result.return_value == {"to": "ada", "copies": 2, "pair": [1, 2]}
    assert (result.args, result.kwargs, result.attempts) == (["ada"], {"copies": 2}, 1)
    assert result.enqueued_at <= result.started_at <= result.finished_at
    assert result.last_attempted_at == result.started_at
    found = shop.write_mail.get_result(result.id)
    assert (found.task, found.backend, found.errors) == (shop.write_mail, "default", [])
    assert runs.retrieve(result.id).tags == ["shop.tasks.write_mail"]


async def test_a_coroutine_runs_and_is_told_of_its_own_result(shop: Any) -> None:
    result = await shop.name_result.aenqueue("hello")
    run = runs.poll(result.id, poll_interval=0.1)
    found = await shop.name_result.aget_result(result.id)

    assert run.is_success, run.error
    assert found.return_value == [result.id, 1, "hello"]


def test_what_a_task_raised_is_an_error_of_its_result_after_one_attempt(shop: Any) -> None:
    result = wait_for(shop.write_mail.enqueue("nobody"))

    assert (result.status, result.attempts) == (TaskResultStatus.FAILED, 1)
    assert result.errors[0].exception_class is shop.NoSuchCustomerError
    assert "in write_mail" in result.errors[0].traceback
    with pytest.raises(ValueError, match="failed"):
        _ = result.return_value


def test_a_task_is_tried_as_often_as_the_options_say(shop: Any) -> None:
    result = wait_for(shop.work_later.enqueue())

    assert (result.return_value, result.attempts) == (2, 2)
    assert [error.exception_class for error in result.errors] == [ValueError]


async def test_queue_priority_and_time_go_to_the_run(shop: Any, shop_database: str) -> None:
    later = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
    task = shop.write_mail.using(run_after=later, priority=7, queue_name="mails")
    result = task.enqueue("grace")
    run = runs.retrieve(result.id)

    connection = await asyncpg.connect(shop_database)
    try:
        row = await connection.fetchrow(
            "SELECT q.name, r.priority_seconds FROM runs r JOIN queues q ON q.id = r.queue_id"
            " WHERE r.id = $1",
            result.id,
        )
    finally:
        await connection.close()

    assert row is not None
    assert tuple(row) == ("mails", 7 * 3_600)
    assert (run.status, run.delayed_until) == ("DELAYED", later)
    found = task.get_result(result.id)
    assert (found.status, found.task) == (TaskResultStatus.READY, task)
    runs.cancel(result.id)
    result.refresh()
    assert result.status == TaskResultStatus.FAILED


def test_nothing_is_enqueued_that_can_not_be(shop: Any) -> None:
    with pytest.raises(TypeError):
        shop.write_mail.enqueue(object())
    with pytest.raises(InvalidTaskError, match="other"):
        shop.write_mail.using(queue_name="other")


@pytest.mark.parametrize("result_id", ["run_nothing", "", "no run at all"])
async def test_a_result_that_is_not_there_does_not_exist(shop: Any, result_id: str) -> None:
    with pytest.raises(TaskResultDoesNotExist):
        shop.write_mail.get_result(result_id)
    with pytest.raises(TaskResultDoesNotExist):
        await shop.write_mail.aget_result(result_id)


def test_the_backend_says_what_it_can(shop: Any) -> None:
    backend = task_backends["default"]
    assert isinstance(backend, RunwellBackend)
    assert backend.supports_defer
    assert backend.supports_async_task
    assert backend.supports_get_result
    assert backend.supports_priority
    assert list(backend.check()) == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"max_attempts": 0}, "max_attempts"),
        ({"priority_step": "soon"}, "priority_step"),
        ({"priority_step": "9999d"}, "too long"),
        ({"attempts": 2}, "'attempts' is none: there are max_attempts"),
    ],
)
def test_bad_options_are_named(options: dict[str, object], said: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=said) as caught:
        RunwellBackend("mine", {"OPTIONS": options})
    assert "TASKS['mine']" in str(caught.value)


def test_a_queue_that_can_have_no_such_name_is_found_by_djangos_check() -> None:
    (found,) = RunwellBackend("mine", {"QUEUES": ["fine", "not fine"]}).check()
    assert "TASKS['mine']['QUEUES']" in found.msg


def test_without_djangos_tasks_an_error_says_what_to_install() -> None:
    def load(name: str) -> object:
        raise ModuleNotFoundError(name, name=name.partition(".")[0])

    with pytest.raises(ConfigurationError, match="pip install django-tasks"):
        find_origin(load)


def test_a_broken_installation_is_not_taken_for_a_missing_one() -> None:
    def load(name: str) -> object:
        raise ModuleNotFoundError("no module", name="asgiref")

    with pytest.raises(ModuleNotFoundError, match="no module"):
        find_origin(load)


def test_djangos_own_tasks_come_first() -> None:
    assert find_origin(lambda name: name) == "django.tasks"


@pytest.mark.parametrize(
    ("name", "trace", "path"),
    [
        ("ValueError", 'File "a.py"\nValueError: no', "builtins.ValueError"),
        ("Gone", "ValueError: no\n\nFile\nshop.tasks.Gone\n", "shop.tasks.Gone"),
        ("Gone", "Gone.else: no", "runwell.RunwellError"),
        (None, None, "runwell.RunwellError"),
    ],
)
def test_the_class_of_an_error_is_read_from_its_traceback(
    name: str | None, trace: str | None, path: str
) -> None:
    assert find_class_path(RunError(message="no", name=name, stack_trace=trace)) == path
