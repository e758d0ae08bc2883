"""Schedules over HTTP: the shapes that clients read and write."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from runwell.engine import ticks
from tests.server.serving import Served, error_of, manifest, serving
from tests.support.factories import read

PATH = "/api/v1/schedules"
BODY = {
    "task": "report",
    "cron": "0 9 * * *",
    "deduplicationKey": "user-1",
    "externalId": "user-1",
    "timezone": "Europe/Oslo",
}


async def register(served: Served, **schedule: Any) -> None:
    """A version with a scheduled task, which declares a schedule if one is given."""
    metadata = manifest("report", "plain", content_hash=f"hash-of-{sorted(schedule.items())}")
    metadata["tasks"][0] |= {"triggerSource": "schedule"}
    if schedule:
        metadata["tasks"][0] |= {"schedule": schedule}
    answer = await served.client.post(
        "/api/v1/projects/~/background-workers", json={"metadata": metadata}
    )
    assert answer.status_code == 200, answer.text


async def create(served: Served, **fields: Any) -> dict[str, Any]:
    answer = await served.client.post(PATH, json={**BODY, **fields})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_a_created_schedule_has_the_documented_shape(database_url: str) -> None:
    async with serving(database_url) as served:
        await register(served)
        made = await create(served)
        next_run = datetime.fromisoformat(made.pop("nextRun"))
        assert next_run > datetime.now(UTC)
        assert made.pop("id").startswith("sched_")
        (environment,) = made.pop("environments")
        assert environment["type"] == "DEVELOPMENT"
        assert set(environment) == {"id", "type"}
        assert made == {
            "type": "IMPERATIVE",
            "task": "report",
            "active": True,
            "deduplicationKey": "user-1",
            "externalId": "user-1",
            "generator": {
                "type": "CRON",
                "expression": "0 9 * * *",
                "description": "At 09:00 every day",
            },
            "timezone": "Europe/Oslo",
            "missedTicks": "skip",
            "spread": 0,
        }


async def test_what_is_left_out_is_absent_and_the_zone_is_utc(database_url: str) -> None:
    async with serving(database_url) as served:
        await register(served)
        body = {"task": "report", "cron": "* * * * *", "deduplicationKey": "k"}
        answer = await served.client.post(PATH, json=body)
        assert answer.json()["timezone"] == "UTC"
        assert "externalId" not in answer.json()


async def test_the_same_key_again_is_the_same_schedule(database_url: str) -> None:
    async with serving(database_url) as served:
        await register(served)
        first = await create(served)
        second = await create(served, cron="0 10 * * *", missedTicks="catch-up", spread=60)
        assert second["id"] == first["id"]
        assert second["generator"]["expression"] == "0 10 * * *"
        assert (second["missedTicks"], second["spread"]) == ("catch-up", 60)
        assert await served.get(f"{PATH}/{first['id']}") == second


async def test_a_schedule_is_updated_switched_and_deleted(database_url: str) -> None:
    async with serving(database_url) as served:
        await register(served)
        path = f"{PATH}/{(await create(served))['id']}"
        updated = await served.client.put(path, json={"task": "report", "cron": "0 0 1 * *"})
        assert updated.status_code == 200
        assert updated.json()["deduplicationKey"] == "user-1"
        assert "externalId" not in updated.json()
        stopped = (await served.client.post(f"{path}/deactivate")).json()
        assert stopped["active"] is False
        assert "nextRun" not in stopped
        started = (await served.client.post(f"{path}/activate")).json()
        assert started == updated.json()
        deleted = await served.client.delete(path)
        assert deleted.json() == {"id": updated.json()["id"]}
        for answer in (await served.client.get(path), await served.client.delete(path)):
            assert answer.status_code == 404
            assert "there is no schedule" in error_of(answer)


async def test_schedules_are_listed_by_page_numbers(database_url: str) -> None:
    async with serving(database_url) as served:
        await register(served)
        empty = await served.get(PATH)
        assert empty == {"data": [], "pagination": {"currentPage": 1, "totalPages": 1, "count": 0}}
        made = [(await create(served, deduplicationKey=f"k{n}"))["id"] for n in range(5)]
        page = await served.get(PATH, page="2", perPage="2")
        assert [schedule["id"] for schedule in page["data"]] == [made[2], made[1]]
        assert page["pagination"] == {"currentPage": 2, "totalPages": 3, "count": 5}
        assert (await served.get(PATH, page="9"))["data"] == []


@pytest.mark.parametrize(
    ("fields", "status", "message"),
    [
        ({"cron": "0 25 * * *"}, 422, "cron: '0 25 * * *' is no cron pattern: its hour '25'"),
        ({"cron": "* * * * * *"}, 422, "it has 6 fields, and 5 are needed"),
        ({"timezone": "europe/oslo"}, 422, "timezone: 'europe/oslo' is not the name of a time"),
        ({"timezone": ""}, 422, "timezone: '' is not the name"),
        ({"task": "nothing"}, 422, "has no task 'nothing'"),
        ({"task": "plain"}, 422, "'plain' is no scheduled task"),
        ({"task": None}, 400, "task: "),
        ({"cron": 5}, 400, "cron: "),
        ({"deduplicationKey": ""}, 400, "deduplicationKey: "),
        ({"deduplicationKey": "a\u0000b"}, 400, "NUL"),
        ({"missedTicks": "all"}, 400, "missedTicks: "),
        ({"spread": -1}, 400, "spread: "),
        ({"spread": 86_401}, 400, "spread: "),
    ],
)
async def test_what_cannot_be_is_refused_with_what_and_where(
    database_url: str, fields: dict[str, Any], status: int, message: str
) -> None:
    async with serving(database_url) as served:
        await register(served)
        answer = await served.client.post(PATH, json={**BODY, **fields})
        assert answer.status_code == status
        assert message in error_of(answer)
        assert (await served.get(PATH))["data"] == []


async def test_a_deduplication_key_is_needed_to_create(database_url: str) -> None:
    async with serving(database_url) as served:
        answer = await served.client.post(PATH, json={"task": "report", "cron": "* * * * *"})
        assert answer.status_code == 400
        assert error_of(answer) == "deduplicationKey: this field is required"


async def test_pages_and_parameters_that_cannot_be_are_refused(database_url: str) -> None:
    async with serving(database_url) as served:
        for query in ("page=0", "page=x", "perPage=101", "perPage=-1"):
            answer = await served.client.get(f"{PATH}?{query}")
            assert answer.status_code == 400
            assert query.partition("=")[0] in error_of(answer)
        assert (await served.client.get("/api/v1/timezones?excludeUtc=1")).status_code == 400


async def test_a_declared_schedule_is_shown_and_not_changed(database_url: str) -> None:
    async with serving(database_url) as served:
        await register(served, cron="*/5 * * * *", timezone="Asia/Tokyo")
        (declared,) = (await served.get(PATH))["data"]
        assert declared["type"] == "DECLARATIVE"
        assert declared["timezone"] == "Asia/Tokyo"
        assert "deduplicationKey" not in declared
        path = f"{PATH}/{declared['id']}"
        for answer in (
            await served.client.put(path, json={"task": "report", "cron": "0 0 * * *"}),
            await served.client.post(f"{path}/deactivate"),
            await served.client.delete(path),
        ):
            assert answer.status_code == 422
            assert "is declared in the code of task 'report'" in error_of(answer)
        assert await served.get(path) == declared


async def test_a_version_with_a_schedule_that_cannot_be_is_refused(database_url: str) -> None:
    async with serving(database_url) as served:
        metadata = manifest("report")
        metadata["tasks"][0] |= {"triggerSource": "schedule", "schedule": {"cron": "nonsense"}}
        answer = await served.client.post(
            "/api/v1/projects/~/background-workers", json={"metadata": metadata}
        )
        assert answer.status_code == 422
        assert "the schedule of task report: 'nonsense' is no cron pattern" in error_of(answer)


async def test_time_zones_need_no_key(database_url: str) -> None:
    async with serving(database_url) as served:
        answer = await served.client.get("/api/v1/timezones", headers={"authorization": ""})
        zones = answer.json()["timezones"]
        assert zones[:2] == ["UTC", "Africa/Abidjan"]
        without = await served.get("/api/v1/timezones", excludeUtc="true")
        assert without["timezones"] == zones[1:]


async def test_a_run_shows_the_schedule_that_triggered_it_and_is_found_by_it(
    database_url: str,
) -> None:
    async with serving(database_url) as served:
        await register(served)
        await served.connect()
        made = await create(served, cron="* * * * *")
        unscheduled = await served.trigger("report")
        due = datetime.fromisoformat(made["nextRun"])
        # The tick may be a minute away, and the worker is to be connected then.
        await read(
            served.backend.db,
            "UPDATE workers SET lease_expires_at = :until RETURNING id",
            until=due + timedelta(seconds=1),
        )
        await ticks.trigger_due_ticks(served.backend.db, now=due)
        listed = await served.get("/api/v1/runs", **{"filter[schedule]": made["id"]})
        (found,) = listed["data"]
        assert found["id"] != unscheduled
        run = await served.get(f"/api/v3/runs/{found['id']}")
        assert run["schedule"] == {
            "id": made["id"],
            "externalId": "user-1",
            "deduplicationKey": "user-1",
            "generator": {**made["generator"], "expression": "* * * * *"},
        }
        assert run["payload"]["scheduleId"] == made["id"]
        assert len(run["payload"]["upcoming"]) == 5
        assert "schedule" not in await served.get(f"/api/v3/runs/{unscheduled}")
