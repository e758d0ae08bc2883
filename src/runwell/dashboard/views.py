"""Drawing pages: a view is a template with its values; here it becomes HTML."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

import jinja2

from runwell._version import __version__
from runwell.core.statuses import RunStatus
from runwell.dashboard import formats
from runwell.dashboard.places import Place

_CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
#: What every page sends: no script, style or frame of anybody else, and nothing kept by caches.
SECURITY_HEADERS = (
    ("content-security-policy", _CONTENT_POLICY),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "same-origin"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
)
PAGE_HEADERS = (
    ("content-type", "text/html; charset=utf-8"),
    ("cache-control", "no-store"),
    ("vary", "accept"),
    *SECURITY_HEADERS,
)


@dataclass(frozen=True, kw_only=True)
class View:
    """What a page shows: a template, its title, and the values that the template takes.

    `nav` is the entry of the navigation that it belongs to; `is_live` says that it is drawn again
    when the database changes, and what is open in a browser with it.
    """

    template: str
    title: str
    values: Mapping[str, Any] = field(default_factory=dict[str, Any])
    nav: str = ""
    place: Place | None = None
    is_live: bool = True


@dataclass(frozen=True, kw_only=True)
class EnvironmentLink:
    """An environment that one can go to."""

    project: str
    slug: str
    url: str
    is_current: bool


@dataclass(frozen=True, kw_only=True)
class NavigationLink:
    """An entry of the navigation."""

    name: str
    label: str
    page: str
    key: str


NAVIGATION: tuple[tuple[str, tuple[NavigationLink, ...]], ...] = (
    (
        "Observe",
        (
            NavigationLink(name="tasks", label="Tasks", page="tasks", key="t"),
            NavigationLink(name="runs", label="Runs", page="runs", key="r"),
        ),
    ),
    (
        "Manage",
        (
            NavigationLink(name="queues", label="Queues", page="queues", key="q"),
            NavigationLink(name="schedules", label="Schedules", page="schedules", key="s"),
        ),
    ),
)


class Views:
    """The templates, read once."""

    def __init__(self) -> None:
        """Read and compile what there is when it is first asked for."""
        self._templates = jinja2.Environment(
            loader=jinja2.PackageLoader("runwell.dashboard"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        self._templates.filters |= {
            "status": formats.format_status,
            "instant": formats.format_instant,
            "clock": formats.format_clock,
            "took": formats.format_length,
            "number": formats.format_number,
            "json": formats.format_json,
            "line": formats.format_line,
            "visible": formats.format_text,
        }
        known: dict[str, Any] = {
            "asset": asset_url,
            "navigation": NAVIGATION,
            "statuses": formats.STATUSES,
            "RunStatus": RunStatus,
            "is_over": formats.is_over,
            "runwell_version": __version__,
        }
        self._templates.globals.update(known)

    def draw_page(
        self, view: View, *, flash: str | None, environments: list[EnvironmentLink]
    ) -> str:
        """A whole page."""
        template = self._templates.get_template(view.template)
        return template.render(
            **view.values,
            view=view,
            place=view.place,
            flash=flash,
            environments=environments,
        )

    def draw_main(self, view: View) -> str:
        """The part of a page that changes while it is open."""
        template = self._templates.get_template(view.template)
        context = template.new_context({**view.values, "view": view, "place": view.place})
        return "".join(template.blocks["main"](context))


def asset_url(name: str) -> str:
    """Where a static file is: a new place whenever any changes, so that browsers may keep it."""
    if name not in _assets():
        raise ValueError(f"there is no static file {name}")
    return f"/assets/{_assets_hash()}/{name}"


def read_asset(name: str) -> bytes | None:
    """A static file; None when there is none of that name."""
    return _assets().get(name)


@cache
def _assets() -> dict[str, bytes]:
    found = files("runwell.dashboard").joinpath("static").iterdir()
    return {item.name: item.read_bytes() for item in found if item.is_file()}


@cache
def _assets_hash() -> str:
    # Scripts import each other by relative paths, so that one hash has to do for all.
    whole = hashlib.sha256()
    for _, content in sorted(_assets().items()):
        whole.update(content)
    return whole.hexdigest()[:12]
