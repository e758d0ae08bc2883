"""Messages between server and worker."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from runwell.core.machines import DEFAULT_MACHINE, MACHINES, MachineName
from runwell.core.protocol import (
    DequeueBody,
    QueueManifest,
    ReportBody,
    StartReport,
    TaskManifest,
    clean_queue_name,
    task_queue_name,
)


def test_every_machine_has_a_preset_and_they_grow() -> None:
    assert list(MACHINES) == list(MachineName)
    memory = [machine.memory for machine in MACHINES.values()]
    assert memory == sorted(memory)
    assert DEFAULT_MACHINE in MACHINES


def test_a_report_is_read_by_its_type() -> None:
    body = ReportBody.model_validate_json(
        """{"workerId": "worker_1", "reports": [{"type": "start", "runId": "run_1",
        "snapshotId": 7, "startedAt": "2025-03-13T12:00:00Z"}]}"""
    )
    (report,) = body.reports
    assert isinstance(report, StartReport)
    assert report.snapshot_id == 7


def test_a_report_of_no_known_type_is_refused() -> None:
    with pytest.raises(ValidationError):
        ReportBody.model_validate({"workerId": "w", "reports": [{"type": "vanish"}]})


def test_fields_of_a_newer_version_are_ignored() -> None:
    task = TaskManifest.model_validate(
        {"id": "hello", "filePath": "trigger/hello.py", "exportName": "hello", "color": "red"}
    )
    assert task.queue is None
    assert task.model_dump(by_alias=True)["filePath"] == "trigger/hello.py"


@pytest.mark.parametrize("task_id", ["", "a\nb", "x" * 257])
def test_a_task_id_that_could_not_be_shown_is_refused(task_id: str) -> None:
    with pytest.raises(ValidationError):
        TaskManifest(id=task_id, file_path="f", export_name="e")


def test_nobody_takes_more_runs_at_once_than_can_be_handed_over() -> None:
    with pytest.raises(ValidationError):
        DequeueBody(worker_id="w", request_id="r", background_worker_ids=[], max_runs=101)


@given(st.text(max_size=300))
def test_a_cleaned_queue_name_is_one_or_empty_and_stays_as_it_is(text: str) -> None:
    name = clean_queue_name(text)
    assert clean_queue_name(name) == name
    if name:
        assert QueueManifest(name=name).name == name


@pytest.mark.parametrize(
    ("task_id", "name"),
    [("hello", "task/hello"), ("say hello!", "task/sayhello"), ("x" * 200, "task/" + "x" * 123)],
)
def test_a_task_has_a_queue_of_its_own(task_id: str, name: str) -> None:
    assert task_queue_name(task_id) == name
