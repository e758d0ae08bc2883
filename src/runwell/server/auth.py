"""Who asks: the environment of a secret key.

Keys are looked up by an index and kept for a few seconds, so that the hot paths cost no query for
it. A key is never logged and never part of an error.
"""

import re
import time
from datetime import datetime

from starlette.requests import Request

from runwell.core.errors import RequestError
from runwell.engine import environments
from runwell.engine.db import Database
from runwell.engine.environments import Environment

#: A key that was revoked may work this much longer.
KEPT_SECONDS = 5.0
_MAX_KEPT = 1_000
_KEY = re.compile(r"tr_[A-Za-z0-9_]{1,200}")
_EXAMPLE = "send the header 'Authorization: Bearer tr_dev_...'"
# For who has clicked on a link that `runwell dev` prints.
_IN_A_BROWSER = "(`runwell env` prints the key; in a terminal, `runwell runs show ID` shows a run)"


class KeyRing:
    """The environments of the keys that were seen lately."""

    def __init__(self) -> None:
        """Know none yet."""
        self._kept: dict[str, tuple[float, Environment]] = {}

    async def find(self, db: Database, secret_key: str, *, now: datetime) -> Environment | None:
        """The environment of a key; None when no environment has it."""
        kept = self._kept.get(secret_key)
        if kept is not None and time.monotonic() < kept[0]:
            return kept[1]
        async with db.connection() as tx:
            found = await environments.find_by_secret_key(tx, secret_key, now=now)
        if found is None:
            self._kept.pop(secret_key, None)
            return None
        if len(self._kept) >= _MAX_KEPT:
            self._kept.clear()
        self._kept[secret_key] = (time.monotonic() + KEPT_SECONDS, found)
        return found


def read_secret_key(request: Request) -> str:
    """The secret key of a request; raises RequestError 401 that says what came instead."""
    header = request.headers.get("authorization")
    if header is None:
        raise RequestError(401, f"there is no authorization header: {_EXAMPLE} {_IN_A_BROWSER}")
    scheme, _, credential = header.partition(" ")
    credential = credential.strip()
    if scheme.lower() != "bearer" or not credential:
        raise RequestError(401, f"the authorization header is no bearer token: {_EXAMPLE}")
    if credential.startswith("pk_"):
        raise RequestError(
            401, "this is a public key (pk_...), which nothing accepts: use the secret key (tr_...)"
        )
    if credential.startswith("tr_pat_"):
        raise RequestError(
            401,
            "this is a personal access token (tr_pat_...), which is not accepted here: use the "
            "secret key of an environment (tr_dev_..., tr_prod_...)",
        )
    if credential.count(".") == 2:
        raise RequestError(
            401,
            "this is a public access token, which is not accepted here: use the secret key of an "
            "environment (tr_...)",
        )
    if not _KEY.fullmatch(credential):
        raise RequestError(
            401, "this is no secret key: those look like tr_dev_ and 20 letters or digits"
        )
    return credential


def unknown_key() -> RequestError:
    """The refusal of a key that no environment has."""
    return RequestError(
        401,
        "no environment here has this secret key: was it made by another server, or replaced? "
        "`runwell env` prints those of the local one",
    )
