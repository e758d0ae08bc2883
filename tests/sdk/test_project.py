"""Finding and importing a project: names, errors with their place, what a version consists of."""

import subprocess
import sys
from pathlib import Path

import pytest

from runwell.core.errors import ConfigurationError
from runwell.sdk.project import find_project_folder, load_project
from tests.sdk.conftest import ProjectFolder


def test_a_project_is_found_from_any_folder_inside(folder: ProjectFolder) -> None:
    folder.task("trigger/deep/a.py", "a")
    project = load_project(folder.path / "trigger/deep")
    assert project.folder == folder.path
    assert project.files == (folder.path / "trigger/deep/a.py",)


def test_no_project_says_how_to_start_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="run `runwell init`"):
        find_project_folder(tmp_path)


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("", 1, "must set `config = define_config\\(...\\)`, and has no `config`"),
        ("config = {}", 1, "has config = {}"),
        ("\nconfig = (", 2, "SyntaxError: '\\(' was never closed"),
        ("\n\nimport no_such_module", 3, "No module named 'no_such_module': install it"),
        ("from runwell import define_config\nconfig = define_config(dir=[])", 2, "'dir'"),
        ("from runwell import define_config\nconfig = define_config(dirs='a')", 2, "list of texts"),
        ("from runwell import define_config\nconfig = define_config(dirs=['..'])", 2, "inside of"),
        ("from runwell import define_config\nconfig = define_config(machine='x')", 2, "machine"),
        ("import sys\nsys.exit(3)", 2, "ends the program"),
    ],
)
def test_a_broken_config_file_is_an_error_with_its_line(
    folder: ProjectFolder, text: str, line: int, message: str
) -> None:
    file = folder.write("trigger_config.py", text)
    with pytest.raises(ConfigurationError, match=message) as raised:
        load_project(folder.path)
    assert str(raised.value).startswith(f"{file}:{line}: ")


def test_a_changed_config_file_is_read_again(folder: ProjectFolder) -> None:
    assert load_project(folder.path).config.max_duration is None
    folder.write(
        "trigger_config.py",
        "from runwell import define_config\nconfig = define_config(max_duration=9)",
    )
    assert load_project(folder.path).config.max_duration == 9


def test_task_files_are_those_that_are_not_private_tests_or_hidden(folder: ProjectFolder) -> None:
    for name in (
        "trigger/a.py",
        "trigger/sub/b.py",
        "trigger/_shared.py",
        "trigger/__init__.py",
        "trigger/test_a.py",
        "trigger/sub/a_test.py",
        "trigger/conftest.py",
        "trigger/.hidden/c.py",
        "trigger/__pycache__/d.py",
        "trigger/lib/site-packages/f.py",
        "other/e.py",
    ):
        folder.write(name, "")
    found = [file.relative_to(folder.path).as_posix() for file in load_project(folder.path).files]
    assert found == ["trigger/a.py", "trigger/sub/b.py"]


def test_files_may_be_left_out_by_patterns(folder: ProjectFolder) -> None:
    folder.write(
        "trigger_config.py",
        "from runwell import define_config\n"
        "config = define_config(dirs=['./trigger', 'more/'], ignore_patterns=['**/old_*.py'])",
    )
    for name in ("trigger/a.py", "trigger/old_a.py", "trigger/test_a.py", "more/b.py"):
        folder.write(name, "")
    found = [file.name for file in load_project(folder.path).files]
    assert found == ["a.py", "test_a.py", "b.py"]


def test_tasks_are_found_with_where_they_are(folder: ProjectFolder) -> None:
    folder.write(
        "trigger/orders.py",
        """
        from runwell import task

        @task(id="send-order", description="Sends it")
        async def send(number: int) -> str:
            return str(number)

        def make(name):
            @task(id=name)
            def made() -> None: ...
            return made

        LIST = [make("one"), make("two")]
        """,
    )
    found = folder.import_tasks()
    assert found.problems == []
    assert list(found.catalog.tasks) == ["send-order", "one", "two"]
    manifest = found.manifests["send-order"]
    assert (manifest.file_path, manifest.export_name) == ("trigger/orders.py", "send")
    assert (manifest.description, manifest.payload_schema) == ("Sends it", {"type": "integer"})
    assert found.manifests["one"].export_name == "make.<locals>.made"


def test_an_id_used_twice_is_a_problem_that_names_both_places(folder: ProjectFolder) -> None:
    first = folder.task("trigger/a.py", "same", "1")
    second = folder.task("trigger/b.py", "same", "2")
    found = folder.import_tasks()
    assert list(found.catalog.tasks) == ["same"]
    problem = found.problems[0]
    assert (problem.file, problem.line) == (second, 2)
    assert f"task id 'same' is used twice: here and at {first}:2" in problem.message


def test_a_task_that_is_imported_elsewhere_is_there_once(folder: ProjectFolder) -> None:
    folder.task("trigger/a.py", "a")
    folder.write("trigger/b.py", "from trigger.a import run\nagain = run\n")
    found = folder.import_tasks()
    assert found.problems == []
    assert found.manifests["a"].file_path == "trigger/a.py"


def test_a_missing_folder_is_a_problem(folder: ProjectFolder) -> None:
    (folder.path / "trigger").rmdir()
    problems = folder.import_tasks().problems
    assert "the folder 'trigger' of `dirs` does not exist" in problems[0].message


def test_a_name_that_another_module_has_is_a_problem(folder: ProjectFolder) -> None:
    folder.write(
        "trigger_config.py",
        "from runwell import define_config\nconfig = define_config(dirs=['json'])",
    )
    folder.write("json/decoder.py", "")
    problem = folder.import_tasks().problems[0]
    assert "the name json.decoder is already taken by" in problem.message


def test_options_of_the_config_hold_for_tasks_without_their_own(folder: ProjectFolder) -> None:
    folder.write(
        "trigger_config.py",
        """
        from runwell import Retries, Retry, define_config

        config = define_config(
            retries=Retries(default=Retry(max_attempts=7)), machine="medium-1x", max_duration=60
        )
        """,
    )
    folder.write(
        "trigger/a.py",
        """
        from runwell import Queue, Retry, task, timeout

        @task(id="plain")
        def plain() -> None: ...

        @task(
            id="own", retry=Retry(max_attempts=2), machine="micro", max_duration=timeout.NONE,
            queue=Queue(concurrency_limit=1), ttl="1h", keep_process=True,
        )
        def own() -> None: ...
        """,
    )
    manifests = folder.import_tasks().manifests
    plain, own = manifests["plain"], manifests["own"]
    assert (plain.retry.max_attempts, plain.machine.preset, plain.max_duration) == (
        7,
        "medium-1x",
        60,
    )
    assert (own.retry.max_attempts, own.machine.preset, own.max_duration) == (
        2,
        "micro",
        2_147_483_647,
    )
    assert own.queue is not None
    assert (own.queue.name, own.queue.concurrency_limit, own.ttl) == ("task/own", 1, 3600)
    assert (plain.queue, plain.keep_process, own.keep_process) == (None, False, True)


def test_shared_queues_are_listed_once(folder: ProjectFolder) -> None:
    folder.write(
        "trigger/a.py",
        """
        from runwell import Queue, queue, task

        shared = queue("shared", concurrency_limit=2)
        lone = queue("lone")

        @task(id="a", queue=shared)
        def a() -> None: ...

        @task(id="b", queue=Queue(name="shared"))
        def b() -> None: ...

        @task(id="c", queue=Queue(name="named", concurrency_limit=5))
        def c() -> None: ...
        """,
    )
    found = folder.import_tasks()
    assert found.problems == []
    limits = {queue.name: queue.concurrency_limit for queue in found.metadata().queues}
    assert limits == {"shared": 2, "lone": None, "named": 5}
    sent = found.manifests["b"].queue
    assert sent is not None
    assert (sent.name, sent.concurrency_limit) == ("shared", 2)


def test_a_queue_with_two_limits_is_a_problem(folder: ProjectFolder) -> None:
    folder.write(
        "trigger/a.py",
        """
        from runwell import queue

        one = queue("q", concurrency_limit=1)
        two = queue("q", concurrency_limit=2)
        """,
    )
    assert "queue 'q' has two limits, 1 and 2" in folder.import_tasks().problems[0].message


# Each hash is of a fresh import: a fork of a process that has imported nothing of the project.
HASHES = """
import os, sys
from pathlib import Path
from runwell.sdk.project import import_tasks, load_project
for _ in sys.stdin:
    pid = os.fork()
    if pid == 0:
        print(import_tasks(load_project(Path(sys.argv[1]))).metadata().content_hash, flush=True)
        os._exit(0)
    os.waitpid(pid, 0)
"""


def test_the_content_hash_covers_what_is_imported_and_what_lies_in_the_folders(
    folder: ProjectFolder,
) -> None:
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", HASHES, str(folder.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as hashes:
        assert hashes.stdin is not None
        assert hashes.stdout is not None

        def hash_now() -> str:
            print(file=hashes.stdin, flush=True)
            assert hashes.stdout is not None
            return hashes.stdout.readline()

        folder.task("trigger/a.py", "a", "0")
        folder.write("library.py", "x = 1")
        folder.write("unused.py", "x = 1")
        first = hash_now()
        assert hash_now() == first
        folder.write("unused.py", "x = 2")
        folder.write("trigger/notes.txt", "words")
        assert hash_now() == first
        # The same size within the same second: a stale .pyc file would hide it.
        folder.task("trigger/a.py", "a", "1")
        second = hash_now()
        folder.write("trigger/b.py", "import library\n")
        third = hash_now()
        folder.write("library.py", "x = 2")
        fourth = hash_now()
        folder.write("trigger/_private.py", "")
        assert len({first, second, third, fourth, hash_now()}) == 5
        assert all(len(found) == 65 for found in (first, second, third, fourth))
    assert list(folder.path.rglob("*.pyc")) == []
