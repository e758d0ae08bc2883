"""`RunwellTest`: what a test does with its own Runwell, and what it asks of the runs there."""

import hashlib
import inspect
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Unpack, cast

from runwell._version import __version__
from runwell.client.api import ApiClient
from runwell.client.options import Retry
from runwell.client.run_handles import Run
from runwell.client.runs import BlockingRuns
from runwell.client.tokens import complete_flow
from runwell.client.transport import ClientSettings
from runwell.client.triggering import TriggerOptions
from runwell.core.errors import ConfigurationError, RunwellError
from runwell.core.payloads import Json
from runwell.core.protocol import DequeuedRun, WorkerMetadata
from runwell.core.schemas import LogLine
from runwell.core.timing import Duration, parse_duration
from runwell.sdk.catalog import TaskFunction, catalog
from runwell.sdk.config import Config, define_config
from runwell.sdk.project import import_tasks, load_project
from runwell.sdk.task import AnyTask, Task
from runwell.sdk.wait_dates import use_clock
from runwell.testing.attempts import Attempt
from runwell.testing.clock import SkippingClock
from runwell.testing.crashing import Crash, CrashPlan, CrashReport
from runwell.testing.host import Host
from runwell.testing.world import World, open_world
from runwell.worker.messages import Surroundings


@dataclass(frozen=True, kw_only=True)
class TestedRun:
    """A run as it was when it was asked for."""

    # Pytest takes classes of such a name for tests.
    __test__ = False

    id: str
    task_id: str
    status: str
    payload: object
    output: object
    error: object
    attempts: int
    tags: list[str]
    metadata: dict[str, Json]
    created_at: datetime
    finished_at: datetime | None
    logs: list[LogLine] = field(repr=False)
    children: list["TestedRun"] = field(repr=False)

    @property
    def messages(self) -> list[str]:
        """What it wrote with `logger`."""
        return [line.message for line in self.logs]

    @property
    def elapsed(self) -> timedelta:
        """How much of the test's time passed from its trigger to its end; zero without one."""
        return timedelta() if self.finished_at is None else self.finished_at - self.created_at

    def assert_completed(self) -> "TestedRun":
        """Fail the test unless it completed; returns the run itself."""
        assert self.status == "COMPLETED", f"{self._name} is {self.status}: {self.error}"
        return self

    def assert_failed(self, message: str = "") -> "TestedRun":
        """Fail the test unless it failed, with `message` in its error; returns the run itself."""
        assert self.status in ("FAILED", "CRASHED", "SYSTEM_FAILURE", "TIMED_OUT"), (
            f"{self._name} is {self.status}, with the output {self.output!r}"
        )
        assert message in str(self.error), f"{self._name} failed otherwise: {self.error}"
        return self

    @property
    def _name(self) -> str:
        return f"{self.id} of task '{self.task_id}'"


class RunwellTest:
    """An empty Runwell of one test; the fixture `runwell_test` opens it.

    Example:
        def test_it_reminds(runwell_test: RunwellTest) -> None:
            run = runwell_test.run(remind, {"user": "ada"})
            run.assert_completed()
            assert run.elapsed >= timedelta(days=3)
    """

    def __init__(self, host: Host, config: Config) -> None:
        self._host = host
        self._config = config
        self.clock = SkippingClock()
        self._replaced: dict[str, AnyTask] = {}
        self._given: dict[str, AnyTask] = {}
        self._registered = ""
        self._all: dict[str, AnyTask] = {}
        self.world: World
        self.secret_key: str
        self._runs: BlockingRuns
        self._client: ApiClient
        self.on_attempt: Callable[[Attempt], None] | None = None

    @classmethod
    @contextmanager
    def open(cls, host: Host, folder: Path) -> Generator["RunwellTest"]:
        """One for the length of a block; a project in `folder` gives its config and its tasks."""
        made = cls(host, _find_config(folder))
        opening = open_world(host, made._make_attempt, made.clock)
        made.world, made.secret_key = host.call(opening.__aenter__())
        try:
            settings = ClientSettings(
                base_url=host.url, secret_key=made.secret_key, retry=Retry(max_attempts=1)
            )
            made._client = ApiClient(lambda: settings)
            made._runs = BlockingRuns(made._client)
            with use_clock(made.clock):
                yield made
        finally:
            host.call(opening.__aexit__(None, None, None))

    @property
    def base_url(self) -> str:
        """Where the server of this test answers."""
        return self._host.url

    @property
    def now(self) -> datetime:
        """The test's time, aware, in UTC."""
        return self.clock.now()

    def replace(self, task: AnyTask, function: TaskFunction) -> None:
        """Let runs of a task call another function, in this test: `def` or `async def`.

        It gets what the task's own function would, by its own annotations.
        """
        options = task.options
        self._replaced[task.id] = cast("AnyTask", Task(function, options))

    def trigger(
        self, task: AnyTask, payload: object = None, **options: Unpack[TriggerOptions]
    ) -> str:
        """Trigger a run, which does not begin yet, and return its id."""
        self._register(task)
        flow = task.trigger_flow(payload, options)
        return self._client.run_blocking(flow).id

    def run(
        self, task: AnyTask, payload: object = None, **options: Unpack[TriggerOptions]
    ) -> TestedRun:
        """Trigger a run and let time pass until it has ended; returns it with all its children.

        Raises RunwellError when it can't end: it waits for a token, say, that nobody completes.
        """
        return self.finish(self.trigger(task, payload, **options))

    def start(
        self, task: AnyTask, payload: object = None, **options: Unpack[TriggerOptions]
    ) -> TestedRun:
        """Trigger a run, and let happen what happens without any time passing."""
        run_id = self.trigger(task, payload, **options)
        self.settle()
        return self.retrieve(run_id)

    def finish(self, run: str | TestedRun) -> TestedRun:
        """Let time pass until a run has ended."""
        run_id = run if isinstance(run, str) else run.id

        async def has_ended() -> bool:
            found = await self._client.run(self._runs.poll_flow(run_id, {"timeout": 0}))
            return found.is_completed

        async def is_over() -> bool:
            try:
                return await has_ended()
            except TimeoutError:
                return False

        self._register()
        if not self._host.call(self.world.drive(is_over)):
            found = self.retrieve(run_id)
            raise RunwellError(
                f"run {run_id} of task '{found.task_id}' is {found.status}, and nothing is left "
                "that could happen: complete the token that it waits for, or resume its queue"
            )
        return self.retrieve(run_id)

    def settle(self) -> None:
        """Let happen what happens without any time passing."""
        self._register()
        self._host.call(self.world.drive(_never, may_skip=False))

    def advance(self, length: Duration) -> None:
        """Let a length of time pass, and all that happens in it: schedules tick, too."""
        self._register()
        until = self.clock.now() + parse_duration(length)
        self._host.call(self.world.drive(_never, until=until))

    def complete_token(self, token_id: str, output: Json = None) -> None:
        """Complete a token; runs that wait for it go on when time passes next."""
        self._client.run_blocking(complete_flow(self._client, token_id, output, None))

    def retrieve(self, run: str | TestedRun) -> TestedRun:
        """A run as it is now."""
        run_id = run if isinstance(run, str) else run.id
        return self._load(cast("Run[object]", self._runs.retrieve(run_id)))

    def runs(self, task: AnyTask | None = None) -> list[TestedRun]:
        """The runs of a task, or all, in the order of their triggers."""
        listed = self._runs.list(limit=100)
        found = [item for item in listed if task is None or item.task_identifier == task.id]
        return [self.retrieve(item.id) for item in reversed(found)]

    def crash_points(self, task: AnyTask, payload: object = None) -> CrashReport:
        """Run a task, and again for each of its durable boundaries, at which the worker dies.

        The report, also printed, says which lines of the task's file ran again, and whether there
        were more child runs. What those lines do outside happens twice.
        """
        calm, children = self._crash(task, payload, None)
        crashes: list[Crash] = []
        for number, where in enumerate(calm.places):
            plan, run = self._crash(task, payload, number)
            crashes.append(
                Crash(
                    where=where,
                    status=run.status,
                    repeated=plan.list_repeated(),
                    additional_children=len(run.children) - len(children.children),
                )
            )
        report = CrashReport(task_id=task.id, crashes=crashes)
        sys.stdout.write(str(report))
        return report

    def _crash(
        self, task: AnyTask, payload: object, dies_at: int | None
    ) -> tuple[CrashPlan, TestedRun]:
        plan = CrashPlan(task, dies_at)
        plan.run_id = self.trigger(task, payload)
        self.on_attempt, self.world.at_boundary = plan.watch, plan.reach
        try:
            return plan, self.finish(plan.run_id)
        finally:
            self.on_attempt = self.world.at_boundary = None

    def _load(self, run: Run[object]) -> TestedRun:
        related = run.related_runs
        return TestedRun(
            id=run.id,
            task_id=run.task_identifier,
            status=run.status,
            payload=run.payload,
            output=run.output,
            error=run.error,
            attempts=len(run.attempts),
            tags=list(run.tags),
            metadata=dict(run.metadata or {}),
            created_at=run.created_at,
            finished_at=run.finished_at,
            logs=list(self._runs.logs(run.id).data),
            children=sorted(
                (self.retrieve(child.id) for child in related.children),
                key=lambda child: child.created_at,
            ),
        )

    def _make_attempt(
        self, run: DequeuedRun, surroundings: Surroundings, notify: Callable[[], None]
    ) -> Attempt:
        task = self._all[run.task_id]
        attempt = Attempt(
            run,
            self._replaced.get(run.task_id, task),
            task.manifest(_file_of(task), task.__qualname__, self._config.task_defaults),
            self._config,
            surroundings,
            self.clock,
            notify,
        )
        if self.on_attempt is not None:
            self.on_attempt(attempt)
        return attempt

    def _register(self, task: AnyTask | None = None) -> None:
        """Tell the server of the tasks that have been defined, if any are new."""
        if task is not None:
            self._given[task.id] = task
        defined = {one.id: cast("AnyTask", one) for one in catalog.tasks if isinstance(one, Task)}
        self._all = {**defined, **self._given}
        manifests = [
            one.manifest(_file_of(one), one.__qualname__, self._config.task_defaults)
            for one in self._all.values()
        ]
        queues = {
            queue.name: queue.to_manifest(queue.name) for queue in catalog.queues if queue.name
        }
        text = repr((manifests, queues))
        if text == self._registered:
            return
        self._registered = text
        metadata = WorkerMetadata(
            package_version=__version__,
            content_hash=hashlib.sha256(text.encode()).hexdigest(),
            tasks=manifests,
            queues=list(queues.values()),
        )
        self._host.call(self.world.register(metadata))


def _find_config(folder: Path) -> Config:
    try:
        project = load_project(folder)
    except ConfigurationError as error:
        if "there is no" in str(error):
            return define_config()
        raise
    import_tasks(project)
    return project.config


def _file_of(task: AnyTask) -> str:
    module = sys.modules.get(task.__module__)
    return getattr(module, "__file__", None) or inspect.unwrap(task.function).__code__.co_filename


async def _never() -> bool:
    return False
