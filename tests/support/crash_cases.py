"""The crash matrix: what is done, where a process comes by, and what happens to it there.

`LEFT_OUT` has the rest of all points that the code has; tests/architecture sees to it.
"""

from collections.abc import Sequence

from runwell.core.failpoints import FAIL, KILL, LOSE

#: While the process stands still at the point, all its connections to PostgreSQL are ended.
CUT = "cut"

#: A work by its name, a failpoint, an action.
Case = tuple[str, str, str]

_OPERATION = ((KILL, "begin"), (KILL, "answer"), (LOSE, "answer"))
_WRITTEN = (
    (KILL, "commit"),
    (LOSE, "commit"),
    (CUT, "commit"),
    (KILL, "committed"),
    (LOSE, "committed"),
    (CUT, "committed"),
)
_WRITER = (*_OPERATION, *_WRITTEN)
# Of records that one statement changes.
_RECORD = ((LOSE, "commit"), (LOSE, "committed"), (LOSE, "answer"))
_LOOP = (
    (KILL, "commit"),
    (FAIL, "commit"),
    (CUT, "commit"),
    (KILL, "committed"),
    (LOSE, "committed"),
    (KILL, "done"),
    (FAIL, "done"),
)
_CALL = ((KILL, "send"), (KILL, "answered"))
_MESSAGE = ((KILL, "send"), (KILL, "sent"))


def _cases(work: str, scope: str, moments: Sequence[tuple[str, str]]) -> list[Case]:
    return [(work, f"{scope}.{moment}", action) for action, moment in moments]


CASES: tuple[Case, ...] = (
    # Operations.
    *_cases("tour", "triggerTask", _WRITER),
    *_cases("tour", "dequeue", _WRITER),
    *_cases("tour", "report", _WRITER),
    *_cases("tour", "wait", _WRITER),
    *_cases("tour", "resume", _WRITER),
    *_cases("tour", "heartbeat", _WRITER),
    *_cases("tour", "completeToken", _WRITER),
    *_cases("by-url", "completeTokenByUrl", _WRITER),
    *_cases("batch", "triggerBatch", _WRITER),
    *_cases("stream", "openBatch", _WRITER),
    *_cases("stream", "addBatchItems", _WRITER),
    *_cases("change", "updateMetadata", _WRITER),
    *_cases("change", "replayRun", _WRITER),
    *_cases("cancel", "cancelRun", _WRITER),
    *_cases("bulk", "createBulkAction", _WRITER),
    *_cases("change", "addTags", _RECORD),
    *_cases("change", "rescheduleRun", _RECORD),
    *_cases("change", "exportTraces", _RECORD),
    *_cases("change", "exportLogs", _RECORD),
    *_cases("by-url", "createToken", _RECORD),
    *_cases("by-url", "sendEvent", _RECORD),
    *_cases("set-up", "pauseQueue", _RECORD),
    *_cases("set-up", "overrideQueueConcurrency", _RECORD),
    *_cases("set-up", "resetQueueConcurrency", _RECORD),
    *_cases("set-up", "createVariable", _RECORD),
    *_cases("set-up", "updateVariable", _RECORD),
    *_cases("set-up", "deleteVariable", _RECORD),
    *_cases("set-up", "createSchedule", _RECORD),
    *_cases("set-up", "updateSchedule", _RECORD),
    *_cases("set-up", "deactivateSchedule", _RECORD),
    *_cases("set-up", "activateSchedule", _RECORD),
    *_cases("set-up", "deleteSchedule", _RECORD),
    *_cases("set-up", "resetIdempotencyKey", _RECORD),
    # Loops of the server.
    *_cases("tour", "waits", _LOOP),
    *_cases("tour", "dates", _LOOP),
    *_cases("tick", "schedules", _LOOP),
    *_cases("bulk", "bulk_actions", _LOOP),
    *_cases("delay", "due_runs", _LOOP),
    *_cases("transaction", "pending_triggers", _LOOP),
    *_cases("expire", "expiry", _LOOP),
    *_cases("lost-worker", "lost_runs", _LOOP),
    *_cases("version", "waiting_runs", _LOOP),
    *_cases("family", "cancels", _LOOP),
    # Workers, before they ask and after they were answered.
    *_cases("tour", "worker-dequeue", _CALL),
    *_cases("tour", "worker-report", _CALL),
    *_cases("tour", "worker-wait", _CALL),
    *_cases("tour", "worker-resume", _CALL),
    # It asks for as long as nothing is canceled: before, it is always on its way.
    *_cases("tour", "worker-heartbeat", ((KILL, "answered"),)),
    # Task processes and their warm parent.
    *_cases("tour", "task-metadata", _MESSAGE),
    *_cases("tour", "task-wait", _MESSAGE),
    *_cases("tour", "task-complete", _MESSAGE),
    *_cases("tour", "parent", ((KILL, "forked"),)),
)


# With these, every test run has each scope of the matrix, and each kind of moment.
_BY_EACH_RUN = {
    "triggerTask.commit cut",
    "triggerTask.committed kill",
    "triggerTask.answer lose",
    "dequeue.commit cut",
    "dequeue.committed kill",
    "dequeue.answer lose",
    "report.commit kill",
    "report.committed lose",
    "report.answer lose",
    "wait.commit lose",
    "wait.committed kill",
    "resume.commit cut",
    "resume.committed lose",
    "triggerBatch.commit kill",
    "triggerBatch.committed lose",
    "addBatchItems.commit lose",
    "addBatchItems.committed kill",
    "completeToken.committed kill",
    "cancelRun.begin kill",
    "createBulkAction.answer kill",
    "schedules.commit fail",
    "schedules.committed kill",
    "waits.committed kill",
    "waits.commit cut",
    "lost_runs.commit cut",
}


def choose_cases() -> list[Case]:
    """The cases that every test run has: one of each scope at least."""
    chosen = [case for case in CASES if f"{case[1]} {case[2]}" in _BY_EACH_RUN]
    assert len(chosen) == len(_BY_EACH_RUN)
    there = {_scope(case) for case in chosen}
    for case in reversed(CASES):
        if _scope(case) not in there and case[2] != KILL:
            chosen.append(case)
            there.add(_scope(case))
    return chosen + [
        next(case for case in CASES if _scope(case) == scope)
        for scope in sorted(list_scopes() - there)
    ]


def _scope(case: Case) -> str:
    return case[1].rpartition(".")[0]


def list_scopes() -> set[str]:
    """The scopes of all points of the matrix."""
    return {_scope(case) for case in CASES}


_OF_A_START = "said when a process starts: every kill of the matrix has it said anew"
_TIDIES = "only deletes what is over, in steps that may be done twice"
_IN_PROCESS = "one statement on a record with a name of its own: doing it twice is doing it once"
_READS = "only reads"
_SAME = "the same engine function as "

#: Scopes that the matrix doesn't have, with the reason.
LEFT_OUT: dict[str, str] = {
    "registerBackgroundWorker": _OF_A_START,
    "connect": _OF_A_START,
    "disconnect": "said when a worker ends in order: without it, the lease ends",
    "worker-connect": _OF_A_START,
    "task-ready": _OF_A_START,
    "triggerBatch4x": _SAME + "triggerBatch",
    "triggerTaskBatch": _SAME + "triggerBatch",
    "abortBulkAction": _IN_PROCESS,
    "countBulkAction": _READS,
    "createPacketUpload": _READS,
    "createPacketUpload4x": _READS,
    "uploadPacket": "writes a file of a name of its own, which may be written twice",
    "createStream": _READS,
    "writeStream": "writers number their chunks: tests/server/test_streams.py sends some again",
    "writeOwnStream": _SAME + "writeStream",
    "old_streams": _TIDIES,
    "pauseEnvironment": _SAME + "pauseQueue",
    "limitEnvironment": _IN_PROCESS,
    "importVariables": _SAME + "createVariable",
    "describePublicTokens": _READS,
    "createPublicToken": "only signs",
    "createPublicToken4x": "only signs",
    "rotateKey": "a new key is shown once: whoever lost the answer rotates again",
    "createPersonalToken": "a new token is shown once: whoever lost the answer makes another",
    "revokePersonalToken": _IN_PROCESS,
    "task-fail": "the supervisor reports it as it reports task-complete",
    "task-stopped": "the process is killed when it doesn't say so in time",
    "rate_limits": "opens subqueues, which may be done twice",
    "empty_subqueues": _TIDIES,
    "unused_subqueues": _TIDIES,
    "tidying": _TIDIES,
    "span_days": "makes partitions that are not there, under a lock: again it does nothing",
    "backlogs": "only counts",
    "changes": _TIDIES,
    "packets": _TIDIES,
    "object_store": _TIDIES,
    "old_lines": _TIDIES,
    "old_runs": _TIDIES,
    "old_batches": _TIDIES,
}
