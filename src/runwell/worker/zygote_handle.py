"""The supervisor's side of a warm parent: starts it, keeps children ready, hands them to runs."""

import asyncio
import contextlib
import os
import signal
import socket
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from runwell.core.payloads import Json
from runwell.worker.child_handle import ChildHandle
from runwell.worker.exits import Exit
from runwell.worker.messages import (
    MANIFEST,
    Frame,
    FrameReader,
    Manifest,
    Problem,
    Surroundings,
    control_frame,
    read_control,
)
from runwell.worker.positions import ReadPosition
from runwell.worker.process import start_zygote

_RECEIVE_BYTES = 65536
# Descriptors that one read may bring: four of each child that was made meanwhile.
_MAX_DESCRIPTORS = 240
# Forking costs what a starting run needs too, so while some are ready it waits a moment.
_TOP_UP_SECONDS = 0.01
_FORK_AGAIN_SECONDS = 1.0
# A kept process that has had nothing to do for this long is let go.
_KEPT_IDLE_SECONDS = 60.0
_CLOSE_SECONDS = 5.0


class Tenant(Protocol):
    """A run that waits for a process."""

    def move_in(self, child: ChildHandle) -> None:
        """Here is one."""
        ...

    def on_homeless(self) -> None:
        """There will be none: the warm parent is gone."""
        ...


@dataclass(frozen=True, kw_only=True)
class ZygoteListener:
    """Whom a zygote tells what."""

    on_output: Callable[[str], None]
    on_gone: Callable[[], None]
    """It ended by itself, and its children with it; runs that wait for a process still do."""
    on_refused: Callable[[str], None]
    on_fork_failed: Callable[[str], None]


class ZygoteHandle:
    """A warm parent and its children."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        control: socket.socket,
        output_fd: int,
        listener: ZygoteListener,
        *,
        min_spares: int,
        max_spares: int,
    ) -> None:
        """Use `start`."""
        self._loop = asyncio.get_running_loop()
        self._process = process
        self._control = control
        self._listener = listener
        self._frames = FrameReader()
        self._descriptors: deque[int] = deque()
        self._manifest: asyncio.Future[Manifest] = self._loop.create_future()
        self._children: dict[int, ChildHandle] = {}
        self._spares: list[ChildHandle] = []
        self._kept: list[ChildHandle] = []
        self._waiting: dict[Tenant, bool] = {}
        self._coming = 0
        self._is_closing = False
        self._min_spares, self._max_spares = min_spares, max_spares
        self._spares_wanted = min_spares
        self._is_spawning = False
        self._top_up_timer: asyncio.TimerHandle | None = None
        self._output_fd = output_fd
        self._output_rest = ""
        control.setblocking(False)
        os.set_blocking(output_fd, False)
        self._loop.add_reader(control.fileno(), self._on_readable)
        self._loop.add_reader(output_fd, self._on_output)

    @classmethod
    async def start(
        cls,
        folder: Path,
        mode: str,
        environment: dict[str, str],
        listener: ZygoteListener,
        *,
        min_spares: int,
        max_spares: int,
    ) -> "ZygoteHandle":
        """Start the process; `manifest` is its first answer."""
        ours, theirs = socket.socketpair()
        output_reader, output_writer = os.pipe()
        try:
            process = await start_zygote(folder, mode, environment, theirs, output_writer)
        except BaseException:
            ours.close()
            os.close(output_reader)
            raise
        finally:
            theirs.close()
            os.close(output_writer)
        return cls(
            process, ours, output_reader, listener, min_spares=min_spares, max_spares=max_spares
        )

    async def manifest(self, seconds: float) -> Manifest:
        """What it found; an import that crashes or does not end is a problem like others."""
        try:
            return await asyncio.wait_for(asyncio.shield(self._manifest), seconds)
        except TimeoutError:
            message = f"importing the project took more than {seconds:g} seconds"
        except ConnectionError:
            code = await self._process.wait()
            ending = f"exit code {code}" if code >= 0 else f"signal {-code}"
            message = f"importing the project ended the process ({ending})"
        return Manifest(folder="", problems=[Problem(file="", message=message)])

    def open(self, surroundings: Surroundings, mode: str) -> None:
        """Begin to have children ready."""
        self._is_spawning = mode == "spawn"
        given: Json = surroundings.model_dump(mode="json", by_alias=True)
        self._tell({"type": "surroundings", "surroundings": given})
        self._top_up()

    @property
    def running(self) -> int:
        """How many children work or wait for work."""
        return len(self._children)

    def house(self, tenant: Tenant, *, keep: bool) -> None:
        """Give a run a process, now or as soon as there is one."""
        if keep and self._kept:
            tenant.move_in(self._kept.pop())
        elif self._spares and not self._waiting:
            tenant.move_in(self._spares.pop(0))
            self._top_up_soon()
        else:
            # One more ahead next time, so that a burst of this size finds them ready.
            self._spares_wanted = min(self._max_spares, self._spares_wanted + 1)
            self._waiting[tenant] = keep
            self._top_up()

    def evict(self, tenant: Tenant) -> None:
        """A run that waited for a process does not need one any more."""
        self._waiting.pop(tenant, None)

    def take_back(self, child: ChildHandle, now: float) -> None:
        """A process whose run has ended and that may have another one."""
        tenant = next((tenant for tenant, keep in self._waiting.items() if keep), None)
        if self._is_closing:
            child.dismiss()
        elif tenant is not None:
            # Only one that would keep it, too: any other wants a process of its own.
            del self._waiting[tenant]
            tenant.move_in(child)
        else:
            child.idle_since = now
            self._kept.append(child)

    def relax(self, now: float) -> None:
        """Called now and then: let go what a burst has left behind."""
        self._spares_wanted = max(self._min_spares, self._spares_wanted - 1)
        while len(self._spares) > self._spares_wanted:
            self._spares.pop().dismiss()
        while self._kept and now - self._kept[0].idle_since > _KEPT_IDLE_SECONDS:
            self._kept.pop(0).dismiss()

    def listen(self, listener: ZygoteListener) -> None:
        """Tell somebody else from here on."""
        self._listener = listener

    def take_waiting(self) -> dict[Tenant, bool]:
        """Let go the runs that still wait for a process; says whether each would keep it."""
        waiting, self._waiting = self._waiting, {}
        return waiting

    async def close(self) -> None:
        """End it with all of its children."""
        self._is_closing = True
        self._close_control()
        # One that still imports does not read its socket.
        seconds = _CLOSE_SECONDS if self._manifest.done() else 0
        try:
            async with asyncio.timeout(seconds):
                await self._process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                # With what the import has started.
                os.killpg(self._process.pid, signal.SIGKILL)
            await self._process.wait()
        self._end_children()
        self._close_output()

    # What a child tells.

    def on_ready(self, child: ChildHandle) -> None:
        """A spawned child has imported the project."""
        self._coming -= 1
        self._welcome(child)

    def on_refused(self, child: ChildHandle, message: str) -> None:
        """A spawned child found other files than those of its version."""
        self._coming -= 1
        child.dismiss()
        self._listener.on_refused(message)

    def on_stray_output(self, data: bytes) -> None:
        """A child wrote something while it had no run (a spawned one, while it imported)."""
        for line in data.decode("utf-8", "replace").splitlines():
            self._listener.on_output(line)

    # What the zygote tells.

    def _on_readable(self) -> None:
        while True:
            try:
                data, descriptors, _, _ = socket.recv_fds(
                    self._control, _RECEIVE_BYTES, _MAX_DESCRIPTORS
                )
            except BlockingIOError:
                return
            except OSError:
                data, descriptors = b"", []
            self._descriptors += descriptors
            if not data:
                self._on_gone()
                return
            for found in self._frames.feed(data):
                self._take(found)

    def _take(self, found: Frame) -> None:
        if found.kind == MANIFEST:
            self._manifest.set_result(Manifest.model_validate_json(found.body))
            return
        match read_control(found.body):
            case {"type": "child", "pid": int(pid)}:
                self._adopt(pid)
            case {"type": "exit", "pid": int(pid), "status": int(status)} as message:
                child = self._children.pop(pid, None)
                if child is not None:
                    peak, cpu = message.get("peak"), message.get("cpu")
                    self._bury(
                        child,
                        Exit(
                            status=status,
                            peak_memory=peak if isinstance(peak, int) else 0,
                            cpu_seconds=cpu if isinstance(cpu, float) else 0,
                        ),
                    )
            case {"type": "fork-failed", "message": str(message)}:
                self._coming -= 1
                self._listener.on_fork_failed(message)
                self._loop.call_later(_FORK_AGAIN_SECONDS, self._top_up)
            case message:
                raise ValueError(f"a message that no zygote sends: {message}")

    def _adopt(self, pid: int) -> None:
        connection_fd, out_fd, err_fd, shared_fd = (self._descriptors.popleft() for _ in range(4))
        connection = socket.socket(fileno=connection_fd)
        output = (out_fd, err_fd, ReadPosition(shared_fd))
        child = ChildHandle(pid, connection, output, self, is_ready=not self._is_spawning)
        self._children[pid] = child
        if child.is_ready:
            self._coming -= 1
            self._welcome(child)

    def _welcome(self, child: ChildHandle) -> None:
        if self._is_closing:
            child.dismiss()
        elif self._waiting:
            tenant = next(iter(self._waiting))
            del self._waiting[tenant]
            tenant.move_in(child)
        else:
            self._spares.append(child)

    def _bury(self, child: ChildHandle, end: Exit | None) -> None:
        was_coming = not child.is_ready
        for idle in (self._spares, self._kept):
            with contextlib.suppress(ValueError):
                idle.remove(child)
        child.on_exit(end)
        if was_coming and not child.is_refused:
            # It did not get as far as being ready: ask for another one, not in a hot loop.
            self._coming -= 1
            self._loop.call_later(_FORK_AGAIN_SECONDS, self._top_up)

    def _on_gone(self) -> None:
        self._close_control()
        if not self._manifest.done():
            self._manifest.set_exception(ConnectionError("the zygote ended"))
            # Whoever asked for it hears of it; nobody asked when it was closed meanwhile.
            self._manifest.exception()
        if not self._is_closing:
            self._is_closing = True
            self._end_children()
            self._listener.on_gone()

    def _end_children(self) -> None:
        children = [*self._children.values()]
        self._children.clear()
        for child in children:
            child.kill()
            self._bury(child, None)

    # Keeping children ready.

    def _top_up_soon(self) -> None:
        if not self._spares:
            self._top_up()
        elif self._top_up_timer is None:
            self._top_up_timer = self._loop.call_later(_TOP_UP_SECONDS, self._top_up)

    def _top_up(self) -> None:
        if self._top_up_timer is not None:
            self._top_up_timer.cancel()
            self._top_up_timer = None
        wanted = len(self._waiting) + self._spares_wanted - len(self._spares) - self._coming
        if wanted > 0 and not self._is_closing:
            self._coming += wanted
            self._tell({"type": "fork", "count": wanted})

    def _tell(self, message: dict[str, Json]) -> None:
        # Orders are short and seldom: they fit into the socket's buffer, or the zygote is gone.
        with contextlib.suppress(OSError):
            self._control.send(control_frame(message))

    def _close_control(self) -> None:
        if self._control.fileno() >= 0:
            self._loop.remove_reader(self._control.fileno())
            self._control.close()

    def _on_output(self) -> None:
        try:
            data = os.read(self._output_fd, _RECEIVE_BYTES)
        except BlockingIOError:
            return
        if not data:
            self._close_output()
            return
        text = self._output_rest[-_RECEIVE_BYTES:] + data.decode("utf-8", "replace")
        *lines, self._output_rest = text.split("\n")
        for line in lines:
            self._listener.on_output(line)

    def _close_output(self) -> None:
        if self._output_fd < 0:
            return
        self._loop.remove_reader(self._output_fd)
        os.close(self._output_fd)
        self._output_fd = -1
        if self._output_rest:
            self._listener.on_output(self._output_rest)
