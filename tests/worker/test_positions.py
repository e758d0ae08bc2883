"""How many bytes a pipe has got, as its writer knows it while another process reads it."""

import os
import time
from collections.abc import Generator
from contextlib import contextmanager

import pytest

from runwell.worker.positions import ReadPosition, WrittenPosition, make_shared_memory


@contextmanager
def both_ends() -> Generator[tuple[int, int, ReadPosition, WrittenPosition]]:
    """A pipe's ends and both sides of what is known about it."""
    reader, writer = os.pipe()
    shared = make_shared_memory()
    read = ReadPosition(os.dup(shared))
    try:
        yield reader, writer, read, WrittenPosition(shared, writer)
    finally:
        os.close(reader)
        os.close(writer)


def test_the_writer_counts_what_was_read_and_what_waits() -> None:
    with both_ends() as (reader, writer, read, written):
        assert written.get() == 0
        os.write(writer, b"12345")
        assert written.get() == 5
        read.begin_read()
        read.end_read(len(os.read(reader, 3)))
        assert written.get() == 5
        os.write(writer, b"678")
        assert written.get() == 8
        read.begin_read()
        read.end_read(len(os.read(reader, 100)))
        assert written.get() == read.value == 8


def test_a_reader_that_stopped_in_the_middle_of_a_read_is_waited_for_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with both_ends() as (reader, writer, read, written):
        os.write(writer, b"12345")
        read.begin_read()
        os.read(reader, 100)
        assert written.get() == 0
        pauses: list[float] = []
        monkeypatch.setattr(time, "sleep", pauses.append)
        assert written.get() == 0
        assert pauses == []
        read.end_read(5)
        assert written.get() == 5


def test_a_pipe_that_somebody_closed_counts_nothing() -> None:
    reader, writer = os.pipe()
    written = WrittenPosition(make_shared_memory(), writer)
    os.close(reader)
    os.close(writer)
    assert written.get() == 0
