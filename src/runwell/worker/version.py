"""One version of a project's tasks in this worker: its warm parent, kept alive, and its runs."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from runwell.core.protocol import RegisterAnswer, WorkerMetadata
from runwell.worker.child_handle import ChildHandle
from runwell.worker.events import ForkFailed, ImportOutput, VersionUnusable, WorkerEvent
from runwell.worker.messages import Manifest, Surroundings
from runwell.worker.process import task_environment
from runwell.worker.run_process import RunProcess
from runwell.worker.settings import WorkerSettings
from runwell.worker.variables import RunVariables
from runwell.worker.zygote_handle import Tenant, ZygoteHandle, ZygoteListener

# How long a version that loses its warm parent again and again waits before the next one.
_RESTART_SECONDS = (0.0, 0.5, 2.0, 5.0, 15.0)
_CALM_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True)
class IndexedProject:
    """A warm parent that has imported a project, and what it found."""

    zygote: ZygoteHandle
    manifest: Manifest
    metadata: WorkerMetadata
    #: The environment variables that the warm parent started with, besides the worker's own.
    variables: Mapping[str, str]
    seconds: float


class ProjectIndexer:
    """Starts warm parents."""

    def __init__(
        self,
        settings: WorkerSettings,
        variables: RunVariables,
        tell: Callable[[WorkerEvent], None],
    ) -> None:
        self._settings = settings
        self.variables = variables
        self._tell = tell

    async def index(
        self, folder: Path, mode: str, listener: ZygoteListener
    ) -> IndexedProject | Manifest:
        """A warm parent of the folder; only its manifest when nothing can be imported."""
        loop = asyncio.get_running_loop()
        began_at = loop.time()
        settings, variables = self._settings, self.variables.values
        zygote = await ZygoteHandle.start(
            folder,
            mode,
            task_environment(settings.url, settings.secret_key, variables),
            listener,
            min_spares=min(settings.min_spares, settings.capacity),
            max_spares=settings.capacity,
        )
        try:
            manifest = await zygote.manifest(settings.import_seconds)
        except BaseException:
            await zygote.close()
            raise
        metadata = manifest.metadata
        if metadata is None or (not metadata.tasks and manifest.problems):
            await zygote.close()
            return manifest
        return IndexedProject(
            zygote=zygote,
            manifest=manifest,
            metadata=metadata,
            variables=variables,
            seconds=loop.time() - began_at,
        )

    def listen(self, folder: Path, version: "Version | None" = None) -> ZygoteListener:
        """What is told of a warm parent, before and after it is that of a version."""
        return ZygoteListener(
            on_output=lambda text: self._tell(ImportOutput(folder=folder, text=text)),
            on_gone=version.on_zygote_gone if version else lambda: None,
            on_refused=version.on_refused if version else lambda _: None,
            on_fork_failed=lambda message: self._tell(ForkFailed(message=message)),
        )


class Version:
    """A registered version: its runs can run here as long as it is usable."""

    def __init__(
        self,
        registered: RegisterAnswer,
        project: IndexedProject,
        folder: Path,
        surroundings: Surroundings,
        indexer: ProjectIndexer,
        on_change: Callable[[], None],
        tell: Callable[[WorkerEvent], None],
    ) -> None:
        self.id = registered.id
        self.version = registered.version
        self.metadata = project.metadata
        self.folder = folder
        self.is_usable = True
        self.running = 0
        self.unused_since = 0.0
        self.mode = project.manifest.mode
        self._surroundings = surroundings
        self._indexer = indexer
        self._on_change = on_change
        self._tell = tell
        self._keepers = {task.id for task in project.metadata.tasks if task.keep_process}
        self._zygote = project.zygote
        self._variables = project.variables
        self._restarting: asyncio.Task[None] | None = None
        self._restarts = 0
        self._waiting: dict[Tenant, bool] = {}
        self._started_at = asyncio.get_running_loop().time()
        self._zygote.listen(indexer.listen(folder, self))
        self._zygote.open(surroundings, self.mode)

    @property
    def is_ready(self) -> bool:
        """Whether runs can start here right now."""
        return self.is_usable and self._restarting is None

    def keeps_process(self, task_id: str) -> bool:
        """Whether processes of this task take another run afterwards."""
        return task_id in self._keepers

    # What runs ask for.

    def house(self, run: RunProcess, *, keep: bool) -> None:
        """Give it a process as soon as there is one."""
        self.running += 1
        if self.is_ready:
            self._zygote.house(run, keep=keep)
        elif self.is_usable:
            self._waiting[run] = keep
        else:
            run.on_homeless()

    def changed_variables(self) -> dict[str, str | None]:
        """How the environment of a run that starts now differs from that of the warm parent."""
        return self._indexer.variables.changes_since(self._variables)

    def evict(self, run: RunProcess) -> None:
        """It does not need one any more."""
        self._waiting.pop(run, None)
        self._zygote.evict(run)

    def take_back(self, child: ChildHandle) -> None:
        """Its process may have another run."""
        self._zygote.take_back(child, asyncio.get_running_loop().time())

    def note_end(self) -> None:
        """One of its runs has ended."""
        self.running -= 1
        if not self.running:
            self.unused_since = asyncio.get_running_loop().time()

    def relax(self, now: float) -> None:
        """Called now and then."""
        self._zygote.relax(now)

    async def close(self) -> None:
        """End all of its processes."""
        self.is_usable = False
        if self._restarting is not None:
            self._restarting.cancel()
            await asyncio.wait((self._restarting,))
        await self._zygote.close()

    # What the warm parent tells.

    def on_zygote_gone(self) -> None:
        """It was killed or crashed; its children went with it. Start another one."""
        if self.is_usable and self._restarting is None:
            self._waiting |= self._zygote.take_waiting()
            self._restarting = asyncio.create_task(self._restart(), name="restart zygote")
            self._on_change()

    def on_refused(self, message: str) -> None:
        """In spawn mode: a new process found other files than those of this version."""
        self._give_up(message)

    async def _restart(self) -> None:
        loop = asyncio.get_running_loop()
        if loop.time() - self._started_at > _CALM_SECONDS:
            self._restarts = 0
        pause = _RESTART_SECONDS[min(self._restarts, len(_RESTART_SECONDS) - 1)]
        self._restarts += 1
        await self._zygote.close()
        await asyncio.sleep(pause)
        self._started_at = loop.time()
        listener = self._indexer.listen(self.folder, self)
        found = await self._indexer.index(self.folder, self.mode, listener)
        if isinstance(found, Manifest):
            self._give_up("; ".join(str(problem.message) for problem in found.problems))
        elif found.metadata.content_hash != self.metadata.content_hash:
            await found.zygote.close()
            self._give_up("the project's files have changed since it was registered")
        else:
            self._zygote = found.zygote
            self._variables = found.variables
            self._zygote.open(self._surroundings, self.mode)
            waiting, self._waiting = self._waiting, {}
            for run, keep in waiting.items():
                self._zygote.house(run, keep=keep)
        self._restarting = None
        self._on_change()

    def _give_up(self, why: str) -> None:
        if self.is_usable:
            self.is_usable = False
            self._tell(VersionUnusable(version=self.version, message=why))
            waiting, self._waiting = self._waiting | self._zygote.take_waiting(), {}
            for run in waiting:
                run.on_homeless()
            self._on_change()
