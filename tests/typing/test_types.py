"""What `@task` makes is typed, for pyright in strict mode and for mypy in strict mode."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
ACCEPTED = [HERE / "definitions.py", HERE / "calls.py", HERE / "inside.py"]


def run(*command: str | Path) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *map(str, command)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    return done.stdout + done.stderr


def run_mypy(files: list[Path], cache: Path) -> list[tuple[str, int, str]]:
    """The errors of mypy in these files."""
    options = ("--strict", "--explicit-package-bases", "--no-error-summary", "--cache-dir", cache)
    output = run("mypy", *options, *files)
    found = re.findall(r"^([^:\n]+):(\d+): error: (.*)$", output, re.MULTILINE)
    assert found or not output.strip(), output
    return [(Path(file).name, int(line), message) for file, line, message in found]


def run_pyright(files: list[Path]) -> list[tuple[str, int, str]]:
    """The errors of pyright in these files, with the settings of the repository."""
    output = run("pyright", "--outputjson", *files)
    report = json.loads(output[output.index("{") :])
    return [
        (Path(each["file"]).name, each["range"]["start"]["line"] + 1, each["message"])
        for each in report["generalDiagnostics"]
        if each["severity"] == "error"
    ]


def refused_file(folder: Path) -> tuple[Path, set[int]]:
    """The wrong uses as a module, and the lines on which they are."""
    text = (HERE / "refused.txt").read_text(encoding="utf-8")
    file = folder / "refused.py"
    file.write_text(text, encoding="utf-8")
    lines = {i for i, line in enumerate(text.splitlines(), 1) if line.endswith("# REFUSED")}
    assert len(lines) > 10
    return file, lines


def check(errors: list[tuple[str, int, str]], refused: Path, lines: set[int]) -> None:
    assert [error for error in errors if error[0] != refused.name] == []
    assert {line for _, line, _ in errors} == lines


def test_pyright_knows_the_types_and_refuses_wrong_uses(tmp_path: Path) -> None:
    file, lines = refused_file(tmp_path)
    check(run_pyright([*ACCEPTED, file]), file, lines)


def test_mypy_knows_the_types_and_refuses_wrong_uses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MYPYPATH", str(ROOT))
    file, lines = refused_file(tmp_path)
    check(run_mypy([*ACCEPTED, file], tmp_path / "cache"), file, lines)
