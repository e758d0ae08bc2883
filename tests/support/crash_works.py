"""What is done while processes die: each does one kind of work and says what runs there must be."""

import contextlib
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from runwell.client.bulk_actions import BulkRuns
from runwell.client.metadata_changes import MetadataChanges
from runwell.client.queues import Queues
from runwell.client.schedules import Schedules
from runwell.client.tokens import complete_flow, create_flow, send_event_flow
from runwell.client.transport import BadRequestError, Call, NotFoundError
from runwell.client.triggering import read_key
from runwell.client.variables import EnvVars
from runwell.core.ids import make_request_key
from tests.support.platform import Session

_MAKE_DUE = """
UPDATE schedules SET next_tick_at = date_trunc('minute', now()), due_at = now()
WHERE public_id = $1 RETURNING 1
"""


@dataclass(frozen=True)
class Work:
    """What one case does: `begin` does it and returns the ids of the runs there must be."""

    begin: Callable[[Session], Awaitable[Sequence[str]]]
    status: str = "COMPLETED"
    #: It is about what a worker does that nobody kills at any other time.
    needs_worker: bool = False


async def _tour(session: Session) -> list[str]:
    client = session.client
    token = await client.run(create_flow(client, timeout="1h"))
    run_id = await session.trigger("tour", token.id)
    await session.wait_for_row(
        "the token is waited for",
        "SELECT 1 FROM run_waits w JOIN runs r ON r.id = w.run_id "
        "WHERE r.id = $1 AND w.waitpoint_id = $2 AND r.status = 'FROZEN'",
        run_id,
        token.id,
    )
    await client.run(complete_flow(client, token.id, "yes", None))
    await session.wait_until_all_finished([run_id])
    (row,) = await session.fetch("SELECT output, metadata FROM runs WHERE id = $1", run_id)
    assert json.loads(row["output"]) == [2, 4, 6, "yes"]
    assert json.loads(row["metadata"])["step"] == "done"
    children = await session.fetch("SELECT id FROM runs WHERE root_run_id = $1", run_id)
    assert len(children) == 3, "a child was triggered twice, or not at all"
    return [run_id, *(child["id"] for child in children)]


async def _trigger_batch(session: Session) -> list[str]:
    handle = await session.tasks.batch_trigger("add", [{"a": n, "b": 1} for n in range(20)])
    batches = await session.fetch("SELECT run_count FROM batches WHERE id = $1", handle.batch_id)
    assert [row["run_count"] for row in batches] == [20]
    items = await session.fetch("SELECT FROM batch_items WHERE batch_id = $1", handle.batch_id)
    assert len(items) == 20
    return [run.id for run in handle.runs]


async def _cancel(session: Session) -> list[str]:
    run_id = await session.trigger_gated()
    await session.wait_for_execution(run_id)
    await session.runs.cancel(run_id)
    return [run_id]


async def _cancel_many(session: Session) -> list[str]:
    run_ids = [await session.trigger("add", {"a": 1, "b": 2}, delay="1h") for _ in range(5)]
    made = await BulkRuns(session.client).bulk_cancel(run_ids=run_ids)
    await session.wait_for_row(
        "the bulk action is complete",
        "SELECT 1 FROM bulk_actions WHERE public_id = $1 AND status = 'COMPLETED' "
        "AND succeeded = 5",
        made.id,
    )
    return run_ids


async def _tick(session: Session) -> list[str]:
    schedules = Schedules(session.client)
    made = await schedules.create(
        task="chaos-scheduled",
        cron="0 5 1 1 *",
        deduplication_key="crash",
        missed_ticks="catch-up",
    )
    await session.fetch(_MAKE_DUE, made.id)
    row = await session.wait_for_row(
        "the tick has its run", "SELECT id FROM runs WHERE schedule_id = $1", made.id
    )
    run_ids = [row["id"]]
    await session.wait_until_all_finished(run_ids)
    rows = await session.fetch("SELECT id FROM runs WHERE schedule_id = $1", made.id)
    assert len(rows) == 1, "a tick triggered twice"
    await schedules.delete(made.id)
    return run_ids


async def _stream(session: Session) -> list[str]:
    """A batch in two steps, whose items are sent twice besides."""
    client = session.client
    key = {"x-trigger-request-idempotency-key": make_request_key()}
    body = json.dumps({"runCount": 3}).encode()
    opening = Call(method="POST", path="/api/v3/batches", body=body, headers=key)
    opened = json.loads((await client.run(client.request(opening))).body)
    lines: list[dict[str, object]] = [
        {"index": n, "task": "add", "payload": json.dumps({"a": n, "b": 1}), "options": {}}
        for n in range(3)
    ]
    items = Call(
        method="POST",
        path=f"/api/v3/batches/{opened['id']}/items",
        body="\n".join(json.dumps(line) for line in lines).encode(),
        headers={"content-type": "application/x-ndjson"},
    )
    for _ in range(2):
        answer = json.loads((await client.run(client.request(items))).body)
        assert answer["sealed"]
    rows = await session.fetch("SELECT run_id FROM batch_items WHERE batch_id = $1", opened["id"])
    assert len(rows) == 3, "an item was triggered twice, or not at all"
    return [row["run_id"] for row in rows]


async def _change(session: Session) -> list[str]:
    """Everything that changes one run from outside."""
    run_id = await session.trigger("add", {"a": 1, "b": 2}, delay="1h")
    for _ in range(2):
        await session.runs.update_metadata(run_id, MetadataChanges().increment("n"))
    await session.runs.add_tags(run_id, "changed")
    replayed = await session.runs.replay(run_id)
    await session.runs.reschedule(run_id, delay="2h")
    # Sent again when it is due, this would be refused.
    with contextlib.suppress(BadRequestError):
        await session.runs.reschedule(run_id, delay="1s")
    statuses = await session.wait_until_all_finished([run_id, replayed.id])
    await _export_twice(session, run_id)
    (row,) = await session.fetch("SELECT metadata, tags FROM runs WHERE id = $1", run_id)
    assert json.loads(row["metadata"]) == {"n": 2}, "an increment was done twice, or not at all"
    assert list(row["tags"]) == ["changed"]
    copies = await session.fetch("SELECT id FROM runs WHERE replay_of = $1", run_id)
    assert len(copies) == 1, "a run was replayed twice"
    return list(statuses)


async def _export_twice(session: Session, run_id: str) -> None:
    """A span and a log record within it, as OTLP; both are there once."""
    at = str(int(datetime.now(UTC).timestamp()) * 1_000_000_000)
    ids = {"traceId": "0af7651916cd43dd8448eb211c80319c", "spanId": "b7ad6b7169203331"}
    resource = {
        "attributes": [
            {"key": "$trigger", "value": {"boolValue": True}},
            {"key": "ctx.run.id", "value": {"stringValue": run_id}},
        ]
    }
    span = {**ids, "name": "fetch", "startTimeUnixNano": at, "endTimeUnixNano": at}
    record = {**ids, "timeUnixNano": at, "body": {"stringValue": "it broke"}}
    exports = {
        "/otel/v1/traces": {
            "resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": [span]}]}]
        },
        "/otel/v1/logs": {
            "resourceLogs": [{"resource": resource, "scopeLogs": [{"logRecords": [record]}]}]
        },
    }
    for path, body in exports.items():
        call = Call(method="POST", path=path, body=json.dumps(body).encode())
        await session.client.run(session.client.request(call))
    rows = await session.fetch("SELECT name FROM run_spans WHERE run_id = $1", run_id)
    names = sorted(row["name"] for row in rows)
    assert names == ["fetch", "it broke"], names


async def _answer_by_url(session: Session) -> list[str]:
    """Two tokens that a run waits for: one is completed by its URL, the other by an event."""
    client = session.client
    name = f"event-{session.folder.name}"
    key = f"token-{session.folder.name}"
    by_url = await client.run(create_flow(client, timeout="1h", idempotency_key=key))
    by_event = await client.run(
        create_flow(client, timeout="1h", idempotency_key=name, event={"name": name})
    )
    run_ids = [
        await session.trigger("chaos-token", {"token": token.id, "number": 1})
        for token in (by_url, by_event)
    ]
    path = by_url.url.removeprefix(session.platform.server.url)
    await client.run(client.request(Call(method="POST", path=path, body=b'"yes"')))
    await client.run(send_event_flow(client, name, "yes", None))
    await session.wait_until_all_finished(run_ids)
    rows = await session.fetch("SELECT output FROM runs WHERE id = ANY($1::text[])", run_ids)
    assert [json.loads(row["output"]) for row in rows] == [[1, "yes"]] * 2
    return run_ids


async def _delay(session: Session) -> list[str]:
    return [await session.trigger("add", {"a": 1, "b": 2}, delay="1s")]


async def _trigger_in_transaction(session: Session) -> list[str]:
    connection = await session.connect()
    try:
        async with connection.transaction(), session.tasks.in_transaction(connection):
            one = await session.trigger("add", {"a": 1, "b": 1})
            batch = await session.tasks.batch_trigger("add", [{"a": n, "b": 1} for n in range(3)])
    finally:
        await connection.close()
    return [one, *(run.id for run in batch.runs)]


async def _expire(session: Session) -> list[str]:
    first = await session.trigger_gated("one-by-one")
    await session.wait_for_execution(first)
    second = await session.trigger_gated("one-by-one", ttl="1s")
    await session.wait_until_all_finished([second])
    session.open_gate()
    await session.wait_until_all_finished([first])
    return [second]


async def _lose_worker(session: Session) -> list[str]:
    run_id = await session.trigger_gated()
    await session.wait_for_execution(run_id)
    session.kill("supervisor")
    # A worker that came again would give its runs back by itself.
    await session.wait_for_row(
        "the run was taken from the dead worker",
        "SELECT 1 FROM runs WHERE id = $1 AND lease_id IS NULL",
        run_id,
    )
    session.open_gate()
    session.platform.mend()
    return [run_id]


async def _wait_for_version(session: Session) -> list[str]:
    run_id = await session.trigger("not-yet", {"a": 1, "b": 2})
    # As if there were a new version that has it.
    await session.fetch(
        "UPDATE runs SET task_id = 'add' WHERE id = $1 AND execution_status = 'RUN_CREATED' "
        "RETURNING 1",
        run_id,
    )
    return [run_id]


async def _cancel_family(session: Session) -> list[str]:
    parent = await session.trigger("have-children", str(session.folder / "never"))
    children = "SELECT id FROM runs WHERE parent_run_id = $1"
    await session.wait_for_row(
        "four children are there",
        "SELECT 1 FROM runs WHERE parent_run_id = $1 HAVING count(*) >= 4",
        parent,
    )
    # One of the API cancels the children too, at once.
    await BulkRuns(session.client).bulk_cancel(run_ids=[parent])
    return [parent, *(row["id"] for row in await session.fetch(children, parent))]


async def _set_up(session: Session) -> list[str]:
    """Records that are changed: a queue, a variable, a schedule, an idempotency key."""
    queues, schedules = Queues(session.client), Schedules(session.client)
    await queues.pause("echo", type="task")
    await queues.override_concurrency_limit("echo", 3, type="task")
    await queues.reset_concurrency_limit("echo", type="task")
    await queues.resume("echo", type="task")
    variables = EnvVars(session.client)
    await variables.create("CRASH", "1")
    await variables.update("CRASH", "2")
    # Sent again after its answer was lost, it finds nothing.
    with contextlib.suppress(NotFoundError):
        await variables.delete("CRASH")
    made = await schedules.create(
        task="chaos-scheduled", cron="0 5 1 1 *", deduplication_key=session.folder.name
    )
    await schedules.update(made.id, task="chaos-scheduled", cron="0 6 1 1 *")
    await schedules.deactivate(made.id)
    await schedules.activate(made.id)
    key = f"key-{session.folder.name}"
    first = await session.trigger("add", {"a": 1, "b": 1}, idempotency_key=key)
    assert await session.trigger("add", {"a": 1, "b": 1}, idempotency_key=key) == first
    reset = Call(
        method="POST",
        path=f"/api/v1/idempotencyKeys/{read_key(key)}/reset",
        body=b'{"taskIdentifier":"add"}',
    )
    await session.client.run(session.client.request(reset))
    second = await session.trigger("add", {"a": 1, "b": 1}, idempotency_key=key)
    assert second != first
    rows = await session.fetch("SELECT cron FROM schedules WHERE public_id = $1", made.id)
    assert [row["cron"] for row in rows] == ["0 6 1 1 *"]
    with contextlib.suppress(NotFoundError):
        await schedules.delete(made.id)
    assert not await session.fetch("SELECT FROM schedules WHERE public_id = $1", made.id)
    return [first, second]


WORKS = {
    "tour": Work(_tour),
    "batch": Work(_trigger_batch),
    "stream": Work(_stream),
    "change": Work(_change),
    "set-up": Work(_set_up),
    "by-url": Work(_answer_by_url),
    "delay": Work(_delay),
    "transaction": Work(_trigger_in_transaction),
    "expire": Work(_expire, "EXPIRED", needs_worker=True),
    "lost-worker": Work(_lose_worker, needs_worker=True),
    "version": Work(_wait_for_version),
    "cancel": Work(_cancel, "CANCELED"),
    "family": Work(_cancel_family, "CANCELED"),
    "bulk": Work(_cancel_many, "CANCELED"),
    "tick": Work(_tick),
}
