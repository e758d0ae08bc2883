"""Bodies about credentials, variables, limits and webhooks, as they are on the wire."""

import hashlib
import hmac
import json
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError

from runwell.core.project_schemas import (
    CreatedPersonalToken,
    CreatePersonalTokenBody,
    ProjectEnvironment,
    RotatedKey,
    RotateKeyBody,
    SecretKeyObject,
    WhoAmI,
)
from runwell.core.protocol import EnvironmentContext, OrganizationContext, ProjectContext
from runwell.core.public_token_schemas import (
    CreatedPublicToken,
    CreatePublicTokenBody,
    CreateTokenBody,
    PublicTokenClaims,
)
from runwell.core.rate_limit_schemas import RateLimitBody
from runwell.core.variable_schemas import (
    AllVariables,
    ConnectedAnswer,
    ImportVariablesBody,
    VariableBody,
    VariableObject,
    VariablesErrorBody,
)
from runwell.core.webhook_events import (
    SIGNATURE_HEADER,
    DeploymentFailedEvent,
    WebhookEvent,
    is_recent,
    sign_webhook,
)

NOW = datetime(2025, 1, 4, 12, 0, tzinfo=UTC)
SECRET = "hunter2hunter2"


def wire(model: BaseModel) -> object:
    return json.loads(model.model_dump_json(by_alias=True, exclude_none=True))


def test_answers_have_the_documented_names() -> None:
    assert wire(PublicTokenClaims(sub="env_1")) == {"sub": "env_1", "pub": True}
    assert wire(CreatedPublicToken(token="a.b.c")) == {"token": "a.b.c"}
    assert wire(WhoAmI(user_id="user_1", email="a@x.org", dashboard_url="http://x")) == {
        "userId": "user_1",
        "email": "a@x.org",
        "dashboardUrl": "http://x",
    }
    assert wire(VariableObject(name="A", value="1")) == {
        "name": "A",
        "value": "1",
        "isSecret": False,
    }
    assert wire(VariablesErrorBody(error="no")) == {"error": "no", "variableErrors": []}
    limited = RateLimitBody(error="no", detail="no", reset=1, limit=750, seconds_until_reset=5)
    assert limited.model_dump(by_alias=True).keys() == {
        "error",
        "title",
        "status",
        "type",
        "detail",
        "reset",
        "limit",
        "remaining",
        "secondsUntilReset",
    }


def test_bodies_are_read_with_what_they_leave_out() -> None:
    assert CreateTokenBody.model_validate({}).claims is None
    asked = CreatePublicTokenBody.model_validate({"oneTimeUse": True, "expirationTime": "1hr"})
    assert (asked.one_time_use, asked.expiration_time) == (True, "1hr")
    assert ImportVariablesBody.model_validate({"variables": {"A": "1"}}).override is False
    assert VariableBody.model_validate({"name": "A", "value": ""}).is_secret is False
    assert RotateKeyBody.model_validate({}).overlap is None
    assert CreatePersonalTokenBody.model_validate({"name": "ci"}).expires_at is None
    with pytest.raises(ValidationError):
        ImportVariablesBody.model_validate({"variables": {"A": 1}})


def test_no_secret_is_in_the_text_of_an_object() -> None:
    key = SecretKeyObject(api_key=SECRET, created_at=NOW)
    shown = [
        key,
        RotatedKey(api_key=SECRET, keys=[key]),
        ProjectEnvironment(api_key=SECRET, name="Shop", api_url="http://x", project_id="p_1"),
        CreatedPersonalToken(
            token=SECRET, id="pat_1", name="ci", obfuscated_token="tr_pat_", created_at=NOW
        ),
        AllVariables(variables={"A": SECRET}),
        ConnectedAnswer(
            worker_id="worker_1",
            organization=OrganizationContext(id="org_1", slug="acme", name="Acme"),
            project=ProjectContext(id="p_1", ref="proj_1", slug="shop", name="Shop"),
            environment=EnvironmentContext(id="env_1", slug="dev", type="DEVELOPMENT"),
            variables=AllVariables(variables={"A": SECRET}),
        ),
    ]
    for model in shown:
        assert SECRET not in repr(model) + str(model)


def test_a_webhook_is_signed_over_its_bytes() -> None:
    expected = hmac.digest(b"whsec", b"{}", hashlib.sha256).hex()
    assert sign_webhook(b"{}", "whsec") == expected
    assert SIGNATURE_HEADER.lower() == SIGNATURE_HEADER


def test_an_event_is_recent_within_its_tolerance() -> None:
    for seconds, is_so in ((0, True), (60, True), (-60, True), (61, False), (-61, False)):
        assert is_recent(NOW, NOW + timedelta(seconds=seconds), 60) is is_so


def test_the_type_of_an_event_says_what_is_in_it() -> None:
    event = TypeAdapter[WebhookEvent](WebhookEvent).validate_python(
        {
            "id": "alert_1",
            "created": NOW.isoformat(),
            "type": "alert.deployment.failed",
            "object": {
                "deployment": {
                    "id": "deployment_1",
                    "status": "FAILED",
                    "version": "20250104.1",
                    "shortCode": "x",
                    "failedAt": NOW.isoformat(),
                },
                "error": {"name": "BuildError", "message": "no lock file"},
                "environment": {"id": "env_1", "type": "PRODUCTION", "slug": "prod"},
                "organization": {"id": "org_1", "slug": "acme", "name": "Acme"},
                "project": {"id": "p_1", "ref": "proj_1", "slug": "shop", "name": "Shop"},
            },
        }
    )
    assert isinstance(event, DeploymentFailedEvent)
    assert event.object.error.stack is None
