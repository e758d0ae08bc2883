"""Events of webhooks: signed, typed, and refused when anything is off."""

import hashlib
import hmac
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from runwell.client.webhooks import WebhookError, Webhooks
from runwell.core.errors import StringError
from runwell.core.webhook_events import (
    DeploymentFailedEvent,
    DeploymentSucceededEvent,
    RunFailedEvent,
)

SECRET = "whsec_0123456789"
CREATED = datetime(2025, 1, 2, 3, 4, 5, 678_000, tzinfo=UTC)
ABOUT = {
    "environment": {"id": "env_1", "type": "PRODUCTION", "slug": "prod"},
    "organization": {"id": "org_1", "slug": "acme-1a2b", "name": "Acme"},
    "project": {"id": "p_1", "ref": "proj_abc", "slug": "shop-1a2b", "name": "Shop"},
}
TASK = {"id": "hello", "filePath": "trigger/hello.py", "exportName": "hello"}
RUN = {
    "id": "run_1",
    "number": 7,
    "status": "FAILED",
    "createdAt": "2025-01-02T03:04:05.678Z",
    "isTest": False,
    "tags": ["a"],
    "error": {"type": "STRING_ERROR", "raw": "nope"},
    "isOutOfMemoryError": False,
    "machine": "small-1x",
    "dashboardUrl": "http://127.0.0.1:3030/runs/run_1",
}
DEPLOYMENT = {"id": "deployment_1", "status": "DEPLOYED", "version": "20250102.1", "shortCode": "x"}
AT = "2025-01-02T03:04:05.678Z"
VERSIONS = {"version": "20250102.1", "sdkVersion": "1", "cliVersion": "1"}
EVENTS: dict[str, tuple[type[object], dict[str, Any]]] = {
    "alert.run.failed": (RunFailedEvent, {"task": {**TASK, **VERSIONS}, "run": RUN, **ABOUT}),
    "alert.deployment.success": (
        DeploymentSucceededEvent,
        {
            "deployment": {**DEPLOYMENT, "deployedAt": AT},
            "tasks": [{**TASK, "triggerSource": "schedule"}],
            **ABOUT,
        },
    ),
    "alert.deployment.failed": (
        DeploymentFailedEvent,
        {
            "deployment": {**DEPLOYMENT, "failedAt": AT},
            "error": {"name": "BuildError", "message": "no lock file", "stderr": "..."},
            **ABOUT,
        },
    ),
}


class Clock:
    """A clock that stands still."""

    def __init__(self, now: datetime) -> None:
        self._now = now

    def now(self) -> datetime:
        """That instant."""
        return self._now


def body_of(kind: str, **changes: object) -> bytes:
    event = {
        "id": "alert_1",
        "created": AT,
        "webhookVersion": "v1",
        "type": kind,
        "object": EVENTS["alert.run.failed" if kind not in EVENTS else kind][1],
        **changes,
    }
    return json.dumps(event).encode()


def signed(body: bytes, secret: str = SECRET) -> dict[str, str]:
    signature = hmac.digest(secret.encode(), body, hashlib.sha256).hex()
    return {"X-Trigger-Signature-HmacSHA256": signature}


@pytest.mark.parametrize("kind", EVENTS)
def test_an_event_is_of_its_own_type(kind: str) -> None:
    body = body_of(kind, later="ignored")
    for given in (body, body.decode()):
        event = Webhooks().construct_event(given, signed(body), SECRET)
        assert type(event) is EVENTS[kind][0]
        assert (event.type, event.created) == (kind, CREATED)
        assert event.object.project.ref == "proj_abc"


def test_a_failed_run_has_its_error_as_it_is_stored() -> None:
    body = body_of("alert.run.failed")
    event = Webhooks().construct_event(body, signed(body), SECRET)
    assert isinstance(event, RunFailedEvent)
    assert event.object.run.error == StringError(raw="nope")
    assert event.object.run.started_at is None


BODY = body_of("alert.run.failed")
(NAME, SIGNATURE) = next(iter(signed(BODY).items()))


@pytest.mark.parametrize(
    ("body", "headers", "said"),
    [
        (BODY, {}, "there is no header"),
        (BODY + b" ", {NAME: SIGNATURE}, "the signature is not"),
        (BODY, signed(BODY, "other"), "the signature is not"),
        (BODY, {NAME: ""}, "the signature is not"),
        (BODY, {NAME: "\u00e9"}, "the signature is not"),
        (BODY, {NAME: SIGNATURE.upper()}, "the signature is not"),
        (b"{", signed(b"{"), "can't be read: the body"),
        (b"[]", signed(b"[]"), "can't be read"),
    ],
)
def test_what_is_not_from_here_is_refused(body: bytes, headers: dict[str, str], said: str) -> None:
    with pytest.raises(WebhookError, match=said):
        Webhooks().construct_event(body, headers, SECRET)


@pytest.mark.parametrize(
    "body",
    [
        body_of("alert.other"),
        body_of("alert.run.failed", webhookVersion="v2"),
        body_of("alert.run.failed", created="yesterday"),
        body_of("alert.run.failed", object={}),
    ],
)
def test_an_event_of_another_shape_is_refused_with_its_place(body: bytes) -> None:
    with pytest.raises(WebhookError, match="the event can't be read: "):
        Webhooks().construct_event(body, signed(body), SECRET)


def test_an_empty_secret_signs_nothing() -> None:
    body = body_of("alert.run.failed")
    with pytest.raises(WebhookError, match="the secret is empty"):
        Webhooks().construct_event(body, signed(body, ""), "")


def test_an_old_event_is_refused_when_it_is_asked_for() -> None:
    body = body_of("alert.run.failed")
    for age, is_taken in ((299, True), (-299, True), (301, False), (-301, False)):
        webhooks = Webhooks(Clock(CREATED + timedelta(seconds=age)))
        assert webhooks.construct_event(body, signed(body), SECRET).id == "alert_1"
        if is_taken:
            webhooks.construct_event(body, signed(body), SECRET, tolerance="5m")
        else:
            with pytest.raises(WebhookError, match="too long ago"):
                webhooks.construct_event(body, signed(body), SECRET, tolerance="5m")
