"""Which credentials each operation takes, and which scopes of a public access token: one table.

What isn't in it is refused to everybody. `docs/reference/access.md` is written from it.
Source: `protocol.md` sections 1.3 and 1.5.
"""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, kw_only=True)
class Access:
    """Who may call an operation. With nothing set: nobody.

    `action` is that of the scopes that let a public access token pass; `resources` are the types
    that may follow it, and a scope of `super_scopes` lets it pass alone. When the resource is in
    the path, `path_resource` says where: its type and the name of the parameter. Otherwise the
    route calls `auth.require`, once it knows.
    """

    is_open: bool = False
    takes_secret_keys: bool = False
    takes_personal_tokens: bool = False
    action: str = ""
    resources: tuple[str, ...] = ()
    super_scopes: tuple[str, ...] = ()
    path_resource: tuple[str, str] | None = None
    #: Not counted by the rate limit of its credential.
    is_unlimited: bool = False

    @property
    def takes_public_tokens(self) -> bool:
        """Whether a public access token with the right scope passes."""
        return bool(self.action)

    @property
    def is_denied(self) -> bool:
        """Whether nobody may call it."""
        return not (self.is_open or self.takes_secret_keys or self.takes_personal_tokens)


#: For what the table doesn't have.
DENIED: Final = Access()
#: No credential: the URL itself is one, or nothing is told that anybody may not know.
OPEN: Final = Access(is_open=True)
#: The secret key of an environment.
SECRET: Final = Access(takes_secret_keys=True)

#: A person's token: for what is more than an environment.
PERSONAL: Final = Access(takes_personal_tokens=True)
#: Either: the environment is that of the key, or one that the path names.
_SECRET_OR_PERSONAL: Final = Access(takes_secret_keys=True, takes_personal_tokens=True)

#: Asked for each token that is made, and by workers.
_UNLIMITED: Final = Access(takes_secret_keys=True, is_unlimited=True)

_READ_RUNS: Final = ("read:runs", "read:all", "admin")
_TRIGGER: Final = ("write:tasks", "admin")

READ_RUN: Final = Access(
    takes_secret_keys=True,
    action="read",
    resources=("runs", "tags", "batch", "tasks"),
    super_scopes=_READ_RUNS,
)
READ_BATCH: Final = Access(
    takes_secret_keys=True,
    action="read",
    resources=("batch",),
    super_scopes=_READ_RUNS,
    path_resource=("batch", "batchId"),
)
#: For subscriptions by tag.
READ_TAGS: Final = Access(
    takes_secret_keys=True, action="read", resources=("tags",), super_scopes=_READ_RUNS
)
_LIST_RUNS: Final = Access(
    takes_secret_keys=True, action="read", resources=("tasks",), super_scopes=_READ_RUNS
)
_TRIGGER_TASK: Final = Access(
    takes_secret_keys=True,
    action="trigger",
    resources=("tasks",),
    super_scopes=_TRIGGER,
    path_resource=("tasks", "taskId"),
)
#: The tasks of the items are what it is about.
BATCH_TRIGGER: Final = Access(
    takes_secret_keys=True, action="batchTrigger", resources=("tasks",), super_scopes=_TRIGGER
)
_COMPLETE_TOKEN: Final = Access(
    takes_secret_keys=True,
    action="write",
    resources=("waitpoints",),
    super_scopes=("admin",),
    path_resource=("waitpoints", "tokenId"),
)

#: By the names of the operations.
ACCESS: Final[dict[str, Access]] = {
    # Runs.
    "triggerTask": _TRIGGER_TASK,
    "retrieveRun": READ_RUN,
    "retrieveRunResult": SECRET,
    "listRuns": _LIST_RUNS,
    "cancelRun": SECRET,
    "replayRun": SECRET,
    "rescheduleRun": SECRET,
    "addTags": SECRET,
    "updateMetadata": SECRET,
    "readMetadata": SECRET,
    "readRunLog": SECRET,
    # Traces.
    "retrieveRunTrace": SECRET,
    "listRunEvents": SECRET,
    "retrieveSpan": SECRET,
    "listSpanChildren": SECRET,
    "exportTraces": SECRET,
    "exportLogs": SECRET,
    "resetIdempotencyKey": SECRET,
    # Batches.
    "triggerBatch": BATCH_TRIGGER,
    "triggerBatch4x": BATCH_TRIGGER,
    "retrieveBatch": READ_BATCH,
    "retrieveBatch4x": READ_BATCH,
    "triggerTaskBatch": SECRET,
    "listBatchResults": SECRET,
    "openBatch": SECRET,
    "addBatchItems": SECRET,
    # Realtime.
    "followRun": READ_RUN,
    "followTags": READ_TAGS,
    "followBatch": READ_BATCH,
    "readStream": READ_RUN,
    "writeStream": SECRET,
    "writeOwnStream": SECRET,
    "createStream": SECRET,
    "findStreamPosition": SECRET,
    # Bulk actions.
    "createBulkAction": SECRET,
    "countBulkAction": SECRET,
    "listBulkActions": SECRET,
    "retrieveBulkAction": SECRET,
    "abortBulkAction": SECRET,
    # Packets. Behind a presigned URL the URL is the credential.
    "createPacketUpload": SECRET,
    "createPacketUpload4x": SECRET,
    "createPacketDownload": READ_RUN,
    "createPacketDownloadOfRun": READ_RUN,
    "uploadPacket": OPEN,
    "downloadPacket": OPEN,
    # Queues and environments.
    "listQueues": SECRET,
    "retrieveQueue": SECRET,
    "pauseQueue": SECRET,
    "overrideQueueConcurrency": SECRET,
    "resetQueueConcurrency": SECRET,
    "retrieveEnvironment": SECRET,
    "pauseEnvironment": SECRET,
    "limitEnvironment": SECRET,
    # Schedules.
    "createSchedule": SECRET,
    "listSchedules": SECRET,
    "retrieveSchedule": SECRET,
    "updateSchedule": SECRET,
    "deleteSchedule": SECRET,
    "activateSchedule": SECRET,
    "deactivateSchedule": SECRET,
    "listTimezones": OPEN,
    # Environment variables.
    "readAllVariables": _UNLIMITED,
    "listVariables": _SECRET_OR_PERSONAL,
    "createVariable": _SECRET_OR_PERSONAL,
    "importVariables": _SECRET_OR_PERSONAL,
    "retrieveVariable": _SECRET_OR_PERSONAL,
    "updateVariable": _SECRET_OR_PERSONAL,
    "deleteVariable": _SECRET_OR_PERSONAL,
    # Waitpoint tokens and events. The URL that completes a token has a secret in it.
    "createToken": SECRET,
    "listTokens": SECRET,
    "retrieveToken": SECRET,
    "completeToken": _COMPLETE_TOKEN,
    "completeTokenByUrl": OPEN,
    "sendEvent": SECRET,
    # Public access tokens.
    "describePublicTokens": _UNLIMITED,
    "createPublicToken": SECRET,
    "createPublicToken4x": SECRET,
    # People and projects.
    "whoami": PERSONAL,
    "listProjects": PERSONAL,
    "retrieveProject": PERSONAL,
    "listProjectRuns": PERSONAL,
    "retrieveProjectEnvironment": PERSONAL,
    "rotateKey": PERSONAL,
    "createPersonalToken": PERSONAL,
    "listPersonalTokens": PERSONAL,
    "revokePersonalToken": PERSONAL,
    # Workers.
    "registerBackgroundWorker": _UNLIMITED,
    "connect": SECRET,
    "dequeue": SECRET,
    "report": SECRET,
    "heartbeat": SECRET,
    "disconnect": SECRET,
    "wait": SECRET,
    "resume": SECRET,
    # The server itself.
    "health": OPEN,
    "readiness": OPEN,
    "openapi": OPEN,
}


def access_of(name: str) -> Access:
    """Who may call the operation of this name; nobody, when the table doesn't have it."""
    return ACCESS.get(name, DENIED)
