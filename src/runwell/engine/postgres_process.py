"""The postmaster: starting it, tying its life to its owner, ending it and what a crash left.

Not about where the cluster comes from or who may use it; that is `embedded`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO

SOCKET_PORT = 5432
"""Only names the socket file; no TCP port is opened."""

SOCKET_NAME = f".s.PGSQL.{SOCKET_PORT}"
"""The socket's file name in its directory."""

_START_LIMIT_SECONDS = 300.0
_ORPHAN_LIMIT_SECONDS = 30.0
_POLL_SECONDS = 0.005
_TAIL_LINES = 15

# How to end a postmaster, with how long each may take: fast shutdown (it writes a checkpoint),
# immediate shutdown (recovery at the next start), and the kernel's. None loses a commit.
_SHUTDOWN_STEPS = ((signal.SIGINT, 60.0), (signal.SIGQUIT, 10.0), (signal.SIGKILL, 5.0))

# What to do with backends whose postmaster is dead; they mostly notice it themselves at once.
_ORPHAN_STEPS = ((None, 1.0), (signal.SIGQUIT, 3.0), (signal.SIGKILL, 5.0))

# What a postmaster says that finds its predecessor's processes alive.
_LEFTOVER_SIGNS = ("pre-existing shared memory block", 'lock file "postmaster.pid" already exists')

# The shell becomes postgres, so it keeps the pid our owner waits for, and leaves a grandchild
# behind that is nobody's child here (the postmaster would take an unknown child's end for a
# crash). That one blocks on a pipe only the owner holds: a line means the postmaster has ended,
# end of file means the owner is gone, however it went. Made before the exec, so there is no
# instant at which a killed owner leaves a postmaster unwatched.
_WATCHED_EXEC = """
exec 3<&0 </dev/null
( ( exec >/dev/null 2>&1; read -r line <&3 || kill -INT $$ ) & )
exec 3<&-
exec "$@"
"""


class EmbeddedPostgresError(RuntimeError):
    """The embedded PostgreSQL can't be used; the message says why and what to do.

    The tree, by what the catcher can do:

    - `DataDirectoryInUseError`: stop the other server, or use another directory
    - `DataDirectoryUnusableError`: repair permissions, free space, or use another directory
    - `DataDirectoryVersionError`: use the matching Runwell version, or dump and restore
    - `PostgresBinariesMissingError`: install the extra, or set DATABASE_URL
    - `PostgresStartError`: read the log's last lines in the message; trying again may help
    """


class DataDirectoryUnusableError(EmbeddedPostgresError):
    """The directory can't be read or written, the disk is full, or it holds something else.

    Nothing was changed in it; the catcher can repair it and start again.
    """


class PostgresStartError(EmbeddedPostgresError):
    """PostgreSQL or initdb ended with an error; the message ends with its last log lines."""


@dataclass(frozen=True, kw_only=True)
class Account:
    """The numeric user and group that PostgreSQL runs as instead of root."""

    uid: int
    gid: int


@dataclass(frozen=True, kw_only=True)
class PostmasterLaunch:
    """What a postmaster is started with; `account` is None to run as the current user."""

    program: Path
    cluster: Path
    cluster_argument: str
    """The `-D` path as PostgreSQL sees it, whose working directory is the cluster."""
    socket_directory: Path
    log_path: Path
    account: Account | None


class PostmasterProcess:
    """A running postmaster that ends with the process that started it."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        """Take over a child made by `start_postmaster`, with the watchdog's pipe as its stdin."""
        self._process = process

    @property
    def pid(self) -> int:
        """The postmaster's process id."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the postmaster is alive; it never restarts by itself."""
        if self._process.poll() is None:
            return True
        self._dismiss_watchdog()
        return False

    def stop(self) -> None:
        """Shut down and wait for the end; at most 75 seconds, harmless when already ended."""
        for step, limit_seconds in _SHUTDOWN_STEPS:
            if self._process.poll() is not None:
                break
            self._process.send_signal(step)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(limit_seconds)
        self._dismiss_watchdog()

    def forget(self) -> None:
        """Let go of the watchdog's pipe without a word; for a fork of the owner."""
        if self._process.stdin is not None:
            self._process.stdin.close()

    def _dismiss_watchdog(self) -> None:
        # Without the line it would signal a pid that may belong to another process by then.
        pipe = self._process.stdin
        if pipe is None or pipe.closed:
            return
        with contextlib.suppress(BrokenPipeError):
            pipe.write(b"\n")
        pipe.close()


def start_postmaster(launch: PostmasterLaunch) -> PostmasterProcess:
    """Start PostgreSQL on a cluster and return when it accepts connections.

    What a killed server left is ended first: the caller must hold the directory's lock, so
    that no living owner needs it. Crash recovery may take up to five minutes.

    Raises:
        PostgresStartError: it ended or didn't get ready; the log's last lines are included.
    """
    deadline = time.monotonic() + _ORPHAN_LIMIT_SECONDS
    while True:
        end_leftovers(launch.cluster, launch.socket_directory)
        try:
            return _launch(launch)
        except _LeftoverError:
            # Only where `_find_orphans` can't see them, or one started after it looked.
            if time.monotonic() > deadline:
                raise
        time.sleep(0.1)


def end_leftovers(cluster: Path, socket_directory: Path) -> None:
    """End what a killed owner left on this cluster: postmaster, backends, misleading files."""
    if not (cluster / "postmaster.pid").exists():
        return
    pid = _read_pid(cluster / "postmaster.pid")
    if pid is not None and _is_postmaster(pid, cluster):
        _end_postmaster(pid, cluster)
    for step, limit_seconds in _ORPHAN_STEPS:
        orphans = _find_orphans(cluster)
        if not orphans:
            break
        if step is not None:
            for orphan in orphans:
                _send(orphan, step)
        _wait_until_gone(cluster, limit_seconds)
    for path in (cluster / "postmaster.pid", socket_directory / f"{SOCKET_NAME}.lock"):
        _remove_if_misleading(path)


def read_tail(log_path: Path, *, offset: int = 0) -> str:
    """Return the last lines of a log from `offset` on, or an empty text."""
    try:
        with log_path.open("rb") as log:
            log.seek(max(offset, log.seek(0, os.SEEK_END) - 8192))
            return take_last_lines(log.read().decode("utf-8", "replace"))
    except OSError:
        return ""


def take_last_lines(text: str) -> str:
    """Return as much of a program's output as fits an error message."""
    return "\n".join(text.strip().splitlines()[-_TAIL_LINES:])


class _LeftoverError(PostgresStartError):
    """Processes of a killed server still hold its memory, or its place."""


def _launch(launch: PostmasterLaunch) -> PostmasterProcess:
    with launch.log_path.open("ab", buffering=0) as log:
        offset = log.seek(0, os.SEEK_END)
        postmaster = PostmasterProcess(_spawn(launch, log))
    try:
        if _wait_until_ready(postmaster, launch.cluster):
            return postmaster
    except BaseException:
        postmaster.stop()
        raise
    ended = not postmaster.is_running
    postmaster.stop()
    tail = read_tail(launch.log_path, offset=offset)
    if any(sign in tail for sign in _LEFTOVER_SIGNS):
        raise _LeftoverError(
            f"PostgreSQL can't start on {launch.cluster}: processes of a killed server still use "
            f"it. End those `postgres` processes and start again.\n{tail}"
        )
    what = (
        "ended while starting"
        if ended
        else f"wasn't ready within {_START_LIMIT_SECONDS:.0f} seconds and was stopped"
    )
    raise PostgresStartError(
        f"{explain_failure(tail, launch.cluster)}PostgreSQL on {launch.cluster} {what}. "
        f"The end of {launch.log_path}:\n{tail}"
    )


def explain_failure(output: str, cluster: Path) -> str:
    """Return a sentence for a failure people can repair themselves, or an empty text."""
    if any(sign in output for sign in ("No space left", "quota exceeded", "free disk space")):
        return f"The disk that holds {cluster} is full: free some space and start again. "
    if "Permission denied" in output or "Operation not permitted" in output:
        return (
            f"PostgreSQL isn't allowed to use {cluster}: give its files to the user it runs as, "
            "or choose another --data-dir. "
        )
    return ""


def _spawn(launch: PostmasterLaunch, log: IO[bytes]) -> subprocess.Popen[bytes]:
    in_cluster = launch.socket_directory == launch.cluster
    settings = {
        "listen_addresses": "",
        "port": str(SOCKET_PORT),
        # A relative path works however deep the cluster is, also where no parent is readable.
        "unix_socket_directories": "." if in_cluster else f'"{launch.socket_directory}"',
        "unix_socket_permissions": "0700",
    }
    options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    postgres = [str(launch.program), "-D", launch.cluster_argument, *options]
    account = launch.account
    return subprocess.Popen(
        ["/bin/sh", "-c", _WATCHED_EXEC, "runwell-postgres", *postgres],
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=log,
        bufsize=0,
        cwd=launch.cluster,
        env=clean_environment(),
        # A session of its own: the terminal's Ctrl-C is for the owner, which shuts down in order.
        start_new_session=True,
        user=None if account is None else account.uid,
        group=None if account is None else account.gid,
        extra_groups=None if account is None else [],
    )


def clean_environment() -> dict[str, str]:
    """Return the environment for PostgreSQL's programs: nothing of the user's PG* variables."""
    return {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}


def _wait_until_ready(postmaster: PostmasterProcess, cluster: Path) -> bool:
    # The postmaster announces itself in no other way that works on every system; pg_ctl polls too.
    deadline = time.monotonic() + _START_LIMIT_SECONDS
    while postmaster.is_running and time.monotonic() < deadline:
        lines = _read_lines(cluster / "postmaster.pid")
        if len(lines) >= 8 and lines[0] == str(postmaster.pid) and lines[7].strip() == "ready":
            return True
        time.sleep(_POLL_SECONDS)
    return False


def _end_postmaster(pid: int, cluster: Path) -> None:
    for step, limit_seconds in _SHUTDOWN_STEPS:
        _send(pid, step)
        deadline = time.monotonic() + limit_seconds
        while time.monotonic() < deadline:
            if not _is_postmaster(pid, cluster):
                return
            time.sleep(_POLL_SECONDS)
    raise PostgresStartError(
        f"The PostgreSQL process {pid} of a former server on {cluster} can't be stopped. "
        "It may hang in disk access: restart the machine, or use another --data-dir."
    )


def _wait_until_gone(cluster: Path, limit_seconds: float) -> None:
    deadline = time.monotonic() + limit_seconds
    while _find_orphans(cluster) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)


def _find_orphans(cluster: Path) -> list[int]:
    # Without /proc nothing tells whose backend a process is; there, starting is retried instead.
    try:
        pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    except OSError:
        return []
    return [pid for pid in pids if _works_in(pid, cluster)]


def _is_postmaster(pid: int, cluster: Path) -> bool:
    if Path("/proc/self/cwd").exists():
        return _works_in(pid, cluster)
    shown = subprocess.run(
        ["ps", "-o", "state=,command=", "-p", str(pid)],
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    # A backend shows a title instead of its arguments, so the path is the postmaster's alone.
    return "postgres" in shown and str(cluster) in shown and not shown.startswith("Z")


def _works_in(pid: int, cluster: Path) -> bool:
    # All of PostgreSQL's processes have the cluster as working directory and no other has that
    # name there. A zombie has no working directory, and a stranger's can't be read: neither is it.
    try:
        name = Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip()
        return name == "postgres" and Path(f"/proc/{pid}/cwd").samefile(cluster)
    except OSError:
        return False


def _remove_if_misleading(path: Path) -> None:
    # PostgreSQL removes stale files itself, unless their pid now belongs to another process of
    # the same user, which is usual after a container's restart (pids are small there), or it was
    # killed before it had written the pid.
    pid = _read_pid(path)
    if pid is None or _is_alive(pid):
        path.unlink(missing_ok=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _send(pid: int, step: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, step)


def _read_pid(path: Path) -> int | None:
    lines = _read_lines(path)
    return int(lines[0]) if lines and lines[0].isdigit() else None


def _read_lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
