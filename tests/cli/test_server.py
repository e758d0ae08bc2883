import json
from pathlib import Path

from tests.cli.terminal import Running, runwell
from tests.support.processes import find_free_port
from tests.support.waiting import wait_until_sync


def test_a_server_says_where_it_is_and_is_found_by_commands(tmp_path: Path) -> None:
    with Running("server", "--port", "0", folder=tmp_path) as server:
        server.wait_for(r"server  http://127\.0\.0\.1:\d+")

        assert "tr_dev_" in server.text
        assert "there are no runs yet" in runwell("runs", "list", folder=tmp_path).stderr
        second = runwell("server", "--port", "0", folder=tmp_path)
        server.interrupt()
        assert server.wait() == 0

    assert second.returncode == 1
    assert "in use by a Runwell server" in second.stderr


def test_a_server_with_json_announces_itself_on_one_line_and_ends_with_its_input(
    tmp_path: Path, database_url: str
) -> None:
    environment = {"DATABASE_URL": database_url}
    command = ("server", "--port", "0", "--json", "--until-stdin-closes", "--log-level", "error")
    with Running(*command, folder=tmp_path, environment=environment) as server:
        server.wait_for(r"\n")
        ready = json.loads(server.text)

        assert ready["event"] == "ready"
        assert set(ready["secretKeys"]) == {"dev", "stg", "prod"}
        server.close_stdin()
        assert server.wait() == 0


def test_a_port_that_is_taken_is_an_error_that_says_what_to_do(
    tmp_path: Path, database_url: str
) -> None:
    environment = {"DATABASE_URL": database_url}
    port = str(find_free_port())
    with Running("server", "--port", port, folder=tmp_path, environment=environment) as server:
        server.wait_for("server  http")
        other = runwell(
            "server", "--port", port, "--data-dir", "x", folder=tmp_path, environment=environment
        )

    assert other.returncode == 1
    assert other.stderr.startswith(f"error: port {port} of 127.0.0.1 is in use")
    assert "--port" in other.stderr


def test_settings_that_can_not_be_understood_are_refused(tmp_path: Path) -> None:
    done = runwell("server", folder=tmp_path, environment={"RUNWELL_PORT": "many"})

    assert done.returncode == 1
    assert "RUNWELL_PORT is 'many'" in done.stderr


def test_without_the_parts_of_the_server_the_extra_is_named(tmp_path: Path) -> None:
    # As on a machine where they are not installed: the first one that is imported is missing.
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['uvloop'] = None\n")

    done = runwell("server", folder=tmp_path, environment={"PYTHONPATH": str(tmp_path)})

    assert done.returncode == 1
    assert 'pip install "runwell[server]"' in done.stderr


def test_a_killed_server_is_no_longer_found(tmp_path: Path, database_url: str) -> None:
    environment = {"DATABASE_URL": database_url}
    with Running("server", "--port", "0", folder=tmp_path, environment=environment) as server:
        server.wait_for("server  http")
        assert (tmp_path / ".runwell/local.json").exists()
        server.kill()

    def is_gone() -> bool:
        return "no server is running" in runwell("env", folder=tmp_path).stderr

    wait_until_sync(is_gone, "the killed server is not found")
