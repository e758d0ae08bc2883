"""A cheap HTTP load generator, in a process of its own.

`python -m bench.load < job.json` does the job and prints what it measured as JSON. Each client is a
closed loop on one connection. Bounded by a count of requests and by time.
"""

import asyncio
import json
import re
import sys
import time
from dataclasses import asdict, dataclass

import uvloop

from bench.connection import HttpConnection

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
    secret_key: str = "tr_dev_none"
    reports: bool = False
    method: str = "POST"


@dataclass(kw_only=True)
class Outcome:
    """What a job measured: `latencies_ms` of each request, and its own processor time."""

    requests: int
    seconds: float
    cpu_seconds: float
    latencies_ms: list[float]

    @property
    def rate(self) -> float:
        """Requests per second."""
        return self.requests / self.seconds


async def run_job(job: Job) -> Outcome:
    """Do the job; raises RuntimeError when an answer isn't a 2xx."""
    body = job.body.encode()
    latencies: list[float] = []
    left = job.requests
    connections = [await HttpConnection.open(job.port, job.secret_key) for _ in range(job.clients)]

    async def work(connection: HttpConnection) -> None:
        nonlocal left
        request, answer = connection.prepare(job.path, body, method=job.method), b""
        while left > 0 and time.perf_counter() < deadline:
            left -= 1
            if job.reports:
                filled = body.replace(b'"reports":[]', b'"reports":[' + _completions(answer) + b"]")
                request = connection.prepare(job.path, filled)
            sent_at = time.perf_counter_ns()
            answer = await connection.send(request)
            latencies.append((time.perf_counter_ns() - sent_at) / 1e6)

    cpu, start = time.process_time(), time.perf_counter()
    deadline = start + job.seconds
    async with asyncio.timeout(job.seconds + 30):
        await asyncio.gather(*(work(connection) for connection in connections))
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    for connection in connections:
        connection.close()
    return Outcome(
        requests=len(latencies), seconds=seconds, cpu_seconds=cpu, latencies_ms=latencies
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
