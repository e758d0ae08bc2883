"""The demo as a user starts it, with fewer modules."""

import re
import subprocess
import sys
from pathlib import Path

from tests.cli.terminal import clean_environment

DEMO = Path(__file__).resolve().parents[2] / "examples/stdlib_analysis/demo.py"


def test_the_demo_ends_by_itself_and_shows_what_it_did(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    first = run_demo(data_dir)
    again = run_demo(data_dir)

    for done in (first, again):
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stderr == ""
        assert re.search(r"COMPLETED +39\n", done.stdout)
        assert re.search(r"FAILED +1\n", done.stdout)
        assert "SyntaxError" in done.stdout
        assert "make dev" in done.stdout
        assert "attempt 2" in done.stdout
    assert "the first start makes a database" in first.stdout
    assert "the first start makes a database" not in again.stdout


def run_demo(data_dir: Path) -> "subprocess.CompletedProcess[str]":
    """Run it to its end."""
    return subprocess.run(
        [sys.executable, str(DEMO), "--limit", "40", "--data-dir", str(data_dir)],
        env=clean_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
