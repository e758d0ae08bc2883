"""Organisations, projects, environments and their secret keys."""

import secrets
from dataclasses import dataclass
from datetime import datetime

from runwell.core.errors import RequestError
from runwell.core.ids import make_id, make_project_ref, make_secret_key
from runwell.core.public_tokens import hash_credential
from runwell.engine.db import Database, Row, Transaction
from runwell.engine.queries import load_queries

_sql = load_queries("environments")

#: How many runs of one environment may execute at once, unless set otherwise.
DEFAULT_CONCURRENCY_LIMIT = 1_000

#: What waits in an environment is counted up to this.
MOST_COUNTED = 10_000

_ENVIRONMENTS = (("dev", "DEVELOPMENT"), ("stg", "STAGING"), ("prod", "PRODUCTION"))


@dataclass(frozen=True, kw_only=True)
class Organization:
    """Who owns projects."""

    public_id: str
    slug: str
    name: str


@dataclass(frozen=True, kw_only=True)
class Project:
    """A code base with its environments."""

    public_id: str
    ref: str
    slug: str
    name: str


@dataclass(frozen=True, kw_only=True)
class Environment:
    """Where keys, queues and runs belong; `type` is DEVELOPMENT, STAGING or PRODUCTION."""

    id: int
    public_id: str
    slug: str
    type: str
    concurrency_limit: int
    #: Counts changes of its environment variables, as it was when this was read.
    variables_version: int
    project: Project
    organization: Organization

    @property
    def is_development(self) -> bool:
        """Whether runs here belong to somebody who is writing the tasks."""
        return self.type == "DEVELOPMENT"


@dataclass(frozen=True, kw_only=True)
class Load:
    """What an environment runs and may run; `queued` is MOST_COUNTED at most."""

    running: int
    queued: int
    has_more_queued: bool
    is_paused: bool
    concurrency_limit: int


def no_such_run(run_id: str, environment: Environment) -> RequestError:
    """The refusal of a run that an environment doesn't have."""
    return RequestError(
        404,
        f"there is no run {run_id[:64]} in the environment {environment.slug} of project "
        f"{environment.project.ref}",
    )


async def find_by_secret_key(
    tx: Transaction, secret_key: str, *, now: datetime
) -> Environment | None:
    """The environment of a secret key, or None for a key that is unknown or has expired."""
    secret_hash = hash_credential(secret_key)
    row = await tx.fetch_one(_sql.find_environment_by_key, secret_hash=secret_hash, now=now)
    return None if row is None else _environment(row)


async def get_by_id(tx: Transaction, environment_id: int) -> Environment:
    """An environment that is there."""
    row = await tx.fetch_one(_sql.get_environment, environment_id=environment_id)
    if row is None:
        raise RuntimeError(f"there is no environment {environment_id}")
    return _environment(row)


async def list_all(tx: Transaction) -> list[Environment]:
    """Every environment, the oldest project's first."""
    return [_environment(row) for row in await tx.fetch(_sql.list_environments)]


async def find_by_ref(tx: Transaction, project_ref: str, slug: str) -> Environment | None:
    """An environment by its project's reference (`proj_...`) and its short name, like `dev`."""
    row = await tx.fetch_one(_sql.find_environment_by_ref, project_ref=project_ref, slug=slug)
    return None if row is None else _environment(row)


async def find_of_run(tx: Transaction, run_id: str) -> Environment | None:
    """The environment that has a run; None when there is no such run."""
    environment_id = await tx.fetch_value(_sql.find_environment_of_run, run_id=run_id)
    return None if environment_id is None else await get_by_id(tx, environment_id)


async def create_first_project(
    tx: Transaction, *, now: datetime, name: str = "Local"
) -> dict[str, str] | None:
    """Create an organisation, a project and its environments when there is no project yet.

    Returns the secret key of each environment by its slug; None when there was a project.
    """
    await tx.execute(_sql.lock_first_project)
    if await tx.fetch_value(_sql.has_project):
        return None
    slug = f"{name.lower()}-{secrets.token_hex(2)}"
    organization_id = await tx.fetch_value(
        _sql.insert_organization, public_id=make_id("org", now), slug=slug, name=name, now=now
    )
    project_id = await tx.fetch_value(
        _sql.insert_project,
        public_id=make_id("project", now),
        organization_id=organization_id,
        ref=make_project_ref(),
        slug=slug,
        name=name,
        now=now,
    )
    keys = {slug: make_secret_key(slug) for slug, _ in _ENVIRONMENTS}
    for slug, kind in _ENVIRONMENTS:
        await tx.execute(
            _sql.insert_environment,
            public_id=make_id("env", now),
            project_id=project_id,
            slug=slug,
            type=kind,
            concurrency_limit=DEFAULT_CONCURRENCY_LIMIT,
            secret_key=keys[slug],
            now=now,
        )
    return keys


async def list_local_keys(tx: Transaction, *, now: datetime) -> dict[str, str]:
    """The secret key of each environment of the first project, by slug."""
    rows = await tx.fetch(_sql.list_local_keys, now=now)
    return {row["slug"]: row["secret_key"] for row in rows}


async def get_load(tx: Transaction, environment: Environment) -> Load:
    """How much an environment runs and holds, by what limit, and whether it is paused."""
    row = await tx.fetch_one(
        _sql.find_load, environment_id=environment.id, most_counted=MOST_COUNTED + 1
    )
    if row is None:
        raise RuntimeError(f"the environment {environment.public_id} vanished")
    return Load(
        running=row["running"],
        queued=min(row["queued"], MOST_COUNTED),
        has_more_queued=row["queued"] > MOST_COUNTED,
        is_paused=row["is_paused"],
        concurrency_limit=row["concurrency_limit"],
    )


async def set_paused(db: Database, environment: Environment, *, is_paused: bool) -> None:
    """Give out no more runs of an environment, or go on with it; what executes goes on."""
    async with db.transaction() as tx:
        await tx.execute(_sql.set_paused, environment_id=environment.id, is_paused=is_paused)


async def set_concurrency_limit(db: Database, environment: Environment, limit: int) -> None:
    """Set how many runs of an environment may execute at once; what executes goes on."""
    async with db.transaction() as tx:
        await tx.execute(
            _sql.set_concurrency_limit, environment_id=environment.id, concurrency_limit=limit
        )


def _environment(row: Row) -> Environment:
    return Environment(
        id=row["id"],
        public_id=row["public_id"],
        slug=row["slug"],
        type=row["type"],
        concurrency_limit=row["concurrency_limit"],
        variables_version=row["variables_version"],
        project=Project(
            public_id=row["project_public_id"],
            ref=row["project_ref"],
            slug=row["project_slug"],
            name=row["project_name"],
        ),
        organization=Organization(
            public_id=row["organization_public_id"],
            slug=row["organization_slug"],
            name=row["organization_name"],
        ),
    )
