"""Agents: the providers' own clients against a model of the test, its tool calls as child runs."""

import pytest

from tests.support.models import fake_model
from tests.support.platform import Platform, open_session

CALLS: list[tuple[str, str, dict[str, object]]] = [
    ("call_1", "get-weather", {"city": "Oslo"}),
    ("call_2", "add-numbers", {"numbers": [1, 2]}),
    ("call_3", "add-numbers", {"numbers": []}),
    ("call_4", "fly", {}),
]


@pytest.mark.parametrize(
    ("task_id", "mark"), [("ask-openai", '{"error": "'), ("ask-anthropic", "!")]
)
async def test_an_agent_has_its_tools_run_at_once_and_hears_of_failures(
    platform: Platform, task_id: str, mark: str
) -> None:
    with fake_model(CALLS) as model:
        async with open_session(platform) as session:
            run_id = await session.trigger(
                task_id, {"url": model.url, "question": "How is it in Oslo?"}
            )
            run = await session.runs.poll(run_id)
            assert run.error is None
            answer = str(run.output)
            weather, total, failed, unknown = answer.split(" and ")
            assert (weather, total) == ("sunny in Oslo", "3")
            assert failed.startswith(mark)
            assert "ValueError: nothing to add" in failed
            assert unknown.startswith(mark)
            assert "no tool 'fly'" in unknown
            told = model.requests[0]["tools"]
            assert len(told) == 2
            rows = await session.fetch(
                "SELECT task_id, batch_id FROM runs WHERE parent_run_id = $1 ORDER BY id", run_id
            )
            assert [row["task_id"] for row in rows] == ["get-weather", *2 * ["add-numbers"]]
            # All in one step.
            assert len({row["batch_id"] for row in rows}) == 1
