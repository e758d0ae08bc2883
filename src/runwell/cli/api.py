"""The API as the commands call it: blocking, with the models of the wire."""

from collections.abc import Iterator, Mapping, Sequence
from urllib.parse import quote

from runwell.cli.connection import Connection
from runwell.client.api import ApiClient
from runwell.client.options import Retry
from runwell.client.packets import load_flow
from runwell.client.queues import QueueFlows
from runwell.client.schedules import BlockingSchedules
from runwell.client.transport import Call, ClientSettings, json_body
from runwell.core.batch_schemas import BatchAnswer
from runwell.core.bulk_schemas import BulkActionObject, RunCount
from runwell.core.ids import make_request_key
from runwell.core.payloads import JSON_TYPE, Json
from runwell.core.queue_schemas import EnvironmentObject, QueueObject
from runwell.core.schemas import (
    CanceledRun,
    LogLine,
    LogPage,
    ReplayedRun,
    RunList,
    RunListItem,
    RunObject,
    TriggerAnswer,
)
from runwell.core.trace_schemas import Trace, TraceAnswer

_PAGE_SIZE = 100
_LOG_PAGE_SIZE = 1000
# Somebody waits at the terminal: a server that is away is told of within seconds.
_RETRY = Retry(max_attempts=3, factor=1.6, min_timeout=0.3, max_timeout="2s", randomize=False)


class Api:
    """Calls of one environment's API."""

    def __init__(self, connection: Connection) -> None:
        """Call the server of a connection."""
        settings = ClientSettings(
            base_url=connection.url, secret_key=connection.secret_key, retry=_RETRY
        )
        self.url = connection.url
        self._client = ApiClient(lambda: settings)
        self._queues = QueueFlows(self._client)
        self.schedules = BlockingSchedules(self._client)

    def trigger(
        self, task_id: str, payload: str | None, options: Mapping[str, Json]
    ) -> TriggerAnswer:
        """Trigger a run; `payload` is a JSON text."""
        body: dict[str, object] = {"options": dict(options)}
        if payload is not None:
            body["payload"] = payload
        call = Call(
            method="POST",
            path=f"/api/v1/tasks/{quote(task_id, safe='')}/trigger",
            body=json_body(body),
            headers={"x-trigger-request-idempotency-key": make_request_key()},
        )
        return self._client.run_blocking(self._client.ask(call, TriggerAnswer))

    def trigger_batch(
        self, task_id: str, payloads: Sequence[str], options: Mapping[str, Json]
    ) -> BatchAnswer:
        """Trigger a run for each payload, a JSON text, in one step; 1,000 at most."""
        items = [
            {"task": task_id, "payload": payload, "options": dict(options)} for payload in payloads
        ]
        call = Call(
            method="POST",
            path="/api/v1/tasks/batch",
            body=json_body({"items": items}),
            headers={"x-trigger-request-idempotency-key": make_request_key()},
        )
        return self._client.run_blocking(self._client.ask(call, BatchAnswer))

    def retrieve(self, run_id: str) -> RunObject:
        """A run with its attempts, and its payload and output unless they are large."""
        call = Call(method="GET", path=f"/api/v3/runs/{quote(run_id, safe='')}")
        return self._client.run_blocking(self._client.ask(call, RunObject))

    def load(self, run: RunObject) -> RunObject:
        """A retrieved run with its payload and output, however large they are."""
        self._client.run_blocking(load_flow(self._client, run))
        return run

    def list_runs(self, filters: Mapping[str, str], limit: int) -> Iterator[RunListItem]:
        """The newest `limit` runs that match."""
        query = {**filters, "page[size]": str(min(limit, _PAGE_SIZE))}
        while limit > 0:
            call = Call(method="GET", path="/api/v1/runs", query=query)
            page = self._client.run_blocking(self._client.ask(call, RunList))
            yield from page.data[:limit]
            limit -= len(page.data)
            if page.pagination.next is None:
                return
            query = {**query, "page[after]": page.pagination.next}

    def cancel(self, run_id: str) -> str:
        """Cancel a run and return its id; one that has ended stays as it is."""
        call = Call(method="POST", path=f"/api/v2/runs/{quote(run_id, safe='')}/cancel")
        return self._client.run_blocking(self._client.ask(call, CanceledRun)).id

    def replay(self, run_id: str, payload: str | None) -> str:
        """Trigger a copy of a run and return its id; with another payload (JSON text) if given."""
        body = None
        if payload is not None:
            body = json_body({"payload": payload, "payloadType": JSON_TYPE})
        call = Call(
            method="POST",
            path=f"/api/v1/runs/{quote(run_id, safe='')}/replay",
            body=body,
            headers={"x-trigger-request-idempotency-key": make_request_key()},
        )
        return self._client.run_blocking(self._client.ask(call, ReplayedRun)).id

    def reschedule(self, run_id: str, delay: str) -> RunObject:
        """Give a delayed run another delay."""
        call = Call(
            method="POST",
            path=f"/api/v1/runs/{quote(run_id, safe='')}/reschedule",
            body=json_body({"delay": delay}),
        )
        return self._client.run_blocking(self._client.ask(call, RunObject))

    def list_queues(self) -> Iterator[QueueObject]:
        """All queues, by their names."""
        number, last = 1, 1
        while number <= last:
            flow = self._queues.list_flow(number, _PAGE_SIZE, None)
            page = self._client.run_blocking(flow)
            yield from page.data
            number, last = number + 1, page.pagination.total_pages

    def set_queue_paused(self, name: str, *, is_paused: bool) -> QueueObject:
        """Pause a queue, or resume it."""
        action = "pause" if is_paused else "resume"
        return self._client.run_blocking(self._queues.pause_flow(name, None, action, None))

    def limit_queue(self, name: str, limit: int | None) -> QueueObject:
        """Put another concurrency limit over a queue's own; None lets its own hold again."""
        flow = (
            self._queues.reset_flow(name, None, None)
            if limit is None
            else self._queues.override_flow(name, None, limit, None)
        )
        return self._client.run_blocking(flow)

    def show_environment(self) -> EnvironmentObject:
        """What the environment runs, and may run."""
        call = Call(method="GET", path="/api/v1/environment")
        return self._client.run_blocking(self._client.ask(call, EnvironmentObject))

    def change_environment(self, change: str, body: Mapping[str, object]) -> EnvironmentObject:
        """Pause the environment, or limit it."""
        path = f"/api/v1/environment/{change}"
        call = Call(method="POST", path=path, body=json_body(dict(body)))
        return self._client.run_blocking(self._client.ask(call, EnvironmentObject))

    def count_runs(self, body: Mapping[str, object]) -> int:
        """How many runs a bulk action would be about."""
        call = Call(method="POST", path="/api/v1/bulk-actions/count", body=json_body(body))
        return self._client.run_blocking(self._client.ask(call, RunCount)).count

    def begin_bulk_action(self, body: Mapping[str, object]) -> BulkActionObject:
        """Begin a bulk action."""
        call = Call(
            method="POST",
            path="/api/v1/bulk-actions",
            body=json_body(body),
            headers={"x-trigger-request-idempotency-key": make_request_key()},
        )
        return self._client.run_blocking(self._client.ask(call, BulkActionObject))

    def retrieve_bulk_action(self, action_id: str) -> BulkActionObject:
        """How far a bulk action is."""
        call = Call(method="GET", path=f"/api/v1/bulk-actions/{quote(action_id, safe='')}")
        return self._client.run_blocking(self._client.ask(call, BulkActionObject))

    def abort_bulk_action(self, action_id: str) -> BulkActionObject:
        """Leave alone the runs that a bulk action hasn't come to yet."""
        call = Call(method="POST", path=f"/api/v1/bulk-actions/{quote(action_id, safe='')}/abort")
        return self._client.run_blocking(self._client.ask(call, BulkActionObject))

    def read_trace(self, run_id: str, limit: int) -> Trace:
        """The trace of a run, of at most so many spans and lines."""
        path = f"/api/v1/runs/{quote(run_id, safe='')}/trace"
        call = Call(method="GET", path=path, query={"limit": str(limit)})
        return self._client.run_blocking(self._client.ask(call, TraceAnswer)).trace

    def read_log(self, run_id: str, after: str | None) -> tuple[list[LogLine], str | None]:
        """All lines of a run after a cursor, and the cursor to read on from."""
        lines: list[LogLine] = []
        while True:
            query = {"limit": str(_LOG_PAGE_SIZE)} | ({"after": after} if after else {})
            path = f"/api/v1/runs/{quote(run_id, safe='')}/logs"
            page = self._client.run_blocking(
                self._client.ask(Call(method="GET", path=path, query=query), LogPage)
            )
            lines += page.data
            after = page.next or None
            if len(page.data) < _LOG_PAGE_SIZE:
                return lines, after


def run_url(url: str, run_id: str) -> str:
    """Where a run can be looked at."""
    return f"{url}/api/v3/runs/{run_id}"
