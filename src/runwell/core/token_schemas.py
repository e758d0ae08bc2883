"""Bodies of the public API about tokens and events (`protocol.md` section 7.8)."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from runwell.core.payloads import Json
from runwell.core.schemas import ApiModel, Tags

TokenStatus = Literal["WAITING", "COMPLETED", "TIMED_OUT"]
EventName = Annotated[
    str, StringConstraints(min_length=1, max_length=256, pattern=r"^[^\x00-\x1f]+$")
]
TOKEN_STATUSES: tuple[TokenStatus, ...] = ("WAITING", "COMPLETED", "TIMED_OUT")


class EventMatch(ApiModel):
    """An event that completes a token: its name, and what its payload must have."""

    name: EventName
    filter: dict[str, Json] | None = None


class CreateTokenBody(ApiModel):
    """`POST /api/v1/waitpoints/tokens`; `timeout` is a duration or an instant."""

    timeout: str | None = None
    tags: Tags | None = None
    idempotency_key: Annotated[str, Field(min_length=1, max_length=2_048)] | None = None
    idempotency_key_ttl: str | None = Field(default=None, alias="idempotencyKeyTTL")
    event: EventMatch | None = None


class CreatedToken(ApiModel):
    """A token, and the URL to which anybody may post what it is completed with."""

    id: str
    is_cached: bool
    url: str


class TokenObject(ApiModel):
    """A token with what it was completed with, if it was."""

    id: str
    url: str
    status: TokenStatus
    tags: list[str]
    created_at: datetime
    completed_at: datetime | None = None
    timeout_at: datetime | None = None
    idempotency_key: str | None = None
    output: str | None = None
    output_type: str | None = None
    output_is_error: bool | None = None


class TokenPagination(ApiModel):
    """Ids to go on from."""

    next: str | None = None
    previous: str | None = None


class TokenList(ApiModel):
    """`GET /api/v1/waitpoints/tokens`: the newest first."""

    data: list[TokenObject]
    pagination: TokenPagination


class CompleteTokenBody(ApiModel):
    """`POST /api/v1/waitpoints/tokens/{id}/complete`."""

    data: Json = None


class CompletedToken(ApiModel):
    """It is complete, now or before."""

    success: bool = True


class EventBody(ApiModel):
    """`POST /api/v1/events`: something happened."""

    name: EventName
    payload: Json = None


class EventAnswer(ApiModel):
    """How many tokens the event completed."""

    completed: int
