"""Open pages stay as the database is: over server-sent events, and in a real browser."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from playwright.async_api import expect

from tests.dashboard.showing import Shown, browsing, needs_browser, showing
from tests.support.factories import make_task, read


async def events(shown: Shown, page: str) -> AsyncIterator[tuple[str, str]]:
    headers = {"accept": "text/event-stream"}
    async with shown.client.stream("GET", shown.path(page), headers=headers) as answer:
        assert answer.headers["content-type"] == "text/event-stream"
        name, data = "", list[str]()
        async for line in answer.aiter_lines():
            if line.startswith("event: "):
                name = line.removeprefix("event: ")
            elif line.startswith("data: "):
                data.append(line.removeprefix("data: "))
            elif not line:
                yield name, "\n".join(data)
                data = []


async def test_a_change_is_sent_to_whoever_looks(database_url: str) -> None:
    async with showing(database_url) as shown, asyncio.timeout(10):
        stream = events(shown, "runs")
        name, html = await anext(stream)
        assert name == "main"
        assert "No runs yet" in html
        triggered = await shown.scene.trigger("add")
        _, html = await anext(stream)
        assert triggered.run_id in html
        assert "<html" not in html


async def test_a_page_whose_run_is_gone_ends_quietly(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with showing(database_url) as shown, asyncio.timeout(10):
        run_id = (await shown.scene.trigger("add")).run_id
        stream = events(shown, f"runs/{run_id}")
        await anext(stream)
        await read(shown.scene.db, "DELETE FROM queued_runs RETURNING run_id")
        await read(shown.scene.db, "DELETE FROM runs RETURNING id")
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


async def test_a_stop_ends_the_streams(database_url: str) -> None:
    async with asyncio.timeout(10):
        async with showing(database_url) as shown:
            stream = events(shown, "runs")
            await anext(stream)


@needs_browser
async def test_a_list_changes_under_the_reader_and_leaves_what_is_open(database_url: str) -> None:
    async with showing(database_url) as shown, browsing(shown) as page:
        await shown.scene.register(make_task("add"))
        await page.goto(shown.path("runs"))
        await page.get_by_text("Status", exact=True).first.click()
        await page.get_by_placeholder("Find by tag").fill("half a t")
        triggered = await shown.scene.trigger("add", tags=["fresh"])
        await expect(page.locator(f"#{triggered.run_id}")).to_be_visible()
        await expect(page.get_by_placeholder("Find by tag")).to_have_value("half a t")
        await expect(page.get_by_placeholder("Find by tag")).to_be_focused()
        await shown.scene.cancel(triggered.run_id)
        await expect(page.locator(f"#{triggered.run_id} .status")).to_have_text("Canceled")
