"""What a warm parent does before its first fork: whole runs of made-up tasks, which leave no trace.

What running code leaves behind in the interpreter (specialised bytecode, caches, pools of freed
objects) is then the parent's. Otherwise each child would make it for itself, and copy the pages
that it is on: that was a tenth of a short run's processor time.
"""

import asyncio
import contextlib
import os
import socket
from dataclasses import replace
from datetime import UTC, datetime

from runwell.core.protocol import (
    DequeuedRun,
    EnvironmentContext,
    OrganizationContext,
    ProjectContext,
    QueueContext,
)
from runwell.sdk.catalog import TaskFunction
from runwell.sdk.logger import logger
from runwell.sdk.project import ImportedTasks, TaskCatalog
from runwell.sdk.runtime import RunContext
from runwell.sdk.task import AnyTask, Task
from runwell.sdk.task_options import TaskOptions
from runwell.sdk.telemetry import Telemetry
from runwell.worker.capture import Capture, OutputPipe
from runwell.worker.child import Child
from runwell.worker.messages import Surroundings, run_frame
from runwell.worker.positions import make_shared_memory
from runwell.worker.records import STDOUT, now

# Python specialises code that has run eight times, and then what that calls.
_ROUNDS = 20
_SURROUNDINGS = Surroundings(
    organization=OrganizationContext(id="rehearsal", slug="rehearsal", name="rehearsal"),
    project=ProjectContext(id="rehearsal", ref="rehearsal", slug="rehearsal", name="rehearsal"),
    environment=EnvironmentContext(id="rehearsal", slug="rehearsal", type="PRODUCTION"),
)


def rehearse(capture: Capture, imported: ImportedTasks) -> None:
    """Do what children will do. None of the user's code runs, nothing is written anywhere."""
    tasks = {function.__name__: _make_task(function) for function in (_awaits, _returns, _raises)}
    made_up = ImportedTasks(
        catalog=TaskCatalog(tasks=tasks),
        manifests={id_: task.manifest("rehearsal.py", id_) for id_, task in tasks.items()},
        problems=[],
        content_hash="",
        config=replace(imported.config, hooks={}, telemetry=Telemetry()),
    )
    # It only saves time: where the user has changed something that it needs, runs do without it.
    with contextlib.suppress(Exception):
        for _ in range(_ROUNDS):
            for id_ in tasks:
                _run(id_, capture, made_up)


def _make_task(function: TaskFunction) -> AnyTask:
    options = TaskOptions(
        id=function.__name__,
        retry=None,
        queue=None,
        machine=None,
        max_duration=None,
        ttl=None,
        description=None,
        keep_process=False,
    )
    return Task(function, options)


def _run(task_id: str, capture: Capture, imported: ImportedTasks) -> None:
    ours, theirs = socket.socketpair()
    out_reader, out_writer = os.pipe()
    err_reader, err_writer = os.pipe()
    try:
        pipe = OutputPipe(out_writer, err_writer, make_shared_memory())
        capture.switch(pipe)
        child = Child(theirs, capture, pipe, imported, _SURROUNDINGS, "debug", is_rehearsal=True)
        order = _make_run(task_id).model_dump_json(by_alias=True).encode()
        ours.sendall(run_frame(now(), order, keep=False))
        child.take_run()
        pipe.write_stream(STDOUT, b"rehearsal\n")
    finally:
        capture.switch(None)
        ours.close()
        theirs.close()
        for fd in (out_reader, out_writer, err_reader, err_writer):
            os.close(fd)


def _make_run(task_id: str) -> DequeuedRun:
    return DequeuedRun(
        run_id="run_rehearsal",
        snapshot_id=1,
        task_id=task_id,
        background_worker_id="rehearsal",
        version="rehearsal",
        attempt_id="attempt_rehearsal",
        attempt_number=1,
        payload='{"rehearsal":true}',
        max_attempts=1,
        queue=QueueContext(id="rehearsal", name="rehearsal"),
        created_at=datetime.now(UTC),
    )


async def _awaits(payload: object, ctx: RunContext) -> object:
    await asyncio.sleep(0)
    logger.info("rehearsal", run=ctx.run.id)
    return payload


def _returns(payload: object) -> object:
    return payload


async def _raises() -> None:
    raise RuntimeError("rehearsal")
