"""What a worker says to the server, for measurements that take its place."""

from collections.abc import Collection
from datetime import UTC, datetime

from bench.connection import HttpConnection

_ACTIONS = "/engine/v1/worker-actions"


async def register_version(
    connection: HttpConnection, task_ids: list[str], *, scheduled: Collection[str] = ()
) -> str:
    """Register a version with these tasks, some of which take schedules, and return its id."""
    tasks = [
        {
            "id": task_id,
            "filePath": "trigger/probes.py",
            "exportName": task_id,
            **({"triggerSource": "schedule"} if task_id in scheduled else {}),
        }
        for task_id in task_ids
    ]
    metadata = {"packageVersion": "0.1.0", "contentHash": "0123456789abcdef", "tasks": tasks}
    answer = await connection.post(
        "/api/v1/projects/~/background-workers", {"localOnly": False, "metadata": metadata}
    )
    return answer["id"]


class WorkerCalls:
    """The calls of a worker, on one connection."""

    def __init__(self, connection: HttpConnection, worker_id: str, version_id: str) -> None:
        self._connection = connection
        self._worker_id = worker_id
        self._version_id = version_id
        self._requests = 0

    @classmethod
    async def connect(cls, connection: HttpConnection, version_id: str) -> "WorkerCalls":
        """Register as a worker."""
        body = {"name": "bench", "capacity": 1000, "packageVersion": "0.1.0"}
        answer = await connection.post(f"{_ACTIONS}/connect", body)
        return cls(connection, answer["workerId"], version_id)

    def prepare_dequeue(self, max_runs: int) -> bytes:
        """The bytes of a dequeue request that doesn't wait."""
        self._requests += 1
        body = (
            f'{{"workerId":"{self._worker_id}","requestId":"request-{self._requests}",'
            f'"backgroundWorkerIds":["{self._version_id}"],"maxRuns":{max_runs},"waitMs":0}}'
        )
        return self._connection.prepare(f"{_ACTIONS}/dequeue", body.encode())

    async def complete(self, held: list[tuple[str, int]]) -> None:
        """Complete runs, given with their leases."""
        now = datetime.now(UTC).isoformat()
        reports = [
            {
                "type": "complete",
                "runId": run_id,
                "snapshotId": lease,
                "output": "null",
                "startedAt": now,
                "finishedAt": now,
                "durationMs": 1,
            }
            for run_id, lease in held
        ]
        body = {"workerId": self._worker_id, "reports": reports}
        answer = await self._connection.post(f"{_ACTIONS}/report", body)
        assert set(answer["results"]) <= {"accepted"}, answer
