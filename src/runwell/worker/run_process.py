"""One run that the worker holds, and the process that it runs in: timers, limits, stopping."""

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from runwell.core.protocol import DequeuedRun, StartReport
from runwell.core.waits import WaitOutcome
from runwell.worker.child_handle import ChildHandle
from runwell.worker.controller import Ending, RunController, Wish
from runwell.worker.exits import Circumstances, Exit
from runwell.worker.limits import KernelKills, MemoryWatch, memory_limit
from runwell.worker.lines import LineBudget, LineCollector
from runwell.worker.messages import (
    CANCELED,
    COMPLETE,
    FAIL,
    METADATA,
    RESULT,
    STOPPED,
    TIMED_OUT,
    WAIT,
    Failure,
    Frame,
    MetadataChange,
    WaitOrder,
    frame,
    read_complete,
    run_frame,
    run_json,
)
from runwell.worker.metadata_collector import MetadataCollector
from runwell.worker.records import now

# A run that was there each time when its warm parent died may be what kills it.
_MAX_HOST_LOSSES = 2
_MAX_HOST_LOSSES_NOTED = 10_000


class Host(Protocol):
    """Who gives runs their processes: a version's warm parent."""

    def house(self, run: "RunProcess", *, keep: bool) -> None:
        """Give it a process as soon as there is one."""
        ...

    def evict(self, run: "RunProcess") -> None:
        """It does not need one any more."""
        ...

    def take_back(self, child: ChildHandle) -> None:
        """Its process may have another run."""
        ...

    def changed_variables(self) -> dict[str, str | None]:
        """How its environment differs from that of the process; None is what isn't there now."""
        ...

    def note_end(self) -> None:
        """A run that it was asked to house is over."""
        ...


class RunListener(Protocol):
    """Whom a run tells what happens to it."""

    def on_start(self, run: "RunProcess", report: StartReport) -> None:
        """Its code starts."""
        ...

    def on_lines(self, run: "RunProcess") -> None:
        """It has lines to send."""
        ...

    def on_line(self, run: "RunProcess", level: str, message: str) -> None:
        """It wrote a line."""
        ...

    def on_metadata(self, run: "RunProcess", *, is_urgent: bool) -> None:
        """It has changes of metadata to store."""
        ...

    def on_wait(self, run: "RunProcess", order: WaitOrder) -> None:
        """It begins waits."""
        ...

    def on_end(self, run: "RunProcess", ending: Ending) -> None:
        """It is over."""
        ...


@dataclass(frozen=True, kw_only=True)
class RunRules:
    """What holds for all runs of a worker, and what they share."""

    grace_seconds: float
    runs_per_process: int
    wants_lines: bool
    memory: MemoryWatch = field(default_factory=MemoryWatch)
    budget: LineBudget = field(default_factory=LineBudget)
    kernel_kills: KernelKills = field(default_factory=KernelKills)
    host_losses: Counter[str] = field(default_factory=Counter[str])


class RunProcess:
    """A run from its dequeue to its end in this worker."""

    def __init__(
        self, run: DequeuedRun, host: Host, listener: RunListener, rules: RunRules, *, keep: bool
    ) -> None:
        self.run = run
        self.controller = RunController(run)
        self.host = host
        self._listener = listener
        self._rules = rules
        self._keep = keep
        self._loop = asyncio.get_running_loop()
        self._child: ChildHandle | None = None
        self._timers: list[asyncio.TimerHandle] = []
        self._time_limit: asyncio.TimerHandle | None = None
        self.has_ended = False
        self.metadata = MetadataCollector()
        self.lines = LineCollector(
            rules.budget,
            lambda: listener.on_lines(self),
            self._tell_line() if rules.wants_lines else None,
        )

    def begin(self) -> None:
        """Ask for a process."""
        self.host.house(self, keep=self._keep)

    def stop(self, wish: Wish) -> None:
        """It is to end early: asked first, killed after a grace period."""
        if self.has_ended or not self.controller.want(wish):
            return
        child = self._child
        if child is None:
            self.host.evict(self)
            self._end(self.controller.on_not_started("the worker shuts down", now()))
        elif wish in (Wish.CANCEL, Wish.TIME_OUT):
            child.ask_to_stop(CANCELED if wish is Wish.CANCEL else TIMED_OUT)
            self._after(self._rules.grace_seconds, self._kill_for_grace)
        else:
            child.kill()

    def block(self) -> None:
        """It waits and can do nothing else: its clock stands still."""
        self.controller.block(now())
        if self._time_limit is not None:
            self._time_limit.cancel()

    def unblock(self) -> None:
        """It goes on."""
        self.controller.unblock(now())
        self._set_time_limit()

    def give_result(self, outcome: WaitOutcome) -> None:
        """A wait of it is complete."""
        if self._child is not None:
            self._child.tell(frame(RESULT, outcome.model_dump_json().encode()))

    def resume_output(self) -> None:
        """The server has taken lines of it."""
        if self._child is not None:
            self._child.resume_output()

    # What the host tells.

    def move_in(self, child: ChildHandle) -> None:
        """Here is the process."""
        self._child = child
        run = self.run
        instant = now()
        keep = self._keep and child.runs + 1 < self._rules.runs_per_process
        self._keep = keep
        report = self.controller.start(instant)
        order = run_frame(instant, run_json(run, self.host.changed_variables()), keep=keep)
        child.begin(self, self.lines, order)
        self._rules.memory.watch(child.pid, memory_limit(run.machine), self._on_memory)
        self._set_time_limit()
        self._listener.on_start(self, report)

    def on_homeless(self) -> None:
        """There is none."""
        self._end(self.controller.on_not_started("its version can't run here now", now()))

    # What the process tells.

    def on_frame(self, found: Frame) -> None:
        """It says how the run ended."""
        if self.has_ended:
            return
        if found.kind == METADATA:
            change = MetadataChange.model_validate_json(found.body)
            self.metadata.add(change)
            self._listener.on_metadata(self, is_urgent=change.operation is None)
            return
        if found.kind == WAIT:
            self._listener.on_wait(self, WaitOrder.model_validate_json(found.body))
            return
        is_spent = not self._keep
        if found.kind == COMPLETE:
            ending = self.controller.on_complete(read_complete(found.body))
        elif found.kind == FAIL:
            failure = Failure.model_validate_json(found.body)
            is_spent = is_spent or failure.is_spent
            ending = self.controller.on_failure(failure)
        elif found.kind == STOPPED:
            is_spent = True
            ending = self.controller.on_stopped(now())
        else:
            return
        child = self._child
        self._end(ending)
        if child is None:
            return
        if is_spent or self.controller.wish is not None:
            # One that was asked to stop may still do so: it is not trusted with another run.
            child.dismiss() if self._keep else child.expect_end()
        else:
            self.host.take_back(child)

    def on_exit(self, end: Exit | None) -> None:
        """The process has ended before the run."""
        if self.has_ended:
            return
        if end is None:
            self._end(self.controller.on_host_lost(now(), is_suspect=self._count_host_loss()))
            return
        assert self._child is not None
        self._child.finish()
        seen = Circumstances(
            memory_limit=memory_limit(self.run.machine),
            peak_memory=self._rules.memory.forget(self._child.pid),
            over_limit=self.controller.wish is Wish.MEMORY,
            kernel_out_of_memory=self._rules.kernel_kills.has_grown(),
            last_words=self.lines.last_words,
        )
        self._end(self.controller.on_exit(end, seen, now()))

    def _end(self, ending: Ending) -> None:
        self.has_ended = True
        for timer in self._timers:
            timer.cancel()
        if self._time_limit is not None:
            self._time_limit.cancel()
        if self._child is not None:
            self._child.finish()
            self._rules.memory.forget(self._child.pid)
            self._child = None
        self._listener.on_end(self, ending)

    def _set_time_limit(self) -> None:
        if self.run.max_duration is None or self.has_ended:
            return
        if self._time_limit is not None:
            self._time_limit.cancel()
        left = self.run.max_duration - self.controller.active_seconds(now())
        self._time_limit = self._loop.call_later(max(left, 0), lambda: self.stop(Wish.TIME_OUT))

    def _count_host_loss(self) -> bool:
        losses = self._rules.host_losses
        if len(losses) > _MAX_HOST_LOSSES_NOTED:
            losses.clear()
        losses[self.run.run_id] += 1
        return losses[self.run.run_id] > _MAX_HOST_LOSSES

    def _on_memory(self) -> None:
        self.stop(Wish.MEMORY)

    def _kill_for_grace(self) -> None:
        if not self.has_ended and self._child is not None:
            self.controller.was_killed_for_grace = True
            self._child.kill()

    def _after(self, seconds: float, act: Callable[[], None]) -> None:
        self._timers.append(self._loop.call_later(seconds, act))

    def _tell_line(self) -> Callable[[str, str], None]:
        return lambda level, message: self._listener.on_line(self, level, message)
