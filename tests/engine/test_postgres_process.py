"""PostgreSQL ends with its owner and survives its own end, with real processes really killed."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import asyncpg
import pytest

from runwell.engine.embedded import EmbeddedPostgres, EmbeddedPostgresError, PostgresStartError
from tests.support.embedded_owner import (
    Owner,
    add_row,
    count_rows,
    fetch,
    fetch_value,
    is_alive,
    list_session,
    needs_proc,
    start_owner,
)
from tests.support.waiting import wait_until, wait_until_sync


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One data directory for all of these tests."""
    return tmp_path_factory.mktemp("data")


def test_stopping_twice_is_the_same_as_once(data_dir: Path) -> None:
    postgres = EmbeddedPostgres.start(data_dir)
    pid = postgres.pid
    assert postgres.is_running
    postgres.stop()
    postgres.stop()
    assert not postgres.is_running
    assert not is_alive(pid)
    assert (data_dir / "lock").read_text(encoding="ascii") == ""


def test_only_its_own_session_hears_the_terminal(data_dir: Path) -> None:
    with EmbeddedPostgres.start(data_dir) as postgres:
        assert os.getsid(postgres.pid) == postgres.pid


def test_commits_survive_a_killed_postmaster(data_dir: Path) -> None:
    with EmbeddedPostgres.start(data_dir) as postgres:
        count = add_row(postgres.dsn)
        os.kill(postgres.pid, signal.SIGKILL)
        wait_until_sync(lambda: not postgres.is_running, "the postmaster is dead")
    with EmbeddedPostgres.start(data_dir) as postgres:
        assert count_rows(postgres.dsn) == count


def test_a_killed_postmaster_is_started_again_on_the_same_dsn(data_dir: Path) -> None:
    with EmbeddedPostgres.start(data_dir) as postgres:
        count = add_row(postgres.dsn)
        dsn, pid = postgres.dsn, postgres.pid
        os.kill(pid, signal.SIGKILL)
        wait_until_sync(lambda: not postgres.is_running, "the postmaster is dead")
        postgres.restart()
        assert postgres.is_running
        assert postgres.pid != pid
        assert postgres.dsn == dsn
        assert count_rows(dsn) == count


def test_a_living_postgres_can_be_started_again_too(data_dir: Path) -> None:
    with EmbeddedPostgres.start(data_dir) as postgres:
        pid = postgres.pid
        postgres.restart()
        assert not is_alive(pid)
        assert fetch(postgres.dsn, "SELECT 1") == 1


def test_a_stopped_one_is_not_started_again(data_dir: Path) -> None:
    postgres = EmbeddedPostgres.start(data_dir)
    postgres.stop()
    with pytest.raises(EmbeddedPostgresError, match="was stopped"):
        postgres.restart()
    assert not postgres.is_running


def test_nothing_watches_a_postmaster_that_was_seen_dead(data_dir: Path) -> None:
    # Its pid may soon belong to a process that must not be shut down for it.
    with EmbeddedPostgres.start(data_dir) as postgres:
        (watchdog,) = list_session(postgres.pid, "sh")
        os.kill(postgres.pid, signal.SIGKILL)
        wait_until_sync(lambda: not postgres.is_running, "the postmaster is dead")
        wait_until_sync(lambda: not is_alive(watchdog), "the watchdog has gone")


def test_postgres_stops_when_its_owner_is_killed(data_dir: Path) -> None:
    with start_owner(data_dir) as owner:
        count = add_row(owner.dsn)
        owner.kill()
        wait_until_sync(lambda: not is_alive(owner.postmaster_pid), "the watchdog stopped postgres")
        wait_until_sync(lambda: not list_session(owner.postmaster_pid), "nothing of it is left")
    with EmbeddedPostgres.start(data_dir) as postgres:
        assert count_rows(postgres.dsn) == count


def test_a_start_right_after_the_owner_was_killed_waits_for_the_old_postmaster(
    data_dir: Path,
) -> None:
    with start_owner(data_dir) as owner:
        count = add_row(owner.dsn)
        owner.kill()
        with EmbeddedPostgres.start(data_dir) as postgres:
            assert count_rows(postgres.dsn) == count


def test_owner_and_postmaster_killed_at_once_leave_a_usable_directory(data_dir: Path) -> None:
    with start_owner(data_dir) as owner:
        count = add_row(owner.dsn)
        # A backend that computes doesn't notice its postmaster's death, and holds its memory.
        backend_pid = asyncio.run(_leave_a_busy_backend(owner.dsn))
        os.kill(owner.process.pid, signal.SIGKILL)
        os.kill(owner.postmaster_pid, signal.SIGKILL)
        owner.process.wait()
        assert is_alive(backend_pid)
        with EmbeddedPostgres.start(data_dir) as postgres:
            assert count_rows(postgres.dsn) == count
            assert not is_alive(backend_pid)


@needs_proc
def test_everything_killed_at_once_leaves_a_usable_directory(data_dir: Path) -> None:
    with start_owner(data_dir) as owner:
        count = add_row(owner.dsn)
        everything = [
            owner.process.pid,
            *list_session(owner.postmaster_pid),
            *_list_children(owner),
        ]
        assert len(everything) > 5
        for pid in everything:
            os.kill(pid, signal.SIGKILL)
        owner.process.wait()
    with EmbeddedPostgres.start(data_dir) as postgres:
        assert count_rows(postgres.dsn) == count


@needs_proc
def test_an_orphaned_postmaster_without_watchdog_is_ended_by_the_next_start(
    data_dir: Path,
) -> None:
    with start_owner(data_dir) as owner:
        (watchdog,) = list_session(owner.postmaster_pid, "sh")
        os.kill(watchdog, signal.SIGKILL)
        wait_until_sync(lambda: not is_alive(watchdog), "the watchdog is dead")
        owner.kill()
        assert is_alive(owner.postmaster_pid)
        with EmbeddedPostgres.start(data_dir) as postgres:
            assert postgres.pid != owner.postmaster_pid
            assert not is_alive(owner.postmaster_pid)


def test_a_fork_of_the_owner_keeps_neither_lock_nor_postgres(data_dir: Path) -> None:
    with start_owner(data_dir, "fork") as owner:
        assert owner.fork_pid is not None
        owner.kill()
        wait_until_sync(lambda: not is_alive(owner.postmaster_pid), "the watchdog stopped postgres")
        assert is_alive(owner.fork_pid)
        EmbeddedPostgres.start(data_dir).stop()


@needs_proc
def test_stale_files_whose_pid_another_process_has_by_now_are_no_obstacle(data_dir: Path) -> None:
    EmbeddedPostgres.start(data_dir).stop()
    cluster = data_dir / "postgres"
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, user=cluster.stat().st_uid) as other:
        text = f"{other.pid}\n{cluster}\n1\n5432\n.\n\n 1 1\nready\n"
        _leave_stale_files(cluster, lambda path: path.write_text(text, encoding="ascii"))
        EmbeddedPostgres.start(data_dir).stop()
        assert other.poll() is None
        assert other.stdin is not None
        other.stdin.close()


def test_stale_files_of_a_postmaster_killed_before_it_wrote_them_are_no_obstacle(
    data_dir: Path,
) -> None:
    EmbeddedPostgres.start(data_dir).stop()
    _leave_stale_files(data_dir / "postgres", Path.touch)
    EmbeddedPostgres.start(data_dir).stop()


def test_a_failed_start_shows_the_log_and_frees_the_directory(data_dir: Path) -> None:
    EmbeddedPostgres.start(data_dir).stop()
    settings = data_dir / "postgres/postgresql.conf"
    good = settings.read_text(encoding="utf-8")
    settings.write_text(good + "no_such_setting = 1\n", encoding="utf-8")
    with pytest.raises(PostgresStartError, match="no_such_setting"):
        EmbeddedPostgres.start(data_dir)
    settings.write_text(good, encoding="utf-8")
    EmbeddedPostgres.start(data_dir).stop()


def _list_children(owner: Owner) -> list[int]:
    listed = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(owner.postmaster_pid)],
        capture_output=True,
        text=True,
        check=True,
    )
    return [int(pid) for pid in listed.stdout.split()]


def _leave_stale_files(cluster: Path, write: Callable[[Path], object]) -> None:
    for name in ("postmaster.pid", ".s.PGSQL.5432.lock"):
        write(cluster / name)
        os.chown(cluster / name, cluster.stat().st_uid, cluster.stat().st_gid)
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(cluster / ".s.PGSQL.5432"))


async def _leave_a_busy_backend(dsn: str) -> int:
    """Start a query that takes forever, and hang up; return its backend's pid once it computes."""
    connection = await asyncpg.connect(dsn)
    pid = connection.get_server_pid()
    query = asyncio.create_task(connection.execute("SELECT count(*) FROM generate_series(1, 1e12)"))
    active = f"SELECT state FROM pg_stat_activity WHERE pid = {pid}"

    async def is_active() -> bool:
        return await fetch_value(dsn, active) == "active"

    await wait_until(is_active, "it computes")
    connection.terminate()
    with contextlib.suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
        await query
    return pid
