"""What an alert says to a webhook, and how it is signed (`protocol.md` section 10)."""

import hashlib
import hmac
from datetime import datetime
from typing import Annotated, Final, Literal

from pydantic import Field

from runwell.core.errors import TaskRunError
from runwell.core.schemas import ApiModel
from runwell.core.timing import Instant

#: The header with the signature: lower-case hexadecimal HMAC-SHA256 of the body as it was sent.
SIGNATURE_HEADER: Final = "x-trigger-signature-hmacsha256"


class AlertOrganization(ApiModel):
    """Whose project it is."""

    id: str
    slug: str
    name: str


class AlertProject(ApiModel):
    """The project that it happened in."""

    id: str
    ref: str
    slug: str
    name: str


class AlertEnvironment(ApiModel):
    """The environment that it happened in."""

    id: str
    type: str
    slug: str


class AlertTask(ApiModel):
    """The task of a failed run."""

    id: str
    file_path: str
    export_name: str
    version: str
    sdk_version: str
    cli_version: str


class AlertRun(ApiModel):
    """A run that failed; `status` is the one that the API shows."""

    id: str
    number: int
    status: str
    created_at: Instant
    started_at: Instant | None = None
    completed_at: Instant | None = None
    is_test: bool
    idempotency_key: str | None = None
    tags: list[str] = Field(default_factory=list[str])
    error: TaskRunError
    is_out_of_memory_error: bool
    machine: str
    dashboard_url: str


class AlertDeployedTask(ApiModel):
    """A task of a deployment."""

    id: str
    file_path: str
    export_name: str
    trigger_source: str


class SuccessfulDeployment(ApiModel):
    """A deployment that is live."""

    id: str
    status: str
    version: str
    short_code: str
    deployed_at: Instant


class FailedDeployment(ApiModel):
    """A deployment that failed."""

    id: str
    status: str
    version: str
    short_code: str
    failed_at: Instant


class DeploymentError(ApiModel):
    """Why a deployment failed."""

    name: str
    message: str
    stack: str | None = None
    stderr: str | None = None


class _About(ApiModel):
    environment: AlertEnvironment
    organization: AlertOrganization
    project: AlertProject


class FailedRunAlert(_About):
    """A run failed for good."""

    task: AlertTask
    run: AlertRun


class DeploymentSuccessAlert(_About):
    """A deployment is live."""

    deployment: SuccessfulDeployment
    tasks: list[AlertDeployedTask]


class DeploymentFailureAlert(_About):
    """A deployment failed."""

    deployment: FailedDeployment
    error: DeploymentError


class _Event(ApiModel):
    id: str
    created: Instant
    webhook_version: Literal["v1"] = "v1"


class RunFailedEvent(_Event):
    """A webhook says that a run failed for good: `event.object.run`.

    Example:
        >>> from runwell import RunFailedEvent
        >>> def describe(event: RunFailedEvent) -> str:
        ...     return f"{event.object.task.id}: {event.object.run.id} {event.object.run.status}"
    """

    type: Literal["alert.run.failed"] = "alert.run.failed"
    object: FailedRunAlert


class DeploymentSucceededEvent(_Event):
    """A webhook says that a deployment is live: `event.object.deployment`.

    Example:
        >>> from runwell import DeploymentSucceededEvent
        >>> def describe(event: DeploymentSucceededEvent) -> str:
        ...     return f"version {event.object.deployment.version} is live"
    """

    type: Literal["alert.deployment.success"] = "alert.deployment.success"
    object: DeploymentSuccessAlert


class DeploymentFailedEvent(_Event):
    """A webhook says that a deployment failed: `event.object.error`.

    Example:
        >>> from runwell import DeploymentFailedEvent
        >>> def describe(event: DeploymentFailedEvent) -> str:
        ...     return f"{event.object.deployment.version}: {event.object.error.message}"
    """

    type: Literal["alert.deployment.failed"] = "alert.deployment.failed"
    object: DeploymentFailureAlert


WebhookEvent = Annotated[
    RunFailedEvent | DeploymentSucceededEvent | DeploymentFailedEvent, Field(discriminator="type")
]


def sign_webhook(body: bytes, secret: str) -> str:
    """The signature of a body by the secret of its channel."""
    return hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def is_recent(created: datetime, now: datetime, tolerance_seconds: float) -> bool:
    """Whether an event was made within so many seconds of now, before it or after."""
    return abs((now - created).total_seconds()) <= tolerance_seconds
