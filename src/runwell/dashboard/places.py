"""Which environment a page is about, read from its URL, and the URLs of pages."""

from dataclasses import dataclass
from urllib.parse import quote, urlencode

from starlette.requests import Request

from runwell.core.errors import RequestError
from runwell.engine import environments
from runwell.engine.db import Transaction
from runwell.engine.environments import Environment


@dataclass(frozen=True)
class Place:
    """An environment with the URLs of its pages."""

    environment: Environment

    @property
    def path(self) -> str:
        """What the paths of its pages begin with."""
        return path_of(self.environment.project.ref, self.environment.slug)

    def url(self, page: str = "", /, **query: str | int | None) -> str:
        """The URL of a page; what is None in the query is left out."""
        return with_query(f"{self.path}/{page}", query)

    def run(self, run_id: str) -> str:
        """The URL of a run."""
        return f"{self.path}/runs/{quote(run_id, safe='')}"


def path_of(project_ref: str, slug: str) -> str:
    """What the paths of an environment's pages begin with."""
    return f"/projects/{quote(project_ref, safe='')}/{slug}"


def with_query(path: str, query: "dict[str, str | int | None]") -> str:
    """A path with the parts of a query that have a value."""
    given = {name: value for name, value in query.items() if value is not None and value != ""}
    return f"{path}?{urlencode(given)}" if given else path


async def find_place(tx: Transaction, request: Request) -> Place:
    """The environment of a page's URL; raises RequestError 404 when there is none."""
    ref, slug = request.path_params["project"], request.path_params["environment"]
    found = await environments.find_by_ref(tx, ref, slug)
    if found is None:
        raise RequestError(404, f"there is no environment {slug[:32]} of a project {ref[:64]}")
    return Place(found)
