"""`runwell dev`, as one uses it: edit, trigger, Ctrl-C."""

import re
import subprocess
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.cli.terminal import Running, runwell, runwell_json
from tests.support.processes import list_children
from tests.support.waiting import wait_until_sync

CONFIGURATION = Path(__file__).parents[2] / "docs/reference/configuration.md"
_VERSION = r"version +(\d{8}\.\d+)"
_SLOW = """
import time
from pathlib import Path
from runwell import task

WORD = "first"

@task(id="slow")
def slow() -> str:
    Path("started").touch()
    while not Path("go").exists():
        time.sleep(0.01)
    return WORD
"""


@pytest.fixture
def developed(project: Path, database_url: str) -> Generator[tuple[Path, Running]]:
    """A project with `runwell dev` on it, ready."""
    (project / "trigger/slow.py").write_text(_SLOW)
    environment = {"DATABASE_URL": database_url}
    with Running("dev", "--port", "0", folder=project, environment=environment) as dev:
        dev.wait_for(_VERSION)
        yield project, dev


def test_dev_shows_versions_and_runs_and_a_followed_run_ends_with_its_output(
    developed: tuple[Path, Running],
) -> None:
    project, dev = developed

    done = runwell("trigger", "hello-world", "-p", '{"name": "Ada"}', "-f", folder=project)
    dev.wait_for(r"COMPLETED +hello-world +\d+ms +http://127")

    assert done.returncode == 0, done.stderr
    assert "Hello, Ada!" in done.stdout
    assert '{"name":"Ada"' in done.stdout.replace(": ", ":")
    assert "2 tasks: hello-world, slow" in dev.text
    assert "EXECUTING" in dev.text
    files = "|".join(re.escape(path.name) for path in (project / ".runwell").iterdir())
    documented = re.findall(rf"^\| `({files})/?`", CONFIGURATION.read_text(), re.MULTILINE)
    assert sorted(documented) == sorted(path.name for path in (project / ".runwell").iterdir())
    assert "server.log" in documented


def test_a_failed_run_is_told_with_its_error_and_status(developed: tuple[Path, Running]) -> None:
    project, dev = developed

    done = runwell("trigger", "hello-world", "-p", '{"name": 1}', "--follow", folder=project)
    dev.wait_for(r"FAILED +hello-world")

    assert done.returncode == 1
    assert "FAILED" in done.stdout
    assert "TaskPayloadParsedError" in done.stdout
    assert "TaskPayloadParsedError" in dev.text


def test_a_save_makes_a_version_and_a_run_that_executes_ends_on_its_own(
    developed: tuple[Path, Running],
) -> None:
    project, dev = developed
    first = dev.wait_for(_VERSION)[1]
    old = runwell("trigger", "slow", folder=project).stdout.strip()
    wait_until_sync((project / "started").exists, "the run has started")

    (project / "trigger/slow.py").write_text(_SLOW.replace('"first"', '"second"'))
    second = dev.wait_for(rf"{first}[\s\S]*{_VERSION}")[1]
    (project / "go").touch()
    new = runwell("trigger", "slow", "--follow", folder=project)
    ended = runwell_json("runs", "show", old, folder=project)

    assert (ended["status"], ended["output"], ended["version"]) == ("COMPLETED", "first", first)
    assert '"second"' in new.stdout
    assert second != first


def test_a_syntax_error_is_shown_with_its_place_and_the_last_good_version_stays(
    developed: tuple[Path, Running],
) -> None:
    project, dev = developed

    (project / "trigger/example.py").write_text("from runwell import task\n\ndef broken(:\n")
    dev.wait_for(r"trigger/example\.py:3: .*SyntaxError|trigger/example\.py:3: .*invalid syntax")
    dev.wait_for(r"stays until this is mended")
    done = runwell("trigger", "hello-world", "--follow", folder=project)

    assert done.returncode == 0, done.stdout
    assert "Hello, World!" in done.stdout


def test_ctrl_c_ends_everything_in_order(developed: tuple[Path, Running]) -> None:
    project, dev = developed
    below = list_descendants(dev.pid)
    assert below

    dev.interrupt()

    assert dev.wait() == 0
    assert not [pid for pid in below if is_alive(pid)]
    assert not (project / ".runwell/local.json").exists()


def test_a_second_ctrl_c_ends_at_once_and_hands_back_what_runs(
    developed: tuple[Path, Running],
) -> None:
    project, dev = developed
    runwell("trigger", "slow", folder=project)
    wait_until_sync((project / "started").exists, "the run has started")

    dev.interrupt()
    dev.wait_for("stopping")
    dev.interrupt()

    assert dev.wait() == 0
    assert "Traceback" not in dev.text


def test_nothing_is_left_of_a_dev_that_was_killed(developed: tuple[Path, Running]) -> None:
    _, dev = developed
    below = list_descendants(dev.pid)
    assert below

    dev.kill()

    wait_until_sync(lambda: not [pid for pid in below if is_alive(pid)], "all have ended", 20)


def test_dev_uses_the_server_that_runs_already(served: Path) -> None:
    with Running("dev", folder=served) as dev:
        dev.wait_for("runs already")
        dev.wait_for(_VERSION)


def test_the_data_of_one_start_is_there_at_the_next(project: Path) -> None:
    with Running("dev", "--port", "0", folder=project) as dev:
        dev.wait_for(_VERSION)
        run_id = runwell("trigger", "hello-world", "--follow", folder=project)
        assert run_id.returncode == 0, run_id.stderr
        dev.interrupt()
        assert dev.wait() == 0
    with Running("dev", "--port", "0", folder=project) as dev:
        dev.wait_for(_VERSION)
        listed = runwell("runs", "list", folder=project)

    assert "hello-world" in listed.stdout
    assert "COMPLETED" in listed.stdout


def list_descendants(pid: int) -> list[int]:
    """All processes below one."""
    children = list_children(pid)
    return [*children, *(below for child in children for below in list_descendants(child))]


def is_alive(pid: int) -> bool:
    """Whether there is such a process; one that has ended and that nobody has noticed is none."""
    listed = subprocess.run(
        ["ps", "-p", str(pid), "-o", "state="], capture_output=True, text=True, check=False
    )
    return listed.stdout.strip()[:1] not in ("", "Z")
