"""Bodies of the API of public access tokens (`protocol.md` section 1.2)."""

from runwell.core.payloads import Json
from runwell.core.schemas import ApiModel


class PublicTokenClaims(ApiModel):
    """What whoever has the secret key puts into a token that they sign."""

    sub: str
    pub: bool = True


class WantedClaims(ApiModel):
    """The claims that a token is to have."""

    scopes: list[str] | None = None


class CreateTokenBody(ApiModel):
    """A token to be signed by the server; `expiration_time` is a span, or seconds since 1970."""

    claims: WantedClaims | None = None
    expiration_time: str | int | float | None = None


class CreatePublicTokenBody(ApiModel):
    """The same as clients of 4.x ask for it."""

    scopes: list[str] | None = None
    expiration_time: str | int | float | None = None
    one_time_use: bool | None = None
    realtime: dict[str, Json] | None = None


class CreatedPublicToken(ApiModel):
    """A public access token."""

    token: str
