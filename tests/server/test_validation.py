"""pydantic's findings as a sentence with the place in what was sent."""

import json
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from runwell.core.protocol import ReportBody
from runwell.core.schemas import TriggerBody
from runwell.server.validation import Problem, describe, details, find_problems


def _problems(model: type[BaseModel], value: dict[str, Any]) -> list[Problem]:
    body = json.dumps(value).encode()
    with pytest.raises(ValidationError) as raised:
        model.model_validate_json(body)
    return find_problems(raised.value, body)


def test_the_path_is_that_of_the_body_and_not_of_a_union() -> None:
    report = {"type": "logs", "runId": "run_1", "snapshotId": 1, "attemptNumber": 1}
    line = {"seq": -1, "time": "2026-01-01T00:00:00Z", "level": "INFO", "message": "x"}
    problems = _problems(ReportBody, {"workerId": "w", "reports": [report | {"lines": [line]}]})
    assert [problem.path for problem in problems] == ["reports[0].lines[0].seq"]
    problems = _problems(ReportBody, {"workerId": "w", "reports": [report]})
    assert problems == [Problem("reports[0].lines", "this field is required")]
    problems = _problems(ReportBody, {"workerId": "w", "reports": [report | {"type": "x"}]})
    assert [problem.path for problem in problems] == ["reports[0]"]


def test_both_types_that_a_field_may_have_are_named_together() -> None:
    values: list[Any] = [[], {}, True]
    for value in values:
        [problem] = _problems(TriggerBody, {"options": {"ttl": value}})
        assert problem.path == "options.ttl"
        assert "a valid string or " in problem.message


def test_a_long_name_is_cut_in_the_path() -> None:
    class Counts(BaseModel):
        of: dict[str, int]

    [problem] = _problems(Counts, {"of": {"x" * 500: "many"}})
    assert problem.path == "of." + "x" * 64


def test_many_problems_are_counted_and_listed_up_to_a_limit() -> None:
    problems = _problems(TriggerBody, {"options": {"tags": [1] * 30}})
    assert describe(problems).endswith("; and 27 more")
    assert len(details(problems)) == 20
    assert details(problems)[0] == {
        "path": "options.tags[0]",
        "message": "should be a valid string",
    }
