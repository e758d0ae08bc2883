"""Why a run is not executing: the words for what holds it."""

from enum import StrEnum


class ExplanationReason(StrEnum):
    """What keeps a run from executing, the most decisive one where several do."""

    #: It ended.
    FINISHED = "FINISHED"
    #: It was canceled, and its worker has yet to stop it.
    CANCELING = "CANCELING"
    #: A worker has taken it and is about to start it.
    TAKEN = "TAKEN"
    #: Its delay is not over.
    DELAYED = "DELAYED"
    #: An attempt failed, and the next one is to come.
    RETRYING = "RETRYING"
    #: It waits inside the task: for runs, an instant or tokens.
    WAITING = "WAITING"
    #: No version has its task.
    NO_TASK = "NO_TASK"
    #: Its environment is paused.
    ENVIRONMENT_PAUSED = "ENVIRONMENT_PAUSED"
    #: Its queue is paused.
    QUEUE_PAUSED = "QUEUE_PAUSED"
    #: No worker is connected in its environment.
    NO_WORKER = "NO_WORKER"
    #: No worker that is connected has the version that it needs.
    NO_WORKER_WITH_VERSION = "NO_WORKER_WITH_VERSION"
    #: It is for a region, and no worker that is connected is there.
    NO_WORKER_IN_REGION = "NO_WORKER_IN_REGION"
    #: The environment's concurrency limit is reached.
    ENVIRONMENT_LIMIT = "ENVIRONMENT_LIMIT"
    #: The concurrency limit of its queue is reached, or of its concurrency key there.
    QUEUE_LIMIT = "QUEUE_LIMIT"
    #: The rate limit of its queue or key is used up.
    RATE_LIMIT = "RATE_LIMIT"
    #: Others of its queue come first.
    RUNS_AHEAD = "RUNS_AHEAD"
    #: Every worker that could take it is full.
    WORKERS_FULL = "WORKERS_FULL"
    #: Nothing: the next worker that asks takes it.
    NEXT = "NEXT"
