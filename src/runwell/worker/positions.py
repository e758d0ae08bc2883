"""How far the supervisor has read a child's second pipe, in memory that it shares with the child.

Together with how much waits in the pipe, this tells the child how many bytes have ever been written
to it, by whomever. Each record on the first pipe carries that number, so the supervisor puts the
bytes where they belong, whenever it has read them.
"""

import fcntl
import mmap
import os
import struct
import sys
import tempfile
import termios
import time

_WORD_BYTES = 8
_read_int = struct.Struct("@i").unpack
# A supervisor that takes this long between two instructions has been stopped or killed there.
_MAX_PAUSES = 400
_PAUSE_SECONDS = 0.000_1


def make_shared_memory() -> int:
    """A descriptor of memory that can be handed to another process."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("runwell-output")
    else:
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    os.ftruncate(fd, _WORD_BYTES)
    return fd


class ReadPosition:
    """The supervisor's side: says how much it has read, and that it is about to read."""

    def __init__(self, fd: int) -> None:
        """Takes the descriptor and closes it."""
        self._word = _map_word(fd)
        self.value = 0

    def begin_read(self) -> None:
        """Call right before a read, and `end_read` right after it: no await in between."""
        self._word[0] = self.value << 1 | 1

    def end_read(self, count: int) -> None:
        """So many bytes were read."""
        self.value += count
        self._word[0] = self.value << 1


class WrittenPosition:
    """The child's side."""

    def __init__(self, fd: int, pipe_fd: int) -> None:
        """Takes the descriptor `fd` and closes it; `pipe_fd` is the writing end of the pipe."""
        self._word = _map_word(fd)
        self._pipe_fd = pipe_fd
        self._stuck = 0

    def get(self) -> int:
        """How many bytes were ever written to the pipe; 0 if that can't be known.

        Costs one call into the kernel.
        """
        word = self._word
        # Of its own, since threads and signal handlers may write at once; changed in place, since
        # that is the quicker form of the call.
        waiting = bytearray(4)
        for _ in range(_MAX_PAUSES):
            before = word[0]
            if not before & 1:
                try:
                    fcntl.ioctl(self._pipe_fd, termios.FIONREAD, waiting)
                except OSError:
                    # Not every system tells the writing end; order is by arrival there.
                    return 0
                if word[0] == before:
                    return (before >> 1) + _read_int(waiting)[0]
            elif before == self._stuck:
                return 0
            time.sleep(_PAUSE_SECONDS)
        self._stuck = word[0]
        return 0


def _map_word(fd: int) -> memoryview:
    # The mapping lives as long as the view of it. Items of native size and alignment are read and
    # written by one instruction.
    if sys.version_info >= (3, 13):
        mapped = mmap.mmap(fd, _WORD_BYTES, trackfd=False)
    else:
        mapped = mmap.mmap(fd, _WORD_BYTES)
    os.close(fd)
    return memoryview(mapped).cast("Q")
