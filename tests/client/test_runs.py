"""Retrieve, list, poll, cancel and read the log of runs, in both ways of calling."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import cast
from urllib.parse import parse_qs, urlsplit

import pytest

from runwell.client.management import BlockingTasks, Tasks
from runwell.client.run_pages import RunFilters
from runwell.client.runs import BlockingRuns, RunHandle, Runs
from runwell.client.transport import Request, Response
from runwell.core.errors import InvalidPayloadError
from runwell.core.payloads import Json
from tests.support.transport import FakeTransport, answer_json, fake_client

NOW = "2025-01-02T03:04:05.678Z"


def run_json(status: str = "COMPLETED", **more: object) -> dict[str, object]:
    final = status in ("COMPLETED", "FAILED", "CANCELED", "EXPIRED")
    return {
        "id": "run_1",
        "status": status,
        "taskIdentifier": "hello",
        "isQueued": status == "QUEUED",
        "isExecuting": status == "EXECUTING",
        "isCompleted": final,
        "isSuccess": status == "COMPLETED",
        "isFailed": final and status != "COMPLETED",
        "isCancelled": status == "CANCELED",
        "isTest": False,
        "createdAt": NOW,
        "updatedAt": NOW,
        **more,
    }


def page_json(ids: list[str], **pagination: str) -> dict[str, object]:
    env = {"id": "env_1", "name": "dev"}
    runs = [{**run_json(), "id": run_id, "env": env} for run_id in ids]
    return {"data": runs, "pagination": pagination}


def blocking(
    *answers: Response | Callable[[Request], Response],
) -> tuple[BlockingRuns, FakeTransport]:
    transport = FakeTransport(*answers)
    return BlockingRuns(fake_client(transport)), transport


def query_of(transport: FakeTransport, index: int = -1) -> dict[str, str]:
    query = parse_qs(urlsplit(transport.requests[index].url).query)
    return {name: values[0] for name, values in query.items()}


def test_a_run_is_retrieved_with_all_that_it_has() -> None:
    runs, transport = blocking(
        answer_json(run_json(payload={"a": 1}, output=[1], metadata={"k": None}, newField=1))
    )
    run = runs.retrieve("run_1")
    assert transport.requests[0].url == "http://api.test/api/v3/runs/run_1"
    assert (run.id, run.status, run.task_identifier) == ("run_1", "COMPLETED", "hello")
    assert (run.payload, run.output, run.metadata) == ({"a": 1}, [1], {"k": None})
    assert run.created_at == datetime(2025, 1, 2, 3, 4, 5, 678_000, tzinfo=UTC)


def test_a_run_is_named_by_its_id_its_handle_or_itself() -> None:
    runs, transport = blocking(answer_json(run_json()))
    run = runs.retrieve("run_1")
    runs.retrieve(RunHandle[Json]("run_1"))
    runs.retrieve(run)
    assert len({request.url for request in transport.requests}) == 1


@pytest.mark.parametrize("run", ["", "..", ".", None, 5, object()])
def test_what_names_no_run_is_refused(run: object) -> None:
    runs, transport = blocking(answer_json(run_json()))
    with pytest.raises(ValueError, match="names no run"):
        runs.retrieve(cast("str", run))
    assert transport.requests == []


def test_an_id_is_one_part_of_the_path() -> None:
    runs, transport = blocking(answer_json({"id": "x"}))
    runs.cancel("../x?y")
    assert transport.requests[0].url == "http://api.test/api/v2/runs/..%2Fx%3Fy/cancel"
    assert transport.requests[0].method == "POST"


def test_a_handle_reads_the_output_as_the_task_types_it() -> None:
    runs, _ = blocking(answer_json(run_json(output=[3])))
    handle = RunHandle("run_1", parse_output=lambda value: sum(cast("list[int]", value)))
    assert runs.retrieve(handle).output == 3


def test_a_handle_leaves_the_output_of_a_failed_run_alone() -> None:
    def fail(value: Json) -> int:
        raise AssertionError("there is no output to read")

    runs, _ = blocking(answer_json(run_json("FAILED")))
    assert runs.retrieve(RunHandle("run_1", parse_output=fail)).output is None


def test_an_output_that_does_not_fit_is_an_error_with_the_run() -> None:
    def fail(value: Json) -> int:
        raise InvalidPayloadError("the output does not fit")

    runs, _ = blocking(answer_json(run_json(output="x")))
    with pytest.raises(InvalidPayloadError, match="run run_1: the output does not fit"):
        runs.retrieve(RunHandle("run_1", parse_output=fail))


def test_polling_asks_until_the_run_has_ended() -> None:
    runs, transport = blocking(
        answer_json(run_json("QUEUED")), answer_json(run_json("EXECUTING")), answer_json(run_json())
    )
    assert runs.poll("run_1", poll_interval="2s").is_completed
    assert transport.pauses == [2, 2]


@pytest.mark.parametrize("status", ["FAILED", "CANCELED", "EXPIRED"])
def test_polling_ends_at_each_end(status: str) -> None:
    runs, transport = blocking(answer_json(run_json(status)))
    assert runs.poll(RunHandle[Json]("run_1")).status == status
    assert transport.pauses == []


def test_polling_ends_after_its_timeout_with_the_status() -> None:
    runs, transport = blocking(answer_json(run_json("EXECUTING")))
    with pytest.raises(TimeoutError, match=r"run run_1 is EXECUTING after 0\.5"):
        runs.poll("run_1", timeout=0.5)
    assert len(transport.requests) == 1


def test_polling_never_hammers_the_server() -> None:
    runs, transport = blocking(answer_json(run_json("QUEUED")), answer_json(run_json()))
    runs.poll("run_1", poll_interval=0)
    assert transport.pauses == [0.02]


async def test_trigger_and_poll_does_both() -> None:
    answers = (
        answer_json({"id": "run_1", "isCached": False}),
        answer_json(run_json("QUEUED")),
        answer_json(run_json(output=5)),
    )
    transport = FakeTransport(*answers)
    run = await Tasks(fake_client(transport)).trigger_and_poll(
        "hello", {"a": 1}, tags="t", poll_interval=3, timeout="1m"
    )
    assert run.output == 5
    assert transport.pauses == [3]
    body = cast("dict[str, dict[str, object]]", transport.bodies()[0])
    assert body["options"] == {"payloadType": "application/json", "tags": ["t"]}
    transport = FakeTransport(*answers)
    assert BlockingTasks(fake_client(transport)).trigger_and_poll("hello").output == 5


@pytest.mark.parametrize(
    ("filters", "query"),
    [
        ({}, {}),
        ({"limit": 10, "status": None}, {"page[size]": "10"}),
        ({"status": ["QUEUED", "FAILED"]}, {"filter[status]": "QUEUED,FAILED"}),
        ({"task_identifier": "hello"}, {"filter[taskIdentifier]": "hello"}),
        ({"version": "20250101.1"}, {"filter[version]": "20250101.1"}),
        ({"tag": ("a", "b")}, {"filter[tag]": "a,b"}),
        ({"batch": "batch_1"}, {"filter[batch]": "batch_1"}),
        ({"schedule": "sched_1"}, {"filter[schedule]": "sched_1"}),
        ({"bulk_action": "bulk_1"}, {"filter[bulkAction]": "bulk_1"}),
        ({"is_test": False}, {"filter[isTest]": "false"}),
        (
            {
                "from_": datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC),
                "to": datetime(1970, 1, 2, tzinfo=UTC),
            },
            {"filter[createdAt][from]": "1000", "filter[createdAt][to]": "86400000"},
        ),
        ({"period": "2h30m"}, {"filter[createdAt][period]": "9000s"}),
        ({"period": timedelta(days=1)}, {"filter[createdAt][period]": "86400s"}),
        ({"after": "abc"}, {"page[after]": "abc"}),
        ({"before": "abc"}, {"page[before]": "abc"}),
    ],
)
def test_a_filter_is_sent_as_the_api_takes_it(filters: RunFilters, query: dict[str, str]) -> None:
    runs, transport = blocking(answer_json(page_json([])))
    runs.list(**filters)
    assert query_of(transport) == query


@pytest.mark.parametrize(
    "filters",
    [
        {"limit": 0},
        {"limit": 101},
        {"status": "A,B"},
        {"tag": [5]},
        {"batch": 5},
        {"is_test": "yes"},
        {"from_": datetime(2025, 1, 1)},  # noqa: DTZ001 (what is refused)
        {"to": "yesterday"},
        {"period": "a while"},
    ],
)
def test_a_bad_filter_is_refused_with_its_name(filters: dict[str, object]) -> None:
    runs, _ = blocking(answer_json(page_json([])))
    with pytest.raises(ValueError, match=next(iter(filters))):
        runs.list(**cast("RunFilters", filters))


def test_an_unknown_filter_is_a_type_error() -> None:
    runs, _ = blocking(answer_json(page_json([])))
    with pytest.raises(TypeError, match="no filter 'state': there are limit, after"):
        runs.list(**cast("RunFilters", {"state": "QUEUED"}))


def three_pages(request: Request) -> Response:
    """Pages of two, two and one: 5 to 1, walked by the last id in either direction."""
    query = parse_qs(urlsplit(request.url).query)
    assert query["filter[tag]"] == ["t"]
    if "page[before]" in query:
        assert "page[after]" not in query
        start = int(query["page[before]"][0]) - 2
    else:
        start = int(query.get("page[after]", ["0"])[0])
    ids = [str(number) for number in range(start, min(start + 2, 5))]
    more = {"next": str(start + 2)} if start + 2 < 5 else {}
    return answer_json(page_json(ids, **more, **({"previous": str(start)} if start else {})))


def test_a_blocking_page_walks_both_ways_and_to_the_end() -> None:
    runs, _ = blocking(three_pages)
    page = runs.list(tag="t", limit=2)
    assert [run.id for run in page] == ["0", "1", "2", "3", "4"]
    assert not page.has_previous_page()
    second = page.get_next_page()
    assert [run.id for run in second.data] == ["2", "3"]
    assert [run.id for run in second.get_previous_page().data] == ["0", "1"]
    last = second.get_next_page()
    assert not last.has_next_page()
    with pytest.raises(LookupError, match="last page"):
        last.get_next_page()
    with pytest.raises(LookupError, match="first page"):
        page.get_previous_page()


async def test_a_list_walks_both_ways_and_to_the_end() -> None:
    transport = FakeTransport(three_pages)
    runs = Runs(fake_client(transport))
    listing = runs.list(tag="t", limit=2)
    assert transport.requests == []
    assert [run.id async for run in listing] == ["0", "1", "2", "3", "4"]
    page = await listing
    assert [run.id for run in page.data] == ["0", "1"]
    second = await page.get_next_page()
    assert [run.id async for run in second] == ["2", "3", "4"]
    assert [run.id for run in (await second.get_previous_page()).data] == ["0", "1"]
    with pytest.raises(LookupError, match="first page"):
        await page.get_previous_page()


async def test_the_log_of_a_run_is_read_on_from_a_cursor() -> None:
    line = {"attempt": 1, "seq": 1, "time": NOW, "level": "INFO", "message": "hi"}
    transport = FakeTransport(answer_json({"data": [line], "next": "1.1"}))
    runs = Runs(fake_client(transport))
    page = await runs.logs("run_1")
    assert (page.data[0].message, page.next) == ("hi", "1.1")
    await runs.logs("run_1", after=page.next, limit=1000)
    assert query_of(transport) == {"after": "1.1", "limit": "1000"}
    assert BlockingRuns(fake_client(transport)).logs("run_1").next == "1.1"


async def test_both_ways_of_calling_send_the_same() -> None:
    transport = FakeTransport(answer_json(run_json()))
    client = fake_client(transport)
    runs, blocking_runs = Runs(client), BlockingRuns(client)
    assert await runs.retrieve("run_1") == blocking_runs.retrieve("run_1")
    assert await runs.poll("run_1") == blocking_runs.poll("run_1")
    assert await runs.cancel("run_1") == blocking_runs.cancel("run_1")
    sent = [(r.method, r.url) for r in transport.requests]
    assert sent[0::2] == sent[1::2]


def test_a_run_can_be_shown_as_json() -> None:
    runs, _ = blocking(answer_json(run_json(output={"a": 1})))
    shown = json.loads(runs.retrieve("run_1").model_dump_json(by_alias=True, exclude_none=True))
    assert shown["taskIdentifier"] == "hello"
    assert shown["output"] == {"a": 1}


def test_a_replay_names_its_request_and_sends_a_payload_only_if_one_is_given() -> None:
    runs, transport = blocking(answer_json({"id": "run_2"}))
    assert runs.replay("run_1").id == "run_2"
    assert transport.requests[-1].url == "http://api.test/api/v1/runs/run_1/replay"
    assert transport.requests[-1].headers["x-trigger-request-idempotency-key"]
    assert transport.requests[-1].body is None
    for payload, text in ((None, "null"), ({"a": datetime(2030, 1, 1, tzinfo=UTC)}, None)):
        runs.replay("run_1", payload=payload)
        sent = json.loads(transport.requests[-1].body or b"")
        assert sent["payloadType"] == "application/json"
        assert sent["payload"] == text or json.loads(sent["payload"]) == {
            "a": "2030-01-01T00:00:00Z"
        }


def test_the_replay_of_a_handle_reads_its_output_as_the_task_types_it() -> None:
    runs, _ = blocking(answer_json({"id": "run_2"}), answer_json(run_json(output=[3])))
    handle = RunHandle("run_1", parse_output=lambda value: sum(cast("list[int]", value)))
    assert runs.retrieve(runs.replay(handle)).output == 3


def test_a_delay_is_sent_as_the_api_takes_it() -> None:
    runs, transport = blocking(answer_json(run_json("DELAYED")))
    for delay, sent in (
        ("1h30m", "1h30m"),
        (timedelta(minutes=2), "120s"),
        (datetime(2030, 1, 1, tzinfo=UTC), "2030-01-01T00:00:00+00:00"),
    ):
        assert runs.reschedule("run_1", delay=delay).status == "DELAYED"
        assert json.loads(transport.requests[-1].body or b"") == {"delay": sent}
    with pytest.raises(ValueError, match="neither a duration"):
        runs.reschedule("run_1", delay="soon")


def test_tags_are_checked_before_they_are_sent() -> None:
    runs, transport = blocking(answer_json({"message": "Successfully set 1 new tags."}))
    runs.add_tags("run_1", "a")
    assert json.loads(transport.requests[-1].body or b"") == {"tags": ["a"]}
    for tags in ([""], ["x" * 129], [5], [str(n) for n in range(11)]):
        with pytest.raises(ValueError, match="tags: "):
            runs.add_tags("run_1", cast("list[str]", tags))
