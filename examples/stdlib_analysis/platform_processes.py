"""A server and a worker as two processes, like in two terminals."""

import contextlib
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import IO, Self, cast

from runwell import configure

_RUNWELL = (sys.executable, "-m", "runwell.cli.main")
_STOP_SECONDS = 30


class DemoFailedError(Exception):
    """Something that the demo needs does not work; the message says what."""


class Platform:
    """`runwell server` and `runwell worker`; ended at the end of a `with` block."""

    capacity = 2 * (os.cpu_count() or 1)

    def __init__(self, project: Path, data_dir: Path) -> None:
        """Start nothing yet."""
        self._project = project
        self.data_dir = data_dir
        self._processes: dict[str, subprocess.Popen[str]] = {}
        self._files = contextlib.ExitStack()
        self.url = ""
        self.version = ""

    def __enter__(self) -> Self:
        """Start both and wait until they are ready."""
        self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            self._start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop the worker, then the server."""
        for process in reversed(self._processes.values()):
            process.terminate()
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
        self._files.close()

    def check(self) -> None:
        """Raise DemoFailedError when one of them has ended."""
        for name, process in self._processes.items():
            if process.poll() is not None:
                raise DemoFailedError(self._why(name))

    def _start(self) -> None:
        is_new = not (self.data_dir / "postgres").exists()
        print("starting" + (" (the first start makes a database: some seconds)" * is_new))
        # The port is any free one, so that a server that runs already is not in the way.
        server = self._spawn("server", ["--port", "0", "--data-dir", str(self.data_dir)])
        ready = self._await(server, "server", "ready")
        self.url = str(ready["url"])
        key = cast("dict[str, str]", ready["secretKeys"])["dev"]
        configure(base_url=self.url, secret_key=key)
        worker = self._spawn(
            "worker",
            ["--project", str(self._project), "--concurrency", str(self.capacity)],
            TRIGGER_API_URL=self.url,
            TRIGGER_SECRET_KEY=key,
        )
        self.version = str(self._await(worker, "worker", "versionRegistered")["version"])
        # What it says from now on is read by nobody, and must not fill its pipe.
        threading.Thread(target=_drain, args=(worker.stdout,), daemon=True).start()

    def _spawn(self, name: str, options: list[str], **environment: str) -> subprocess.Popen[str]:
        log = self._files.enter_context(self._log_path(name).open("w"))
        process = subprocess.Popen(
            [*_RUNWELL, name, "--json", "--until-stdin-closes", *options],
            # It ends when this pipe does, so also when the demo is killed.
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={**os.environ, **environment},
            # Ctrl-C is for the demo, which then stops the worker before the server.
            start_new_session=True,
        )
        self._processes[name] = process
        return process

    def _await(self, process: subprocess.Popen[str], name: str, event: str) -> dict[str, object]:
        assert process.stdout is not None
        for line in process.stdout:
            found = cast("dict[str, object]", json.loads(line))
            if found["event"] == event:
                return found
            if found["event"] == "importProblems":
                raise DemoFailedError(f"the tasks can't be imported: {found['problems']}")
        process.wait()
        raise DemoFailedError(self._why(name))

    def _log_path(self, name: str) -> Path:
        return self.data_dir / f"demo-{name}.log"

    def _why(self, name: str) -> str:
        self._processes[name].wait()
        text = self._log_path(name).read_text().strip()
        return f"the {name} has ended: {text or 'it said nothing'}"


def _drain(stream: IO[str]) -> None:
    for _ in stream:
        pass
