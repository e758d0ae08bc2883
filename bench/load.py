"""A cheap HTTP load generator: raw sockets, hand-made requests, a process of its own.

`python -m bench.load < job.json` does the job and prints what it measured as JSON. Each client is a
closed loop on one connection. Bounded by a count of requests and by time.
"""

import asyncio
import json
import re
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import cast

import uvloop

_RUN = re.compile(rb'"runId":"([^"]+)"[^{]*?"snapshotId":(\d+)')


@dataclass(kw_only=True)
class Job:
    """What to send: `requests` in all, shared by `clients`, for at most `seconds`.

    With `reports` the body's text `"reports":[]` is filled with a completion of every run that the
    client's last answer held.
    """

    port: int
    path: str
    body: str
    clients: int
    requests: int
    seconds: float = 20.0
    headers: dict[str, str] = field(default_factory=dict[str, str])
    reports: bool = False


@dataclass(kw_only=True)
class Outcome:
    """What a job measured: `latencies_ms` of each request, and its own processor time."""

    requests: int
    seconds: float
    cpu_seconds: float
    latencies_ms: list[float]


class _Client(asyncio.Protocol):
    """One connection; `on_answer` is called with every body."""

    def __init__(self, on_answer: Callable[["_Client", bytes], None]) -> None:
        self._on_answer = on_answer
        self._buffer = b""
        self._needed = -1
        self.transport: asyncio.Transport | None = None
        self.sent_at = 0
        self.failure: str | None = None
        self.ended = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not isinstance: uvloop's transports are none of asyncio's classes.
        self.transport = cast("asyncio.Transport", transport)

    def send(self, request: bytes) -> None:
        assert self.transport is not None
        self.sent_at = time.perf_counter_ns()
        self.transport.write(request)

    def stop(self) -> None:
        if not self.ended.done():
            self.ended.set_result(None)

    def fail(self, why: str) -> None:
        self.failure = self.failure or why
        self.stop()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._needed < 0:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            head = self._buffer[:end].lower()
            if not head.startswith(b"http/1.1 2"):
                self.fail(self._buffer[:600].decode(errors="replace"))
                return
            length = head.partition(b"content-length:")[2].partition(b"\r\n")[0]
            self._needed = end + 4 + int(length)
        if len(self._buffer) >= self._needed:
            body = self._buffer[self._buffer.find(b"\r\n\r\n") + 4 :]
            self._buffer, self._needed = b"", -1
            self._on_answer(self, body)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended.done():
            self.fail(f"the server closed the connection ({exc})")


async def run_job(job: Job) -> Outcome:
    """Do the job; raises RuntimeError when an answer isn't a 2xx."""
    head = "".join(f"{name}: {value}\r\n" for name, value in job.headers.items())
    prefix = (
        f"POST {job.path} HTTP/1.1\r\nHost: 127.0.0.1:{job.port}\r\n"
        f"Content-Type: application/json\r\n{head}Content-Length: "
    ).encode()
    body = job.body.encode()
    plain = prefix + f"{len(body)}\r\n\r\n".encode() + body
    latencies: list[float] = []
    left = job.requests
    deadline = time.perf_counter() + job.seconds

    def next_request(answer: bytes) -> bytes:
        if not job.reports:
            return plain
        filled = body.replace(b'"reports":[]', b'"reports":[' + _completions(answer) + b"]")
        return prefix + f"{len(filled)}\r\n\r\n".encode() + filled

    def on_answer(client: _Client, answer: bytes) -> None:
        nonlocal left
        latencies.append((time.perf_counter_ns() - client.sent_at) / 1e6)
        if left > 0 and time.perf_counter() < deadline:
            left -= 1
            client.send(next_request(answer))
        else:
            client.stop()

    loop = asyncio.get_running_loop()
    clients = [
        (await loop.create_connection(lambda: _Client(on_answer), "127.0.0.1", job.port))[1]
        for _ in range(job.clients)
    ]
    cpu, start = time.process_time(), time.perf_counter()
    for client in clients:
        left -= 1
        client.send(next_request(b""))
    async with asyncio.timeout(job.seconds + 30):
        await asyncio.gather(*(client.ended for client in clients))
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    for client in clients:
        if client.failure is not None:
            raise RuntimeError(f"POST {job.path}: {client.failure}")
        assert client.transport is not None
        client.transport.close()
    return Outcome(
        requests=len(latencies),
        seconds=seconds,
        cpu_seconds=cpu,
        latencies_ms=latencies,
    )


async def run_in_process(job: Job) -> Outcome:
    """Do the job in a process of its own, sharing no interpreter with what it measures."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.load"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate(json.dumps(asdict(job)).encode())
    if process.returncode != 0:
        raise RuntimeError(f"the load generator failed: {err.decode().strip().splitlines()[-1:]}")
    return Outcome(**json.loads(out))


def _completions(answer: bytes) -> bytes:
    return b",".join(
        b'{"type":"complete","runId":"%s","snapshotId":%s,"output":"null",'
        b'"startedAt":"2025-01-01T00:00:00Z","finishedAt":"2025-01-01T00:00:01Z","durationMs":3}'
        % (run_id, snapshot_id)
        for run_id, snapshot_id in _RUN.findall(answer)
    )


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asdict(uvloop.run(run_job(Job(**json.load(sys.stdin)))))))
