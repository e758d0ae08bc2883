"""The outbox: what a supervisor leaves on disk, and what its successor makes of it."""

import json
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from runwell.core.protocol import CompleteReport, RunReport
from runwell.worker import outbox
from runwell.worker.outbox import Outbox

_NOW = datetime(2026, 3, 1, tzinfo=UTC)


def _report(number: int, output: str = "1") -> CompleteReport:
    return CompleteReport(
        run_id=f"run_{number}",
        snapshot_id=number,
        output=output,
        started_at=_NOW,
        finished_at=_NOW,
        duration_ms=5,
    )


def _open(tmp_path: Path, limit: int = 1_000_000) -> Outbox:
    return Outbox(tmp_path / "outbox", limit)


def _left(box: Outbox) -> list[tuple[int, str, RunReport]]:
    return [(left.number, left.worker_id, left.report) for left in box.leftovers]


def test_what_was_not_acknowledged_is_left_for_the_next_one_in_its_order(tmp_path: Path) -> None:
    box = _open(tmp_path)
    box.name_worker("worker_1")
    numbers = [box.append(_report(number))[0] for number in range(1, 5)]
    box.acknowledge(numbers[1])
    # Killed: nothing is closed.
    assert _left(_open(tmp_path)) == [
        (numbers[2], "worker_1", _report(3)),
        (numbers[3], "worker_1", _report(4)),
    ]


def test_results_belong_to_the_worker_that_had_the_runs(tmp_path: Path) -> None:
    box = _open(tmp_path)
    box.name_worker("worker_1")
    box.append(_report(1))
    box.name_worker("worker_2")
    box.append(_report(2))
    assert [leftover.worker_id for leftover in _open(tmp_path).leftovers] == [
        "worker_1",
        "worker_2",
    ]


def test_what_is_left_goes_with_what_follows_and_is_acknowledged_by_its_number(
    tmp_path: Path,
) -> None:
    first = _open(tmp_path)
    first.name_worker("worker_1")
    first.append(_report(1))
    second = _open(tmp_path)
    second.name_worker("worker_2")
    number, _ = second.append(_report(2))
    assert number > second.leftovers[0].number
    second.acknowledge(second.leftovers[0].number)
    assert _left(_open(tmp_path)) == [(number, "worker_2", _report(2))]


def test_an_outbox_whose_results_were_all_acknowledged_leaves_an_empty_file(
    tmp_path: Path,
) -> None:
    box = _open(tmp_path)
    box.name_worker("worker_1")
    number, _ = box.append(_report(1))
    box.acknowledge(number)
    box.close()
    assert (tmp_path / "outbox").read_bytes() == b""
    assert (tmp_path / "outbox").stat().st_mode & 0o777 == 0o600
    assert _left(_open(tmp_path)) == []


@pytest.mark.parametrize("cut", [1, 10, 60])
def test_a_line_that_was_torn_is_no_result_and_those_before_it_are(
    tmp_path: Path, cut: int
) -> None:
    box = _open(tmp_path)
    box.name_worker("worker_1")
    box.append(_report(1))
    box.append(_report(2))
    file = tmp_path / "outbox"
    os.truncate(file, file.stat().st_size - cut)
    found = _open(tmp_path)
    assert [leftover.report.run_id for leftover in found.leftovers] == ["run_1"]
    # What is written next isn't glued to the torn one.
    found.append(_report(3))
    assert [leftover.report.run_id for leftover in _open(tmp_path).leftovers] == ["run_1", "run_3"]


@pytest.mark.parametrize(
    "line",
    [
        b"nonsense",
        b"[]",
        b"\xff\xfe",
        b'{"number": "1", "report": {}}',
        b'{"number": 9, "report": {"type": "complete"}}',
        b'{"number": 9}',
    ],
)
def test_a_line_that_makes_no_sense_is_passed_over(tmp_path: Path, line: bytes) -> None:
    box = _open(tmp_path)
    box.name_worker("worker_1")
    box.append(_report(1))
    with (tmp_path / "outbox").open("ab") as file:
        file.write(line + b"\n")
        file.write(
            json.dumps({"number": 2, "report": _report(2).model_dump(by_alias=True, mode="json")})
            .encode() + b"\n"
        )  # fmt: skip
    assert [leftover.number for leftover in _open(tmp_path).leftovers] == [1, 2]


def test_it_is_full_from_its_limit_on_until_some_are_acknowledged(tmp_path: Path) -> None:
    box = _open(tmp_path, limit=1_000)
    numbers: list[int] = []
    while not box.is_full:
        numbers.append(box.append(_report(len(numbers), "x" * 100))[0])
    assert box.waiting_bytes >= 1_000
    box.acknowledge(numbers[0])
    assert not box.is_full
    box.acknowledge(numbers[-1])
    assert box.waiting_bytes == 0


def test_one_that_is_full_is_full_for_its_successor(tmp_path: Path) -> None:
    box = _open(tmp_path, limit=1_000)
    box.append(_report(1, "x" * 2_000))
    again = _open(tmp_path, limit=1_000)
    assert again.is_full
    again.acknowledge(again.leftovers[0].number)
    assert not again.is_full


def test_acknowledging_what_is_not_there_changes_nothing(tmp_path: Path) -> None:
    box = _open(tmp_path)
    number, _ = box.append(_report(1))
    size = (tmp_path / "outbox").stat().st_size
    box.acknowledge(number - 1)
    assert (tmp_path / "outbox").stat().st_size == size
    box.acknowledge(number)
    box.acknowledge(number)
    assert _left(_open(tmp_path)) == []


def test_a_file_of_acknowledged_results_is_written_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "_MAX_ACKNOWLEDGED_BYTES", 10_000)
    box = _open(tmp_path)
    box.name_worker("worker_1")
    for number in range(1, 101):
        last, _ = box.append(_report(number, "x" * 1_000))
        box.acknowledge(last - 2)
        assert (tmp_path / "outbox").stat().st_size < 20_000
    assert [leftover[:2] for leftover in _left(_open(tmp_path))] == [
        (99, "worker_1"),
        (100, "worker_1"),
    ]
    assert box.write_error is None
    assert [path.name for path in tmp_path.iterdir()] == ["outbox"]


def test_a_full_disk_ends_nothing_and_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = _open(tmp_path)
    box.name_worker("worker_1")
    box.append(_report(1))
    real_write = os.write
    room = [40]

    def write(file: int, data: bytes) -> int:
        if not room:
            raise OSError(28, "No space left on device")
        return real_write(file, data[: room.pop()])

    monkeypatch.setattr(os, "write", write)
    number, size = box.append(_report(2, "x" * 500))
    monkeypatch.setattr(os, "write", real_write)
    assert box.write_error is not None
    assert "No space left" in box.write_error
    assert (number, size > 500, box.waiting_bytes < 500) == (2, True, True)
    # There is room again: the torn line is written over, and nothing else is lost.
    box.append(_report(3))
    assert box.write_error is None
    assert [leftover.report.run_id for leftover in _open(tmp_path).leftovers] == ["run_1", "run_3"]
