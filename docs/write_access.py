"""Writes docs/reference/access.md from server/access.py; a test checks that it is current.

Run it after a change of that table or of a route: `python docs/write_access.py`.
"""

from pathlib import Path

from runwell.server.access import Access
from runwell.server.application import OPERATIONS
from runwell.server.operations import Operation

PAGE = Path(__file__).parent / "reference/access.md"

INTRODUCTION = """\
# Who may call what

<!-- Written by docs/write_access.py from server/access.py: change that, not this. -->

Every operation of the [HTTP API](http-api.md) says which credentials it takes. What isn't said is
refused.

- **key**: the secret key of an environment, `tr_dev_...`. It may do everything in its environment,
  and sees nothing of another one.
- **personal**: a personal access token, `tr_pat_...`. It acts for a person, on the projects of
  their organisations.
- **public**: a [public access token](../how-to/call-from-a-browser.md) with one of the scopes
  named. ID stands for the id of what is asked for; a scope is compared as a whole. A token without
  scopes may do nothing.
- **anybody**: no credential. A presigned URL, and the URL that completes a token, are credentials
  themselves.

A credential that is missing, malformed, unknown or expired is answered with 401; a good one that is
not for this with 403, the same whether there is such a thing or not. What belongs to another
environment is not there: 404.
"""


def write() -> str:
    """The whole page."""
    lines = [INTRODUCTION, "| request | takes | scopes of a public token |", "|---|---|---|"]
    lines += [_row(operation) for operation in sorted(OPERATIONS, key=_place)]
    return "\n".join(lines) + "\n"


def _place(operation: Operation) -> tuple[str, str]:
    return operation.path, operation.method


def _row(operation: Operation) -> str:
    access = operation.access
    return f"| `{operation.method} {operation.path}` | {_kinds(access)} | {_scopes(access)} |"


def _kinds(access: Access) -> str:
    kinds = {
        "anybody": access.is_open,
        "key": access.takes_secret_keys,
        "personal": access.takes_personal_tokens,
        "public": access.takes_public_tokens,
    }
    return ", ".join(name for name, is_taken in kinds.items() if is_taken) or "nobody"


def _scopes(access: Access) -> str:
    named = [
        scope
        for kind in access.resources
        for scope in (f"{access.action}:{kind}:ID", f"{access.action}:{kind}")
    ]
    found = dict.fromkeys((*named, *access.super_scopes))
    return ", ".join(f"`{scope}`" for scope in found)


if __name__ == "__main__":
    PAGE.write_text(write(), encoding="utf-8")
