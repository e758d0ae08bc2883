"""The wire between supervisor, zygote and child: frames on a local socket.

A frame is a length, one letter that says what it is, and a body. Zygote and supervisor speak JSON
bodies, since they speak seldom; a run and its result travel as they are, without a second encoding.
"""

import json
import struct
from datetime import datetime
from typing import NamedTuple, cast

from pydantic import BaseModel, ConfigDict, Field

from runwell.core.errors import TaskRunError
from runwell.core.metadata import Operation, Target
from runwell.core.payloads import Json
from runwell.core.protocol import (
    DequeuedRun,
    EnvironmentContext,
    OrganizationContext,
    ProjectContext,
    WorkerMetadata,
)
from runwell.core.waits import Wait

_HEAD = struct.Struct(">I")
_RUN_HEAD = struct.Struct(">dB")
_FINISHED_HEAD = struct.Struct(">dB")

# Supervisor to child; a spawned child is told its surroundings first.
HELLO = b"H"
RUN = b"R"
STOP = b"S"
RESULT = b"A"
# Child to supervisor.
READY = b"r"
COMPLETE = b"c"
FAIL = b"f"
STOPPED = b"s"
WAIT = b"w"
METADATA = b"u"
REFUSE = b"x"
# Zygote to supervisor, once; then between them, in both directions.
MANIFEST = b"m"
CONTROL = b"z"

_NAMES = {
    READY: "ready",
    COMPLETE: "complete",
    FAIL: "fail",
    STOPPED: "stopped",
    WAIT: "wait",
    METADATA: "metadata",
}

#: No honest frame is longer: a payload or an output, and what is around it.
MAX_FRAME_BYTES = 64 * 1024 * 1024

#: What a STOP frame may give as its reason.
CANCELED = "canceled"
TIMED_OUT = "timed-out"


class Frame(NamedTuple):
    """One message."""

    kind: bytes
    body: bytes


class FrameReader:
    """Bytes in, whole frames out."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        """Take what arrived and return the frames that are complete; ValueError for garbage."""
        buffer = self._buffer
        buffer += data
        frames: list[Frame] = []
        start = 0
        while len(buffer) - start >= 5:
            (length,) = _HEAD.unpack_from(buffer, start)
            if not 1 <= length <= MAX_FRAME_BYTES:
                raise ValueError(f"a frame of {length} bytes")
            end = start + 4 + length
            if len(buffer) < end:
                break
            frames.append(
                Frame(bytes(buffer[start + 4 : start + 5]), bytes(buffer[start + 5 : end]))
            )
            start = end
        if start:
            del buffer[:start]
        return frames


def frame(kind: bytes, body: bytes = b"") -> bytes:
    """A frame as it goes onto the socket."""
    return _HEAD.pack(len(body) + 1) + kind + body


def name_of(message: bytes) -> str:
    """What a frame of a child is called where it has to be named."""
    return _NAMES.get(message[_HEAD.size : _HEAD.size + 1], "other")


def control_frame(message: dict[str, Json]) -> bytes:
    """A frame between supervisor and zygote."""
    return frame(CONTROL, json.dumps(message).encode())


def read_control(body: bytes) -> dict[str, Json]:
    """What `control_frame` wrote."""
    return cast("dict[str, Json]", json.loads(body))


def run_frame(started_at: float, run_json: bytes, *, keep: bool) -> bytes:
    """Hand a run (a DequeuedRun as JSON) to a child that stays for another one if `keep`."""
    return frame(RUN, _RUN_HEAD.pack(started_at, keep) + run_json)


class OrderedRun(DequeuedRun):
    """A run as its child gets it: with what differs from the environment of its warm parent."""

    variables: dict[str, str | None] = Field(default_factory=dict[str, str | None], repr=False)


def run_json(run: DequeuedRun, variables: dict[str, str | None]) -> bytes:
    """A run as JSON for `run_frame`."""
    if variables:
        run = OrderedRun.model_construct(**dict(run), variables=variables)
    return run.model_dump_json(by_alias=True).encode()


class RunOrder(NamedTuple):
    """What a RUN frame says."""

    started_at: float
    keep: bool
    run_json: bytes


def read_run(body: bytes) -> RunOrder:
    """What `run_frame` wrote."""
    started_at, keep = _RUN_HEAD.unpack_from(body)
    return RunOrder(started_at, bool(keep), body[_RUN_HEAD.size :])


def complete_frame(finished_at: float, output: str | None) -> bytes:
    """The task returned; its output as JSON text, or None."""
    has_output = output is not None
    body = output.encode() if output is not None else b""
    return frame(COMPLETE, _FINISHED_HEAD.pack(finished_at, has_output) + body)


class Completion(NamedTuple):
    """What a COMPLETE frame says."""

    finished_at: float
    output: str | None


def read_complete(body: bytes) -> Completion:
    """What `complete_frame` wrote."""
    finished_at, has_output = _FINISHED_HEAD.unpack_from(body)
    return Completion(finished_at, body[_FINISHED_HEAD.size :].decode() if has_output else None)


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True)


class Failure(_Message):
    """The body of a FAIL frame: the attempt ended with an error.

    `is_spent` says that the process must not be used again. `retry_at` is when another attempt is
    to follow, whatever the task's options say.
    """

    error: TaskRunError
    skip_retrying: bool = False
    is_spent: bool = False
    retry_at: datetime | None = None
    finished_at: float


class MetadataChange(_Message):
    """The body of a METADATA frame: a change, by its number in this attempt.

    Without an operation: what came until now is to be stored at once.
    """

    number: int
    target: Target = "run"
    operation: Operation | None = None


class WaitOrder(_Message):
    """The body of a WAIT frame: waits that the run begins, and waits that it gave up.

    With `is_blocked` it can do nothing until one of its waits is complete, as far as it knew when
    it had `seen` so many results: one that crosses this on the way takes it back.
    """

    waits: list[Wait] = Field(default_factory=list[Wait])
    forgotten: list[str] = Field(default_factory=list[str])
    is_blocked: bool = False
    seen: int = 0


class Problem(_Message):
    """A task file that could not be imported."""

    file: str
    line: int | None = None
    message: str
    traceback: str = ""


class Manifest(_Message):
    """What a zygote found in a project folder, its first word.

    `folder` is the folder of the config file. `threads` names Python threads that run after the
    import: a process with threads is not forked.
    """

    folder: str
    metadata: WorkerMetadata | None = None
    problems: list[Problem] = []
    threads: list[str] = []
    mode: str = "fork"


class Surroundings(_Message):
    """Where runs run: what is the same for every run of a worker."""

    organization: OrganizationContext
    project: ProjectContext
    environment: EnvironmentContext
