"""A local server as a child process, which ends when this process does, however that ends."""

import asyncio
import contextlib
import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import IO, Final, cast

from runwell.cli.connection import Connection
from runwell.core.errors import ConfigurationError

LOG_FILE: Final = "server.log"
_STOP_SECONDS: Final = 20.0
_SHOWN_LOG_LINES: Final = 12
_PORTS_TO_TRY: Final = 100


class LocalServer:
    """A server on a data directory. Use `start`, and `stop` in the end."""

    def __init__(
        self, process: asyncio.subprocess.Process, connection: Connection, log_path: Path
    ) -> None:
        """A server that is ready; see `start`."""
        self._process = process
        self.connection = connection
        self.log_path = log_path

    @classmethod
    async def start(cls, data_dir: Path, *, host: str, port: int) -> "LocalServer":
        """Start it and wait until it answers; raises ConfigurationError with its own reason."""
        log_path = data_dir / LOG_FILE
        with _open_log(log_path) as log:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "runwell.cli.main", "server", "--until-stdin-closes"),
                *("--json", "--log-format", "text", "--data-dir", str(data_dir)),
                *("--host", host, "--port", str(port)),
                # It reads the end of this pipe when we are gone, even if we were killed.
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                # A Ctrl-C in the terminal is for us; we end it when the worker has ended.
                start_new_session=True,
            )
        assert process.stdout is not None
        try:
            line = await process.stdout.readline()
            if not line:
                await process.wait()
                raise ConfigurationError(_reason(log_path))
        except BaseException:
            await _stop(process)
            raise
        ready = cast("dict[str, object]", json.loads(line))
        keys = cast("dict[str, str]", ready["secretKeys"])
        connection = Connection(
            url=str(ready["url"]), secret_key=keys["dev"], data_dir=data_dir, pid=process.pid
        )
        return cls(process, connection, log_path)

    async def wait(self) -> str:
        """Wait until it has ended by itself, and return why."""
        status = await self._process.wait()
        return f"the server ended with status {status}: {_reason(self.log_path)}"

    def hasten(self) -> None:
        """Ask it once more to stop: it waits for nobody then."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()

    async def stop(self) -> None:
        """Stop it gracefully; one that does not end in time is killed."""
        await _stop(self._process)


def choose_port(host: str, first: int) -> int:
    """The first port from `first` on that nobody listens on."""
    for port in range(first, min(first + _PORTS_TO_TRY, 65_536)):
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind((host, port))
                return port
    return 0


def _open_log(path: Path) -> IO[bytes]:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return path.open("wb")
    except OSError as error:
        raise ConfigurationError(
            f"can't write {path}: {error.strerror}. Choose another folder with --data-dir"
        ) from None


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(_STOP_SECONDS):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


def _reason(log_path: Path) -> str:
    """What the server said last: its error, or the end of its log."""
    lines = log_path.read_text(encoding="utf-8", errors="replace").splitlines()
    for line in reversed(lines):
        if line.startswith('{"error": '):
            with contextlib.suppress(ValueError, KeyError):
                return str(json.loads(line)["error"])
    shown = "\n".join(lines[-_SHOWN_LOG_LINES:])
    return f"its log is {log_path}, which ends with:\n{shown}" if shown else "it said nothing"
