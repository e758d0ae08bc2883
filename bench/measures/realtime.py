"""What a thousand subscriptions cost, and how soon one of them hears of a change."""

import asyncio
import json
import time
from urllib.parse import urlencode

from bench.connection import HttpConnection
from bench.figures import Figure, Section
from bench.instance import Instance, open_instance
from bench.stats import percentile
from bench.tables import markdown_table
from bench.versions import register_version

_SUBSCRIBERS = 1_000


class _Subscriber:
    """A subscription to one run, asked for anew as soon as it is answered."""

    def __init__(self, instance: Instance, run_id: str) -> None:
        self._instance = instance
        self._path = f"/realtime/v1/runs/{run_id}"
        self._query = {"offset": "-1"}
        self.heard = asyncio.Event()
        self.heard_at = 0.0
        self._task: asyncio.Task[None] | None = None
        self.waits = asyncio.Event()

    async def start(self) -> None:
        """Subscribe; returns once it waits for a change."""
        self._task = asyncio.create_task(self._follow())
        await self.waits.wait()

    async def stop(self) -> None:
        """End it."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))

    async def _follow(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._instance.port)
        try:
            while True:
                writer.write(
                    f"GET {self._path}?{urlencode(self._query)} HTTP/1.1\r\nHost: bench\r\n"
                    f"Authorization: Bearer {self._instance.secret_key}\r\n\r\n".encode()
                )
                if "live" in self._query:
                    self.waits.set()
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                lines = [line.partition(": ") for line in head.splitlines()[1:] if line]
                headers = {name.lower(): value for name, _, value in lines}
                messages = json.loads(await reader.readexactly(int(headers["content-length"])))
                if len(messages) > 1 and "live" in self._query:
                    self.heard_at = time.perf_counter()
                    self.heard.set()
                self._query = {
                    "offset": headers["electric-offset"],
                    "handle": headers["electric-handle"],
                    "live": "true",
                }
        finally:
            writer.close()


async def measure(*, is_quick: bool) -> Section:
    """A subscriber for each of a thousand runs; then one run after the other is changed."""
    changes = 100 if is_quick else 500
    async with open_instance(
        worker=False, RUNWELL_RATE_LIMIT="off", RUNWELL_PUBLIC_RATE_LIMIT="off"
    ) as instance:
        connection = await instance.connect()
        await register_version(connection, ["noop"])
        body = {"items": [{"task": "noop"} for _ in range(_SUBSCRIBERS)]}
        batch = await connection.post("/api/v1/tasks/batch", body)
        run_ids = [run["id"] for run in batch["runs"]]
        # Whatever is made once is made by now.
        first = _Subscriber(instance, run_ids[0])
        await first.start()
        before_kb = instance.pss_kb()["server"]
        others = [_Subscriber(instance, run_id) for run_id in run_ids[1:]]
        for one in others:
            await one.start()
        await asyncio.sleep(1)
        each_kb = (instance.pss_kb()["server"] - before_kb) / len(others)
        cpu, start = instance.cpu_ns(), time.monotonic()
        await asyncio.sleep(10)
        idle = {
            part: (value - cpu[part]) / 1e7 / (time.monotonic() - start)
            for part, value in instance.cpu_ns().items()
        }
        subscribers = [first, *others]
        latencies = [
            await _change(connection, subscribers[number], run_ids[number], number)
            for number in range(changes)
        ]
        for one in subscribers:
            await one.stop()
        connection.close()
    rows = [
        [
            f"{percentile(latencies, 0.5):.1f}",
            f"{percentile(latencies, 0.95):.1f}",
            f"{each_kb:.1f}",
        ]
        + [f"{value:.1f}" for value in idle.values()]
    ]
    header = ["change to subscriber, p50 ms", "p95 ms", "kB each"]
    return Section(
        title="Realtime",
        how=f"{_SUBSCRIBERS:,} subscriptions to as many runs on one server; from sending "
        "a change of metadata until its subscriber has the row, one change after the other.",
        figures=[
            Figure(
                name="change to subscriber, p95",
                value=percentile(latencies, 0.95),
                unit="ms",
                bar=30,
                more_is_better=False,
                digits=1,
            ),
            Figure(
                name="idle subscription",
                value=each_kb,
                unit="kB",
                bar=30,
                more_is_better=False,
                digits=1,
            ),
        ],
        tables=[markdown_table([*header, *(f"idle, % of a core: {part}" for part in idle)], rows)],
    )


async def _change(
    connection: HttpConnection, subscriber: _Subscriber, run_id: str, number: int
) -> float:
    body = json.dumps({"metadata": {"number": number}}).encode()
    request = connection.prepare(f"/api/v1/runs/{run_id}/metadata", body, method="PUT")
    subscriber.heard.clear()
    start = time.perf_counter()
    await connection.send(request)
    async with asyncio.timeout(30):
        await subscriber.heard.wait()
    return (subscriber.heard_at - start) * 1000
