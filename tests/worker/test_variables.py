"""Environment variables of the server in the processes of runs, with a real server."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import cast

import pytest

from runwell.client.api import ApiClient
from runwell.client.runs import Runs
from runwell.client.transport import ClientSettings
from runwell.client.variables import EnvVars
from tests.server.serving import Served, serving
from tests.worker.support.fake_server import FakeServer
from tests.worker.support.watched_worker import WatchedWorker, working, write_project

TASKS = """
    import os

    names = ("GREETING", "REGION", "OWN", "TRIGGER_SECRET_KEY")
    at_import = os.environ.get("GREETING")

    @task(id="show")
    def show() -> list[object]:
        return [at_import, *(os.environ.get(name) for name in names[:3])]

    @task(id="kept", keep_process=True)
    def kept() -> list[object]:
        found = [os.environ.get(name) for name in names[:2]]
        os.environ["REGION"] = "of the run before"
        return [os.getpid(), *found]
"""


@contextlib.asynccontextmanager
async def working_for(served: Served, folder: Path, slug: str) -> AsyncGenerator[WatchedWorker]:
    key = served.keys[slug]
    async with working(folder, FakeServer(), url=served.url, secret_key=key) as worker:
        yield worker


async def outputs_of(served: Served, slug: str, task_id: str) -> list[object]:
    headers = {"authorization": f"Bearer {served.keys[slug]}"}
    answer = await served.client.post(f"/api/v1/tasks/{task_id}/trigger", json={}, headers=headers)
    run = await Runs(client_of(served, slug)).poll(answer.json()["id"], poll_interval=0.02)
    output: object = run.output
    assert isinstance(output, list), run
    return cast("list[object]", output)


def client_of(served: Served, slug: str) -> ApiClient:
    settings = ClientSettings(base_url=served.url, secret_key=served.keys[slug])
    return ApiClient(lambda: settings)


async def test_runs_find_the_variables_that_hold_when_they_start(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OWN", "of the worker")
    async with serving(database_url) as served:
        envvars = EnvVars(client_of(served, "prod"))
        await envvars.upload({"GREETING": "hello", "OWN": "of the server"})
        project = write_project(tmp_path, tasks=TASKS)
        async with working_for(served, project, "prod"):
            assert await outputs_of(served, "prod", "show") == [
                "hello",
                "hello",
                None,
                "of the server",
            ]
            # The files were imported before: what a run reads is new.
            await envvars.upload({"GREETING": "bye", "REGION": "eu"}, override=True)
            assert await outputs_of(served, "prod", "show") == [
                "hello",
                "bye",
                "eu",
                "of the server",
            ]
            await envvars.delete("GREETING")
            await envvars.delete("OWN")
            assert await outputs_of(served, "prod", "show") == [
                "hello",
                None,
                "eu",
                "of the worker",
            ]


async def test_a_kept_process_finds_for_each_run_what_holds_for_it(
    database_url: str, tmp_path: Path
) -> None:
    async with serving(database_url) as served:
        envvars = EnvVars(client_of(served, "prod"))
        project = write_project(tmp_path, tasks=TASKS)
        async with working_for(served, project, "prod"):
            await envvars.upload({"REGION": "eu", "GREETING": "hello"})
            first = await outputs_of(served, "prod", "kept")
            await envvars.delete("GREETING")
            second = await outputs_of(served, "prod", "kept")
            assert (first[1:], second[1:]) == (["hello", "eu"], [None, "eu"])
            assert first[0] == second[0]


async def test_in_development_those_of_the_terminal_win(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OWN", "of the terminal")
    async with serving(database_url) as served:
        await EnvVars(client_of(served, "dev")).upload({"OWN": "of the server", "REGION": "eu"})
        async with working_for(served, write_project(tmp_path, tasks=TASKS), "dev"):
            assert await outputs_of(served, "dev", "show") == [
                None,
                None,
                "eu",
                "of the terminal",
            ]


async def test_no_value_is_in_the_log_or_in_what_a_worker_tells(
    database_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with serving(database_url) as served:
        await EnvVars(client_of(served, "dev")).upload({"GREETING": "hunter2hunter2"})
        async with working_for(served, write_project(tmp_path, tasks=TASKS), "dev") as worker:
            await outputs_of(served, "dev", "show")
            assert "hunter2" not in str(worker.events)
            state = worker.settings.state_folder
            files = await asyncio.to_thread(lambda: [p for p in state.rglob("*") if p.is_file()])
            # The output of the run is the user's own doing; it is sent by now.
            assert not any(b"GREETING" in path.read_bytes() for path in files)
    assert not any("hunter2" in str(record.__dict__) for record in caplog.records)
