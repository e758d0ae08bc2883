"""The child's end of the socket to its supervisor: who reads it, and what came.

Frames are wanted by several: the process between runs (RUN), the handler of SIGTERM (STOP) and
whoever waits (RESULT). One reads at a time, and puts what is for others aside for them. The handler
can't wait for its turn, since it may have interrupted the reader: its signal is then sent again.
"""

import os
import select
import signal
import socket
import threading
from collections import deque

from runwell.core import failpoints
from runwell.worker.messages import RESULT, RUN, STOP, Frame, FrameReader, name_of

_RECEIVE_BYTES = 262_144


class Inbox:
    """Frames from the supervisor, and the way back."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._frames = FrameReader()
        self._reading = threading.Lock()
        self._sending = threading.Lock()
        self._has_deferred = False
        self._is_main_sending = False
        self._orders: deque[Frame] = deque()
        self._stops: deque[Frame] = deque()
        self.results: deque[Frame] = deque()

    def fileno(self) -> int:
        """The socket's descriptor."""
        return self._connection.fileno()

    def send(self, message: bytes) -> None:
        """Send a frame, whole: a signal that would raise in the midst of it has to wait."""
        if failpoints.ARE_ON:
            failpoints.reach("send", scope=f"task-{name_of(message)}")
        self._send(message)
        if failpoints.ARE_ON:
            failpoints.reach("sent", scope=f"task-{name_of(message)}")

    def _send(self, message: bytes) -> None:
        if threading.current_thread() is not threading.main_thread():
            with self._sending:
                self._connection.sendall(message)
            return
        self._is_main_sending = True
        try:
            with self._sending:
                self._connection.sendall(message)
        finally:
            self._is_main_sending = False
            self._signal_again()

    def next_order(self) -> Frame | None:
        """The next RUN frame, or a STOP frame that nobody took; None without a supervisor."""
        while True:
            self.results.clear()
            for frames in (self._stops, self._orders):
                if frames:
                    return frames.popleft()
            if not self._read(None):
                return None

    def take_stop(self) -> Frame | None:
        """The STOP frame that has come, for a signal handler; None without one.

        When somebody is reading, or this thread sending, the signal is sent again as soon as that
        is over: see `is_deferred`.
        """
        if self._is_main_sending:
            self._has_deferred = True
            return None
        if not self._stops and self._reading.acquire(blocking=False):
            try:
                self._receive(socket.MSG_DONTWAIT)
            except OSError:
                pass
            finally:
                self._reading.release()
                # A second signal that interrupted this one is answered together with it.
                self._has_deferred = False
        elif not self._stops:
            self._has_deferred = True
        return self._stops.popleft() if self._stops else None

    @property
    def is_deferred(self) -> bool:
        """Whether a signal will be sent again."""
        return self._has_deferred

    def read_now(self) -> bool:
        """Take what has come, without waiting; False when the supervisor is gone."""
        return self._read(0)

    def read(self, seconds: float) -> bool:
        """Take what comes within `seconds`; False when the supervisor is gone."""
        return self._read(seconds)

    def _read(self, seconds: float | None) -> bool:
        if not self._reading.acquire(timeout=-1 if seconds is None else seconds):
            return True
        try:
            if seconds is not None and not select.select([self._connection], [], [], seconds)[0]:
                return True
            return self._receive(0)
        finally:
            self._reading.release()
            self._signal_again()

    def _signal_again(self) -> None:
        if self._has_deferred:
            self._has_deferred = False
            os.kill(os.getpid(), signal.SIGTERM)

    def _receive(self, flags: int) -> bool:
        data = self._connection.recv(_RECEIVE_BYTES, flags)
        for found in self._frames.feed(data):
            if found.kind == RUN:
                self._orders.append(found)
            elif found.kind == STOP:
                self._stops.append(found)
            elif found.kind == RESULT:
                self.results.append(found)
        return bool(data)
