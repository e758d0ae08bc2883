"""`runwell keys` and `runwell access-tokens`: what a person's own token shows and changes."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import quote

import click
from pydantic import BaseModel, TypeAdapter

from runwell.cli.connection import Connection, environment_of, replace_local_key
from runwell.cli.options import choose_connection, with_data_dir
from runwell.cli.output import Output, styled, with_output
from runwell.client.api import ApiClient
from runwell.client.transport import Call, ClientSettings, json_body, read_access_token
from runwell.core.errors import ConfigurationError
from runwell.core.project_schemas import (
    CreatedPersonalToken,
    PersonalTokenList,
    PersonalTokenObject,
    ProjectObject,
    RevokedPersonalToken,
    RotatedKey,
)
from runwell.core.timing import parse_duration

ModelT = TypeVar("ModelT", bound=BaseModel)

_TOKENS: Final = "/api/v1/personal-access-tokens"
_PROJECTS: Final = TypeAdapter(list[ProjectObject])
_LONGEST: Final = 24


@click.group()
def keys() -> None:
    """Replace the secret keys of environments."""


@keys.command(
    epilog="""\b
Examples:
  runwell keys rotate prod
  runwell keys rotate dev --overlap 0s
"""
)
@click.argument("environment", metavar="ENVIRONMENT")
@click.option(
    "--overlap",
    default="24h",
    show_default=True,
    metavar="DURATION",
    help="How long the old key goes on.",
)
@click.option("--project", metavar="REF", help="The project. [default: the only one]")
@with_output
@with_data_dir
def rotate(
    output: Output, environment: str, overlap: str, project: str | None, data_dir: Path | None
) -> None:
    """Make a new secret key of an environment: dev, stg or prod.

    Public access tokens that were signed with the old key end with it.
    """
    person = _Person(data_dir)
    ref = project or person.only_project()
    path = f"/api/v1/projects/{quote(ref, safe='')}/{quote(environment, safe='')}/rotate-key"
    made = person.ask(
        Call(method="POST", path=path, body=json_body({"overlap": overlap})), RotatedKey
    )
    if person.connection is not None and person.connection.data_dir is not None:
        replace_local_key(person.connection.data_dir, environment_of(made.api_key), made.api_key)
    output.document(made)
    if output.is_json:
        return
    output.raw(made.api_key)
    for key in made.keys:
        if key.expires_at is not None:
            ends = key.expires_at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
            output.note(styled(f"{key.api_key[:_LONGEST]}... is good until {ends}", "dim"))


@click.group("access-tokens")
def access_tokens() -> None:
    """Make, list and revoke your personal access tokens."""


@access_tokens.command(
    epilog="""\b
Examples:
  runwell access-tokens create ci
  runwell access-tokens create laptop --email ada@example.com --expires 90d
"""
)
@click.argument("name")
@click.option("--email", help="Whose token it is. [default: yours]")
@click.option("--expires", metavar="DURATION", help="When it ends. [default: when it is revoked]")
@with_output
@with_data_dir
def create(
    output: Output, name: str, email: str | None, expires: str | None, data_dir: Path | None
) -> None:
    """Make a personal access token. It is shown only now.

    It acts on the projects of a person's organisations, where a secret key acts on one environment.
    """
    body: dict[str, object] = {"name": name}
    if email is not None:
        body["email"] = email
    if expires is not None:
        try:
            ends = datetime.now(UTC) + parse_duration(expires)
        except ValueError as error:
            raise click.UsageError(f"--expires: {error}") from None
        body["expiresAt"] = ends.isoformat()
    made = _Person(data_dir).ask(
        Call(method="POST", path=_TOKENS, body=json_body(body)), CreatedPersonalToken
    )
    output.document(made)
    if not output.is_json:
        output.raw(made.token)
        output.note(styled("it is shown only now: set TRIGGER_ACCESS_TOKEN to it", "dim"))


@access_tokens.command("list", epilog="Example: runwell access-tokens list")
@with_output
@with_data_dir
def list_(output: Output, data_dir: Path | None) -> None:
    """List your personal access tokens, the newest first."""
    found = _Person(data_dir).ask(Call(method="GET", path=_TOKENS), PersonalTokenList).data
    output.document(found)
    output.table(["ID", "NAME", "TOKEN", "ENDS"], [_row(token) for token in found])


@access_tokens.command(epilog="Example: runwell access-tokens revoke pat_1234")
@click.argument("token_id", metavar="ID")
@with_output
@with_data_dir
def revoke(output: Output, token_id: str, data_dir: Path | None) -> None:
    """Revoke a personal access token of yours, by its id."""
    path = f"{_TOKENS}/{quote(token_id, safe='')}"
    gone = _Person(data_dir).ask(Call(method="DELETE", path=path), RevokedPersonalToken)
    output.document(gone)
    output.line(gone.id, styled(" revoked", "dim"))


class _Person:
    """Calls with the person's own token: the configured one, or that of the local server."""

    def __init__(self, data_dir: Path | None) -> None:
        configured, self.connection = read_access_token(), None
        if configured is not None:
            settings = ClientSettings(base_url=configured[0], secret_key=configured[1])
        else:
            self.connection = connection = choose_connection(data_dir)
            settings = ClientSettings(base_url=connection.url, secret_key=_local_token(connection))
        self._client = ApiClient(lambda: settings)

    def ask(self, call: Call, answer: type[ModelT]) -> ModelT:
        """The answer to a call."""
        return self._client.run_blocking(self._client.ask(call, answer))

    def only_project(self) -> str:
        """The ref of the one project that there is."""
        call = Call(method="GET", path="/api/v1/projects")
        answer = self._client.run_blocking(self._client.request(call))
        refs = [project.external_ref for project in _PROJECTS.validate_json(answer.body)]
        if len(refs) != 1:
            raise ConfigurationError(
                f"say which project with --project: you are a member of {', '.join(refs) or 'none'}"
            )
        return refs[0]


def _local_token(connection: Connection) -> str:
    token = connection.access_token
    if token is None:
        raise ConfigurationError(
            "this needs a personal access token: set TRIGGER_ACCESS_TOKEN to one (tr_pat_...), and "
            "TRIGGER_API_URL. Whoever runs the server makes the first one on its machine: "
            "`runwell access-tokens create NAME`"
        )
    return token


def _row(token: PersonalTokenObject) -> list[str]:
    ends = "" if token.expires_at is None else token.expires_at.strftime("%Y-%m-%d %H:%M")
    return [token.id, token.name, token.obfuscated_token, ends]
