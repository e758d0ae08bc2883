"""What a person may see and change: projects, their keys, personal access tokens."""

from pydantic import TypeAdapter
from starlette.requests import Request

from runwell.core.errors import RequestError
from runwell.core.project_schemas import (
    CreatedPersonalToken,
    CreatePersonalTokenBody,
    PersonalTokenList,
    PersonalTokenObject,
    ProjectEnvironment,
    ProjectObject,
    ProjectOrganization,
    RevokedPersonalToken,
    RotatedKey,
    RotateKeyBody,
    SecretKeyObject,
    WhoAmI,
)
from runwell.core.schemas import Pagination, RunList
from runwell.core.timing import parse_duration
from runwell.engine import credentials, people, runs
from runwell.engine.people import MemberProject, PersonalToken
from runwell.server import auth, run_filters
from runwell.server.backend import Backend
from runwell.server.http import Answer, answer, base_url, path_text, read_model
from runwell.server.named_environments import SLUGS, environment_of
from runwell.server.operations import Operation, Parameter
from runwell.server.run_objects import is_4x, run_list_item

_PROJECTS = TypeAdapter(list[ProjectObject])
_GONE = (404, "There is no such project, or you are no member of its organisation.")


async def show_person(request: Request, _backend: Backend) -> Answer:
    """Say whose token it is."""
    person = auth.person_of(request)
    return answer(
        WhoAmI(user_id=person.public_id, email=person.email, dashboard_url=base_url(request))
    )


async def list_projects(request: Request, backend: Backend) -> Answer:
    """List the projects of one's organisations."""
    async with backend.db.connection() as tx:
        found = await people.list_projects(tx, auth.person_of(request))
    return Answer(_PROJECTS.dump_json([_project(one) for one in found], by_alias=True))


async def show_project(request: Request, backend: Backend) -> Answer:
    """Show a project."""
    async with backend.db.connection() as tx:
        found = await people.get_project(tx, auth.person_of(request), path_text(request, "ref"))
    return answer(_project(found))


async def list_runs(request: Request, backend: Backend) -> Answer:
    """List the runs of several environments of a project, the newest first."""
    query = dict(request.query_params)
    named = query.pop("filter[env]", "").split(",")
    wanted = {SLUGS.get(slug, slug) for slug in named if slug}
    filters, page = run_filters.read_filters(query, now=backend.now()), run_filters.read_page(query)
    async with backend.db.transaction() as tx:
        found = await people.list_environments(
            tx, auth.person_of(request), path_text(request, "ref")
        )
        chosen = [one for one in found if not wanted or one.slug in wanted]
        unknown = wanted - {one.slug for one in found}
        if unknown:
            raise RequestError(400, f"filter[env]: the project has no {min(unknown)[:32]!r}")
        pages = [(one, await runs.list_runs(tx, one, filters, page)) for one in chosen]
    merged = runs.merge_pages([found for _, found in pages], page)
    environments = {run.id: one for one, found in pages for run in found.runs}
    items = [run_list_item(run, environments[run.id], is_4x=is_4x(request)) for run in merged.runs]
    pagination = Pagination(next=merged.next, previous=merged.previous)
    return answer(RunList.model_construct(data=items, pagination=pagination))


async def show_environment(request: Request, backend: Backend) -> Answer:
    """Say how to reach an environment, with its newest key."""
    environment = await environment_of(request, backend)
    async with backend.db.connection() as tx:
        keys = await credentials.list_keys(tx, environment, now=backend.now())
    if not keys:
        raise RequestError(422, "the environment has no key that is good: make one")
    return answer(
        ProjectEnvironment(
            api_key=keys[0].secret_key,
            name=environment.project.name,
            api_url=base_url(request),
            project_id=environment.project.public_id,
        )
    )


async def rotate_key(request: Request, backend: Backend) -> Answer:
    """Make a new secret key, and let the others end."""
    environment = await environment_of(request, backend)
    body = await read_model(request, RotateKeyBody)
    try:
        overlap = (
            credentials.DEFAULT_OVERLAP if body.overlap is None else parse_duration(body.overlap)
        )
    except ValueError as error:
        raise RequestError(400, f"overlap: {error}") from None
    made = await backend.db.run(
        lambda tx: credentials.rotate_key(tx, environment, overlap=overlap, now=backend.now())
    )
    backend.keys.forget(environment)
    async with backend.db.connection() as tx:
        keys = await credentials.list_keys(tx, environment, now=backend.now())
    return answer(
        RotatedKey(
            api_key=made.secret_key,
            keys=[
                SecretKeyObject(
                    api_key=key.secret_key, created_at=key.created_at, expires_at=key.expires_at
                )
                for key in keys
            ],
        )
    )


async def create_token(request: Request, backend: Backend) -> Answer:
    """Make a personal access token; it is shown only now."""
    person, body = auth.person_of(request), await read_model(request, CreatePersonalTokenBody)
    token, made = await backend.db.run(
        lambda tx: people.create_token(
            tx,
            person,
            name=body.name,
            email=body.email,
            expires_at=body.expires_at,
            now=backend.now(),
        )
    )
    return answer(CreatedPersonalToken(token=token, **_token(made).model_dump()))


async def list_tokens(request: Request, backend: Backend) -> Answer:
    """List one's personal access tokens."""
    async with backend.db.connection() as tx:
        found = await people.list_tokens(tx, auth.person_of(request))
    return answer(PersonalTokenList(data=[_token(one) for one in found]))


async def revoke_token(request: Request, backend: Backend) -> Answer:
    """Revoke a personal access token of one's own."""
    person, token_id = auth.person_of(request), path_text(request, "tokenId")
    await backend.db.run(lambda tx: people.revoke_token(tx, person, token_id))
    backend.keys.forget_person(person)
    return answer(RevokedPersonalToken(id=token_id))


def _project(found: MemberProject) -> ProjectObject:
    return ProjectObject(
        id=found.id,
        external_ref=found.ref,
        name=found.name,
        slug=found.slug,
        created_at=found.created_at,
        organization=ProjectOrganization(
            id=found.organization_id,
            title=found.organization_name,
            slug=found.organization_slug,
            created_at=found.organization_created_at,
        ),
    )


def _token(found: PersonalToken) -> PersonalTokenObject:
    return PersonalTokenObject(
        id=found.id,
        name=found.name,
        obfuscated_token=found.obfuscated,
        created_at=found.created_at,
        expires_at=found.expires_at,
    )


operations: list[Operation] = [
    Operation(
        method="GET",
        path="/api/v2/whoami",
        endpoint=show_person,
        name="whoami",
        summary="Whose personal access token it is",
        tag="projects",
        answer=WhoAmI,
    ),
    Operation(
        method="GET",
        path="/api/v1/projects",
        endpoint=list_projects,
        name="listProjects",
        summary="List the projects of your organisations",
        tag="projects",
        answer_description="A list of projects.",
    ),
    Operation(
        method="GET",
        path="/api/v1/projects/{ref}",
        endpoint=show_project,
        name="retrieveProject",
        summary="Retrieve a project",
        tag="projects",
        answer=ProjectObject,
        refusals=(_GONE,),
    ),
    Operation(
        method="GET",
        path="/api/v1/projects/{ref}/runs",
        endpoint=list_runs,
        name="listProjectRuns",
        summary="List runs of the environments of a project, newest first",
        tag="projects",
        answer=RunList,
        answer_description="A page of runs.",
        parameters=(
            *run_filters.PARAMETERS,
            Parameter(name="filter[env]", description="Of these environments: dev, staging, prod"),
        ),
        refusals=(_GONE,),
    ),
    Operation(
        method="GET",
        path="/api/v1/projects/{ref}/{env}",
        endpoint=show_environment,
        name="retrieveProjectEnvironment",
        summary="The secret key and the URL of an environment of a project",
        tag="projects",
        answer=ProjectEnvironment,
        refusals=(_GONE, (422, "The environment has no key that is good.")),
    ),
    Operation(
        method="POST",
        path="/api/v1/projects/{ref}/{env}/rotate-key",
        endpoint=rotate_key,
        name="rotateKey",
        summary="Make a new secret key; the old one goes on for a while",
        tag="projects",
        body=RotateKeyBody,
        answer=RotatedKey,
        answer_description="The new key, and all that are good now.",
        refusals=(_GONE, (422, "Too many keys overlap.")),
    ),
    Operation(
        method="POST",
        path="/api/v1/personal-access-tokens",
        endpoint=create_token,
        name="createPersonalToken",
        summary="Make a personal access token",
        tag="projects",
        body=CreatePersonalTokenBody,
        answer=CreatedPersonalToken,
        answer_description="The token, which is shown only now.",
        refusals=(
            (403, "Only an owner makes tokens for others."),
            (422, "There are too many."),
        ),
    ),
    Operation(
        method="GET",
        path="/api/v1/personal-access-tokens",
        endpoint=list_tokens,
        name="listPersonalTokens",
        summary="List your personal access tokens",
        tag="projects",
        answer=PersonalTokenList,
    ),
    Operation(
        method="DELETE",
        path="/api/v1/personal-access-tokens/{tokenId}",
        endpoint=revoke_token,
        name="revokePersonalToken",
        summary="Revoke a personal access token of yours",
        tag="projects",
        answer=RevokedPersonalToken,
        refusals=((404, "You have no such token."),),
    ),
]
