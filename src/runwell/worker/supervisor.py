"""The worker's main program: takes runs up to its capacity, and is what their owner talks to.

    async with TaskGroup: intake, heartbeat, reports and housekeeping, each a loop of its own.

What a run does in its process comes back here only as its start and its end.
"""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

from runwell.client.workers import WorkerClient
from runwell.core.protocol import DequeuedRun, RegisterBody, StartReport
from runwell.worker.contention import Contention
from runwell.worker.controller import Ending, Wish
from runwell.worker.events import (
    ImportProblems,
    RunEnded,
    RunLogged,
    RunStarted,
    Stopping,
    VersionRegistered,
    VersionRetired,
    WorkerEvent,
)
from runwell.worker.heartbeat import Heartbeat
from runwell.worker.intake import Intake
from runwell.worker.link import ServerLink
from runwell.worker.messages import Manifest, WaitOrder
from runwell.worker.outbox import Outbox
from runwell.worker.reports import Reports
from runwell.worker.run_process import RunProcess, RunRules
from runwell.worker.session import Session, leave
from runwell.worker.settings import WorkerSettings
from runwell.worker.state_folder import StateFolder
from runwell.worker.variables import RunVariables
from runwell.worker.version import IndexedProject, ProjectIndexer, Version
from runwell.worker.waits import Waits

_HOUSEKEEPING_SECONDS = 10.0
# Old versions beyond this are let go as soon as they have no runs.
_MAX_OLD_VERSIONS = 3
# What waits for the server at the very end waits this long; results stay in the outbox.
_FAREWELL_SECONDS = 5.0


class Supervisor:
    """A worker: `start` it, give it versions, `stop` it. Events go to `on_event`, in order."""

    def __init__(
        self, settings: WorkerSettings, on_event: Callable[[WorkerEvent], None] = lambda _: None
    ) -> None:
        self.settings = settings
        self._tell = on_event
        self._client = WorkerClient(settings.url, settings.secret_key)
        self._link = ServerLink(on_event)
        self._variables = RunVariables(self._client, self._link)
        self._indexer = ProjectIndexer(settings, self._variables, on_event)
        self._rules = RunRules(
            grace_seconds=settings.cancel_grace_seconds,
            runs_per_process=settings.kept_process_runs,
            wants_lines=settings.wants_run_logs,
        )
        self._held: dict[str, RunProcess] = {}
        self._versions: dict[str, Version] = {}
        self._current: Version | None = None
        self._adding = asyncio.Lock()
        self._is_stopping = False
        self._hastened = asyncio.Event()
        self._all_ended = asyncio.Event()
        self._all_ended.set()
        self._loops: asyncio.Task[None] | None = None
        self._stopped = asyncio.Event()

    @property
    def current_version(self) -> str | None:
        """The version that new runs run on."""
        return self._current.version if self._current is not None else None

    @property
    def running(self) -> int:
        """How many runs it holds."""
        return len(self._held)

    @property
    def has_started(self) -> bool:
        """Whether it takes runs, or did until it was stopped."""
        return self._loops is not None

    async def start(self) -> None:
        """Connect to the server, waiting for it if it is away, and begin to take runs.

        Raises ConfigurationError for a wrong URL or key and for a state folder that can't be used.
        """
        settings = self.settings
        self._folder = StateFolder.open(settings.state_folder)
        self._outbox = Outbox(self._folder.path / "outbox", settings.outbox_bytes)
        self._session = Session(
            settings, self._client, self._link, self._folder, self._variables, self._tell
        )
        contention = self._contention = Contention()
        self._reports = Reports(
            self._client, self._link, self._outbox, self._session, self._tell, contention
        )
        parts = (self._client, self._link, self._session, self._outbox)
        self._heartbeat = Heartbeat(
            *parts, self._held, self._reports.unacknowledged, self.usable_versions
        )
        self._intake = Intake(*parts, self._variables, self, contention)
        self._waits = Waits(
            self._client, self._link, self._session, self._held, self._intake.note_room
        )
        try:
            await self._session.connect(self._outbox)
        except BaseException:
            self._outbox.close()
            self._folder.close()
            raise
        self._loops = asyncio.create_task(self._run_loops(), name="worker")

    async def add_version(self, folder: Path | None = None) -> bool:
        """Index a project folder and make it the version that new runs run on.

        False when it has problems and the version before stays, or nothing can be imported.
        """
        folder = folder or self.settings.project_folder
        async with self._adding:
            found = await self._indexer.index(
                folder, self.settings.mode, self._indexer.listen(folder)
            )
            problems = (found if isinstance(found, Manifest) else found.manifest).problems
            if problems:
                self._tell(
                    ImportProblems(
                        folder=folder, problems=problems, kept_version=self.current_version
                    )
                )
            if isinstance(found, Manifest):
                return False
            if problems and self._current is not None:
                await found.zygote.close()
                return False
            try:
                await self._register(found, folder)
            except BaseException:
                await found.zygote.close()
                raise
            return True

    async def stop(self, grace_seconds: float | None = None) -> None:
        """Take no more runs, let those that run finish for a while, hand back the rest, leave.

        Called again, it hastens: what runs is handed back at once. Raises what made one of its
        loops fail, if one did.
        """
        if self._is_stopping:
            self._hastened.set()
            await self._stopped.wait()
            return
        self._is_stopping = True
        grace = self.settings.grace_seconds if grace_seconds is None else grace_seconds
        self._tell(Stopping(running=len(self._held), grace_seconds=grace))
        await self._intake.end(_FAREWELL_SECONDS)
        await self._wait_for_runs(grace)
        for run in [*self._held.values()]:
            run.stop(Wish.HAND_BACK)
        # Killed processes end in a moment; the exits come by way of their warm parents.
        await self._wait_for_runs(_FAREWELL_SECONDS, is_hasty=True)
        await asyncio.gather(*(version.close() for version in self._versions.values()))
        await self._say_farewell()
        self._rules.memory.close()
        self._contention.close()
        self._outbox.close()
        self._folder.close()
        self._stopped.set()
        if self._loops is not None and not self._loops.cancelled():
            self._loops.result()

    async def wait(self) -> None:
        """Until it has stopped; raises what made one of its loops fail."""
        assert self._loops is not None
        stopped = asyncio.create_task(self._stopped.wait())
        try:
            await asyncio.wait((stopped, self._loops), return_when=asyncio.FIRST_COMPLETED)
            if self._loops.done() and not self._is_stopping:
                self._loops.result()
            await stopped
        finally:
            stopped.cancel()

    # What the intake asks.

    def free_places(self) -> int:
        """How many runs may be taken now."""
        if self._is_stopping or self._reports.is_full:
            return 0
        return max(0, self.settings.capacity - self._working)

    def is_half_empty(self) -> bool:
        """Whether so few are running that it is high time for more."""
        return self._working <= self.settings.capacity // 2

    def usable_versions(self) -> list[str]:
        """The versions whose runs can run here, the current one first."""
        return [version.id for version in reversed(self._versions.values()) if version.is_ready]

    def take_runs(self, runs: Sequence[DequeuedRun]) -> None:
        """These are ours now."""
        for run in runs:
            self._take_run(run)

    @property
    def _working(self) -> int:
        # A run that waits gives its place to another one.
        return len(self._held) - self._waits.blocked

    # What runs tell.

    def on_start(self, run: RunProcess, report: StartReport) -> None:
        """A run's code starts."""
        self._reports.add_start(run, report)
        details = run.run
        self._tell(
            RunStarted(
                run_id=details.run_id,
                task_id=details.task_id,
                attempt_number=details.attempt_number,
                version=details.version,
            )
        )

    def on_lines(self, run: RunProcess) -> None:
        """A run has lines to send."""
        self._reports.add_lines(run)

    def on_line(self, run: RunProcess, level: str, message: str) -> None:
        """A run wrote a line."""
        details = run.run
        self._tell(
            RunLogged(run_id=details.run_id, task_id=details.task_id, level=level, message=message)
        )

    def on_metadata(self, run: RunProcess, *, is_urgent: bool) -> None:
        """A run has changes of metadata to store."""
        self._reports.add_metadata(run, is_urgent=is_urgent)

    def on_wait(self, run: RunProcess, order: WaitOrder) -> None:
        """A run begins waits."""
        self._waits.begin(run, order)

    def on_end(self, run: RunProcess, ending: Ending) -> None:
        """A run is over here."""
        details = run.run
        if self._held.get(details.run_id) is run:
            del self._held[details.run_id]
        if not self._held:
            self._all_ended.set()
        self._waits.end(run)
        self._reports.add_end(run, ending.report)
        run.host.note_end()
        self._tell(
            RunEnded(
                run_id=details.run_id,
                task_id=details.task_id,
                attempt_number=details.attempt_number,
                version=details.version,
                result=ending.result,
                duration_seconds=ending.duration_seconds,
                error=ending.error,
            )
        )
        self._intake.note_room()

    # Its own parts.

    async def _run_loops(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._intake.take(), name="intake")
            group.create_task(self._heartbeat.beat(), name="heartbeat")
            group.create_task(self._reports.deliver(), name="reports")
            group.create_task(self._waits.tell(), name="waits")
            group.create_task(self._waits.listen(), name="results")
            group.create_task(self._keep_house(), name="housekeeping")

    async def _keep_house(self) -> None:
        while True:
            await asyncio.sleep(_HOUSEKEEPING_SECONDS)
            now = asyncio.get_running_loop().time()
            for version in [*self._versions.values()]:
                version.relax(now)
            await self._retire_versions(now)

    async def _retire_versions(self, now: float) -> None:
        old = [version for version in self._versions.values() if version is not self._current]
        for number, version in enumerate(reversed(old)):
            is_surplus = number >= _MAX_OLD_VERSIONS
            is_unused = now - version.unused_since > self.settings.retire_after_seconds
            if not version.running and (is_surplus or is_unused):
                del self._versions[version.id]
                self._intake.note_versions()
                await version.close()
                self._tell(VersionRetired(version=version.version))

    async def _register(self, found: IndexedProject, folder: Path) -> None:
        body = RegisterBody(local_only=self.settings.is_local, metadata=found.metadata)
        ref = found.metadata.project_ref or self.settings.project_ref
        registered = await self._link.call(lambda: self._client.register(ref, body))
        known = self._versions.pop(registered.id, None)
        if known is not None and known.is_ready:
            # Saved without a change, or changed back: the one that is warm already goes on.
            await found.zygote.close()
            version = known
        else:
            version = Version(
                registered,
                found,
                folder,
                self._session.surroundings,
                self._indexer,
                self._intake.note_versions,
                self._tell,
            )
            if known is not None:
                await known.close()
        self._versions[version.id] = self._current = version
        self._intake.note_versions()
        self._tell(
            VersionRegistered(
                version=version.version,
                background_worker_id=version.id,
                folder=folder,
                metadata=found.metadata,
                mode=version.mode,
                import_seconds=found.seconds,
            )
        )

    def _take_run(self, details: DequeuedRun) -> None:
        known = self._held.get(details.run_id)
        if known is not None:
            if known.run.snapshot_id == details.snapshot_id:
                return
            # We have not heard yet that the attempt which runs here is no longer ours.
            known.stop(Wish.LOSE)
        version = self._versions.get(details.background_worker_id)
        self._all_ended.clear()
        if version is None or self._is_stopping:
            # Its version was retired, or we began to stop, while the answer was on its way.
            self._reports.give_back(details, "the worker can't run it any more")
            return
        run = RunProcess(
            details, version, self, self._rules, keep=version.keeps_process(details.task_id)
        )
        self._held[details.run_id] = run
        run.begin()

    async def _wait_for_runs(self, seconds: float, *, is_hasty: bool = False) -> None:
        if not self._held:
            return
        waits = [asyncio.create_task(self._all_ended.wait())]
        if not is_hasty:
            waits.append(asyncio.create_task(self._hastened.wait()))
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()

    async def _say_farewell(self) -> None:
        try:
            async with asyncio.timeout(_FAREWELL_SECONDS):
                await self._reports.drain()
        except TimeoutError:
            # The results are in the outbox, for the next one who uses this state folder.
            is_delivered = False
        else:
            is_delivered = True
        if self._loops is not None:
            self._loops.cancel()
            await asyncio.wait((self._loops,))
        if is_delivered:
            await leave(self._session, _FAREWELL_SECONDS)
