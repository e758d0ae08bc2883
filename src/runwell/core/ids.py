"""Public ids (`run_...`, `batch_...`), how they are made and parsed, and version numbers.

Not about database keys: a table may have an integer key of its own beside the public id.
"""

import contextlib
import hashlib
import os
import re
import secrets
import string
from datetime import UTC, date, datetime
from typing import NamedTuple
from uuid import UUID

# The documented alphabet of friendly ids: no `0`, no `l`.
ALPHABET = "123456789abcdefghijkmnopqrstuvwxyz"
ID_LENGTH = 21
# Milliseconds since the epoch need 41 bits until 2039 and 44 until 2527: nine digits of base 34.
_TIME_DIGITS = 9
_RANDOM_DIGITS = ID_LENGTH - _TIME_DIGITS
_RANDOM_RANGE = len(ALPHABET) ** _RANDOM_DIGITS
# A request key minted longer ago than this says nothing about when the run is created.
_REQUEST_KEY_AGE_MS = 10 * 60 * 1000
_VERSION = re.compile(r"([0-9]{4})([0-9]{2})([0-9]{2})\.([0-9]{1,9})")

RunId = str


class Version(NamedTuple):
    """A background worker's version `YYYYMMDD.N`, ordered by day and then by number.

    >>> Version.parse("20250313.10") > Version.parse("20250313.9")
    True
    """

    day: date
    number: int

    @classmethod
    def parse(cls, text: str) -> "Version":
        """Read `YYYYMMDD.N`; raises ValueError when the text is anything else."""
        match = _VERSION.fullmatch(text)
        if match is not None:
            with contextlib.suppress(ValueError):  # the 31st of February
                year, month, day, number = map(int, match.groups())
                return cls(date(year, month, day), number)
        raise ValueError(f"{text!r} is not a version: expected YYYYMMDD.N, like 20250313.1")

    def __str__(self) -> str:
        return f"{self.day:%Y%m%d}.{self.number}"


def make_id(prefix: str, now: datetime | None = None) -> str:
    """A new public id. Ids of one prefix sort by the millisecond they were made in.

    >>> make_id("run").startswith("run_")
    True
    """
    instant = now if now is not None else datetime.now(UTC)
    milliseconds = int(instant.timestamp() * 1000)
    random = int.from_bytes(os.urandom(9)) % _RANDOM_RANGE
    return f"{prefix}_{_digits(milliseconds, _TIME_DIGITS)}{_digits(random, _RANDOM_DIGITS)}"


def earliest_id(prefix: str, instant: datetime) -> str:
    """What ids of this prefix sort behind that were made in this millisecond or later."""
    return f"{prefix}_{_digits(max(0, int(instant.timestamp() * 1000)), _TIME_DIGITS)}"


def run_id_for_request(environment_id: int, request_key: str, now: datetime) -> RunId | None:
    """The run id that belongs to one logical trigger request, however often it is sent.

    A request key that is a UUID version 7 carries its own time, so that the same key always gives
    the same run id and the primary key refuses a second run. None for any other key, and for one
    that is older than ten minutes: whose run it is has to be written down.
    """
    minted_at = _uuid7_milliseconds(request_key)
    now_ms = int(now.timestamp() * 1000)
    if minted_at is None or abs(now_ms - minted_at) > _REQUEST_KEY_AGE_MS:
        return None
    digest = hashlib.sha256(f"{environment_id}:{request_key}".encode()).digest()
    random = int.from_bytes(digest[:9]) % _RANDOM_RANGE
    return f"run_{_digits(minted_at, _TIME_DIGITS)}{_digits(random, _RANDOM_DIGITS)}"


def id_for_key(prefix: str, environment_id: int, key: str) -> str:
    """The public id that belongs to a text within an environment; it says nothing of when."""
    digest = hashlib.sha256(f"{environment_id}:{key}".encode()).digest()
    return f"{prefix}_{_digits(int.from_bytes(digest[:16]), ID_LENGTH)}"


def make_run_ids(number: int, now: datetime) -> list[RunId]:
    """New run ids in their order, so that runs of one instant are first in, first out."""
    return sorted(make_id("run", now) for _ in range(number))


def make_request_key(now: datetime | None = None) -> str:
    """A UUID version 7 (RFC 9562) that names one logical request across its retries."""
    instant = now if now is not None else datetime.now(UTC)
    milliseconds = int(instant.timestamp() * 1000)
    value = (milliseconds & ((1 << 48) - 1)) << 80
    value |= 0x7 << 76
    value |= secrets.randbits(12) << 64
    value |= 0b10 << 62
    value |= secrets.randbits(62)
    return str(UUID(int=value))


def make_secret_key(slug: str) -> str:
    """A new secret key of an environment: `tr_<slug>_` and 20 letters or digits."""
    letters = string.ascii_letters + string.digits
    return f"tr_{slug}_" + "".join(secrets.choice(letters) for _ in range(20))


def make_project_ref() -> str:
    """A new project ref: `proj_` and 20 lowercase letters."""
    return "proj_" + "".join(secrets.choice(string.ascii_lowercase) for _ in range(20))


def _digits(value: int, width: int) -> str:
    base = len(ALPHABET)
    out: list[str] = []
    for _ in range(width):
        value, digit = divmod(value, base)
        out.append(ALPHABET[digit])
    return "".join(reversed(out))


def _uuid7_milliseconds(text: str) -> int | None:
    try:
        uuid = UUID(text)
    except ValueError:
        return None
    return uuid.int >> 80 if uuid.version == 7 else None
