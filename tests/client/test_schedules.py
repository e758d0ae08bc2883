"""Create, change and list schedules, in both ways of calling."""

from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

import pytest

from runwell.client.api import ApiClient
from runwell.client.schedules import BlockingSchedules, Schedules
from runwell.client.transport import ClientSettings, NotFoundError, UnprocessableEntityError
from runwell.core.schedules import MissedTicks, ScheduleType
from tests.server.serving import Served, manifest, serving
from tests.support.transport import FakeTransport, answer_json, fake_client


def schedule_json(schedule_id: str = "sched_1", **more: object) -> dict[str, object]:
    return {
        "id": schedule_id,
        "type": "IMPERATIVE",
        "task": "report",
        "active": True,
        "generator": {"type": "CRON", "expression": "0 9 * * *", "description": "At 09:00"},
        "timezone": "UTC",
        "nextRun": "2026-03-02T09:00:00Z",
        "environments": [{"id": "env_1", "type": "PRODUCTION", "userName": "ada"}],
        **more,
    }


def page_json(ids: list[str], page: int, pages: int) -> dict[str, object]:
    return {
        "data": [schedule_json(schedule_id) for schedule_id in ids],
        "pagination": {"currentPage": page, "totalPages": pages, "count": 5},
    }


def blocking(*answers: Any) -> tuple[BlockingSchedules, FakeTransport]:
    transport = FakeTransport(*answers)
    return BlockingSchedules(fake_client(transport)), transport


def asked(transport: FakeTransport, index: int = -1) -> tuple[str, str, dict[str, str]]:
    request = transport.requests[index]
    parts = urlsplit(request.url)
    query = {name: values[0] for name, values in parse_qs(parts.query).items()}
    return request.method, parts.path, query


def test_a_schedule_is_created_with_what_was_given_and_no_more() -> None:
    schedules, transport = blocking(answer_json(schedule_json(externalId="u_1")))
    made = schedules.create(task="report", cron="0 9 * * *", deduplication_key="u_1-report")
    assert (made.id, made.type, made.external_id) == ("sched_1", ScheduleType.IMPERATIVE, "u_1")
    assert made.generator.description == "At 09:00"
    assert made.environments[0].user_name == "ada"
    assert asked(transport) == ("POST", "/api/v1/schedules", {})
    assert transport.bodies() == [
        {"task": "report", "cron": "0 9 * * *", "deduplicationKey": "u_1-report"}
    ]


def test_every_option_is_sent() -> None:
    schedules, transport = blocking(answer_json(schedule_json()))

    class Report:
        id = "report"

    schedules.create(
        task=Report(),
        cron="0 9 * * *",
        timezone="Europe/Berlin",
        external_id="u_1",
        deduplication_key="key",
        missed_ticks="catch-up",
        spread="10m",
    )
    schedules.update("sched_1", task="report", cron="* * * * *", missed_ticks=MissedTicks.SKIP)
    assert transport.bodies() == [
        {
            "task": "report",
            "cron": "0 9 * * *",
            "timezone": "Europe/Berlin",
            "externalId": "u_1",
            "deduplicationKey": "key",
            "missedTicks": "catch-up",
            "spread": 600,
        },
        {"task": "report", "cron": "* * * * *", "missedTicks": "skip"},
    ]
    assert asked(transport) == ("PUT", "/api/v1/schedules/sched_1", {})


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"spread": "2d"}, "spread='2d': it takes up to a day"),
        ({"spread": "soon"}, "spread: 'soon' is not a duration"),
        ({"missed_ticks": "all"}, "missed_ticks='all': it takes 'skip' or 'catch-up'"),
        ({"crom": "x"}, "a schedule has no option 'crom'"),
    ],
)
def test_options_that_cannot_be_are_refused_before_anything_is_sent(
    wrong: dict[str, Any], message: str
) -> None:
    schedules, transport = blocking(answer_json(schedule_json()))
    with pytest.raises((ValueError, TypeError), match=message):
        schedules.create(task="report", cron="* * * * *", deduplication_key="k", **wrong)
    assert transport.requests == []


def test_a_schedule_is_named_by_its_id_or_itself() -> None:
    schedules, transport = blocking(answer_json(schedule_json()))
    found = schedules.retrieve("sched_1")
    assert schedules.activate(found).active
    schedules.deactivate("sched_1")
    schedules.delete(found)
    assert [asked(transport, index)[:2] for index in range(4)] == [
        ("GET", "/api/v1/schedules/sched_1"),
        ("POST", "/api/v1/schedules/sched_1/activate"),
        ("POST", "/api/v1/schedules/sched_1/deactivate"),
        ("DELETE", "/api/v1/schedules/sched_1"),
    ]


@pytest.mark.parametrize("schedule", ["", "..", None, 5])
def test_what_names_no_schedule_is_refused(schedule: Any) -> None:
    schedules, transport = blocking(answer_json(schedule_json()))
    with pytest.raises(ValueError, match="names no schedule"):
        schedules.retrieve(schedule)
    assert transport.requests == []


def test_a_list_goes_on_to_its_last_page() -> None:
    schedules, transport = blocking(
        answer_json(page_json(["a", "b"], 1, 3)),
        answer_json(page_json(["c", "d"], 2, 3)),
        answer_json(page_json(["e"], 3, 3)),
    )
    assert [schedule.id for schedule in schedules.list(per_page=2)] == ["a", "b", "c", "d", "e"]
    queries = [asked(transport, index)[2] for index in range(3)]
    assert queries == [{"page": page, "perPage": "2"} for page in ("1", "2", "3")]


def test_pages_lead_both_ways_and_end() -> None:
    schedules, _ = blocking(
        answer_json(page_json(["c"], 2, 3)),
        answer_json(page_json(["a"], 1, 3)),
        answer_json(page_json(["e"], 3, 3)),
    )
    page = schedules.list(page=2)
    assert page.pagination.count == 5
    first, last = page.get_previous_page(), page.get_next_page()
    assert (first.has_previous_page(), last.has_next_page()) == (False, False)
    with pytest.raises(LookupError, match="this is the first page"):
        first.get_previous_page()
    with pytest.raises(LookupError, match="this is the last page"):
        last.get_next_page()
    with pytest.raises(ValueError, match="page=0"):
        schedules.list(page=0)
    with pytest.raises(ValueError, match="per_page=101"):
        schedules.list(per_page=101)


async def test_a_list_is_awaited_or_walked_over() -> None:
    transport = FakeTransport(
        answer_json(page_json(["a"], 1, 2)),
        answer_json(page_json(["a"], 1, 2)),
        answer_json(page_json(["b"], 2, 2)),
        answer_json(page_json(["b"], 2, 2)),
        answer_json(page_json(["a"], 1, 2)),
    )
    schedules = Schedules(fake_client(transport))
    page = await schedules.list()
    assert [schedule.id for schedule in page.data] == ["a"]
    assert [schedule.id async for schedule in schedules.list()] == ["a", "b"]
    again = await (await page.get_next_page()).get_previous_page()
    assert [schedule.id for schedule in again.data] == ["a"]


async def test_time_zones_are_a_list_of_names() -> None:
    transport = FakeTransport(answer_json({"timezones": ["UTC", "Africa/Abidjan"]}))
    schedules = Schedules(fake_client(transport))
    assert await schedules.timezones() == ["UTC", "Africa/Abidjan"]
    assert asked(transport) == ("GET", "/api/v1/timezones", {})
    await schedules.timezones(exclude_utc=True)
    assert asked(transport)[2] == {"excludeUtc": "true"}


def client_of(served: Served) -> ApiClient:
    settings = ClientSettings(base_url=served.url, secret_key=served.keys["dev"])
    return ApiClient(lambda: settings)


async def test_schedules_live_and_go_at_a_real_server(database_url: str) -> None:
    async with serving(database_url) as served:
        metadata = manifest("report")
        cast("Any", metadata)["tasks"][0]["triggerSource"] = "schedule"
        await served.client.post(
            "/api/v1/projects/~/background-workers", json={"metadata": metadata}
        )
        schedules = Schedules(client_of(served))
        made = await schedules.create(
            task="report", cron="0 9 * * 5L", timezone="Asia/Tokyo", deduplication_key="key"
        )
        assert made.generator.description == "At 09:00 on the last Friday of the month"
        again = await schedules.create(
            task="report", cron="0 9 * * *", deduplication_key="key", external_id="u_1"
        )
        assert again.id == made.id
        assert await schedules.retrieve(made) == again
        assert [one.id async for one in schedules.list()] == [made.id]
        assert (await schedules.deactivate(made)).next_run is None
        assert (await schedules.activate(made)).next_run == again.next_run
        changed = await schedules.update(made, task="report", cron="0 10 * * *")
        assert (changed.external_id, changed.deduplication_key) == (None, "key")
        with pytest.raises(UnprocessableEntityError, match=r"cron: .* its hour '25' can't be"):
            await schedules.update(made, task="report", cron="0 25 * * *")
        assert (await schedules.delete(made)).id == made.id
        with pytest.raises(NotFoundError, match="there is no schedule"):
            await schedules.retrieve(made)
        assert (await schedules.timezones())[0] == "UTC"
