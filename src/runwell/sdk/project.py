"""A project on disk: its config file, its task files, and what importing them finds.

Importing runs the user's code: do it in a process that is there for this.
"""

import hashlib
import inspect
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import cast

from runwell._version import __version__
from runwell.core.errors import ConfigurationError
from runwell.core.protocol import QueueManifest, TaskManifest, WorkerMetadata
from runwell.sdk.catalog import catalog
from runwell.sdk.config import Config
from runwell.sdk.hooks import check_middleware
from runwell.sdk.importing import (
    ImportProblem,
    SiblingFinder,
    import_anew,
    import_file,
    import_roots,
    is_of_project,
    module_name,
    problem_of,
    put_on_path,
)
from runwell.sdk.task import AnyTask, Task

CONFIG_FILE = "trigger_config.py"


@dataclass(frozen=True, kw_only=True, slots=True)
class Project:
    """A project: its folder, its configuration and its task files."""

    folder: Path
    config: Config
    files: tuple[Path, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskCatalog:
    """The tasks and the shared queues of a project, by id and by name."""

    tasks: dict[str, AnyTask] = field(default_factory=dict[str, AnyTask])
    queues: dict[str, QueueManifest] = field(default_factory=dict[str, QueueManifest])


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportedTasks:
    """What importing found: tasks that can run, and problems of those that can't."""

    catalog: TaskCatalog
    manifests: dict[str, TaskManifest]
    problems: list[ImportProblem]
    content_hash: str
    config: Config

    def metadata(self) -> WorkerMetadata:
        """What the server is told about this version."""
        return WorkerMetadata(
            package_version=__version__,
            content_hash=self.content_hash,
            tasks=list(self.manifests.values()),
            queues=list(self.catalog.queues.values()),
            project_ref=self.config.project,
        )


def find_project_folder(folder: Path) -> Path:
    """The nearest folder from here upward with a config file; runs none of the user's code."""
    start = folder.resolve()
    for candidate in (start, *start.parents):
        if (candidate / CONFIG_FILE).is_file():
            return candidate
    raise ConfigurationError(
        f"there is no {CONFIG_FILE} in {start} or above it: run `runwell init` to start a project"
    )


def load_project(folder: Path) -> Project:
    """The project that `folder` is in; runs its config file.

    Raises ConfigurationError with file and line when the config file is missing or wrong.
    """
    root = find_project_folder(folder)
    put_on_path(import_roots(root))
    config = _load_config(root)
    return Project(folder=root, config=config, files=tuple(_task_files(root, config)))


def import_tasks(project: Project) -> ImportedTasks:
    """Import every task file of a project; what is broken becomes a problem, the rest is usable."""
    folder = project.folder
    roots = import_roots(folder)
    put_on_path(roots)
    sys.meta_path[:] = [
        *(finder for finder in sys.meta_path if not isinstance(finder, SiblingFinder)),
        SiblingFinder([folder / name for name in project.config.dirs], roots),
    ]
    problems = _missing_folders(project)
    with _no_bytecode():
        for file in project.files:
            problem = import_file(file, module_name(file, roots), folder)
            if problem is not None and problem not in problems:
                problems.append(problem)
    found = TaskCatalog()
    manifests: dict[str, TaskManifest] = {}
    for task in _defined_tasks():
        _add_task(task, project, found, manifests, problems)
    _add_queues(project, found, problems)
    for manifest in manifests.values():
        # A queue that the task only names has the limit that another place gives it.
        if manifest.queue is not None:
            manifest.queue = found.queues.get(manifest.queue.name, manifest.queue)
    return ImportedTasks(
        catalog=found,
        manifests=manifests,
        problems=problems,
        content_hash=_content_hash(project),
        config=project.config,
    )


def _load_config(folder: Path) -> Config:
    path = folder / CONFIG_FILE
    try:
        with _no_bytecode():
            module = import_anew(path, path.stem)
    # Whatever the user's file raises, the answer is where and why.
    except (Exception, SystemExit) as error:
        raise ConfigurationError(str(problem_of(error, path, folder))) from error
    config = getattr(module, "config", None)
    if not isinstance(config, Config):
        raise ConfigurationError(
            f"{path}:1: it must set `config = define_config(...)`, and has "
            f"{'no `config`' if config is None else f'config = {config!r}'}"
        )
    return config


@contextmanager
def _no_bytecode() -> Generator[None]:
    # Python takes a .pyc file as current when the source has the same second and size: two quick
    # saves of a file would run the first one's code.
    before = sys.dont_write_bytecode
    sys.dont_write_bytecode = True
    try:
        yield
    finally:
        sys.dont_write_bytecode = before


def _task_files(folder: Path, config: Config) -> Iterator[Path]:
    seen: set[Path] = set()
    for name in config.dirs:
        for path in sorted((folder / name).rglob("*.py")):
            relative = path.relative_to(folder)
            is_hidden = any(part.startswith((".", "__pycache__")) for part in relative.parts)
            is_ignored = any(_matches(relative, pattern) for pattern in config.ignore_patterns)
            if path.name.startswith("_") or is_hidden or is_ignored or path in seen:
                continue
            seen.add(path)
            if is_of_project(str(path), folder):
                yield path


def _matches(relative: Path, pattern: str) -> bool:
    # As in glob patterns, but for `*`, which matches across folders too.
    return fnmatchcase(relative.as_posix(), str(PurePosixPath(pattern)))


def _missing_folders(project: Project) -> list[ImportProblem]:
    return [
        ImportProblem(
            file=project.folder / CONFIG_FILE,
            line=1,
            message=f"the folder '{name}' of `dirs` does not exist: create it, or correct `dirs`",
            traceback="",
        )
        for name in project.config.dirs
        if not (project.folder / name).is_dir()
    ]


def _defined_tasks() -> Iterator[AnyTask]:
    for definition in catalog.tasks:
        if isinstance(definition, Task):
            task = cast("AnyTask", definition)
            module = sys.modules.get(task.function.__module__)
            names = getattr(inspect.unwrap(task.function), "__globals__", None)
            # A file that failed to import is no longer there, though its tasks were noted.
            if module is not None and (names is None or names is vars(module)):
                yield task


def _add_task(
    task: AnyTask,
    project: Project,
    found: TaskCatalog,
    manifests: dict[str, TaskManifest],
    problems: list[ImportProblem],
) -> None:
    file, line = _place_of(task)
    other = found.tasks.get(task.id)
    if other is not None:
        first_file, first_line = _place_of(other)
        message = (
            f"task id '{task.id}' is used twice: here and at {first_file}:{first_line}, which is "
            "the one that runs. Give each task an id of its own"
        )
        problems.append(ImportProblem(file=file, line=line, message=message, traceback=""))
        return
    shown = file.relative_to(project.folder) if file.is_relative_to(project.folder) else file
    try:
        manifest = task.manifest(shown.as_posix(), _export_name(task), project.config.task_defaults)
    except ConfigurationError as error:
        problems.append(ImportProblem(file=file, line=line, message=str(error), traceback=""))
        return
    try:
        check_middleware(task, project.config.hooks, is_async=task.is_async)
    except TypeError as error:
        problems.append(ImportProblem(file=file, line=line, message=str(error), traceback=""))
        return
    found.tasks[task.id] = task
    manifests[task.id] = manifest


def _place_of(task: AnyTask) -> tuple[Path, int]:
    code = inspect.unwrap(task.function).__code__
    return Path(code.co_filename), code.co_firstlineno


def _export_name(task: AnyTask) -> str:
    names = vars(sys.modules[task.function.__module__])
    return next((name for name, value in names.items() if value is task), task.__qualname__)


def _add_queues(project: Project, found: TaskCatalog, problems: list[ImportProblem]) -> None:
    used = [task.options.queue for task in found.tasks.values()]
    for queue in (*catalog.queues, *used):
        if queue is None or queue.name is None:
            continue
        manifest = queue.to_manifest(queue.name)
        other = found.queues.setdefault(queue.name, manifest)
        limits = (other.concurrency_limit, manifest.concurrency_limit)
        rates = (other.rate_limits, manifest.rate_limits)
        if None not in limits and limits[0] != limits[1]:
            what = f"two limits, {limits[0]} and {limits[1]}"
            problems.append(_two_definitions(project, queue.name, what))
        elif all(rates) and rates[0] != rates[1]:
            problems.append(_two_definitions(project, queue.name, "two different rate limits"))
        else:
            found.queues[queue.name] = QueueManifest(
                name=queue.name,
                concurrency_limit=limits[1] if limits[0] is None else limits[0],
                rate_limits=rates[0] or rates[1],
            )


def _two_definitions(project: Project, name: str, what: str) -> ImportProblem:
    return ImportProblem(
        file=project.folder / CONFIG_FILE,
        line=1,
        message=f"queue '{name}' has {what}: define it once with queue(...) and share that",
        traceback="",
    )


def _content_hash(project: Project) -> str:
    imported = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
    files = {Path(file) for file in imported if is_of_project(file, project.folder)}
    for name in project.config.dirs:
        files.update((project.folder / name).rglob("*.py"))
    digest = hashlib.sha256()
    for file in sorted(files):
        if file.suffix == ".py" and file.is_file():
            content = file.read_bytes()
            digest.update(
                f"{file.relative_to(project.folder).as_posix()}\0{len(content)}\0".encode()
            )
            digest.update(content)
    return digest.hexdigest()
