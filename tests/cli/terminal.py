"""The commands as a user runs them: in processes of their own, in a folder of theirs."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self, cast

from tests.support.waiting import wait_until_sync

RUNWELL = (sys.executable, "-m", "runwell.cli.main")
_OURS = ("TRIGGER_", "RUNWELL_", "DATABASE_URL")
_END_SECONDS = 30


def runwell(
    *arguments: str,
    folder: Path,
    environment: Mapping[str, str] | None = None,
    stdin: str | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [*RUNWELL, *arguments],
        cwd=folder,
        env={**clean_environment(), **(environment or {})},
        input="" if stdin is None else stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def runwell_json(
    *arguments: str, folder: Path, environment: Mapping[str, str] | None = None
) -> dict[str, object]:
    """Run a command that succeeds, with `--json`, and read the object that it printed."""
    done = runwell(*arguments, "--json", folder=folder, environment=environment)
    assert done.returncode == 0, done.stderr
    return cast("dict[str, object]", json.loads(done.stdout))


def clean_environment() -> dict[str, str]:
    """The environment without settings of ours."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
    return {**kept, "COLUMNS": "200"}


class Running:
    """A command that goes on; what it prints can be waited for. Ended with the block."""

    def __init__(
        self, *arguments: str, folder: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        """Start it."""
        self._process = subprocess.Popen(
            [*RUNWELL, *arguments],
            cwd=folder,
            env={**clean_environment(), **(environment or {}), "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._text = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._process.wait()
        self._reader.join(5)
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    @property
    def text(self) -> str:
        """What it has printed so far."""
        return self._text

    def wait_for(self, pattern: str, *, timeout: float = 60) -> re.Match[str]:
        """Wait until what it has printed matches."""

        def look() -> re.Match[str] | None:
            found = re.search(pattern, self._text)
            assert found or self._process.poll() is None, f"it ended:\n{self._text}"
            return found

        try:
            found = wait_until_sync(look, f"{pattern!r} is printed", timeout=timeout)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self._text}") from None
        assert found is not None
        return found

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        self._process.send_signal(signal.SIGINT)

    def kill(self) -> None:
        """End it without a chance to say anything."""
        self._process.kill()
        self._process.wait()

    def close_stdin(self) -> None:
        """End its standard input."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    def wait(self) -> int:
        """Wait for its end, and return its exit status."""
        status = self._process.wait(_END_SECONDS)
        self._reader.join(5)
        return status

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._text += line
