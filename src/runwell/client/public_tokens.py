"""`auth`: public access tokens, which let a browser do what their scopes say.

A token is signed here, with the secret key: the server only says which environment that is of.
"""

import json
import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final, Protocol, cast

from runwell.client.api import ApiClient
from runwell.client.transport import Call, ClientSettings, Flow, RequestOptions, Response
from runwell.core.payloads import Json
from runwell.core.public_token_schemas import PublicTokenClaims
from runwell.core.public_tokens import (
    DEFAULT_EXPIRATION,
    HANDLE_EXPIRATION,
    Expiration,
    read_expiration,
    sign_token,
)
from runwell.core.scopes import NestedScopes, check_scopes, flatten_scopes
from runwell.core.timing import SystemClock

#: Scopes as a dict by action and type, or as they are in the token.
Scopes = NestedScopes | Sequence[str]

_CLAIMS: Final = "/api/v1/auth/jwt/claims"


class HasId(Protocol):
    """A task, as far as a token is concerned."""

    @property
    def id(self) -> str:
        """Its id."""
        ...


#: A task by its id or by itself; or several.
TasksOfToken = str | HasId | Sequence[str | HasId]


def token_of_answer(
    response: Response, settings: ClientSettings, options: RequestOptions | None, scope: str
) -> str | None:
    """The public access token of a trigger's answer: the server's, or signed with its claims."""
    made = response.headers.get("x-trigger-jwt")
    if made is not None:
        return made
    try:
        claims = cast("object", json.loads(response.headers.get("x-trigger-jwt-claims", "")))
    except ValueError:
        return None
    if not isinstance(claims, dict) or not settings.secret_key:
        return None
    now = _now()
    expiration = options.public_token_expiration if options is not None else None
    return sign_token(
        settings.secret_key,
        cast("Mapping[str, Json]", claims),
        scopes=[scope],
        expires_at=read_expiration(
            HANDLE_EXPIRATION if expiration is None else expiration, now=now
        ),
        now=now,
    )


class AuthFlows:
    """What both kinds of caller do, as flows."""

    def __init__(self, client: ApiClient) -> None:
        self._client = client

    def create_flow(
        self,
        scopes: Scopes | None,
        expiration: Expiration,
        options: RequestOptions | None,
        extra: Mapping[str, Json] | None = None,
    ) -> Flow[str]:
        """Ask for the claims and sign them."""
        flat = _read_scopes(scopes)
        now = _now()
        expires_at = read_expiration(expiration, now=now)
        call = Call(method="POST", path=_CLAIMS, options=options)
        claims = yield from self._client.ask(call, PublicTokenClaims)
        secret_key = self._client.settings.secret_key
        assert secret_key is not None
        return sign_token(
            secret_key,
            {**claims.model_dump(), **(extra or {})},
            scopes=flat,
            expires_at=expires_at,
            now=now,
        )

    def create_trigger_flow(
        self,
        action: str,
        tasks: TasksOfToken,
        expiration: Expiration,
        options: RequestOptions | None,
        *,
        multiple_use: bool,
    ) -> Flow[str]:
        """Make a token that triggers tasks."""
        scopes = [f"{action}:tasks:{task_id}" for task_id in _ids_of(tasks)]
        extra: dict[str, Json] = {"otu": not multiple_use}
        if not multiple_use:
            # Two that are made in the same second must differ, or one use would be that of both.
            extra["jti"] = secrets.token_hex(8)
        return self.create_flow(scopes, expiration, options, extra)


class Auth(AuthFlows):
    """Make public access tokens, which let a browser do what their scopes say, for a while.

    Example:
        >>> from runwell import auth
        >>> async def token_for(run_id: str) -> str:
        ...     return await auth.create_public_token({"read": {"runs": [run_id]}})
    """

    async def create_public_token(
        self,
        scopes: Scopes | None = None,
        *,
        expiration_time: Expiration = DEFAULT_EXPIRATION,
        request_options: RequestOptions | None = None,
    ) -> str:
        """Make a token with scopes: `{"read": {"runs": ["run_1"], "tags": "a"}}`, or flat ones.

        It ends after `expiration_time`: a length of time (`"1hr"`, a timedelta), seconds since
        1970, or an aware datetime. Raises ValueError for a scope or a time that can't be read.
        """
        return await self._client.run(self.create_flow(scopes, expiration_time, request_options))

    async def create_trigger_public_token(
        self,
        task: TasksOfToken,
        *,
        multiple_use: bool = False,
        expiration_time: Expiration = DEFAULT_EXPIRATION,
        request_options: RequestOptions | None = None,
    ) -> str:
        """Make a token that triggers a task, or one of several: once, or with `multiple_use`."""
        return await self._client.run(
            self.create_trigger_flow(
                "trigger", task, expiration_time, request_options, multiple_use=multiple_use
            )
        )

    async def create_batch_trigger_public_token(
        self,
        task: TasksOfToken,
        *,
        multiple_use: bool = False,
        expiration_time: Expiration = DEFAULT_EXPIRATION,
        request_options: RequestOptions | None = None,
    ) -> str:
        """Make a token that triggers a batch of a task, or of several."""
        return await self._client.run(
            self.create_trigger_flow(
                "batchTrigger", task, expiration_time, request_options, multiple_use=multiple_use
            )
        )


class BlockingAuth(AuthFlows):
    """Make public access tokens, blocking the caller.

    Example:
        >>> from runwell.sync import auth
        >>> def token_for(tag: str) -> str:
        ...     return auth.create_public_token({"read": {"tags": tag}}, expiration_time="1hr")
    """

    def create_public_token(
        self,
        scopes: Scopes | None = None,
        *,
        expiration_time: Expiration = DEFAULT_EXPIRATION,
        request_options: RequestOptions | None = None,
    ) -> str:
        """Make a token with scopes: `{"read": {"runs": ["run_1"], "tags": "a"}}`, or flat ones."""
        return self._client.run_blocking(self.create_flow(scopes, expiration_time, request_options))

    def create_trigger_public_token(
        self,
        task: TasksOfToken,
        *,
        multiple_use: bool = False,
        expiration_time: Expiration = DEFAULT_EXPIRATION,
        request_options: RequestOptions | None = None,
    ) -> str:
        """Make a token that triggers a task, or one of several: once, or with `multiple_use`."""
        return self._client.run_blocking(
            self.create_trigger_flow(
                "trigger", task, expiration_time, request_options, multiple_use=multiple_use
            )
        )

    def create_batch_trigger_public_token(
        self,
        task: TasksOfToken,
        *,
        multiple_use: bool = False,
        expiration_time: Expiration = DEFAULT_EXPIRATION,
        request_options: RequestOptions | None = None,
    ) -> str:
        """Make a token that triggers a batch of a task, or of several."""
        return self._client.run_blocking(
            self.create_trigger_flow(
                "batchTrigger", task, expiration_time, request_options, multiple_use=multiple_use
            )
        )


def _read_scopes(scopes: Scopes | None) -> list[str]:
    if scopes is None:
        return []
    if isinstance(scopes, Mapping):
        return flatten_scopes(scopes)
    if isinstance(scopes, str):
        raise ValueError(f"scopes={scopes!r}: give a list of scopes, or a dict by action and type")
    flat = list(scopes)
    check_scopes(flat)
    return flat


def _ids_of(tasks: TasksOfToken) -> list[str]:
    given = (
        list(cast("Sequence[object]", tasks))
        if isinstance(tasks, list | tuple)
        else [cast("object", tasks)]
    )
    ids = [one if isinstance(one, str) else getattr(one, "id", None) for one in given]
    if not ids or not all(isinstance(one, str) and one for one in ids):
        raise ValueError(f"{tasks!r} names no task: give a task, its id, or a list of them")
    return cast("list[str]", ids)


def _now() -> datetime:
    return SystemClock().now()
