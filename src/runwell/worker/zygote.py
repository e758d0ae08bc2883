"""The warm parent of one version: imports the task files once, then makes a process per run.

A program of its own (`python -m runwell.worker.zygote`), single-threaded, without an event loop or
an HTTP client, so that a fork copies little. It talks to the supervisor over one socket: `fork`
orders come in, children (with their descriptors) and their exits go out. In spawn mode it starts
fresh interpreters instead of forks, and all else is the same.
"""

import contextlib
import faulthandler
import gc
import os
import select
import signal
import socket
import sys
import threading
import traceback
import warnings
from pathlib import Path
from typing import NoReturn

from runwell.core import failpoints
from runwell.core.errors import ConfigurationError
from runwell.core.payloads import Json
from runwell.sdk.logger import LogThreshold
from runwell.sdk.project import ImportedTasks, Project, import_tasks, load_project
from runwell.worker.capture import Capture, install_streams
from runwell.worker.child import Child
from runwell.worker.limits import die_with_parent
from runwell.worker.messages import (
    HELLO,
    MANIFEST,
    FrameReader,
    Manifest,
    Problem,
    Surroundings,
    control_frame,
    frame,
    read_control,
)
from runwell.worker.positions import make_shared_memory
from runwell.worker.process import begin_child, spawn_child
from runwell.worker.rehearsal import rehearse
from runwell.worker.tracing import prepare

# Exit code of a child whose own machinery failed (EX_SOFTWARE).
_BROKEN = 70
# So many children are forked at once before the supervisor hears of them.
_LITTER = 4


class Zygote:
    """The loop of the warm parent."""

    def __init__(
        self,
        control: socket.socket,
        capture: Capture,
        project: Project,
        imported: ImportedTasks,
    ) -> None:
        self._pid = os.getpid()
        self._control = control
        self._capture = capture
        self._imported = imported
        self._folder = project.folder
        self._log_level: LogThreshold = project.config.log_level
        self._frames = FrameReader()
        self._children: set[int] = set()
        self._surroundings: Surroundings | None = None
        self._content_hash = imported.metadata().content_hash
        self._is_spawning = False
        # A child's end writes a byte here, which wakes the loop.
        self._wake_reader, self._wake_writer = os.pipe()
        os.set_blocking(self._wake_reader, False)
        os.set_blocking(self._wake_writer, False)

    def serve(self, mode: str) -> None:
        """Take orders until the supervisor is gone, then end all children."""
        self._is_spawning = mode == "spawn"
        signal.signal(signal.SIGCHLD, _note_signal)
        signal.set_wakeup_fd(self._wake_writer, warn_on_full_buffer=False)
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(self._wake_reader, select.POLLIN)
        try:
            while self._take_orders(poll):
                self._reap()
        finally:
            self._end_children()

    def _take_orders(self, poll: select.poll) -> bool:
        for fd, _ in poll.poll():
            if fd == self._wake_reader:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._wake_reader, 4096)
                continue
            try:
                data = self._control.recv(65536)
            except ConnectionError:
                return False
            if not data:
                return False
            for _, body in self._frames.feed(data):
                self._obey(read_control(body))
        return True

    def _obey(self, order: dict[str, Json]) -> None:
        match order:
            case {"type": "surroundings", "surroundings": given}:
                self._surroundings = Surroundings.model_validate(given)
            case {"type": "fork", "count": int(count)}:
                while count > 0:
                    self._make_children(min(count, _LITTER))
                    self._reap()
                    count -= _LITTER
            case _:
                raise ValueError(f"an order that no zygote knows: {order}")

    def _make_children(self, count: int) -> None:
        channels: list[_Channel] = []
        try:
            while len(channels) < count:
                channels.append(_Channel())
            # Each fork has the parent copy again what it writes to: so nothing else in between.
            for channel in channels:
                pid = self._spawn(channel) if self._is_spawning else os.fork()
                if pid == 0:
                    self._become_child(channel, channels)
                channel.pid = pid
        except OSError as error:
            for _ in range(count - sum(channel.pid > 0 for channel in channels)):
                self._tell({"type": "fork-failed", "message": f"{error.strerror or error}"})
        if failpoints.ARE_ON:
            failpoints.reach("forked", scope="parent")
        for channel in channels:
            if channel.pid:
                self._children.add(channel.pid)
                message = control_frame({"type": "child", "pid": channel.pid})
                socket.send_fds(self._control, [message], channel.ours)
            channel.close()

    def _spawn(self, channel: "_Channel") -> int:
        pid = spawn_child(self._folder, self._content_hash, channel.theirs)
        assert self._surroundings is not None
        channel.send(frame(HELLO, self._surroundings.model_dump_json(by_alias=True).encode()))
        return pid

    def _become_child(self, channel: "_Channel", channels: "list[_Channel]") -> NoReturn:
        code = _BROKEN
        try:
            begin_child(self._pid)
            for other in channels:
                other.close_ours() if other is channel else other.close()
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self._control.close()
            os.close(self._wake_reader)
            os.close(self._wake_writer)
            connection, *output = channel.theirs
            pipe = self._capture.open(*output)
            assert self._surroundings is not None
            child = Child(
                socket.socket(fileno=connection),
                self._capture,
                pipe,
                self._imported,
                self._surroundings,
                self._log_level,
            )
            code = child.serve()
        # Whatever it is, it must not return into the loop of the parent.
        except BaseException:  # noqa: BLE001
            traceback.print_exc()
        finally:
            self._capture.flush()
            os._exit(code)

    def _reap(self) -> None:
        while self._children:
            try:
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if ended is None:
                return
            pid = ended.si_pid
            is_ours = pid in self._children
            if is_ours:
                # While it is a zombie its pid, and so its group's number, can't be anyone else's.
                _kill_group(pid)
            _, status, usage = os.wait4(pid, 0)
            if is_ours:
                self._children.discard(pid)
                self._tell(
                    {
                        "type": "exit",
                        "pid": pid,
                        "status": status,
                        "cpu": usage.ru_utime + usage.ru_stime,
                        "peak": usage.ru_maxrss * _MAXRSS_UNIT,
                    }
                )

    def _tell(self, message: dict[str, Json]) -> None:
        # A supervisor that is gone is noticed by the next read.
        with contextlib.suppress(OSError):
            self._control.sendall(control_frame(message))

    def _end_children(self) -> None:
        for pid in self._children:
            _kill_group(pid)
        if os.getpgrp() == self._pid:
            # What the import has started and left running is in our own group, as we are.
            os.killpg(self._pid, signal.SIGKILL)


class _Channel:
    """What a child talks through, as plain descriptors: a socket, two output pipes, a memory."""

    def __init__(self) -> None:
        """Raises OSError, and leaves nothing open, when there are no descriptors left."""
        self.pid = 0
        made: list[int] = []
        try:
            made += (end.detach() for end in socket.socketpair())
            made += os.pipe()
            made += os.pipe()
            made.append(make_shared_memory())
        except OSError:
            for fd in made:
                os.close(fd)
            raise
        ours, theirs, out_reader, out_writer, err_reader, err_writer, shared = made
        #: The supervisor's ends.
        self.ours = [ours, out_reader, err_reader, shared]
        #: The child's ends.
        self.theirs = (theirs, out_writer, err_writer, shared)

    def send(self, data: bytes) -> None:
        """Write to the child's socket, for the supervisor."""
        os.write(self.ours[0], data)

    def close(self) -> None:
        """Close all descriptors."""
        for fd in self.ours:
            os.close(fd)
        for fd in self.theirs[:3]:
            os.close(fd)

    def close_ours(self) -> None:
        """In the child: close the supervisor's ends."""
        for fd in self.ours[:3]:
            os.close(fd)


_MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024


def main() -> None:
    """Import the project, say what was found, make children until the supervisor is gone."""
    control_fd, folder, mode = int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    control = socket.socket(fileno=control_fd)
    os.set_inheritable(control_fd, False)
    # An import that never ends does not read the socket: the kernel ends it with the supervisor.
    die_with_parent(signal.SIGKILL)
    capture = install_streams()
    faulthandler.enable(2)
    found = _import(folder)
    capture.flush()
    if isinstance(found, Manifest):
        control.sendall(frame(MANIFEST, found.model_dump_json(by_alias=True).encode()))
        return
    project, imported = found
    threads = [t.name for t in threading.enumerate() if t is not threading.main_thread()]
    mode = "spawn" if threads else mode
    manifest = Manifest(
        folder=str(project.folder),
        metadata=imported.metadata(),
        problems=[
            Problem(file=str(p.file), line=p.line, message=p.message, traceback=p.traceback)
            for p in imported.problems
        ],
        threads=threads,
        mode=mode,
    )
    control.sendall(frame(MANIFEST, manifest.model_dump_json(by_alias=True).encode()))
    zygote = Zygote(control, capture, project, imported)
    _get_ready(capture, imported)
    # From here on the children's own ends come first: they are killed with their groups.
    die_with_parent(0)
    zygote.serve(mode)


def _import(folder: Path) -> Manifest | tuple[Project, ImportedTasks]:
    try:
        project = load_project(folder)
    except ConfigurationError as error:
        return Manifest(folder=str(folder), problems=[Problem(file="", message=str(error))])
    os.chdir(project.folder)
    return project, import_tasks(project)


def _get_ready(capture: Capture, imported: ImportedTasks) -> None:
    """Do what every child would do, and take all that there is out of the GC."""
    capture.prepare()
    prepare(imported.config.telemetry)
    rehearse(capture, imported)
    # Python 3.12 warns of forks beside the threads of C libraries, which provide for them.
    warnings.filterwarnings("ignore", message=".*fork", category=DeprecationWarning)
    gc.collect()
    gc.freeze()


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _note_signal(number: int, frame: object) -> None:
    """Do nothing: the wakeup descriptor tells the loop."""


if __name__ == "__main__":
    main()
