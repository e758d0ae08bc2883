"""How values look in a page: instants, lengths of time, statuses, JSON, texts of strangers."""

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime

from markupsafe import Markup

from runwell.core.payloads import Json
from runwell.core.statuses import RunStatus

#: What a status is called on the screen, and the kind that gives it its colour.
STATUSES: Mapping[RunStatus, tuple[str, str]] = {
    RunStatus.WAITING_FOR_DEPLOY: ("Waiting for deploy", "waiting"),
    RunStatus.DELAYED: ("Delayed", "waiting"),
    RunStatus.QUEUED: ("Queued", "queued"),
    RunStatus.DEQUEUED: ("Starting", "running"),
    RunStatus.EXECUTING: ("Executing", "running"),
    RunStatus.FROZEN: ("Waiting", "waiting"),
    RunStatus.REATTEMPTING: ("Reattempting", "retrying"),
    RunStatus.COMPLETED: ("Completed", "good"),
    RunStatus.CANCELED: ("Canceled", "canceled"),
    RunStatus.FAILED: ("Failed", "bad"),
    RunStatus.CRASHED: ("Crashed", "bad"),
    RunStatus.INTERRUPTED: ("Interrupted", "bad"),
    RunStatus.SYSTEM_FAILURE: ("System failure", "bad"),
    RunStatus.EXPIRED: ("Expired", "canceled"),
    RunStatus.TIMED_OUT: ("Timed out", "bad"),
}

_COLOURS = re.compile(r"\x1b\[[0-9;:]*m")
# What would change how the rest of a page reads: controls, and marks of writing direction.
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]")
_CONTROL_PICTURES = 0x2400
#: What stands where there is no value: a dash.
NONE = "\u2013"


def format_status(status: RunStatus) -> Markup:
    """A status as a pill."""
    label, kind = STATUSES[status]
    return Markup('<span class="status {}">{}</span>').format(kind, label)


def format_instant(instant: datetime | None) -> Markup:
    """An instant, in UTC; the page's script shows how long ago it was."""
    if instant is None:
        return Markup('<span class="none">{}</span>').format(NONE)
    utc = instant.astimezone(UTC)
    return Markup('<time datetime="{}">{}</time>').format(
        utc.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        utc.strftime("%Y-%m-%d %H:%M:%S UTC"),
    )


def format_clock(instant: datetime) -> str:
    """The time of a day, to the millisecond."""
    return instant.astimezone(UTC).strftime("%H:%M:%S.%f")[:-3]


def format_length(milliseconds: float | None) -> str:
    """A length of time: `12 ms`, `3.4 s`, `2m 5s`, `1h 3m`, `2d 4h`."""
    if milliseconds is None:
        return NONE
    if milliseconds < 1:
        return "0 ms" if milliseconds <= 0 else "<1 ms"
    if milliseconds < 1_000:
        return f"{milliseconds:.0f} ms"
    seconds = milliseconds / 1_000
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    minutes, hours, days = whole // 60, whole // 3_600, whole // 86_400
    if whole < 3_600:
        return f"{minutes}m {whole % 60}s"
    if whole < 86_400:
        return f"{hours}h {minutes % 60}m"
    return f"{days}d {hours % 24}h"


def format_number(number: int) -> str:
    """A number with its thousands apart."""
    return f"{number:,}"


def format_json(value: Json) -> str:
    """A value of JSON over several lines."""
    return json.dumps(value, indent=2, ensure_ascii=False)


def format_line(value: Json) -> str:
    """A value of JSON on one line."""
    return json.dumps(value, ensure_ascii=False)


def format_text(text: str) -> str:
    """A text of a stranger: colours of terminals are left out, what can't be seen is shown."""
    return _UNSEEN.sub(_show, _COLOURS.sub("", text))


def is_over(run_status: RunStatus) -> bool:
    """Whether nothing more happens to a run of this status."""
    return STATUSES[run_status][1] in ("good", "bad", "canceled")


def _show(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code < 0x20:
        return chr(_CONTROL_PICTURES + code)
    return "\u2421" if code == 0x7F else f"\\u{code:04x}"
