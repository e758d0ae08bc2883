"""Subscriptions over HTTP, as the shape protocol's clients make them (`protocol.md` 5)."""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from runwell.core.ids import make_request_key
from runwell.core.shapes import read_array
from runwell.server import following
from tests.server.serving import Served, error_of, serving
from tests.server.test_batches import BATCH, items_of
from tests.support.waiting import wait_until

RUNS = "/realtime/v1/runs"


@dataclass
class Client:
    """A client of the protocol: what it was told, and the rows that come of it."""

    http: httpx.AsyncClient
    path: str
    query: dict[str, str] = field(default_factory=dict[str, str])
    offset: str = "-1"
    handle: str = ""
    cursor: str = ""
    rows: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])

    async def ask(self, *, is_live: bool) -> list[dict[str, Any]]:
        """One request; returns the values of the rows it brought."""
        query = {**self.query, "offset": self.offset}
        if self.handle:
            query["handle"] = self.handle
        if is_live:
            query |= {"live": "true", "cursor": self.cursor}
        answer = await self.http.get(self.path, params=dict(sorted(query.items())))
        assert answer.status_code == 200, answer.text
        self.handle = answer.headers["electric-handle"]
        self.offset = answer.headers["electric-offset"]
        self.cursor = answer.headers["electric-cursor"]
        assert answer.headers["cache-control"] == "no-store"
        messages = answer.json()
        values: list[dict[str, Any]] = []
        for message in messages:
            if "control" in message["headers"]:
                assert message is messages[-1]
                assert "electric-up-to-date" in answer.headers
                continue
            value = message["value"]
            assert all(text is None or isinstance(text, str) for text in value.values())
            if message["headers"]["operation"] == "insert":
                self.rows[message["key"]] = {}
            self.rows[message["key"]].update(value)
            values.append(value)
        return values

    async def begin(self) -> list[dict[str, Any]]:
        """All that there is."""
        found: list[dict[str, Any]] = []
        while True:
            found += await self.ask(is_live=False)
            if "~" not in self.offset:
                return found

    async def next(self) -> list[dict[str, Any]]:
        """What happens next."""
        while not (values := await self.ask(is_live=True)):
            pass
        return values


@contextlib.asynccontextmanager
async def asking(client: Client, served: Served) -> AsyncGenerator["asyncio.Task[Any]"]:
    """A live request that waits at the server by now."""
    before = served.backend.polls.waiting
    task = asyncio.create_task(client.next())
    await wait_until(lambda: served.backend.polls.waiting > before or task.done(), "it waits")
    yield task


async def change(served: Served, run_id: str, **metadata: object) -> None:
    answer = await served.client.put(f"/api/v1/runs/{run_id}/metadata", json={"metadata": metadata})
    assert answer.status_code == 200, answer.text


async def test_a_run_is_followed_from_its_trigger_to_its_end(database_url: str) -> None:
    async with serving(database_url) as served:
        options = {"payloadType": "application/json", "tags": ["a"]}
        run_id = await served.trigger(payload='{"n":1}', options=options)
        client = Client(served.client, f"{RUNS}/{run_id}")
        (row,) = await client.begin()
        assert (row["friendlyId"], row["status"]) == (run_id, "WAITING_FOR_DEPLOY")
        assert (row["payload"], row["payloadType"]) == ('{"n":1}', "application/json")
        assert (row["isTest"], row["number"], row["completedAt"]) == ("false", "0", None)
        assert read_array(row["runTags"]) == ["a"]
        assert len(row["createdAt"]) == len("2025-01-02T03:04:05.678")
        async with asking(client, served) as waiting:
            await change(served, run_id, done=1)
        (row,) = await waiting
        assert json.loads(row["metadata"]) == {"done": 1}
        # What never changes is sent once.
        assert "payload" not in row
        async with asking(client, served) as waiting:
            await served.client.post(f"/api/v1/runs/{run_id}/tags", json={"tags": ["b"]})
        assert read_array((await waiting)[0]["runTags"]) == ["a", "b"]
        async with asking(client, served) as waiting:
            await served.client.post(f"/api/v2/runs/{run_id}/cancel")
        (row,) = await waiting
        assert row["status"] == "CANCELED"
        assert row["completedAt"] is not None
        assert json.loads(row["error"])["type"] == "STRING_ERROR"
        assert client.rows[f'"public"."TaskRun"/"{run_id}"']["payload"] == '{"n":1}'


async def test_the_schema_names_every_column(database_url: str) -> None:
    async with serving(database_url) as served:
        run_id = await served.trigger()
        answer = await served.client.get(f"{RUNS}/{run_id}?offset=-1")
        schema = json.loads(answer.headers["electric-schema"])
        assert schema.keys() == answer.json()[0]["value"].keys()
        assert schema["runTags"] == {"type": "text", "dims": 1}
        assert answer.json()[-1] == {"headers": {"control": "up-to-date"}}
        # Clients before 3.3.0 have other names for handle and offset.
        assert answer.headers["electric-shape-id"] == answer.headers["electric-handle"]


async def test_nothing_happens_and_the_offset_stays(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "LIVE_SECONDS", 0.05)
    async with serving(database_url) as served:
        client = Client(served.client, f"{RUNS}/{await served.trigger()}")
        await client.begin()
        offset = client.offset
        assert await client.ask(is_live=True) == []
        assert client.offset == offset
        assert served.backend.polls.waiting == 0


async def test_runs_with_all_of_some_tags_are_followed(database_url: str) -> None:
    async with serving(database_url) as served:
        both = await served.trigger(options={"tags": ["a", "b"]})
        await served.trigger(options={"tags": ["a"]})
        client = Client(served.client, RUNS, {"tags": "b,a"})
        assert [row["id"] for row in await client.begin()] == [both]
        async with asking(client, served) as waiting:
            await served.trigger(options={"tags": ["b"]})
            new = await served.trigger(payload='"x"', options={"tags": ["a", "b", "c"]})
        (row,) = await waiting
        assert row["id"] == new
        # A row that the client can't know is whole.
        assert row["payload"] is not None
        async with asking(client, served) as waiting:
            late = await served.trigger(options={"tags": ["b"]})
            await served.client.post(f"/api/v1/runs/{late}/tags", json={"tags": ["a"]})
        assert [row["id"] for row in await waiting] == [late]


async def test_a_tag_that_nobody_has_is_followed_until_somebody_has_it(database_url: str) -> None:
    async with serving(database_url) as served:
        client = Client(served.client, RUNS, {"tags": "new"})
        assert await client.begin() == []
        async with asking(client, served) as waiting:
            run_id = await served.trigger(options={"tags": ["new"]})
        assert [row["id"] for row in await waiting] == [run_id]


async def test_a_period_leaves_out_what_is_older(database_url: str) -> None:
    async with serving(database_url) as served:
        run_id = await served.trigger(options={"tags": ["a"]})
        client = Client(served.client, RUNS, {"tags": "a", "createdAt": "1h"})
        assert [row["id"] for row in await client.begin()] == [run_id]
        answer = await served.client.get(f"{RUNS}?tags=a&offset=-1&createdAt=soon")
        assert (answer.status_code, error_of(answer)[:10]) == (400, "createdAt:")
        old = Client(served.client, RUNS, {"tags": "a", "createdAt": "0s"})
        assert await old.begin() == []


async def test_the_runs_of_a_batch_are_followed(database_url: str) -> None:
    async with serving(database_url) as served:
        answer = await served.client.post(
            BATCH, json={"items": items_of('{"json":1}', '{"json":2}', '{"json":3}')}
        )
        batch = answer.json()
        run_ids = [run["id"] for run in batch["runs"]]
        client = Client(served.client, f"/realtime/v1/batches/{batch['id']}")
        rows = await client.begin()
        assert {row["id"]: row["number"] for row in rows} == {
            run_id: str(index) for index, run_id in enumerate(run_ids, start=1)
        }
        async with asking(client, served) as waiting:
            await change(served, run_ids[1], n=2)
        assert [row["id"] for row in await waiting] == [run_ids[1]]
        for run_id in run_ids:
            await change(served, run_id, n=3)
        seen: set[str] = set()
        while len(seen) < 3:
            seen |= {row["id"] for row in await client.next()}
        assert seen == set(run_ids)


async def test_many_rows_come_in_parts_and_changes_meanwhile_are_not_lost(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runwell.engine.shapes.MAX_RUNS", 2)
    async with serving(database_url) as served:
        run_ids = [await served.trigger(options={"tags": ["a"]}) for _ in range(5)]
        client = Client(served.client, RUNS, {"tags": "a"})
        first = await client.ask(is_live=False)
        assert [row["id"] for row in first] == run_ids[:2]
        # Between two parts: one that was sent already, and one that is yet to come.
        await change(served, run_ids[0], n=1)
        await change(served, run_ids[4], n=1)
        rest = await client.begin()
        assert [row["id"] for row in rest] == run_ids[2:]
        assert {row["id"] for row in await client.ask(is_live=True)} == {run_ids[0], run_ids[4]}


async def test_large_values_come_in_parts(database_url: str) -> None:
    async with serving(database_url) as served:
        payload = "x" * 500_000
        options = {"tags": ["a"], "payloadType": "text/plain"}
        run_ids = [await served.trigger(payload=payload, options=options) for _ in range(10)]
        client = Client(served.client, RUNS, {"tags": "a"})
        first = await client.ask(is_live=False)
        assert 1 < len(first) < len(run_ids)
        assert {row["id"] for row in first + await client.begin()} == set(run_ids)


async def test_columns_are_left_out_when_asked_for(database_url: str) -> None:
    async with serving(database_url) as served:
        run_id = await served.trigger(payload="1")
        client = Client(served.client, f"{RUNS}/{run_id}", {"skipColumns": "payload,output,id,x"})
        (row,) = await client.begin()
        assert row.keys() & {"payload", "output", "id"} == {"id"}


async def test_status_names_are_those_of_the_client(database_url: str) -> None:
    async with serving(database_url) as served:
        version = await served.register("hello")
        run_id = await served.trigger()
        worker = await served.connect()
        await served.act(
            "dequeue",
            workerId=worker,
            requestId=make_request_key(),
            backgroundWorkerIds=[version],
            maxRuns=1,
        )
        for headers, status in ({}, "EXECUTING"), ({"x-trigger-api-version": "1"}, "DEQUEUED"):
            answer = await served.client.get(f"{RUNS}/{run_id}?offset=-1", headers=headers)
            assert answer.json()[0]["value"]["status"] == status


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/run_x?offset=-1", 404, "there is no run run_x"),
        ("/RUN", 400, "offset: it is missing"),
        ("/RUN?offset=0", 400, "offset: '0' is no offset"),
        ("/RUN?offset=5_6&handle=x", 400, "offset: '5_6' is no offset"),
        ("/RUN?offset=5_0~&handle=x~", 409, ""),
        ("/RUN?offset=5_0", 400, "handle: it is missing"),
        ("/RUN?offset=5_0&handle=other", 409, ""),
        ("?offset=-1", 400, "tags: give 1 to 20 tags"),
        ("?offset=-1&tags=%00", 400, "NUL"),
    ],
)
async def test_a_bad_request_says_what_is_wrong(
    database_url: str, path: str, status: int, words: str
) -> None:
    async with serving(database_url) as served:
        run_id = await served.trigger()
        answer = await served.client.get(RUNS + path.replace("RUN", run_id))
        assert answer.status_code == status
        if status == 409:
            assert answer.json() == [{"headers": {"control": "must-refetch"}}]
            again = {"offset": "-1", "handle": answer.headers["electric-handle"]}
            assert (await served.client.get(f"{RUNS}/{run_id}", params=again)).status_code == 200
        else:
            assert words in error_of(answer)


async def test_a_batch_that_is_not_there_is_not_found(database_url: str) -> None:
    async with serving(database_url) as served:
        answer = await served.client.get("/realtime/v1/batches/batch_x?offset=-1")
        assert (answer.status_code, error_of(answer)[:17]) == (404, "there is no batch")


async def test_what_another_environment_follows_is_not_found(database_url: str) -> None:
    async with serving(database_url) as served:
        run_id = await served.trigger()
        client = Client(served.client, f"{RUNS}/{run_id}")
        await client.begin()
        async with asking(client, served) as waiting:
            other = {"authorization": f"Bearer {served.keys['prod']}"}
            answer = await served.client.get(
                f"{RUNS}/{run_id}",
                params={"offset": client.offset, "handle": client.handle, "live": "true"},
                headers=other,
            )
            assert answer.status_code == 404
            await change(served, run_id, n=1)
        await waiting


async def test_another_server_goes_on_where_the_first_one_ended(database_url: str) -> None:
    async with serving(database_url) as first, serving(database_url) as second:
        run_id = await first.trigger()
        client = Client(first.client, f"{RUNS}/{run_id}")
        await client.begin()
        await change(first, run_id, n=1)
        client.http = second.client
        assert json.loads((await client.next())[0]["metadata"]) == {"n": 1}
        # Woken by the database: nobody tells this server.
        async with asking(client, second) as waiting:
            await change(first, run_id, n=2)
        assert json.loads((await waiting)[0]["metadata"]) == {"n": 2}


async def test_a_database_that_was_replaced_makes_clients_begin_anew(database_url: str) -> None:
    async with serving(database_url) as served:
        run_id = await served.trigger()
        client = Client(served.client, f"{RUNS}/{run_id}")
        await client.begin()

        async def identify() -> str:
            return "another one"

        served.backend.changes.identify = identify
        query = {"offset": client.offset, "handle": client.handle, "live": "true"}
        answer = await served.client.get(f"{RUNS}/{run_id}", params=query)
        assert answer.status_code == 409
        assert answer.headers["electric-handle"] != client.handle


async def test_many_followers_of_a_run_are_all_told(database_url: str) -> None:
    async with serving(database_url) as served:
        run_id = await served.trigger()
        clients = [Client(served.client, f"{RUNS}/{run_id}") for _ in range(20)]
        await asyncio.gather(*(client.begin() for client in clients))
        asked = [asyncio.create_task(client.next()) for client in clients]
        await wait_until(lambda: served.backend.polls.waiting == 20, "all wait")
        await change(served, run_id, n=1)
        assert {row["metadata"] for (row,) in await asyncio.gather(*asked)} == {'{"n": 1}'}


async def test_a_stop_answers_those_who_wait(database_url: str) -> None:
    async with serving(database_url) as served:
        client = Client(served.client, f"{RUNS}/{await served.trigger()}")
        await client.begin()
        before = served.backend.polls.waiting
        task = asyncio.create_task(client.ask(is_live=True))
        await wait_until(lambda: served.backend.polls.waiting > before, "it waits")
        served.server.stop()
        assert await task == []


async def test_pages_of_browsers_may_read_the_headers(database_url: str) -> None:
    async with serving(database_url) as served:
        run_id = await served.trigger()
        answer = await served.client.get(
            f"{RUNS}/{run_id}?offset=-1", headers={"origin": "https://shop.example"}
        )
        exposed = answer.headers["access-control-expose-headers"].split(", ")
        sent = {name for name in answer.headers if name.startswith("electric-")}
        assert sent <= set(exposed)
