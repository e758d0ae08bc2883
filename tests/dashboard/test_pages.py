"""Pages over HTTP: what they show, what they refuse, what strangers may put into them."""

from datetime import timedelta
from typing import Any

import pytest

from runwell.engine import schedules
from runwell.engine.db import Transaction
from runwell.engine.schedules import ScheduleRule
from tests.dashboard.showing import Shown, showing
from tests.support.factories import complete, make_task, start, write_lines

HOSTILE = "<script>alert(1)</script>\"'&\u202e\x1b[31m"


async def run_of(shown: Shown, payload: str = '{"a": 1}', **options: Any) -> str:
    return (await shown.scene.trigger("add", payload, **options)).run_id


async def test_the_root_leads_to_the_runs_of_the_first_environment(database_url: str) -> None:
    async with showing(database_url) as shown:
        answer = await shown.client.get("/")
        assert answer.status_code == 303
        assert answer.headers["location"] == shown.path("runs")


async def test_every_page_says_what_to_do_while_there_is_nothing(database_url: str) -> None:
    async with showing(database_url) as shown:
        assert "runwell trigger" in await shown.page("runs")
        assert "runwell init" in await shown.page("tasks")
        assert "runwell dev" in await shown.page("queues")
        assert "runwell dev" in await shown.page("schedules")


async def test_a_run_is_listed_and_shown_with_all_it_has(database_url: str) -> None:
    async with showing(database_url) as shown:
        scene = shown.scene
        await scene.register(make_task("add"))
        run_id = await run_of(shown, tags=["user_1"], concurrencyKey="tenant-7")
        worker = await scene.connect()
        [taken] = await worker.dequeue()
        await worker.report(start(taken))
        await worker.report(write_lines(taken, "hello from the task"))
        await worker.report(complete(taken, output='{"sum": 3}'))
        listed = await shown.page("runs")
        assert run_id in listed
        assert "user_1" in listed
        shown_run = await shown.page(f"runs/{run_id}")
        for text in ("hello from the task", "tenant-7", "&#34;sum&#34;: 3", "Completed"):
            assert text in shown_run
        assert "Why it isn" not in shown_run


async def test_a_run_that_waits_says_why(database_url: str) -> None:
    async with showing(database_url) as shown:
        await shown.scene.register(make_task("add"))
        run_id = await run_of(shown)
        assert "no worker is connected" in await shown.page(f"runs/{run_id}")


async def test_what_strangers_write_is_text(database_url: str) -> None:
    async with showing(database_url) as shown:
        run_id = await run_of(shown, f'"{"<img src=x onerror=alert(1)>"}"', tags=[HOSTILE])
        for page in ("runs", f"runs/{run_id}", "tasks", "queues"):
            text = await shown.page(page)
            assert "<script>alert" not in text
            assert "<img" not in text
            assert "\u202e" not in text
            assert "\x1b" not in text


@pytest.mark.parametrize(
    ("query", "is_found"),
    [
        ("status=QUEUED", True),
        ("status=FAILED", False),
        ("status=FAILED&status=QUEUED", True),
        ("task=add", True),
        ("task=other", False),
        ("tag=t1", True),
        ("tag=t2", False),
        ("period=1h", True),
        ("status=&task=", True),
    ],
)
async def test_filters_are_in_the_url(database_url: str, query: str, is_found: bool) -> None:
    async with showing(database_url) as shown:
        await shown.scene.register(make_task("add"))
        run_id = await run_of(shown, tags=["t1"])
        assert (run_id in await shown.page(f"runs?{query}")) is is_found


async def test_a_filter_that_is_no_filter_is_refused_on_a_page(database_url: str) -> None:
    async with showing(database_url) as shown:
        assert "is no status" in await shown.page("runs?status=NONSENSE", status=400)
        assert "period" in await shown.page("runs?period=soon", status=400)
        assert "there is no run" in await shown.page("runs/run_unknown", status=404)
        answer = await shown.client.get("/projects/proj_unknown/dev/runs")
        assert answer.status_code == 404
        assert answer.headers["content-type"].startswith("text/html")


async def test_the_list_is_turned_by_cursors(database_url: str) -> None:
    async with showing(database_url) as shown:
        ids = await shown.scene.trigger_many(30)
        first = await shown.page("runs")
        assert ids[-1] in first
        assert ids[0] not in first
        older = first.split('rel="next"')[0].rpartition('href="')[2].partition('"')[0]
        answer = await shown.client.get(older.replace("&amp;", "&"))
        assert ids[0] in answer.text
        assert ids[-1] not in answer.text


async def test_a_run_is_canceled_and_replayed_with_another_payload(database_url: str) -> None:
    async with showing(database_url) as shown:
        run_id = await run_of(shown)
        answer = await shown.client.post(shown.path(f"runs/{run_id}/cancel"))
        assert answer.status_code == 303
        assert "Canceled" in (await shown.page(f"runs/{run_id}"))
        answer = await shown.client.post(
            shown.path(f"runs/{run_id}/replay"), data={"payload": '{"b": 2}'}
        )
        replayed = await shown.client.get(answer.headers["location"])
        assert "&#34;b&#34;: 2" in replayed.text
        assert f"Replayed {run_id}" in replayed.text
        # Said once.
        again = await shown.client.get(answer.headers["location"])
        assert f"Replayed {run_id}" not in again.text


async def test_a_payload_that_is_no_json_makes_no_run(database_url: str) -> None:
    async with showing(database_url) as shown:
        run_id = await run_of(shown)
        answer = await shown.client.post(
            shown.path(f"runs/{run_id}/replay"), data={"payload": '{"b": '}
        )
        assert answer.status_code == 400
        assert "line 1" in answer.text
        assert (await shown.page("runs")).count("row-link") == 1


async def test_a_queue_is_paused_limited_and_resumed(database_url: str) -> None:
    async with showing(database_url) as shown:
        await shown.scene.register(make_task("add", queue="mail", limit=3))
        text = await shown.page("queues")
        queue_id = text.partition('<tr id="')[2].partition('"')[0]
        await shown.client.post(shown.path(f"queues/{queue_id}/pause"))
        assert "Paused" in await shown.page("queues")
        await shown.client.post(shown.path(f"queues/{queue_id}/resume"))
        await shown.client.post(shown.path(f"queues/{queue_id}/limit"), data={"limit": "7"})
        text = await shown.page("queues")
        assert 'value="7"' in text
        assert "in code: 3" in text
        answer = await shown.client.post(
            shown.path(f"queues/{queue_id}/limit"), data={"limit": "many"}
        )
        assert answer.status_code == 400
        await shown.client.post(shown.path(f"queues/{queue_id}/limit"), data={"limit": ""})
        assert 'value="3"' in await shown.page("queues")
        await shown.client.post(shown.path("pause"))
        assert "no run starts" in await shown.page("queues")


async def test_tasks_show_their_last_day(database_url: str) -> None:
    async with showing(database_url) as shown:
        await shown.scene.register(make_task("add"), make_task("other"))
        await run_of(shown)
        shown.scene.now -= timedelta(days=3)
        await run_of(shown)
        text = await shown.page("tasks")
        row = text.partition('id="task-add"')[2].partition("</tr>")[0]
        assert "1 runs, 0 failed" in row
        assert '<td class="right">1</td>' in row


async def test_schedules_are_stopped_started_and_deleted(database_url: str) -> None:
    async with showing(database_url) as shown:
        scene = shown.scene
        await scene.register(make_task("add", trigger_source="schedule"))

        async def create(tx: Transaction) -> str:
            rule = ScheduleRule(task_id="add", cron="0 5 * * *", external_id=HOSTILE)
            made = await schedules.create_schedule(
                tx, scene.environment, rule, deduplication_key="a", now=scene.now
            )
            return made.public_id

        schedule_id = await scene.db.run(create)
        text = await shown.page("schedules")
        assert "0 5 * * *" in text
        assert "<script>alert" not in text
        await shown.client.post(shown.path(f"schedules/{schedule_id}/deactivate"))
        assert "Inactive" in await shown.page("schedules")
        await shown.client.post(shown.path(f"schedules/{schedule_id}/activate"))
        assert "Inactive" not in await shown.page("schedules")
        await shown.client.post(shown.path(f"schedules/{schedule_id}/delete"))
        assert "No schedules yet" in await shown.page("schedules")
        gone = await shown.client.post(shown.path(f"schedules/{schedule_id}/delete"))
        assert gone.status_code == 404
