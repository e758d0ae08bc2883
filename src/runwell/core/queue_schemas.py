"""Bodies of the public API about queues and environments (`protocol.md` section 7.5)."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field

from runwell.core.schemas import ApiModel

MAX_CONCURRENCY_LIMIT = 100_000

QueueType = Literal["task", "custom"]
ConcurrencyLimit = Annotated[int, Field(ge=0, le=MAX_CONCURRENCY_LIMIT, strict=True)]


class QueueConcurrency(ApiModel):
    """Where a queue's limit comes from; null is no limit, or no override."""

    current: int | None
    base: int | None
    override: int | None
    overridden_at: datetime | None


class RateLimitObject(ApiModel):
    """At most `limit` starts in any window: of the queue, or of each of its keys."""

    limit: int
    window_seconds: int
    per: Literal["queue", "key"]


class QueueObject(ApiModel):
    """A queue. `name` is that of a custom queue, and the task's id for the own queue of a task.

    `queued` counts up to 10,000; `has_more_queued` says that there are more.
    """

    id: str
    name: str
    type: QueueType
    running: int
    queued: int
    has_more_queued: bool = False
    paused: bool
    concurrency_limit: int | None
    concurrency: QueueConcurrency | None = None
    rate_limits: list[RateLimitObject] = Field(default_factory=list[RateLimitObject])


class NumberedPagination(ApiModel):
    """Where a numbered page is; `count` is of all pages."""

    current_page: int
    total_pages: int
    count: int


class QueueList(ApiModel):
    """`GET /api/v1/queues`."""

    data: list[QueueObject]
    pagination: NumberedPagination


class PauseBody(ApiModel):
    """`POST /api/v1/queues/{queue}/pause`; `type` says what the queue in the URL is."""

    type: Literal["id", "task", "custom"] = "id"
    action: Literal["pause", "resume"]


class OverrideBody(ApiModel):
    """`POST /api/v1/queues/{queue}/concurrency/override`."""

    type: Literal["id", "task", "custom"] = "id"
    concurrency_limit: ConcurrencyLimit


class ResetBody(ApiModel):
    """`POST /api/v1/queues/{queue}/concurrency/reset`."""

    type: Literal["id", "task", "custom"] = "id"


class EnvironmentObject(ApiModel):
    """The environment of the key: what it runs, and may run, over all its queues."""

    id: str
    name: str
    type: str
    running: int
    queued: int
    has_more_queued: bool = False
    paused: bool
    concurrency_limit: int


class EnvironmentPauseBody(ApiModel):
    """`POST /api/v1/environment/pause`."""

    action: Literal["pause", "resume"]


class EnvironmentLimitBody(ApiModel):
    """`POST /api/v1/environment/concurrency`."""

    concurrency_limit: ConcurrencyLimit
