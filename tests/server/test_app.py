"""The server as a process: settings, start, stop, a killed PostgreSQL, two on one database."""

import contextlib
import os
import signal
import socket
import stat
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from runwell.core.errors import ConfigurationError
from runwell.core.ids import make_request_key
from runwell.server.settings import Settings, read_settings
from tests.server.serving import (
    WORKER_ACTIONS,
    ServerProcess,
    manifest,
    seconds_since,
    server_process,
)
from tests.support.waiting import wait_until_sync


def test_without_settings_the_server_is_local_and_has_a_database_of_its_own() -> None:
    settings = read_settings({})
    assert settings == Settings()
    assert (settings.host, settings.port) == ("127.0.0.1", 3030)
    assert settings.database_url is None


def test_every_setting_is_read() -> None:
    assert read_settings(
        {
            "DATABASE_URL": "postgresql://u:p@db/runwell",
            "RUNWELL_HOST": "0.0.0.0",
            "RUNWELL_PORT": "8080",
            "RUNWELL_DATA_DIR": "/data",
            "RUNWELL_LOG_LEVEL": "DEBUG",
            "RUNWELL_LOG_FORMAT": "json",
            "RUNWELL_LEASE_SECONDS": "30",
            "RUNWELL_POOL_SIZE": "20",
            "RUNWELL_STOP_SECONDS": "60",
        }
    ) == Settings(
        database_url="postgresql://u:p@db/runwell",
        host="0.0.0.0",
        port=8080,
        data_dir=Path("/data"),
        log_level="debug",
        log_format="json",
        lease_seconds=30,
        pool_size=20,
        stop_seconds=60,
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("RUNWELL_PORT", "http"),
        ("RUNWELL_PORT", "65536"),
        ("RUNWELL_PORT", "-1"),
        ("RUNWELL_LOG_LEVEL", "loud"),
        ("RUNWELL_LOG_FORMAT", "xml"),
        ("RUNWELL_LEASE_SECONDS", "0"),
        ("RUNWELL_POOL_SIZE", "1"),
        ("RUNWELL_STOP_SECONDS", "1.5"),
        ("DATABASE_URL", "mysql://root:hush@db"),
    ],
)
def test_a_bad_setting_is_named_and_a_password_is_not_shown(name: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=name) as raised:
        read_settings({name: value})
    assert "hush" not in str(raised.value)
    assert "must" in str(raised.value)


def test_the_first_start_prints_the_keys_and_the_second_does_not(
    tmp_path: Path, database_url: str
) -> None:
    with server_process(tmp_path / "a", database_url) as server:
        local = server.local if server.url else {}
        assert local["pid"] == server.process.pid
        mode = stat.S_IMODE((tmp_path / "a" / "local.json").stat().st_mode)
        assert mode == 0o600
        with server.client() as client:
            assert client.get("/api/v1/runs").status_code == 200
        printed = server.stop()
    assert local["secretKey"] in printed
    assert all(f"tr_{slug}_" in printed for slug in ("dev", "stg", "prod"))
    assert not (tmp_path / "a" / "local.json").exists()
    assert "tr_dev_" not in server.log_path.read_text(encoding="utf-8")
    with server_process(tmp_path / "a", database_url) as server:
        assert server.url
        assert server.local["secretKey"] == local["secretKey"]
        assert server.stop() == ""


def test_a_stop_answers_polls_at_once_and_finishes(tmp_path: Path, database_url: str) -> None:
    with (
        server_process(tmp_path / "a", database_url, RUNWELL_LOG_LEVEL="debug") as server,
        server.client() as client,
    ):
        worker_id, version_id = _connect(client)
        answers: list[httpx.Response] = []

        def poll() -> None:
            answers.append(_dequeue(client, worker_id, version_id, wait_ms=20_000))

        thread = threading.Thread(target=poll)
        thread.start()
        server.wait_for("poll_waits")
        start = time.monotonic()
        server.stop()
        thread.join()
        assert answers[0].json() == {"runs": []}
        assert seconds_since(start) < 15
        assert server.find("server_stopped") is not None


def test_a_second_signal_hastens_a_stop_that_waits_for_a_slow_client(
    tmp_path: Path, database_url: str
) -> None:
    with server_process(tmp_path / "a", database_url, RUNWELL_STOP_SECONDS="60") as server:
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as slow:
            key = server.local["secretKey"]
            head = (
                "POST /api/v1/tasks/a/trigger HTTP/1.1\r\nhost: x\r\n"
                f"authorization: Bearer {key}\r\ncontent-length: 100\r\n"
                "expect: 100-continue\r\n\r\n"
            )
            slow.sendall(head.encode())
            # It asks for the body: the request is being worked on.
            assert slow.recv(100).startswith(b"HTTP/1.1 100")
            server.process.send_signal(signal.SIGINT)
            server.wait_for("server_stopping")
            server.process.send_signal(signal.SIGTERM)
            start = time.monotonic()
            server.process.communicate(timeout=30)
            assert server.process.returncode == 0
            assert seconds_since(start) < 15


def test_a_signal_during_the_start_ends_it_cleanly(tmp_path: Path) -> None:
    with server_process(tmp_path / "a") as server:
        # The lock is taken first; PostgreSQL takes much longer.
        wait_until_sync((tmp_path / "a" / "lock").exists, "PostgreSQL is being started")
        server.process.send_signal(signal.SIGTERM)
        server.process.communicate(timeout=30)
        assert server.process.returncode == 0
    assert not (tmp_path / "a" / "postgres" / "postmaster.pid").exists()


def test_a_port_in_use_is_a_clear_message(tmp_path: Path, database_url: str) -> None:
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = str(taken.getsockname()[1])
        with server_process(tmp_path / "a", database_url, RUNWELL_PORT=port) as server:
            server.process.communicate(timeout=30)
            assert server.process.returncode == 1
            assert _last_line(server) == (
                f"error: port {port} of 127.0.0.1 is in use, perhaps by another Runwell server: "
                "stop that one, or choose another port with RUNWELL_PORT or --port"
            )


def test_a_data_directory_in_use_is_a_clear_message(tmp_path: Path) -> None:
    with server_process(tmp_path / "a") as first:
        assert first.url
        with server_process(tmp_path / "a") as second:
            second.process.communicate(timeout=30)
            assert second.process.returncode == 1
            assert f"process {first.process.pid}" in _last_line(second)
        assert first.local["pid"] == first.process.pid


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("/test_", "/nothing_"), "does not exist"),
        (("runwell@", "stranger@"), "stranger"),
    ],
)
def test_a_database_url_that_leads_nowhere_is_a_clear_message(
    tmp_path: Path, database_url: str, change: tuple[str, str], expected: str
) -> None:
    with server_process(tmp_path / "a", database_url.replace(*change)) as server:
        server.process.communicate(timeout=30)
        assert server.process.returncode == 1
        assert _last_line(server).startswith("error: DATABASE_URL")
        assert expected in _last_line(server)


def test_a_killed_postgres_is_started_again_and_no_run_is_lost(tmp_path: Path) -> None:
    with server_process(tmp_path / "a") as server, server.client() as client:
        first = client.post("/api/v1/tasks/hello/trigger", json={}).json()["id"]
        pid_file = tmp_path / "a" / "postgres" / "postmaster.pid"
        os.kill(int(pid_file.read_text(encoding="utf-8").split("\n")[0]), signal.SIGKILL)
        statuses: set[int] = set()

        def trigger() -> str | None:
            answer = client.post("/api/v1/tasks/hello/trigger", json={})
            statuses.add(answer.status_code)
            return str(answer.json()["id"]) if answer.status_code == 200 else None

        server.wait_for("postgres_died")
        second = wait_until_sync(trigger, "a run is triggered", timeout=30)
        server.wait_for("postgres_restarted")
        assert statuses <= {200, 503}
        listed = {run["id"] for run in client.get("/api/v1/runs").json()["data"]}
        assert {first, second} <= listed
        assert server.find("request_failed") is None
        server.stop()


def test_two_servers_share_the_work_of_one_database(tmp_path: Path, database_url: str) -> None:
    with (
        server_process(tmp_path / "a", database_url) as one,
        one.client() as first,
        server_process(tmp_path / "b", database_url) as two,
        two.client() as second,
    ):
        workers = [(client, *_connect(client)) for client in (first, second)]
        made = {
            client.post("/api/v1/tasks/hello/trigger", json={}).json()["id"]
            for client in (first, second) * 10
        }
        seen: list[str] = []
        while len(seen) < len(made):
            for client, worker_id, version_id in workers:
                for run in _dequeue(client, worker_id, version_id, max_runs=3).json()["runs"]:
                    seen.append(run["runId"])
                    _complete(client, worker_id, run)
        assert len(seen) == len(set(seen))
        assert set(seen) == made
        for client in (first, second):
            page = client.get("/api/v1/runs", params={"filter[status]": "COMPLETED"}).json()
            assert {run["id"] for run in page["data"]} == made


def _connect(client: httpx.Client) -> tuple[str, str]:
    body = {"name": "w", "capacity": 10, "packageVersion": "1"}
    worker = client.post(f"{WORKER_ACTIONS}/connect", json=body).json()
    version = client.post(
        "/api/v1/projects/~/background-workers", json={"metadata": manifest("hello")}
    ).json()
    return worker["workerId"], version["id"]


def _dequeue(
    client: httpx.Client, worker_id: str, version_id: str, *, wait_ms: int = 0, max_runs: int = 1
) -> httpx.Response:
    return client.post(
        f"{WORKER_ACTIONS}/dequeue",
        json={
            "workerId": worker_id,
            "requestId": make_request_key(),
            "backgroundWorkerIds": [version_id],
            "maxRuns": max_runs,
            "waitMs": wait_ms,
        },
    )


def _complete(client: httpx.Client, worker_id: str, run: dict[str, str]) -> None:
    now = datetime.now(UTC).isoformat()
    report = {
        "type": "complete",
        "runId": run["runId"],
        "snapshotId": run["snapshotId"],
        "startedAt": now,
        "finishedAt": now,
        "durationMs": 1,
    }
    answer = client.post(
        f"{WORKER_ACTIONS}/report", json={"workerId": worker_id, "reports": [report]}
    )
    assert answer.json() == {"results": ["accepted"]}


def _last_line(server: ServerProcess) -> str:
    return server.log_path.read_text(encoding="utf-8").rstrip().rpartition("\n")[2]
