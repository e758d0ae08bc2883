from pathlib import Path

from runwell.cli.init import CONFIG, EXAMPLE
from tests.cli.terminal import runwell, runwell_json


def test_init_writes_a_config_file_and_a_task_and_says_what_comes_next(tmp_path: Path) -> None:
    done = runwell("init", "shop", folder=tmp_path)

    assert done.returncode == 0
    assert (tmp_path / "shop/trigger_config.py").read_text() == CONFIG
    assert (tmp_path / "shop/trigger/example.py").read_text() == EXAMPLE
    assert "cd shop" in done.stdout
    assert "runwell dev" in done.stdout


def test_what_init_writes_can_be_imported(project: Path) -> None:
    code = (
        "from pathlib import Path\n"
        "from runwell.sdk.project import import_tasks, load_project\n"
        "found = import_tasks(load_project(Path()))\n"
        "assert not found.problems, found.problems\n"
        "assert list(found.catalog.tasks) == ['hello-world']\n"
    )
    import subprocess
    import sys

    subprocess.run([sys.executable, "-c", code], cwd=project, check=True)


def test_init_keeps_files_that_exist(tmp_path: Path) -> None:
    (tmp_path / "trigger_config.py").write_text("mine = 1\n")

    done = runwell("init", folder=tmp_path)

    assert done.returncode == 0
    assert (tmp_path / "trigger_config.py").read_text() == "mine = 1\n"
    assert "kept" in done.stdout
    assert (tmp_path / "trigger/example.py").exists()


def test_init_overwrites_when_it_is_forced_to(tmp_path: Path) -> None:
    (tmp_path / "trigger_config.py").write_text("mine = 1\n")

    answer = runwell_json("init", "--force", folder=tmp_path)

    assert answer == {"written": ["trigger_config.py", "trigger/example.py"], "kept": []}
    assert (tmp_path / "trigger_config.py").read_text() == CONFIG


def test_init_keeps_keys_and_data_out_of_git(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / ".gitignore").write_text("*.pyc\n")

    runwell("init", folder=tmp_path)
    runwell("init", folder=tmp_path)

    assert (tmp_path / ".gitignore").read_text() == "*.pyc\n.runwell/\n"


def test_init_says_when_a_folder_can_not_be_written(tmp_path: Path) -> None:
    (tmp_path / "trigger").write_text("a file where the folder should be")

    done = runwell("init", folder=tmp_path)

    assert done.returncode == 1
    assert done.stderr.startswith("error: can't write trigger/example.py")
    assert "Traceback" not in done.stderr
