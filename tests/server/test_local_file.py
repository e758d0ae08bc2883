"""`local.json`: written at once, for its owner only, removed by its writer only."""

import json
import os
import stat
import subprocess
from pathlib import Path

import pytest

from runwell.server.local_file import NAME, remove_local_file, write_local_file


def test_it_tells_where_the_server_is_to_its_owner_only(tmp_path: Path) -> None:
    data_dir = tmp_path / "new" / "dir"
    write_local_file(
        data_dir,
        url="http://127.0.0.1:1",
        secret_key="tr_dev_1",
        secret_keys={"dev": "tr_dev_1"},
        access_token="tr_pat_1",
    )
    path = data_dir / NAME
    assert json.loads(path.read_text(encoding="utf-8")) == {
        "url": "http://127.0.0.1:1",
        "secretKey": "tr_dev_1",
        "secretKeys": {"dev": "tr_dev_1"},
        "accessToken": "tr_pat_1",
        "pid": os.getpid(),
    }
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert sorted(entry.name for entry in data_dir.iterdir()) == [".gitignore", NAME]


def test_its_directory_stays_out_of_git(tmp_path: Path) -> None:
    for _ in range(2):
        write_local_file(tmp_path, url="http://127.0.0.1:1", secret_key="k", secret_keys={})
    (tmp_path / "more").touch()
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    status = ["git", "-C", str(tmp_path), "status", "--porcelain"]
    assert subprocess.run(status, capture_output=True, check=True).stdout == b""


def test_a_new_server_takes_the_place_of_an_old_file(tmp_path: Path) -> None:
    (tmp_path / NAME).write_text("half a f", encoding="utf-8")
    write_local_file(
        tmp_path, url="http://127.0.0.1:1", secret_key="tr_dev_1", secret_keys={"dev": "tr_dev_1"}
    )
    assert json.loads((tmp_path / NAME).read_text(encoding="utf-8"))["secretKey"] == "tr_dev_1"
    remove_local_file(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == [".gitignore"]


@pytest.mark.parametrize("content", ['{"pid": 1}', "half a f", "[]", "\xff"])
def test_the_file_of_another_server_stays(tmp_path: Path, content: str) -> None:
    (tmp_path / NAME).write_text(content, encoding="latin-1")
    remove_local_file(tmp_path)
    assert (tmp_path / NAME).exists()
    remove_local_file(tmp_path / "absent")
