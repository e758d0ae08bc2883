"""The cluster, PostgreSQL's data in its directory: making it, its settings, whose it is.

Not about who may use the directory (`embedded`) or the running server (`postgres_process`).
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import tempfile
from pathlib import Path

from runwell.engine.embedded_programs import (
    MAJOR_VERSION,
    OWN_ACCOUNT,
    is_reachable,
    run_program,
    sync,
    sync_all,
)
from runwell.engine.postgres_process import (
    Account,
    DataDirectoryUnusableError,
    EmbeddedPostgresError,
)

NAME = "runwell"
"""What our superuser and our database are called."""

_UNFINISHED_PREFIX = "postgres.initializing-"

# initdb insists on an account with a name; what it makes is handed to `OWN_ACCOUNT` afterwards.
_NAMED_ACCOUNTS = ("nobody", "postgres", "daemon")

_HOST_BASED_ACCESS = """\
# Whoever may enter the socket's directory (mode 0700) may connect.
local all all trust
local replication all trust
"""

_MAIN_SETTINGS = """\
# Runwell writes runwell.conf at each start. Settings of your own go below, and win.
include 'runwell.conf'
"""

_SETTINGS = """\
# Written by Runwell at each start: change postgresql.conf instead.

# A commit that was answered survives any crash; on macOS also the loss of power, if you add
# wal_sync_method = fsync_writethrough to postgresql.conf (a commit then takes many times as long).
fsync = on
synchronous_commit = on
full_page_writes = on

# Each of these costs 40 kB of memory, used or not.
max_connections = 100
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
max_parallel_workers_per_gather = 0
max_logical_replication_workers = 0

# Statements and details are left out of the log: they hold users' payloads.
log_min_messages = warning
log_min_error_statement = panic
log_error_verbosity = terse
log_checkpoints = off
log_timezone = 'UTC'
"""


class DataDirectoryVersionError(EmbeddedPostgresError):
    """The cluster was made by another major version of PostgreSQL; it was not touched."""


def prepare_cluster(cluster: Path, installation: Path) -> Account | None:
    """Make the cluster if it is absent, and write its settings; return who is to run it.

    The caller holds the directory's lock.

    Raises:
        EmbeddedPostgresError: it can't be used or made; what is there was left alone.
        OSError: so the system says.
    """
    _check_cluster(cluster)
    # Each under a name of its own: the initdb of a killed owner may still be writing to its.
    for unfinished in cluster.parent.glob(f"{_UNFINISHED_PREFIX}*"):
        shutil.rmtree(unfinished, ignore_errors=True)
    if not cluster.exists():
        fresh = Path(tempfile.mkdtemp(prefix=_UNFINISHED_PREFIX, dir=cluster.parent))
        try:
            _create_cluster(fresh, installation)
            fresh.rename(cluster)
        except BaseException:
            shutil.rmtree(fresh, ignore_errors=True)
            raise
        sync(cluster.parent)
    account = _choose_account(cluster)
    _write_settings(cluster, account)
    return account


def choose_cluster_argument(cluster: Path, account: Account | None) -> str:
    """Return the `-D` path: what others may not walk to, as below /root, needs a way in."""
    if account is None or is_reachable(cluster.parent, account):
        return str(cluster)
    # The working directory is set while still root, and this name for it passes no parent.
    own_directory = Path("/proc/self/cwd")
    if own_directory.exists():
        return str(own_directory)
    raise DataDirectoryUnusableError(
        f"PostgreSQL doesn't run as root, and other users can't enter {cluster.parent}: run "
        "Runwell as another user, or choose a --data-dir whose parents all have mode o+x."
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
    if version != str(MAJOR_VERSION):
        raise DataDirectoryVersionError(
            f"{cluster} was made by PostgreSQL {version}, and this Runwell has PostgreSQL "
            f"{MAJOR_VERSION}. Dump it with the Runwell version that made it and restore it into "
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
    argument = choose_cluster_argument(cluster, account)
    # Nothing is synced on the way: one pass at the end does it all.
    initdb = ["initdb", "-D", argument, "-U", NAME, "--auth=trust", "--encoding=UTF8"]
    locale = ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    run_program(
        [*initdb, *locale, "--no-sync", "--no-instructions"],
        installation=installation,
        cluster=cluster,
        account=account,
    )
    run_program(
        ["postgres", "--single", "-F", "-D", argument, "template1"],
        installation=installation,
        cluster=cluster,
        account=account,
        text=f"CREATE DATABASE {NAME} STRATEGY file_copy\n",
    )
    (cluster / "postgresql.conf").write_text(_MAIN_SETTINGS, encoding="utf-8")
    (cluster / "pg_hba.conf").write_text(_HOST_BASED_ACCESS, encoding="utf-8")
    _hand_over(cluster, None if account is None else OWN_ACCOUNT)


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
    _hand_over(cluster, OWN_ACCOUNT)
    return OWN_ACCOUNT


def _hand_over(cluster: Path, account: Account | None) -> None:
    """Give a tree to the account, itself last so that a half-done pass shows, and sync it."""
    paths = [*sorted(cluster.rglob("*"), reverse=True), cluster]
    if account is not None:
        for path in paths:
            os.chown(path, account.uid, account.gid, follow_symlinks=False)
    sync_all(paths)


def _write_settings(cluster: Path, account: Account | None) -> None:
    path = cluster / "runwell.conf"
    if path.exists() and path.read_text(encoding="utf-8") == _SETTINGS:
        return
    fresh = cluster / "runwell.conf.new"
    fresh.write_text(_SETTINGS, encoding="utf-8")
    if account is not None:
        os.chown(fresh, account.uid, account.gid)
    sync(fresh)
    fresh.replace(path)
