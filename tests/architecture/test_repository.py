"""Nothing of the machine on which something was written stays in the repository."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.architecture.tree import ROOT

# Folders of somebody's machine, and hosts of package indexes other than the public ones.
_MACHINE_PATH = re.compile(r"(?<![\w.])/(?:root|work|home/[a-z]\w*|Users/[a-z]\w*)/[\w.]")
_INDEX_HOST = re.compile(
    # Hosts that can't be (RFC 2606) are in tests.
    r"https?://(?![\w.-]*\.(?:invalid|example|test)\b)(?!(?:www\.)?(?:pypi\.org|test\.pypi\.org|registry\.npmjs\.org)\b)"
    r"[\w.-]*(?:pypi|npm|registry|artifactory|nexus|mirror|proxy)[\w.-]*",
)
_INDEX_SETTING = re.compile(r"--(?:extra-)?index-url|\bfind-links\b|^index-url", re.MULTILINE)


def list_files() -> list[Path]:
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        return []
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\0")
    return [ROOT / name for name in listed if name and (ROOT / name).is_file()]


def find_marks(pattern: re.Pattern[str]) -> list[str]:
    files = [path for path in list_files() if path != Path(__file__)]
    if not files:
        pytest.skip("this is no checkout")
    found: list[str] = []
    for path in files:
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += [f"{path.relative_to(ROOT)}: {match[0]}" for match in pattern.finditer(text)]
    return found


def test_no_file_names_a_folder_of_one_machine() -> None:
    assert not find_marks(_MACHINE_PATH)


def test_no_file_names_a_private_package_index() -> None:
    assert not find_marks(_INDEX_HOST)
    assert not find_marks(_INDEX_SETTING)


def test_the_licence_is_whole() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text
    for number in range(1, 10):
        assert re.search(rf"^   {number}\. ", text, re.MULTILINE), f"section {number} is missing"
    assert "END OF TERMS AND CONDITIONS" in text
