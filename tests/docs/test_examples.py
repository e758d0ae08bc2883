"""Every example in the documentation is run: against a real server, with a real worker."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from runwell.cli.main import main
from tests.docs.examples import Page, list_pages
from tests.support.plugin import PLUGIN
from tests.support.processes import ServerProcess, WorkerProcess
from tests.support.waiting import wait_until_sync

PAGES = list_pages()
WITH_PYTHON = [page for page in PAGES if any(block.language == "python" for block in page.blocks)]
WITH_PROGRAMS = [page for page in WITH_PYTHON if page.programs]
WITH_TESTS = [
    page
    for page in WITH_PYTHON
    if any((block.title or "").startswith("tests/") for block in page.blocks)
]
WITH_COMMANDS = [page for page in PAGES if page.commands]

_IMPORT = """
import sys
from pathlib import Path
from runwell.sdk.project import import_tasks, load_project
found = import_tasks(load_project(Path.cwd()))
for problem in found.problems:
    print(problem.file, problem.line, problem.message, problem.traceback)
sys.exit(bool(found.problems))
"""


def name_of(page: Page) -> str:
    return page.name


def run_python(folder: Path, *arguments: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder), **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, f"{arguments}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.parametrize("page", WITH_PYTHON, ids=name_of)
def test_every_block_of_python_says_which_file_it_is(page: Page) -> None:
    for block in page.blocks:
        assert block.language != "python" or block.title, f"{page.name}:{block.line} has no title"


@pytest.mark.parametrize("page", WITH_PYTHON, ids=name_of)
def test_the_task_files_of_a_page_can_be_imported(page: Page, tmp_path: Path) -> None:
    page.write_project(tmp_path / "project")
    run_python(tmp_path / "project", "-c", _IMPORT)


@pytest.mark.parametrize("page", WITH_PROGRAMS, ids=name_of)
def test_the_programs_of_a_page_do_what_it_says(
    page: Page, tmp_path: Path, database_url: str
) -> None:
    folder = tmp_path / "project"
    page.write_project(folder)
    server = ServerProcess(tmp_path / "server", database_url=database_url)
    try:
        server.wait_until_ready()
        key = server.secret_key
        worker = WorkerProcess(tmp_path / "worker", folder, url=server.url, secret_key=key)
        try:
            # Schedules can be attached to tasks that the server knows.
            wait_until_sync(lambda: bool(worker.task_processes), "the worker is there", timeout=30)
            for program in page.programs:
                printed = run_python(
                    folder,
                    program.title,
                    TRIGGER_API_URL=server.url,
                    TRIGGER_SECRET_KEY=key,
                    # For applications that share it.
                    DATABASE_URL=database_url,
                )
                check_output(f"{page.name}:{program.line}", program.output, printed)
        finally:
            worker.end()
    finally:
        server.end()


@pytest.mark.parametrize("page", WITH_TESTS, ids=name_of)
def test_the_tests_of_a_page_pass(page: Page, tmp_path: Path) -> None:
    page.write_project(tmp_path / "project")
    run_python(tmp_path / "project", "-m", "pytest", "-q", *PLUGIN, "tests")


def check_output(place: str, expected: str | None, printed: str) -> None:
    if expected is not None:
        pattern = re.escape(expected.strip()).replace(re.escape("..."), ".*")
        assert re.fullmatch(pattern, printed.strip(), re.DOTALL), f"{place} prints {printed!r}"


@pytest.mark.parametrize("page", WITH_COMMANDS, ids=name_of)
def test_every_command_of_a_page_is_one(page: Page) -> None:
    for line, text in page.commands:
        words = shlex.split(text)[1:]
        command: click.Command = main
        context = click.Context(main, info_name="runwell")
        while isinstance(command, click.Group) and words and not words[0].startswith("-"):
            found = command.get_command(context, words[0])
            assert found is not None, f"{page.name}:{line}: {text}: no command {words[0]}"
            command, words = found, words[1:]
        try:
            command.make_context("runwell", words, resilient_parsing=False)
        except click.exceptions.Exit:
            pass
        except click.UsageError as error:
            pytest.fail(f"{page.name}:{line}: {text}: {error.format_message()}")
