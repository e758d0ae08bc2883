"""`queues` of the client against a real server."""

import asyncio
from typing import cast

import pytest

from runwell.client.api import ApiClient
from runwell.client.options import Queue
from runwell.client.queues import BlockingQueues, QueueKind, Queues
from runwell.client.transport import ClientSettings, NotFoundError, UnprocessableEntityError
from tests.server.serving import Served, serving


def client_of(served: Served) -> ApiClient:
    settings = ClientSettings(base_url=served.url, secret_key=served.keys["dev"])
    return ApiClient(lambda: settings)


async def test_queues_are_listed_page_by_page_and_to_the_end(database_url: str) -> None:
    async with serving(database_url) as served:
        names = [f"queue-{number}" for number in range(5)]
        for name in names:
            await served.trigger(options={"queue": {"name": name}})
        queues = Queues(client_of(served))
        assert [queue.name async for queue in queues.list(per_page=2)] == names
        page = await queues.list(page=3, per_page=2)
        assert [queue.name for queue in page.data] == names[4:]
        assert (page.pagination.count, page.has_next_page()) == (5, False)
        before = await page.get_previous_page()
        assert [queue.name for queue in before.data] == names[2:4]
        with pytest.raises(LookupError):
            await page.get_next_page()
        blocking = BlockingQueues(client_of(served))
        assert (
            await asyncio.to_thread(lambda: [queue.name for queue in blocking.list(per_page=2)])
            == names
        )


async def test_a_queue_is_named_by_its_id_its_name_an_object_or_its_task(
    database_url: str,
) -> None:
    async with serving(database_url) as served:
        await served.trigger("a task", options={"queue": {"name": "a/b"}})
        await served.register("send mail")
        queues = Queues(client_of(served))
        found = await queues.retrieve("a/b")
        assert (found.name, found.type, found.queued) == ("a/b", "custom", 0)
        for same in (found.id, found, Queue(name="a/b")):
            assert await queues.retrieve(same) == found
        own = await queues.retrieve("send mail", type="task")
        assert (own.name, own.type) == ("sendmail", "task")
        assert await queues.retrieve("task/sendmail") == own


async def test_queues_are_paused_and_limited(database_url: str) -> None:
    async with serving(database_url) as served:
        await served.register("hello")
        queues, blocking = Queues(client_of(served)), BlockingQueues(client_of(served))
        assert (await queues.pause("hello", type="task")).paused
        assert not (await queues.resume("task/hello")).paused
        limited = await queues.override_concurrency_limit("task/hello", 3)
        assert limited.concurrency is not None
        assert (limited.concurrency_limit, limited.concurrency.override) == (3, 3)
        reset = await queues.reset_concurrency_limit("task/hello")
        assert reset.concurrency_limit is None

        def block() -> None:
            assert blocking.pause("task/hello").paused
            assert not blocking.resume("task/hello").paused
            assert blocking.override_concurrency_limit("task/hello", 0).concurrency_limit == 0
            assert blocking.reset_concurrency_limit("task/hello") == blocking.retrieve("task/hello")

        await asyncio.to_thread(block)
        with pytest.raises(UnprocessableEntityError, match="raise that one first"):
            await queues.override_concurrency_limit("task/hello", 5_000)
        with pytest.raises(NotFoundError, match="there is no queue"):
            await queues.pause("nobody")


async def test_what_names_no_queue_is_refused_before_it_is_sent() -> None:
    queues = Queues(
        ApiClient(lambda: ClientSettings(base_url="http://127.0.0.1:9", secret_key="x"))
    )
    for bad in ("", "..", Queue(), cast("str", 5)):
        with pytest.raises(ValueError, match="names no queue"):
            await queues.retrieve(bad)
    with pytest.raises(ValueError, match="type='name': it takes"):
        await queues.retrieve("q", type=cast("QueueKind", "name"))
    for limit in (-1, 100_001, True, cast("int", "5")):
        with pytest.raises(ValueError, match="limit="):
            await queues.override_concurrency_limit("q", limit)
    with pytest.raises(ValueError, match="per_page=101"):
        await queues.list(per_page=101)
