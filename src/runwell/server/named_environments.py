"""The environment that a URL names by its project and its slug."""

from typing import Final

from starlette.requests import Request

from runwell.core.errors import RequestError
from runwell.engine import people
from runwell.engine.environments import Environment
from runwell.server import auth
from runwell.server.backend import Backend
from runwell.server.http import path_text

#: Stands for the project, or the environment, of the key.
OWN: Final = "~"
# What people, and clients, call environments.
SLUGS: Final = {"development": "dev", "staging": "stg", "production": "prod"}


async def environment_of(request: Request, backend: Backend) -> Environment:
    """The environment of `{ref}` and `{env}` in the path.

    With a secret key it must be that of the key: RequestError 400 otherwise. With a personal token
    it must be of a project of the person's organisations: RequestError 404 otherwise.
    """
    ref = path_text(request, "ref")
    slug = path_text(request, "env") if "env" in request.path_params else OWN
    slug = SLUGS.get(slug, slug)
    if auth.grant_of(request).person is not None:
        async with backend.db.connection() as tx:
            return await people.get_environment(tx, auth.person_of(request), ref, slug)
    own = auth.credential_of(request).environment
    if ref not in (OWN, own.project.ref) or slug not in (OWN, own.slug):
        raise RequestError(
            400,
            f"this key is that of the environment {own.slug} of project {own.project.ref}, and the "
            f"URL names another one: use the key of that one, or {OWN!r} for the key's own",
        )
    return own
