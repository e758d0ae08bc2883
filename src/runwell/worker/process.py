"""Starting processes: the warm parent of a version, in spawn mode each child; their environment.

Not about what they do (`zygote`, `child`), nor about their ends (`exits`).
"""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Mapping
from pathlib import Path

from runwell.worker.limits import die_with_parent

_DEVNULL = asyncio.subprocess.DEVNULL


def own_variable(name: str) -> str | None:
    """A variable of the worker's own environment."""
    return os.environ.get(name)


def task_environment(url: str, secret_key: str, variables: Mapping[str, str]) -> dict[str, str]:
    """The environment of task processes: the worker's own, the server's, and where that is."""
    environment = {**os.environ, **variables}
    environment["TRIGGER_API_URL"] = url
    environment["TRIGGER_SECRET_KEY"] = secret_key
    # A run triggers on the version it belongs to only when its code says so.
    environment.pop("TRIGGER_VERSION", None)
    # Output that is captured is not a terminal; what a crash writes must not sit in a buffer.
    environment["PYTHONUNBUFFERED"] = "1"
    return environment


async def start_zygote(
    folder: Path,
    mode: str,
    environment: dict[str, str],
    control: socket.socket,
    output_fd: int,
) -> asyncio.subprocess.Process:
    """Start the warm parent of a project folder; `control` is its end of the conversation."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "runwell.worker.zygote",
        str(control.fileno()),
        str(folder),
        mode,
        stdin=_DEVNULL,
        stdout=output_fd,
        stderr=output_fd,
        env=environment,
        pass_fds=(control.fileno(),),
        # A Ctrl-C in the terminal is for the supervisor, which then ends its children in order.
        start_new_session=True,
    )


def spawn_child(folder: Path, content_hash: str, descriptors: tuple[int, ...]) -> int:
    """In spawn mode: start a child with its socket and what its output takes; returns its pid."""
    for fd in descriptors:
        os.set_inheritable(fd, True)
    arguments = [
        sys.executable,
        "-m",
        "runwell.worker.spawned",
        str(os.getpid()),
        *map(str, descriptors),
        content_hash,
        str(folder),
    ]
    return os.posix_spawn(sys.executable, arguments, os.environ)


def begin_child(parent: int) -> None:
    """First thing in a child: a group of its own, and an end together with its parent."""
    # Its own session: a kill of the group ends what the task started too, and no terminal signals.
    os.setsid()
    die_with_parent(signal.SIGKILL)
    if os.getppid() != parent:
        # The parent ended before we could ask to be told.
        os._exit(1)
