"""The command where its parts are not installed."""

import subprocess
import sys

import pytest


def run_entry(before: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    code = f"import sys\n{before}\nfrom runwell.cli.entry import main\nmain()"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("missing", ["click", "rich"])
def test_a_missing_part_of_the_command_says_what_to_install(missing: str) -> None:
    done = run_entry(f"sys.modules[{missing!r}] = None", "--help")
    assert done.returncode == 1
    assert done.stderr == (
        f"error: the parts of the command are not installed ({missing} is missing): "
        'pip install "runwell[cli]"\n'
    )


def test_the_command_runs_where_its_parts_are_installed() -> None:
    done = run_entry("", "--version")
    assert (done.returncode, done.stdout[:8]) == (0, "runwell ")
