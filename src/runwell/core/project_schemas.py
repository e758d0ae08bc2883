"""Bodies of the API of people and projects (`protocol.md` sections 7.3 and 7.4)."""

from datetime import datetime

from pydantic import Field

from runwell.core.schemas import ApiModel
from runwell.core.timing import Instant


class WhoAmI(ApiModel):
    """Whose personal access token it is."""

    user_id: str
    email: str
    dashboard_url: str


class ProjectOrganization(ApiModel):
    """Who owns a project."""

    id: str
    title: str
    slug: str
    created_at: datetime


class ProjectObject(ApiModel):
    """A project."""

    id: str
    external_ref: str
    name: str
    slug: str
    created_at: datetime
    organization: ProjectOrganization


class ProjectEnvironment(ApiModel):
    """How to reach an environment of a project."""

    api_key: str = Field(repr=False)
    name: str
    api_url: str
    project_id: str


class RotateKeyBody(ApiModel):
    """How long the key that is replaced goes on: 24 hours unless told otherwise."""

    overlap: str | int | None = None


class SecretKeyObject(ApiModel):
    """A secret key of an environment; without `expires_at` until it is replaced."""

    api_key: str = Field(repr=False)
    created_at: datetime
    expires_at: datetime | None = None


class RotatedKey(ApiModel):
    """The new secret key, and all that are good now."""

    api_key: str = Field(repr=False)
    keys: list[SecretKeyObject]


class CreatePersonalTokenBody(ApiModel):
    """A new personal access token; `email` is another person than the one who asks."""

    name: str
    email: str | None = None
    expires_at: Instant | None = None


class PersonalTokenObject(ApiModel):
    """A personal access token as it can be shown."""

    id: str
    name: str
    obfuscated_token: str
    created_at: datetime
    expires_at: datetime | None = None


class CreatedPersonalToken(PersonalTokenObject):
    """A new one, with the token itself: nobody can show it again."""

    token: str = Field(repr=False)


class PersonalTokenList(ApiModel):
    """The tokens of a person."""

    data: list[PersonalTokenObject]


class RevokedPersonalToken(ApiModel):
    """The token that is revoked."""

    id: str
