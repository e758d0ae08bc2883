"""The list of runs: filters that live in the URL, and pages by cursors."""

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from starlette.requests import Request

from runwell.core.statuses import RunStatus
from runwell.dashboard.places import Place
from runwell.dashboard.views import View
from runwell.engine import runs, tasks
from runwell.server import run_filters
from runwell.server.backend import Backend

#: The parameters of the page, and those of the API that they stand for.
_FILTERS = {
    "status": "filter[status]",
    "task": "filter[taskIdentifier]",
    "version": "filter[version]",
    "tag": "filter[tag]",
    "batch": "filter[batch]",
    "schedule": "filter[schedule]",
    "bulk": "filter[bulkAction]",
    "test": "filter[isTest]",
    "from": "filter[createdAt][from]",
    "to": "filter[createdAt][to]",
    "period": "filter[createdAt][period]",
}
_CURSORS = {"after": "page[after]", "before": "page[before]", "size": "page[size]"}
_MOST_VERSIONS = 50
PERIODS = (("1h", "Last hour"), ("1d", "Last day"), ("7d", "Last week"), ("30d", "Last 30 days"))


@dataclass(frozen=True, kw_only=True)
class Chip:
    """A filter that is set: what it says, and the URL of the list without it."""

    name: str
    value: str
    without: str


@dataclass(frozen=True, kw_only=True)
class Filters:
    """The filters of a URL, as the form shows them."""

    given: Sequence[tuple[str, str]]

    def values(self, name: str) -> list[str]:
        """What a filter is set to."""
        return [value for key, value in self.given if key == name]

    def url(self, base: str, **more: str | None) -> str:
        """The list with these filters, and further parameters in place of their own."""
        kept = [(key, value) for key, value in self.given if key not in more]
        added = [(key, value) for key, value in more.items() if value is not None]
        return f"{base}?{urlencode([*kept, *added])}" if kept or added else base

    def chips(self, base: str) -> list[Chip]:
        """What is set, one by one."""
        found: list[Chip] = []
        for index, (key, value) in enumerate(self.given):
            rest = [pair for place, pair in enumerate(self.given) if place != index]
            without = f"{base}?{urlencode(rest)}" if rest else base
            found.append(Chip(name=key, value=value, without=without))
        return found


async def show_list(request: Request, backend: Backend, place: Place) -> View:
    """The runs that pass the filters of the URL, the newest first."""
    filters = read_filters(request)
    now = backend.now()
    parsed = run_filters.read_filters(api_query(filters), now=now)
    page = run_filters.read_page(_cursors(request))
    async with backend.db.transaction() as tx:
        known = await tasks.list_tasks(tx, place.environment)
        versions = await tasks.list_versions(tx, place.environment, most=_MOST_VERSIONS)
        found = await runs.list_runs(tx, place.environment, parsed, page)
    base = place.url("runs")
    return View(
        template="runs.html",
        title="Runs",
        nav="runs",
        place=place,
        values={
            "runs": found.runs,
            "filters": filters,
            "chips": filters.chips(base),
            "tasks": known,
            "versions": versions,
            "periods": PERIODS,
            "all_statuses": list(RunStatus),
            "newer": _turn(filters, base, before=found.previous),
            "older": _turn(filters, base, after=found.next),
            "is_first": page.after is None and page.before is None,
        },
    )


def read_filters(request: Request) -> Filters:
    """The filters of a URL; what is empty counts as not given."""
    return Filters(
        given=[
            (key, value.strip())
            for key, value in request.query_params.multi_items()
            if key in _FILTERS and value.strip()
        ]
    )


def api_query(filters: Filters) -> dict[str, str]:
    """The filters as the API's parameters."""
    return {
        wire: ",".join(filters.values(name))
        for name, wire in _FILTERS.items()
        if filters.values(name)
    }


def _cursors(request: Request) -> dict[str, str]:
    given = request.query_params
    return {wire: given[name] for name, wire in _CURSORS.items() if given.get(name)}


def _turn(
    filters: Filters, base: str, *, before: str | None = None, after: str | None = None
) -> str | None:
    if before is None and after is None:
        return None
    return filters.url(base, before=before, after=after)
