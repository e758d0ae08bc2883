"""The query of a list of runs: filters and cursors (`protocol.md` 3.2)."""

from collections.abc import Mapping
from datetime import UTC, datetime

from runwell.core.errors import InvalidPayloadError, RequestError
from runwell.core.payloads import check_text
from runwell.core.statuses import RunStatus, statuses_named
from runwell.core.timing import parse_duration, parse_instant
from runwell.engine.runs import Page, RunFilters
from runwell.server.operations import Parameter

DEFAULT_SIZE, MAX_SIZE = 25, 100
_MAX_VALUES = 100
_MAX_CHARACTERS = 256
_FIRST_INSTANT, _LAST_INSTANT = datetime(1970, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC)

PARAMETERS: tuple[Parameter, ...] = (
    Parameter(
        name="page[size]", description=f"1 to {MAX_SIZE}; {DEFAULT_SIZE} if absent", type="integer"
    ),
    Parameter(name="page[after]", description="The `pagination.next` of a page: older runs"),
    Parameter(
        name="page[before]",
        description="The `pagination.previous` of a page: newer runs; wins over `page[after]`",
    ),
    Parameter(name="filter[status]", description="API statuses, separated by commas"),
    Parameter(name="filter[taskIdentifier]", description="Task ids, separated by commas"),
    Parameter(name="filter[version]", description="Versions, separated by commas"),
    Parameter(name="filter[tag]", description="Tags, separated by commas; any of them matches"),
    Parameter(name="filter[batch]", description="The id of a batch"),
    Parameter(name="filter[schedule]", description="The id of a schedule"),
    Parameter(name="filter[bulkAction]", description="The id of a bulk action"),
    Parameter(name="filter[isTest]", description="`true` or `false`", type="boolean"),
    Parameter(
        name="filter[createdAt][from]", description="Unix milliseconds or an ISO date, inclusive"
    ),
    Parameter(
        name="filter[createdAt][to]", description="Unix milliseconds or an ISO date, inclusive"
    ),
    Parameter(name="filter[createdAt][period]", description="The last `1d`, `2h30m`, ..."),
)
_KNOWN = frozenset(parameter.name for parameter in PARAMETERS)


def read_page(query: Mapping[str, str]) -> Page:
    """Which page is asked for; raises RequestError 400 that names the parameter."""
    size = query.get("page[size]")
    if size is None:
        count = DEFAULT_SIZE
    elif size.isascii() and size.isdecimal() and 1 <= int(size[:6]) <= MAX_SIZE:
        count = int(size)
    else:
        raise _invalid("page[size]", f"{size[:32]!r} is not a number from 1 to {MAX_SIZE}")
    return Page(
        size=count, after=_cursor(query, "page[after]"), before=_cursor(query, "page[before]")
    )


def read_filters(query: Mapping[str, str], *, now: datetime) -> RunFilters:
    """Which runs are asked for; raises RequestError 400 that names the parameter."""
    for name in query:
        if name.startswith(("filter[", "page[")) and name not in _KNOWN:
            raise RequestError(
                400, f"there is no parameter {name[:64]}: /openapi.json lists those of this URL"
            )
    return RunFilters(
        statuses=_statuses(query),
        task_ids=_texts(query, "filter[taskIdentifier]"),
        versions=_texts(query, "filter[version]"),
        tags=_texts(query, "filter[tag]"),
        batch_id=_text(query, "filter[batch]"),
        schedule_id=_text(query, "filter[schedule]"),
        bulk_action_id=_text(query, "filter[bulkAction]"),
        is_test=_boolean(query, "filter[isTest]"),
        created_from=_from(query, now),
        created_to=_instant(query, "filter[createdAt][to]"),
    )


def _statuses(query: Mapping[str, str]) -> list[RunStatus] | None:
    names = _texts(query, "filter[status]")
    if names is None:
        return None
    found: set[RunStatus] = set()
    for name in names:
        named = statuses_named(name)
        if not named:
            known = ", ".join(sorted(RunStatus))
            raise _invalid("filter[status]", f"{name[:64]!r} is no status; there are {known}")
        found.update(named)
    return sorted(found)


def _texts(query: Mapping[str, str], name: str) -> list[str] | None:
    text = query.get(name)
    if text is None:
        return None
    values = [value for value in (part.strip() for part in text.split(",")) if value]
    if len(values) > _MAX_VALUES:
        raise _invalid(name, f"it has {len(values)} values, and at most {_MAX_VALUES} are taken")
    for value in values:
        _check(name, value)
    return values or None


def _text(query: Mapping[str, str], name: str) -> str | None:
    text = query.get(name)
    if text:
        _check(name, text)
    return text or None


def _cursor(query: Mapping[str, str], name: str) -> str | None:
    text = _text(query, name)
    if text is not None and not (text.isascii() and text.replace("_", "").isalnum()):
        raise _invalid(name, f"{text[:64]!r} is not a cursor that a page gave")
    return text


def _check(name: str, text: str) -> None:
    if len(text) > _MAX_CHARACTERS:
        raise _invalid(name, f"a value is longer than {_MAX_CHARACTERS} characters")
    try:
        check_text(text, what=name)
    except InvalidPayloadError as error:
        raise RequestError(400, str(error)) from None


def _boolean(query: Mapping[str, str], name: str) -> bool | None:
    match query.get(name):
        case None | "":
            return None
        case "true":
            return True
        case "false":
            return False
        case text:
            raise _invalid(name, f"{text[:32]!r} is neither true nor false")


def _from(query: Mapping[str, str], now: datetime) -> datetime | None:
    start = _instant(query, "filter[createdAt][from]")
    name = "filter[createdAt][period]"
    period = _text(query, name)
    if period is None:
        return start
    try:
        since = max(now - parse_duration(period), _FIRST_INSTANT)
    except (ValueError, OverflowError) as error:
        raise _invalid(name, str(error)) from None
    return since if start is None else max(start, since)


def _instant(query: Mapping[str, str], name: str) -> datetime | None:
    text = _text(query, name)
    if text is None:
        return None
    try:
        if text.isascii() and text.isdecimal():
            instant = datetime.fromtimestamp(int(text) / 1000, UTC)
        else:
            instant = parse_instant(text)
    except (ValueError, OverflowError, OSError):
        raise _invalid(
            name, f"{text[:64]!r} is neither Unix milliseconds nor an ISO date"
        ) from None
    return min(max(instant, _FIRST_INSTANT), _LAST_INSTANT)


def _invalid(name: str, why: str) -> RequestError:
    return RequestError(400, f"{name}: {why}")
