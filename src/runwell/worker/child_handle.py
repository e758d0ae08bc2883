"""The supervisor's side of one child: its socket, its output, its end."""

import asyncio
import contextlib
import os
import signal
import socket
from typing import Protocol

from runwell.worker.exits import Exit
from runwell.worker.lines import LineCollector
from runwell.worker.messages import READY, REFUSE, STOP, Frame, FrameReader, frame
from runwell.worker.output_reader import OutputReader
from runwell.worker.positions import ReadPosition

_RECEIVE_BYTES = 262_144
# A child that has no run and no socket any more gets this long for its `atexit` functions.
_EXIT_SECONDS = 5.0


class Occupant(Protocol):
    """The run that a child works on."""

    def on_frame(self, found: Frame) -> None:
        """The child says something about it."""
        ...

    def on_exit(self, end: Exit | None) -> None:
        """The process has ended before the run; None: it went down with its warm parent."""
        ...


class Home(Protocol):
    """Where a child comes from and goes back to."""

    def on_ready(self, child: "ChildHandle") -> None:
        """A spawned child has imported the project."""
        ...

    def on_refused(self, child: "ChildHandle", message: str) -> None:
        """A spawned child found other files than those of its version."""
        ...

    def on_stray_output(self, data: bytes) -> None:
        """A child wrote something while it had no run."""
        ...


class ChildHandle:
    """One process that can run tasks."""

    def __init__(
        self,
        pid: int,
        connection: socket.socket,
        output: tuple[int, int, ReadPosition],
        home: Home,
        *,
        is_ready: bool,
    ) -> None:
        self.pid = pid
        self.is_ready = is_ready
        self.is_refused = False
        self.has_ended = False
        self.runs = 0
        self.idle_since = 0.0
        self._loop = asyncio.get_running_loop()
        self._connection = connection
        self._home = home
        self._frames = FrameReader()
        self._unsent = b""
        self._end_timer: asyncio.TimerHandle | None = None
        self._occupant: Occupant | None = None
        self._output = OutputReader(*output, home.on_stray_output)
        connection.setblocking(False)
        self._loop.add_reader(connection.fileno(), self._on_readable)

    def begin(self, occupant: Occupant, collector: LineCollector, order: bytes) -> None:
        """Give it a run."""
        self._occupant = occupant
        self.runs += 1
        self._output.begin(collector)
        self._send(order)

    def finish(self) -> None:
        """Its run has ended; all that the process wrote until now is in the collector."""
        self._output.finish()
        self._occupant = None

    def resume_output(self) -> None:
        """The server has taken lines: read on."""
        self._output.resume()

    def ask_to_stop(self, reason: str) -> None:
        """Have an exception raised in the task."""
        if not self.has_ended:
            self._send(frame(STOP, reason.encode()))
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(self.pid, signal.SIGTERM)

    def tell(self, message: bytes) -> None:
        """Send a frame about its run."""
        if not self.has_ended:
            self._send(message)

    def kill(self) -> None:
        """End the process and all of its group."""
        if self.has_ended:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        # It may not have got as far as having a group of its own.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(self.pid, signal.SIGKILL)

    def dismiss(self) -> None:
        """There is no further run for it: it ends by itself when its socket closes."""
        self._close_connection()
        self.expect_end()

    def expect_end(self) -> None:
        """It is about to end by itself; make it, if that takes too long."""
        if self._end_timer is None and not self.has_ended:
            self._end_timer = self._loop.call_later(_EXIT_SECONDS, self.kill)

    def on_exit(self, end: Exit | None) -> None:
        """The process is gone: take what it said and wrote last, then tell its run."""
        if self.has_ended:
            return
        self._on_readable()
        self.has_ended = True
        if self._end_timer is not None:
            self._end_timer.cancel()
        occupant = self._occupant
        if occupant is not None:
            occupant.on_exit(end)
        self._close_connection()
        self._output.close()

    def _send(self, data: bytes) -> None:
        if self._unsent:
            self._unsent += data
            return
        try:
            sent = self._connection.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            # It has ended or closed its socket; its exit comes by way of the warm parent.
            return
        if sent < len(data):
            self._unsent = data[sent:]
            self._loop.add_writer(self._connection.fileno(), self._on_writable)

    def _on_writable(self) -> None:
        data, self._unsent = self._unsent, b""
        self._loop.remove_writer(self._connection.fileno())
        self._send(data)

    def _on_readable(self) -> None:
        if self._connection.fileno() < 0:
            return
        while True:
            try:
                data = self._connection.recv(_RECEIVE_BYTES)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self.dismiss()
                return
            try:
                frames = self._frames.feed(data)
            except ValueError:
                # Somebody else wrote to the socket; what it says can't be trusted any more.
                self.kill()
                return
            for found in frames:
                self._take(found)
            if len(data) < _RECEIVE_BYTES:
                return

    def _take(self, found: Frame) -> None:
        if found.kind == READY:
            self.is_ready = True
            self._home.on_ready(self)
        elif found.kind == REFUSE:
            self.is_refused = True
            self._home.on_refused(self, found.body.decode("utf-8", "replace"))
        elif self._occupant is not None:
            self._occupant.on_frame(found)

    def _close_connection(self) -> None:
        if self._connection.fileno() >= 0:
            self._loop.remove_reader(self._connection.fileno())
            if self._unsent:
                self._loop.remove_writer(self._connection.fileno())
            self._connection.close()
