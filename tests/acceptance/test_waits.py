"""Runs that wait, on a real platform."""

import asyncio
import urllib.request
from collections.abc import Generator
from pathlib import Path

import pytest

from runwell.client.transport import Call, json_body
from runwell.core.token_schemas import EventAnswer
from runwell.core.trace_schemas import TraceAnswer
from tests.support.platform import Platform, open_session, temporary_platform
from tests.support.waiting import wait_until


@pytest.fixture(scope="module")
def platform() -> Generator[Platform]:
    with temporary_platform() as made:
        yield made


async def _run(platform: Platform, task_id: str, payload: object = None) -> object:
    async with open_session(platform) as session:
        run = await session.tasks.trigger_and_poll(task_id, payload, poll_interval=0.05, timeout=60)
        assert run.status == "COMPLETED", run.error
        return run.output


@pytest.mark.parametrize("task_id", ["wait-a-moment", "block-a-moment"])
async def test_a_run_waits_for_a_length_of_time(platform: Platform, task_id: str) -> None:
    seconds = await _run(platform, task_id, 0.3)
    assert isinstance(seconds, float)
    assert 0.25 <= seconds < 30


async def test_an_instant_that_has_passed_is_not_waited_for(platform: Platform) -> None:
    assert "is in the past" in str(await _run(platform, "wait-until-past"))


async def test_children_one_after_the_other(platform: Platform) -> None:
    assert await _run(platform, "sum-of-squares", [1, 2, 3]) == 14


async def test_a_plain_task_waits_for_a_child(platform: Platform) -> None:
    assert await _run(platform, "blocking-square", 7) == 49


async def test_children_and_a_date_at_once(platform: Platform) -> None:
    assert await _run(platform, "squares-at-once", [3, 1, 2]) == [9, 1, 4]


async def test_a_batch_is_waited_for_as_one(platform: Platform) -> None:
    assert await _run(platform, "squares-as-a-batch", [4, 2, 3]) == [16, 4, 9]
    assert await _run(platform, "blocking-batch", 3) == [9, "no"]


@pytest.mark.parametrize(
    ("task_id", "payload", "children"),
    [("sum-of-squares", [1, 2], 2), ("blocking-square", 7, 1), ("squares-as-a-batch", [4, 2], 2)],
)
async def test_what_a_run_triggers_are_its_children(
    platform: Platform, task_id: str, payload: object, children: int
) -> None:
    async with open_session(platform) as session:
        handle = await session.tasks.trigger(task_id, payload)
        await session.runs.poll(handle, poll_interval=0.05, timeout=60)
        related = (await session.runs.retrieve(handle)).related_runs
        assert related.parent is None
        assert [child.task_identifier for child in related.children] == ["square"] * children
        child = await session.runs.retrieve(related.children[0].id)
        assert child.depth == 1
        assert child.related_runs.parent is not None
        assert child.related_runs.root is not None
        assert child.related_runs.parent.id == child.related_runs.root.id == handle.id


async def test_waits_triggers_and_child_runs_are_in_the_trace(platform: Platform) -> None:
    async with open_session(platform) as session:
        handle = await session.tasks.trigger("traced", 3)
        assert (await session.runs.poll(handle, poll_interval=0.05, timeout=60)).output == 9
        call = Call(method="GET", path=f"/api/v1/runs/{handle.id}/trace")
        found = await session.client.run(session.client.ask(call, TraceAnswer))
        (attempt,) = found.trace.root_span.children
        (work,) = attempt.children
        assert work.data.message == "work"
        line, date, trigger, child = work.children
        assert (line.data.message, line.data.level) == ("at work", "INFO")
        assert date.data.message.startswith("wait until")
        assert trigger.data.message == "square.trigger()"
        assert [one.data.task_slug for one in trigger.children] == ["square"]
        assert child.data.message == f"wait for {trigger.children[0].run_id}"
        below = Call(method="GET", path=f"/api/v1/runs/{trigger.children[0].run_id}/trace")
        of_child = await session.client.run(session.client.ask(below, TraceAnswer))
        assert of_child.trace.trace_id == found.trace.trace_id
        assert of_child.trace.root_span.parent_id == trigger.id


async def test_the_first_of_two_waits_is_enough(platform: Platform) -> None:
    assert await _run(platform, "first-of-two") == "0.2"


async def test_what_else_a_run_does_goes_on_beside_a_wait(platform: Platform) -> None:
    events = await _run(platform, "work-beside-a-wait")
    assert events == ["worked 0", "worked 1", "worked 2", "rested"]


async def test_a_childs_failure_is_a_value_or_is_raised(platform: Platform) -> None:
    assert await _run(platform, "see-a-failure", "too late") == {
        "ok": False,
        "status": "FAILED",
        "name": "ValueError",
        "message": "too late",
        "unwrapped": "refuse",
    }


async def test_a_recursion_deeper_than_its_queue_is_refused(platform: Platform) -> None:
    assert await _run(platform, "recurse", 1) == "bottom"
    assert await _run(platform, "recurse", 2) == "refused"


async def test_a_wait_counts_no_duration(platform: Platform) -> None:
    assert await _run(platform, "wait-with-a-limit") == "waits don't count"


async def test_a_waiting_run_is_frozen_and_can_be_canceled(platform: Platform) -> None:
    async with open_session(platform) as session:
        run_id = await session.trigger("wait-for-ever")

        async def is_frozen() -> bool:
            return (await session.runs.retrieve(run_id)).status == "FROZEN"

        await wait_until(is_frozen, "the run is frozen")
        await session.runs.cancel(run_id)
        run = await session.runs.poll(run_id)
        assert run.status == "CANCELED"


async def _read_when_there(path: Path) -> str:
    return await wait_until(
        lambda: path.read_text(encoding="utf-8") if path.exists() else "", f"{path} is written"
    )


def _post(url: str, body: bytes) -> int:
    request = urllib.request.Request(url, data=body, method="POST")
    with urllib.request.urlopen(request, timeout=10) as answered:
        return int(answered.status)


@pytest.mark.parametrize(("body", "output"), [(b'{"ok": 1}', {"ok": 1}), (b"yes", "yes")])
async def test_a_plain_post_to_a_tokens_url_completes_it(
    platform: Platform, tmp_path: Path, body: bytes, output: object
) -> None:
    async with open_session(platform) as session:
        run_id = await session.trigger("wait-for-approval", str(tmp_path / "url"))
        _, url = (await _read_when_there(tmp_path / "url")).split()
        assert await asyncio.to_thread(_post, url, body) == 200
        # A second one changes nothing.
        assert await asyncio.to_thread(_post, url, b"no") == 200
        assert (await session.runs.poll(run_id, poll_interval=0.05)).output == output


async def test_a_token_that_nobody_completes_times_out(platform: Platform) -> None:
    said = await _run(platform, "time-out")
    assert str(said).startswith("False waitpoint_")


async def test_a_run_waits_for_a_request(platform: Platform, tmp_path: Path) -> None:
    async with open_session(platform) as session:
        run_id = await session.trigger("wait-for-request", str(tmp_path / "url"))
        url = await _read_when_there(tmp_path / "url")
        assert await asyncio.to_thread(_post, url, b"[1]") == 200
        assert (await session.runs.poll(run_id, poll_interval=0.05)).output == [1]


async def test_a_run_waits_for_the_event_that_its_filter_means(platform: Platform) -> None:
    async with open_session(platform) as session:
        run_id = await session.trigger("wait-for-payment", 7)
        await session.wait_for_status(run_id, "FROZEN")

        async def send(order: int) -> int:
            body: dict[str, object] = {"name": "order.paid", "payload": {"order": order}}
            call = Call(method="POST", path="/api/v1/events", body=json_body(body))
            return (await session.client.run(session.client.ask(call, EventAnswer))).completed

        assert await send(8) == 0
        assert await send(7) == 1
        assert await send(7) == 0
        assert (await session.runs.poll(run_id, poll_interval=0.05)).output == {"order": 7}
