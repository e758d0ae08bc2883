"""What all commands have in common: help, errors, and how they find their server."""

import json
from pathlib import Path

import pytest

from tests.cli.terminal import runwell

_COMMANDS = (
    ["init"],
    ["dev"],
    ["trigger"],
    ["runs", "list"],
    ["runs", "show"],
    ["runs", "logs"],
    ["runs", "cancel"],
    ["env"],
    ["server"],
    ["worker"],
)


@pytest.mark.parametrize("command", _COMMANDS, ids=" ".join)
def test_help_teaches_with_an_example_and_names_json(command: list[str], tmp_path: Path) -> None:
    done = runwell(*command, "--help", folder=tmp_path)

    assert done.returncode == 0
    assert "Example" in done.stdout
    assert f"runwell {' '.join(command)}" in done.stdout.partition("Example")[2]
    assert "--json" in done.stdout


def test_without_a_command_the_help_is_shown(tmp_path: Path) -> None:
    done = runwell(folder=tmp_path)

    assert done.returncode == 2
    assert "Start here:" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nope"], "No such command 'nope'"),
        (["trigger"], "Missing argument 'TASK'"),
        (["runs", "list", "--limit", "0"], "--limit"),
        (["server", "--port", "70000"], "--port"),
    ],
)
def test_a_wrong_command_line_is_an_error_with_status_2(
    arguments: list[str], said: str, tmp_path: Path
) -> None:
    done = runwell(*arguments, folder=tmp_path)

    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert said in done.stderr
    assert "--help" in done.stderr


def test_without_a_server_a_command_says_how_to_start_one(tmp_path: Path) -> None:
    done = runwell("runs", "list", folder=tmp_path)

    assert done.returncode == 1
    assert done.stderr.startswith("error: no server is running for")
    assert "runwell dev" in done.stderr


def test_an_error_is_json_when_json_is_asked_for(tmp_path: Path) -> None:
    done = runwell("runs", "list", "--json", folder=tmp_path)

    assert done.returncode == 1
    assert json.loads(done.stderr)["error"].startswith("no server is running")


def test_the_file_of_a_server_that_was_killed_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / ".runwell").mkdir()
    # No process has this id: it is above what Linux and macOS give.
    found = {"url": "http://127.0.0.1:9", "secretKey": "tr_dev_x", "pid": 2**30}
    (tmp_path / ".runwell/local.json").write_text(json.dumps(found))

    done = runwell("env", folder=tmp_path)

    assert done.returncode == 1
    assert "no server is running" in done.stderr


def test_a_url_without_a_key_is_told(tmp_path: Path) -> None:
    done = runwell(
        "runs", "list", folder=tmp_path, environment={"TRIGGER_API_URL": "http://127.0.0.1:9"}
    )

    assert done.returncode == 1
    assert "TRIGGER_SECRET_KEY is not" in done.stderr


def test_a_server_that_is_away_is_told_without_a_traceback(tmp_path: Path) -> None:
    environment = {"TRIGGER_API_URL": "http://127.0.0.1:9", "TRIGGER_SECRET_KEY": "tr_dev_x"}

    done = runwell("runs", "show", "run_x", folder=tmp_path, environment=environment)

    assert done.returncode == 1
    assert "is the server running?" in done.stderr
    assert "Traceback" not in done.stderr


def test_dev_and_worker_outside_of_a_project_say_how_to_start_one(tmp_path: Path) -> None:
    for command in ("dev", "worker"):
        done = runwell(command, folder=tmp_path)

        assert done.returncode == 1
        assert "runwell init" in done.stderr
