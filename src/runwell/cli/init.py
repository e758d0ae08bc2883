"""`runwell init`: the first files of a project."""

import sys
from pathlib import Path

import click

from runwell.cli.options import FOLDER
from runwell.cli.output import Output, styled, with_output

CONFIG = '''"""The configuration of this project's tasks."""

from runwell import define_config

config = define_config(
    # The folders with task files.
    dirs=["trigger"],
)
'''

EXAMPLE = '''"""A first task.

Try it: runwell trigger hello-world --payload '{"name": "Ada"}' --follow
"""

from dataclasses import dataclass

from runwell import RunContext, logger, task


@dataclass(frozen=True)
class Greeting:
    """The payload: what is not like this is refused before the task starts."""

    name: str = "World"


_WORLD = Greeting()


@task(id="hello-world")
async def hello_world(greeting: Greeting = _WORLD, *, ctx: RunContext) -> dict[str, str]:
    """Say hello; whatever this raises is retried."""
    logger.info("hello", name=greeting.name, attempt=ctx.attempt.number)
    return {"message": f"Hello, {greeting.name}!"}
'''

_IGNORED = ".runwell/"


@click.command(
    short_help="Start a project: a config file and a first task.",
    epilog="""\b
Examples:
  runwell init
  runwell init my-project
""",
)
@click.argument("folder", type=FOLDER, default=Path())
@click.option("--project-ref", "-p", metavar="REF", help="The ref of the project (proj_...).")
@click.option("--yes", "-y", is_flag=True, help="Ask nothing; files that exist are kept.")
@click.option("--force", is_flag=True, help="Overwrite files that exist.")
@with_output
def init(output: Output, folder: Path, project_ref: str | None, yes: bool, force: bool) -> None:
    """Start a project in FOLDER (here): a config file and a first task.

    A file that exists is never overwritten without asking.
    """
    config = CONFIG
    if project_ref:
        config = config.replace("(\n", f"(\n    project={project_ref!r},\n".replace("'", '"'), 1)
    wanted = {folder / "trigger_config.py": config, folder / "trigger" / "example.py": EXAMPLE}
    written: list[str] = []
    kept: list[str] = []
    for path, text in wanted.items():
        if _may_write(path, is_quiet=yes or output.is_json, is_forced=force):
            _write(path, text)
            written.append(str(path))
            output.line(styled("wrote  ", "green"), str(path))
        else:
            kept.append(str(path))
            output.line(styled("kept   ", "yellow"), str(path), " (--force overwrites it)")
    if _ignore_data(folder):
        written.append(str(folder / ".gitignore"))
        output.line(styled("wrote  ", "green"), str(folder / ".gitignore"), f" ({_IGNORED})")
    output.document({"written": written, "kept": kept})
    steps = [] if folder == Path() else [f"cd {folder}"]
    steps += ["runwell dev", "runwell trigger hello-world --follow      (in a second terminal)"]
    output.line("\nNext:")
    for step in steps:
        output.line("  ", styled(step, "bold"))


def _may_write(path: Path, *, is_quiet: bool, is_forced: bool) -> bool:
    if is_forced or not path.exists():
        return True
    if is_quiet or not sys.stdin.isatty():
        return False
    return click.confirm(f"{path} exists. Overwrite it?", default=False, err=True)


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise click.ClickException(
            f"can't write {path}: {error.strerror}. Choose another folder: runwell init FOLDER"
        ) from None


def _ignore_data(folder: Path) -> bool:
    """Keep the local server's data and keys out of git, where git is used."""
    root = folder.resolve()
    if not any((parent / ".git").exists() for parent in (root, *root.parents)):
        return False
    path = folder / ".gitignore"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    if _IGNORED in lines or _IGNORED.rstrip("/") in lines:
        return False
    _write(path, "\n".join([*lines, _IGNORED]) + "\n")
    return True
