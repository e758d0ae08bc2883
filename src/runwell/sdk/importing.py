"""Importing a user's files: under stable names, with errors that point into the user's code.

A file's module name is its path from the import root (the project folder, or its `src` folder), so
that it is the same in every process: relative imports, pickle and tracebacks rely on it.
"""

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, TracebackType
from typing import TypeGuard

_OUTSIDE_OF_THE_PROJECT = frozenset({"site-packages", "dist-packages", ".venv", "venv"})


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportProblem:
    """Why a file or a task of the project can't be used: `file` and `line` are the user's."""

    file: Path
    line: int
    message: str
    traceback: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.message}"


def import_roots(folder: Path) -> list[Path]:
    """The folders that module names start from, innermost first."""
    source = folder / "src"
    has_source = source.is_dir() and not (source / "__init__.py").exists()
    return [source, folder] if has_source else [folder]


def put_on_path(roots: Sequence[Path]) -> None:
    """Make the modules below these folders importable, before any installed ones."""
    for root in reversed(roots):
        text = str(root)
        if text in sys.path:
            sys.path.remove(text)
        sys.path.insert(0, text)


def module_name(path: Path, roots: Sequence[Path]) -> str:
    """The dotted name of a file below one of the roots."""
    root = next(root for root in roots if path.is_relative_to(root))
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def import_file(path: Path, name: str, folder: Path) -> ImportProblem | None:
    """Import one file; a problem when it can't be imported, whatever it raised."""
    if path.stem.count("."):
        return _plain_problem(path, f"{path.name} can't be imported: rename it without dots")
    try:
        module = importlib.import_module(name)
    # A file may raise anything, also SystemExit; the other files must still be imported.
    except (Exception, SystemExit) as error:  # noqa: BLE001
        return problem_of(error, path, folder)
    found = getattr(module, "__file__", None)
    if found is None or not path.samefile(found):
        return _plain_problem(
            path,
            f"the name {name} is already taken by {found or 'another module'}: rename the file or "
            "its folder",
        )
    return None


def import_anew(path: Path, name: str) -> ModuleType:
    """Import a file under a name even if there is such a module already; raises what it raises."""
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} can't be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def problem_of(error: BaseException, path: Path, folder: Path) -> ImportProblem:
    """What is wrong, at the innermost line of the project that the error comes from."""
    file, line = _place(error, path, folder)
    message = f"{type(error).__name__}: {error}"
    if isinstance(error, SyntaxError):
        message = f"{type(error).__name__}: {error.msg}"
    elif isinstance(error, SystemExit):
        message = (
            f"the file ends the program (SystemExit: {error.code}): remove that at the top level"
        )
    elif isinstance(error, ModuleNotFoundError):
        message += ": install it in the environment that runs the worker, or correct the name"
    return ImportProblem(
        file=file, line=line, message=message, traceback=_traceback_text(error, folder)
    )


class SiblingFinder(importlib.abc.MetaPathFinder):
    """Finds `import other` in a task file for a file of the same `dirs` folder.

    It gives the module of the file's full name, so that a file is never there twice. It comes last:
    installed modules and those of the project folder go first.
    """

    def __init__(self, folders: Sequence[Path], roots: Sequence[Path]) -> None:
        self._folders, self._roots = folders, roots

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,
        target: ModuleType | None = None,  # noqa: ARG002 (the import system's signature)
    ) -> importlib.machinery.ModuleSpec | None:
        """The spec of a top-level name that is a file or package in one of the folders."""
        if path is not None:
            return None
        for folder in self._folders:
            for file in (folder / f"{fullname}.py", folder / fullname / "__init__.py"):
                if file.is_file():
                    loader = _AliasLoader(module_name(file, self._roots))
                    return importlib.machinery.ModuleSpec(fullname, loader)
        return None


class _AliasLoader(importlib.abc.Loader):
    def __init__(self, name: str) -> None:
        self._name = name
        self._spec: importlib.machinery.ModuleSpec | None = None

    def create_module(
        self,
        spec: importlib.machinery.ModuleSpec,  # noqa: ARG002 (the import system's signature)
    ) -> ModuleType:
        module = importlib.import_module(self._name)
        self._spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        # The import system has put the alias's spec in its place.
        module.__spec__ = self._spec


def is_of_project(file: str | None, folder: Path) -> TypeGuard[str]:
    """Whether a file is the user's own: in the project, and not of an installed package."""
    if file is None:
        return False
    path = Path(file)
    return path.is_relative_to(folder) and _OUTSIDE_OF_THE_PROJECT.isdisjoint(
        path.relative_to(folder).parts
    )


def _plain_problem(path: Path, message: str) -> ImportProblem:
    return ImportProblem(file=path, line=1, message=message, traceback="")


def _place(error: BaseException, path: Path, folder: Path) -> tuple[Path, int]:
    if isinstance(error, SyntaxError) and is_of_project(error.filename, folder):
        return Path(error.filename), error.lineno or 1
    place = path, 1
    step: TracebackType | None = error.__traceback__
    while step is not None:
        file = step.tb_frame.f_code.co_filename
        if is_of_project(file, folder):
            place = Path(file), step.tb_lineno
        step = step.tb_next
    return place


def _traceback_text(error: BaseException, folder: Path) -> str:
    shown = traceback.TracebackException.from_exception(error)
    link: traceback.TracebackException | None = shown
    while link is not None:
        frames = [
            frame for frame in link.stack if not frame.filename.startswith("<frozen importlib")
        ]
        first = next((i for i, f in enumerate(frames) if is_of_project(f.filename, folder)), None)
        # What comes before is our own importing of the file.
        link.stack = traceback.StackSummary.from_list(frames[first:] if first is not None else [])
        link = link.__cause__ or link.__context__
    return "".join(shown.format())
