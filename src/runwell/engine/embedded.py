"""The embedded PostgreSQL: the one a server has when it is given no DATABASE_URL.

This module owns the data directory: its lock, and who may enter. Making the cluster is in
`embedded_cluster`, starting and ending the process in `postgres_process`. Blocking throughout: it
runs before the event loop does anything else, and after; `restart` belongs in a thread.

    data_dir/lock           held by the owner, with its pid
    data_dir/postgres       the cluster, with the socket in it
    data_dir/postgres.log   and postgres.log.1, once it got long
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import hashlib
import os
import shutil
import stat
import tempfile
import threading
import weakref
from collections.abc import Generator
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

from runwell.engine.embedded_cluster import (
    NAME,
    DataDirectoryVersionError,
    choose_cluster_argument,
    prepare_cluster,
)
from runwell.engine.embedded_programs import PostgresBinariesMissingError, find_installation
from runwell.engine.postgres_process import (
    SOCKET_NAME,
    SOCKET_PORT,
    Account,
    DataDirectoryUnusableError,
    EmbeddedPostgresError,
    PostgresStartError,
    PostmasterLaunch,
    PostmasterProcess,
    start_postmaster,
)

__all__ = [
    "DataDirectoryInUseError",
    "DataDirectoryUnusableError",
    "DataDirectoryVersionError",
    "EmbeddedPostgres",
    "EmbeddedPostgresError",
    "PostgresBinariesMissingError",
    "PostgresStartError",
]

_LOG_LIMIT_BYTES = 10 * 1024 * 1024

# What sockaddr_un holds on macOS, less the final zero; Linux has four bytes more.
_SOCKET_PATH_LIMIT_BYTES = 103


class DataDirectoryInUseError(EmbeddedPostgresError):
    """Another living server owns the directory; `owner_pid` is None when it isn't known.

    The catcher can stop that server, or use another directory or DATABASE_URL.
    """

    def __init__(self, directory: Path, owner_pid: int | None) -> None:
        """Write the message."""
        owner = "another process" if owner_pid is None else f"process {owner_pid}"
        super().__init__(
            f"The data directory {directory} is in use by a Runwell server ({owner}). Stop that "
            "server, or give this one a directory of its own with --data-dir, or set "
            "DATABASE_URL so that both share one PostgreSQL."
        )
        self.directory = directory
        self.owner_pid = owner_pid


class EmbeddedPostgres:
    """A PostgreSQL of our own, which ends with this process, however that ends.

    Example:
        with EmbeddedPostgres.start(Path(".runwell")) as postgres:
            serve(postgres.dsn)
    """

    def __init__(
        self, lock: _DirectoryLock, launch: PostmasterLaunch, postmaster: PostmasterProcess
    ) -> None:
        """Take over what `start` made; use that."""
        self._lock = lock
        self._launch = launch
        self._postmaster = postmaster
        # A server restarts in a thread what its main thread may stop.
        self._changing = threading.Lock()
        # The lock and the watchdog must end with the owner, not with the last fork of it.
        os.register_at_fork(after_in_child=functools.partial(_forget, weakref.ref(self)))

    @classmethod
    def start(cls, data_dir: Path) -> Self:
        """Start PostgreSQL on `data_dir`, which is made if absent; return when it answers.

        After a crash this waits for what the crash left to end, and for recovery.

        Raises:
            EmbeddedPostgresError: see there for the tree.
        """
        installation = find_installation()
        with _storage_errors(data_dir):
            data_dir = data_dir.resolve()
            data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = _DirectoryLock(data_dir)
            try:
                launch = _prepare(data_dir, installation)
                return cls(lock, launch, start_postmaster(launch))
            except BaseException:
                lock.release()
                raise

    @property
    def dsn(self) -> str:
        """The URL of the database `runwell`, over the unix socket, as its superuser."""
        host = quote(str(self._launch.socket_directory), safe="/")
        return f"postgresql://{NAME}@/{NAME}?host={host}&port={SOCKET_PORT}"

    @property
    def pid(self) -> int:
        """The postmaster's process id."""
        return self._postmaster.pid

    @property
    def is_running(self) -> bool:
        """Whether the postmaster is alive; when not, call `restart`."""
        return self._postmaster.is_running

    def restart(self) -> None:
        """Start PostgreSQL again on the same DSN, as after its death; the directory stays ours.

        Raises:
            EmbeddedPostgresError: as `start`; also when `stop` was called before.
        """
        with self._changing, _storage_errors(self._launch.cluster.parent):
            if not self._lock.is_held:
                raise EmbeddedPostgresError(
                    f"The PostgreSQL on {self._launch.cluster} was stopped: start a new one."
                )
            self._postmaster.stop()
            self._postmaster = start_postmaster(self._launch)

    def stop(self) -> None:
        """Shut PostgreSQL down and free the directory; does nothing the second time."""
        with self._changing:
            if not self._lock.is_held:
                return
            self._postmaster.stop()
            if self._launch.socket_directory != self._launch.cluster:
                with contextlib.suppress(OSError):
                    self._launch.socket_directory.rmdir()
            self._lock.release()

    def trim_log(self) -> None:
        """Move the log to `postgres.log.1` if longer than 10 MB; cheap, for a loop to call."""
        # Next time, then: nothing depends on it.
        with contextlib.suppress(OSError):
            _trim_log(self._launch.log_path)

    def forget_in_fork(self) -> None:
        """Let go of lock and watchdog in a fork of the owner, which goes on to hold them."""
        self._lock.forget()
        self._postmaster.forget()

    def __enter__(self) -> Self:
        """Return itself: it has started."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop."""
        self.stop()


def _forget(reference: weakref.ref[EmbeddedPostgres]) -> None:
    postgres = reference()
    if postgres is not None:
        postgres.forget_in_fork()


class _DirectoryLock:
    """The right to use a data directory; the kernel takes it back when the owner ends."""

    def __init__(self, data_dir: Path) -> None:
        # Not inheritable, as all of Python's descriptors: children must not keep the lock.
        self._file = (data_dir / "lock").open("a+", encoding="ascii")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.seek(0)
            text = self._file.read().strip()
            self._file.close()
            raise DataDirectoryInUseError(data_dir, int(text) if text.isdigit() else None) from None
        self._write(f"{os.getpid()}\n")

    @property
    def is_held(self) -> bool:
        return not self._file.closed

    def release(self) -> None:
        if self.is_held:
            self._write("")
            self._file.close()

    def forget(self) -> None:
        self._file.close()

    def _write(self, text: str) -> None:
        self._file.truncate(0)
        self._file.write(text)
        self._file.flush()


@contextlib.contextmanager
def _storage_errors(data_dir: Path) -> Generator[None]:
    try:
        yield
    except OSError as error:
        match error.errno:
            case errno.ENOSPC | errno.EDQUOT:
                what = "the disk is full: free some space and start again"
            case errno.EACCES | errno.EPERM | errno.EROFS:
                what = (
                    f"user id {os.geteuid()} may not do that here: repair the permissions, "
                    "choose another --data-dir, or set DATABASE_URL"
                )
            case _:
                what = "choose another --data-dir, or set DATABASE_URL"
        raise DataDirectoryUnusableError(
            f"The data directory {data_dir} can't be used ({error}); {what}."
        ) from error


def _prepare(data_dir: Path, installation: Path) -> PostmasterLaunch:
    cluster = data_dir / "postgres"
    log_path = data_dir / "postgres.log"
    account = prepare_cluster(cluster, installation)
    _trim_log(log_path)
    return PostmasterLaunch(
        program=installation / "bin" / "postgres",
        cluster=cluster,
        cluster_argument=choose_cluster_argument(cluster, account),
        socket_directory=_choose_socket_directory(cluster, account),
        log_path=log_path,
        account=account,
    )


def _trim_log(path: Path) -> None:
    # Copied and cut, not renamed: PostgreSQL goes on appending to the file it has open.
    if path.exists() and path.stat().st_size > _LOG_LIMIT_BYTES:
        old = path.with_name(f"{path.name}.1")
        try:
            shutil.copyfile(path, old)
        except OSError:
            # The disk may be full, and is less so without it.
            old.unlink(missing_ok=True)
        os.truncate(path, 0)


def _choose_socket_directory(cluster: Path, account: Account | None) -> Path:
    # A comma separates hosts in a DSN, and nothing quotes it.
    if len(os.fsencode(cluster / SOCKET_NAME)) <= _SOCKET_PATH_LIMIT_BYTES and "," not in str(
        cluster
    ):
        return cluster
    digest = hashlib.sha256(os.fsencode(cluster)).hexdigest()[:16]
    for parent in (Path(tempfile.gettempdir()), Path("/tmp")):
        directory = parent / f"runwell-{digest}"
        if len(os.fsencode(directory / SOCKET_NAME)) <= _SOCKET_PATH_LIMIT_BYTES:
            break
    owner = os.geteuid() if account is None else account.uid
    with contextlib.suppress(FileExistsError):
        directory.mkdir(mode=0o700)
    found = directory.lstat()
    # Anyone may have made it before us, and would then be who answers on the socket.
    if not stat.S_ISDIR(found.st_mode) or found.st_uid not in (owner, os.geteuid()):
        raise DataDirectoryUnusableError(
            f"{directory}, needed for the socket of {cluster}, belongs to someone else: remove "
            "it, or choose a --data-dir with a shorter path."
        )
    directory.chmod(0o700)
    if account is not None:
        os.chown(directory, account.uid, account.gid)
    return directory
