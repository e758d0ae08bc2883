"""The web applications in `examples/web_apps`, as servers of their own, asked over HTTP."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.processes import Process, ServerProcess, WorkerProcess, find_free_port
from tests.support.waiting import wait_until_sync

PROJECT = Path(__file__).resolve().parents[2] / "examples/web_apps"
TEXT = "Year\nline 1\nline 2\nline 3"


@dataclass
class Setting:
    """A platform with a worker on the example project."""

    folder: Path
    environment: dict[str, str]

    @contextmanager
    def serve(self, *command: str, port: int) -> Generator[httpx.Client]:
        """Start a web application, and wait until it answers."""
        environment = {**self.environment, "PYTHONPATH": str(PROJECT)}
        log = self.folder / f"{port}.log"
        app = Process("app", [sys.executable, *command], environment, log)
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
                wait_until_sync(lambda: answers(app, client), "the application", timeout=30)
                yield client
        finally:
            app.end()


@pytest.fixture
def setting(tmp_path: Path, database_url: str) -> Generator[Setting]:
    server = ServerProcess(tmp_path / "server", database_url=database_url)
    try:
        server.wait_until_ready()
        key = server.secret_key
        worker = WorkerProcess(tmp_path / "worker", PROJECT, url=server.url, secret_key=key)
        try:
            wait_until_sync(lambda: bool(worker.task_processes), "the worker is there", timeout=30)
            yield Setting(tmp_path, {"TRIGGER_API_URL": server.url, "TRIGGER_SECRET_KEY": key})
        finally:
            worker.end()
    finally:
        server.end()


def test_fastapi_triggers_a_run_and_streams_its_progress(setting: Setting) -> None:
    port = find_free_port()
    with setting.serve("-m", "uvicorn", "fastapi_app:app", "--port", str(port), port=port) as app:
        started = app.post("/reports", json={"title": "Year"})
        assert started.status_code == 202, started.text
        place = f"/reports/{started.json()['run_id']}"
        with app.stream("GET", f"{place}/events") as stream:
            lines = [line[6:] for line in stream.iter_lines() if line.startswith("data: ")]
        last = json.loads(lines[-1])
        asked = app.get(place).json()
        page = app.get(f"{place}/page").text
        missing = app.get("/reports/run_nothing/events")
        refused = app.post("/reports", json={})

    assert (last["status"], last["done"], last["text"]) == ("COMPLETED", 3, TEXT)
    assert asked == last
    assert "EventSource" in page
    assert missing.status_code == 404
    assert refused.status_code == 422


def test_flask_triggers_a_run_once_and_is_asked_for_its_end(setting: Setting) -> None:
    port = find_free_port()
    command = ("-m", "flask", "--app", "flask_app", "run", "--port", str(port))
    with setting.serve(*command, port=port) as app:
        key = {"idempotency-key": "year"}
        started = app.post("/reports", json={"title": "Year"}, headers=key)
        again = app.post("/reports", json={"title": "Year"}, headers=key)
        assert started.status_code == 202, started.text
        ended = wait_for_end(lambda: app.get(started.headers["location"]))
        missing = app.get("/reports/run_nothing")
        refused = app.post("/reports", json={"lines": "many"})

    assert again.json() == started.json()
    assert (ended["status"], ended["done"], ended["report"]) == ("COMPLETED", 3, {"text": TEXT})
    assert missing.status_code == 404
    assert refused.status_code == 422
    assert {each["loc"][0] for each in refused.json()["error"]} == {"title", "lines"}


def test_django_triggers_a_run_when_its_transaction_commits(setting: Setting) -> None:
    port = find_free_port()
    setting.environment["REPORTS_DATABASE"] = str(setting.folder / "reports.sqlite3")
    manage = str(PROJECT / "manage.py")
    subprocess.run(
        [sys.executable, manage, "migrate", "--verbosity", "0"],
        env={**os.environ, **setting.environment},
        check=True,
        timeout=60,
    )
    address = f"127.0.0.1:{port}"
    with setting.serve(manage, "runserver", "--noreload", address, port=port) as app:
        started = app.post("/reports", data={"title": "Year"})
        assert started.status_code == 202, started.text
        ended = wait_for_end(lambda: app.get(f"/reports/{started.json()['order']}"))
        refused = app.post("/reports", data={"title": "Year"})
        missing = app.get("/reports/99")

    assert (ended["status"], ended["done"], ended["report"]) == ("COMPLETED", 3, {"text": TEXT})
    assert ended["run_id"] == started.json()["run_id"]
    assert refused.status_code == 409
    assert missing.status_code == 404


def wait_for_end(ask: Callable[[], httpx.Response]) -> dict[str, Any]:
    """Ask until the report is finished."""
    found: list[dict[str, Any]] = []

    def look() -> bool:
        answer = ask()
        assert answer.status_code == 200, answer.text
        found.append(answer.json())
        return bool(found[-1]["is_finished"])

    wait_until_sync(look, "the report is finished", timeout=30)
    return found[-1]


def answers(app: Process, client: httpx.Client) -> bool:
    """Whether an application answers; fails with its log when it has ended."""
    assert app.is_running, app.log
    try:
        client.get("/")
    except httpx.TransportError:
        return False
    return True
