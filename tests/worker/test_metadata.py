"""What a process tells of changes of metadata, and what the worker makes of it."""

import socket
from collections.abc import Generator

import pytest

from runwell.core.errors import InvalidPayloadError
from runwell.core.metadata import (
    AppendOperation,
    IncrementOperation,
    SetOperation,
    UpdateOperation,
)
from runwell.core.protocol import DequeuedRun
from runwell.worker.child_metadata import ChildMetadata
from runwell.worker.inbox import Inbox
from runwell.worker.messages import FrameReader, MetadataChange
from runwell.worker.metadata_collector import MetadataCollector


class Told:
    """A process of a run, and what it tells."""

    def __init__(self, run: DequeuedRun) -> None:
        self._ours, theirs = socket.socketpair()
        self._theirs = theirs
        self.metadata = ChildMetadata(run, Inbox(theirs))

    def take(self) -> list[MetadataChange]:
        """The changes that it told of until now."""
        self._ours.setblocking(False)
        data = b""
        while True:
            try:
                data += self._ours.recv(1_000_000)
            except BlockingIOError:
                break
        return [
            MetadataChange.model_validate_json(found.body) for found in FrameReader().feed(data)
        ]

    def close(self) -> None:
        """End."""
        self._ours.close()
        self._theirs.close()


def _run(**fields: object) -> DequeuedRun:
    return DequeuedRun.model_construct(
        run_id="run_1", snapshot_id=7, metadata=None, parent_run_id=None, root_run_id=None
    ).model_copy(update=fields)


@pytest.fixture
def told() -> Generator[Told]:
    told = Told(_run(metadata={"n": 1}))
    yield told
    told.close()


def test_every_change_is_told_at_once_with_its_number(told: Told) -> None:
    told.metadata.change("run", IncrementOperation(key="n"))
    told.metadata.change("run", SetOperation(key="a", value=None))
    assert told.metadata.read() == {"n": 2, "a": None}
    assert told.metadata.flush() == (7, 2)
    changes = told.take()
    assert [change.number for change in changes] == [1, 2, 2]
    assert changes[-1].operation is None


def test_nothing_is_told_before_there_is_a_change(told: Told) -> None:
    assert told.metadata.flush() == (7, 0)
    assert told.take() == []


def test_without_relatives_the_run_sees_what_it_changes_of_them(told: Told) -> None:
    told.metadata.change("parent", IncrementOperation(key="n"))
    assert told.metadata.read() == {"n": 2}
    child = Told(_run(parent_run_id="run_0", root_run_id="run_0"))
    child.metadata.change("parent", IncrementOperation(key="n"))
    child.metadata.change("root", IncrementOperation(key="n"))
    assert child.metadata.read() == {}
    assert [change.target for change in child.take()] == ["parent", "root"]
    child.close()


def test_what_is_too_large_is_refused_and_told_to_nobody(told: Told) -> None:
    numbers: list[int] = []
    # The second and the third in place of the first.
    for key in ("a", "a", "a", "b"):
        told.metadata.change("run", SetOperation(key=key, value="x" * 100_000))
        numbers += [change.number for change in told.take()]
    with pytest.raises(InvalidPayloadError, match="would be 300,0"):
        told.metadata.change("run", SetOperation(key="c", value="x" * 100_000))
    assert (numbers, told.take()) == ([1, 2, 3, 4], [])
    assert set(told.metadata.read()) == {"n", "a", "b"}


def test_a_collector_merges_what_comes_until_it_is_taken() -> None:
    collector = MetadataCollector()
    assert collector.take() is None
    for number in range(1, 1_001):
        collector.add(MetadataChange(number=number, operation=IncrementOperation(key="n")))
    collector.add(
        MetadataChange(number=1_001, target="root", operation=AppendOperation(key="l", value=1))
    )
    collector.add(MetadataChange(number=1_001))
    update = collector.take()
    assert update is not None
    assert (update.seq, update.operations) == (1_001, [IncrementOperation(key="n", value=1_000)])
    assert update.root_operations == [AppendOperation(key="l", value=1)]
    assert collector.take() is None
    collector.add(MetadataChange(number=1_002, operation=SetOperation(key="a", value=1)))
    collector.add(MetadataChange(number=1_003, operation=UpdateOperation(value={"b": 1})))
    update = collector.take()
    assert update is not None
    assert (update.seq, update.operations) == (1_003, [UpdateOperation(value={"b": 1})])
