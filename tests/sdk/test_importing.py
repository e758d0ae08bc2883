"""Importing task files: their names, and what is broken with its place in the user's code."""

import pickle
import subprocess
import sys

import pytest

from tests.sdk.conftest import ProjectFolder


def test_task_files_import_each_other_in_each_way_and_are_there_once(folder: ProjectFolder) -> None:
    folder.write("trigger/shapes.py", "loads = []\nclass Shape: ...\nloads.append(1)\n")
    folder.write("trigger/tools/__init__.py", "from trigger.shapes import Shape\n")
    folder.write("library.py", "from trigger.shapes import Shape\n")
    folder.write(
        "trigger/a.py",
        """
        import library
        import shapes
        import tools
        import trigger.shapes
        from shapes import Shape as by_sibling
        from trigger.shapes import Shape as by_full_name
        from .shapes import Shape as by_relation
        from runwell import task

        assert shapes is trigger.shapes
        assert by_sibling is by_full_name is by_relation is library.Shape is tools.Shape
        assert shapes.__name__ == shapes.__spec__.name == by_sibling.__module__ == "trigger.shapes"
        assert shapes.loads == [1]

        @task(id="a")
        def a() -> None: ...
        """,
    )
    assert folder.import_tasks().problems == []


def test_siblings_may_import_each_other_in_a_circle(folder: ProjectFolder) -> None:
    folder.write("trigger/a.py", "import b\nvalue = 1\n")
    folder.write("trigger/b.py", "import a\nother = 2\n")
    assert folder.import_tasks().problems == []


def test_installed_modules_go_before_siblings(folder: ProjectFolder) -> None:
    folder.write("trigger/json.py", "raise AssertionError('never imported as json')")
    folder.write("trigger/a.py", "import json\njson.loads('1')\n")
    problems = folder.import_tasks().problems
    assert [problem.file.name for problem in problems] == ["json.py"]


def test_a_source_folder_is_an_import_root(folder: ProjectFolder) -> None:
    folder.write(
        "trigger_config.py",
        "from runwell import define_config\nconfig = define_config(dirs=['src/shop/tasks'])",
    )
    folder.write("src/shop/__init__.py", "")
    folder.write("src/shop/models.py", "class Order: ...\n")
    file = folder.write(
        "src/shop/tasks/a.py",
        """
        from runwell import task
        from shop.models import Order

        @task(id="a")
        def a() -> None: ...

        assert __name__ == "shop.tasks.a"
        """,
    )
    found = folder.import_tasks()
    assert found.problems == []
    assert found.manifests["a"].file_path == file.relative_to(folder.path).as_posix()


def test_broken_files_are_problems_with_their_line_and_the_others_work(
    folder: ProjectFolder,
) -> None:
    folder.task("trigger/good.py", "good")
    folder.write("trigger/syntax.py", "x = 1\ndef f(:\n")
    folder.write("trigger/raises.py", "def f():\n    1 / 0\n\nf()\n")
    folder.write("trigger/exits.py", "import sys\n\nsys.exit('bye')\n")
    folder.write("trigger/missing.py", "\nimport no_such_module\n")
    folder.write("trigger/encoding.py", "").write_bytes(b"x = '\xff'\n")
    folder.write(
        "trigger/option.py", "from runwell import task\n@task(id='x', foo=1)\ndef f(): ..."
    )
    folder.write("trigger/dots.in.py", "")
    found = folder.import_tasks()
    assert list(found.catalog.tasks) == ["good"]
    shown = {problem.file.name: (problem.line, problem.message) for problem in found.problems}
    assert shown["syntax.py"] == (2, "SyntaxError: invalid syntax")
    assert shown["raises.py"] == (2, "ZeroDivisionError: division by zero")
    assert shown["exits.py"][0] == 3
    assert "bye" in shown["exits.py"][1]
    assert shown["missing.py"] == (
        2,
        (
            "ModuleNotFoundError: No module named 'no_such_module': install it in the environment "
            "that runs the worker, or correct the name"
        ),
    )
    assert shown["encoding.py"][0] == 1
    assert shown["option.py"][0] == 2
    assert "unexpected keyword argument 'foo'" in shown["option.py"][1]
    assert "rename it without dots" in shown["dots.in.py"][1]
    assert len(shown) == 7


def test_the_traceback_of_a_problem_begins_in_the_users_code(folder: ProjectFolder) -> None:
    folder.write("library.py", "def divide():\n    return 1 / 0\n")
    folder.write("trigger/a.py", "import library\nlibrary.divide()\n")
    problem = folder.import_tasks().problems[0]
    assert (problem.file.name, problem.line) == ("library.py", 2)
    lines = problem.traceback.splitlines()
    assert lines[1] == f'  File "{folder.path}/trigger/a.py", line 2, in <module>'
    assert lines[-1] == "ZeroDivisionError: division by zero"
    assert "importlib" not in problem.traceback
    assert str(problem) == f"{folder.path}/library.py:2: ZeroDivisionError: division by zero"


def test_a_file_that_two_others_need_is_one_problem(folder: ProjectFolder) -> None:
    folder.write("trigger/a.py", "from trigger import broken\n")
    folder.write("trigger/b.py", "from trigger import broken\n")
    folder.write("trigger/broken.py", "1 / 0\n")
    found = folder.import_tasks()
    assert {(problem.file.name, problem.line) for problem in found.problems} == {("broken.py", 1)}


def test_a_task_whose_file_broke_after_it_is_not_there(folder: ProjectFolder) -> None:
    folder.write("trigger/a.py", "from runwell import task\n@task(id='a')\ndef a(): ...\n1 / 0\n")
    found = folder.import_tasks()
    assert found.catalog.tasks == {}
    assert len(found.problems) == 1


@pytest.mark.parametrize(
    ("parameter", "message"),
    [
        ("payload: Missing", "name 'Missing' is not defined"),
        ("payload: 'list['", "can't be read"),
        ("payload: Plain", "annotated with Plain, which can't be read from JSON"),
    ],
)
def test_an_annotation_that_is_no_schema_is_a_problem_of_its_task(
    folder: ProjectFolder, parameter: str, message: str
) -> None:
    folder.write(
        "trigger/a.py",
        f"""
        from __future__ import annotations
        from runwell import task

        class Plain: ...

        @task(id="bad")
        def bad({parameter}) -> None: ...

        @task(id="good")
        def good() -> None: ...
        """,
    )
    found = folder.import_tasks()
    assert list(found.catalog.tasks) == ["good"]
    assert (found.problems[0].line, found.problems[0].file.name) == (7, "a.py")
    assert message in found.problems[0].message


PICKLE = """
import pickle, sys
from pathlib import Path
from runwell.sdk.project import import_tasks, load_project
import_tasks(load_project(Path(sys.argv[1])))
task, order = pickle.loads(bytes.fromhex(sys.argv[2]))
print(task.id, type(order).__module__, order.number)
"""


def test_objects_of_task_files_travel_between_processes(folder: ProjectFolder) -> None:
    folder.write(
        "trigger/a.py",
        """
        from runwell import task

        class Order:
            def __init__(self, number): self.number = number

        @task(id="a")
        def a() -> None: ...
        """,
    )
    found = folder.import_tasks()
    task = found.catalog.tasks["a"]
    module = sys.modules["trigger.a"]
    assert pickle.loads(pickle.dumps(task)) is task
    data = pickle.dumps((task, module.Order(5)))
    done = subprocess.run(
        [sys.executable, "-c", PICKLE, str(folder.path), data.hex()],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout == "a trigger.a 5\n"
