"""Public access tokens: what is in one, and tokens signed by the server."""

import secrets

from starlette.requests import Request

from runwell.core.errors import RequestError
from runwell.core.payloads import Json
from runwell.core.public_token_schemas import (
    CreatedPublicToken,
    CreatePublicTokenBody,
    CreateTokenBody,
    PublicTokenClaims,
)
from runwell.core.public_tokens import DEFAULT_EXPIRATION, read_expiration, sign_token
from runwell.core.scopes import check_scopes
from runwell.server import auth
from runwell.server.backend import Backend
from runwell.server.http import Answer, answer, read_model
from runwell.server.operations import Operation

_BAD = (400, "Malformed: a scope or the expiration time can't be read.")


async def describe(request: Request, backend: Backend) -> Answer:
    """Say what a token of this environment has in it, for whoever signs one."""
    environment = await backend.authenticate(request)
    return answer(PublicTokenClaims(sub=environment.public_id))


async def create(request: Request, backend: Backend) -> Answer:
    """Sign a token."""
    body = await read_model(request, CreateTokenBody)
    scopes = None if body.claims is None else body.claims.scopes
    return await _sign(request, backend, scopes, body.expiration_time, {})


async def create_for_4x(request: Request, backend: Backend) -> Answer:
    """Sign a token, which may be for one use."""
    body = await read_model(request, CreatePublicTokenBody)
    extra: dict[str, Json] = {}
    if body.one_time_use is not None:
        extra["otu"] = body.one_time_use
    if body.realtime is not None:
        extra["realtime"] = body.realtime
    return await _sign(request, backend, body.scopes, body.expiration_time, extra)


async def _sign(
    request: Request,
    backend: Backend,
    scopes: list[str] | None,
    expiration: str | float | None,
    extra: dict[str, Json],
) -> Answer:
    environment, now = await backend.authenticate(request), backend.now()
    try:
        check_scopes(scopes or [])
    except ValueError as error:
        raise RequestError(400, f"scopes: {error}") from None
    try:
        expires_at = read_expiration(
            DEFAULT_EXPIRATION if expiration is None else expiration, now=now
        )
    except ValueError as error:
        raise RequestError(400, f"expirationTime: {error}") from None
    if extra.get("otu") is True:
        # Two that are made in the same second must differ, or one use would be that of both.
        extra["jti"] = secrets.token_hex(8)
    # The newest key: that of the request may be one that ends soon.
    signers = await backend.keys.find_signers(backend.db, environment.public_id, now=now)
    token = sign_token(
        auth.read_bearer(request) if signers is None else signers.secret_keys[0],
        {"sub": environment.public_id, "pub": True, **extra},
        scopes=scopes or (),
        expires_at=expires_at,
        now=now,
    )
    return answer(CreatedPublicToken(token=token))


operations: list[Operation] = [
    Operation(
        method="POST",
        path="/api/v1/auth/jwt/claims",
        endpoint=describe,
        name="describePublicTokens",
        summary="The claims of public access tokens that you sign yourself",
        tag="tokens",
        answer=PublicTokenClaims,
        answer_description="The claims; scopes and times are yours to add.",
    ),
    Operation(
        method="POST",
        path="/api/v1/auth/jwt",
        endpoint=create,
        name="createPublicToken",
        summary="Make a public access token",
        tag="tokens",
        body=CreateTokenBody,
        answer=CreatedPublicToken,
        answer_description="The token; it is good for 15 minutes unless told otherwise.",
        refusals=(_BAD,),
    ),
    Operation(
        method="POST",
        path="/api/v1/auth/public-tokens",
        endpoint=create_for_4x,
        name="createPublicToken4x",
        summary="Make a public access token, for clients of 4.x",
        tag="tokens",
        body=CreatePublicTokenBody,
        answer=CreatedPublicToken,
        answer_description="The token; it is good for 15 minutes unless told otherwise.",
        refusals=(_BAD,),
    ),
]
