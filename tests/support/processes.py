"""Server and worker as processes of their own, as users start them, to be killed and restarted."""

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import httpx

from tests.support.waiting import wait_until_sync

_PR_SET_PDEATHSIG = 1
_START_SECONDS = 30.0
_STOP_SECONDS = 40.0


class Process:
    """A program that can be killed and started again with the same settings; has a log."""

    def __init__(
        self, name: str, command: list[str], environment: Mapping[str, str], log_path: Path
    ) -> None:
        """Start it."""
        self.name = name
        self.log_path = log_path
        self._command = command
        self._environment = {**_clean_environment(), **environment}
        self._process = self._spawn()

    @property
    def pid(self) -> int:
        """The process id it has now."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    @property
    def log(self) -> str:
        """What all starts of it wrote."""
        return self.log_path.read_text(encoding="utf-8", errors="replace")

    def kill(self) -> None:
        """End it without a chance to say anything."""
        self._process.kill()
        self._process.wait()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to end, wait for that, and return its exit status."""
        self._process.send_signal(number)
        return self._process.wait(_STOP_SECONDS)

    def start_again(self) -> None:
        """Start it anew after its end."""
        assert not self.is_running, f"{self.name} runs already"
        self._process = self._spawn()

    def end(self) -> None:
        """End it somehow; harmless when it has ended."""
        if self.is_running:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                self.kill()

    def _spawn(self) -> subprocess.Popen[bytes]:
        with self.log_path.open("ab") as log:
            return subprocess.Popen(
                self._command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Not the terminal's Ctrl-C: the tests end it.
                start_new_session=True,
                preexec_fn=_end_with_the_tests,  # noqa: PLW1509 - the tests' threads hold no locks
            )


class ServerProcess(Process):
    """`python -m runwell.app` on a port that it keeps over restarts.

    With a `database_url` it uses that database, else an embedded PostgreSQL in its data directory.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        database_url: str | None = None,
        lease_seconds: int | None = None,
        failpoints: Path | None = None,
    ) -> None:
        """Start it; `wait_until_ready` before it is used."""
        data_dir.mkdir(exist_ok=True)
        self.data_dir = data_dir
        self.port = find_free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        environment = {
            "RUNWELL_PORT": str(self.port),
            "RUNWELL_DATA_DIR": str(data_dir),
            "RUNWELL_LOG_FORMAT": "json",
        }
        if database_url is not None:
            environment["DATABASE_URL"] = database_url
        if lease_seconds is not None:
            environment["RUNWELL_LEASE_SECONDS"] = str(lease_seconds)
        environment |= _failpoints(failpoints)
        command = [sys.executable, "-m", "runwell.app"]
        super().__init__("server", command, environment, data_dir / "server.log")

    @property
    def is_ready(self) -> bool:
        """Whether it answers, and its database too."""
        try:
            return httpx.get(f"{self.url}/readyz", timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    @property
    def secret_key(self) -> str:
        """The secret key of the development environment."""
        text = (self.data_dir / "local.json").read_text(encoding="utf-8")
        return str(json.loads(text)["secretKey"])

    def wait_until_ready(self) -> None:
        """Wait until it answers; fails with its log when it ends instead."""

        def look() -> bool:
            assert self.is_running, f"the server ended:\n{self.log}"
            # The file is written when all else is there, and by this start.
            return self._has_written_local_file() and self.is_ready

        wait_until_sync(look, "the server is ready", timeout=_START_SECONDS)

    def restart(self) -> None:
        """Start it after its end, and wait until it answers."""
        self.start_again()
        self.wait_until_ready()

    def _has_written_local_file(self) -> bool:
        try:
            text = (self.data_dir / "local.json").read_text(encoding="utf-8")
        except FileNotFoundError:
            return False
        return json.loads(text)["pid"] == self.pid


class WorkerProcess(Process):
    """`runwell worker` on a project, with a state folder that it keeps over restarts."""

    def __init__(
        self,
        state_folder: Path,
        project_folder: Path,
        *,
        url: str,
        secret_key: str,
        options: tuple[str, ...] = (),
        failpoints: Path | None = None,
    ) -> None:
        """Start it."""
        state_folder.mkdir(exist_ok=True)
        command = [
            *(sys.executable, "-m", "runwell.cli.main", "worker"),
            *("--project", str(project_folder)),
            *("--state-folder", str(state_folder)),
            *options,
        ]
        environment = {"TRIGGER_API_URL": url, "TRIGGER_SECRET_KEY": secret_key}
        environment |= _failpoints(failpoints)
        super().__init__("worker", command, environment, state_folder / "worker.log")

    @property
    def parents(self) -> list[int]:
        """The warm parents."""
        return list_children(self.pid)

    @property
    def task_processes(self) -> list[int]:
        """The processes below the warm parents: those that run tasks, and spares."""
        return [pid for parent in self.parents for pid in list_children(parent)]


def list_children(parent: int) -> list[int]:
    """The processes that a process has started and that are still there."""
    listed = subprocess.run(
        ["ps", "-A", "-o", "pid=,ppid=,state="], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    rows = [line.split() for line in listed]
    return [int(pid) for pid, ppid, state in rows if ppid == str(parent) and state[:1] != "Z"]


def find_free_port() -> int:
    """A TCP port that nobody listens on now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def _failpoints(folder: Path | None) -> dict[str, str]:
    return {} if folder is None else {"RUNWELL_TEST_FAILPOINTS": str(folder)}


def _clean_environment() -> dict[str, str]:
    ours = ("TRIGGER_", "RUNWELL_", "DATABASE_URL", "PYTEST_")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


def _end_with_the_tests() -> None:
    # Also when those are killed; only Linux has it.
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
