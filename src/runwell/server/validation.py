"""What pydantic found wrong, as one sentence with the place in the body.

Not about JSON syntax: that is `core.payloads.parse_json`.
"""

import json
from collections.abc import Sequence
from typing import NamedTuple, cast

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from runwell.core.payloads import Json

# So many problems are worth reading.
_SHOWN_IN_SENTENCE = 3
_SHOWN_IN_DETAILS = 20
_PATH_PART = 64


class Problem(NamedTuple):
    """What is wrong at one place of a body."""

    path: str
    message: str


def find_problems(error: ValidationError, body: bytes) -> list[Problem]:
    """Everything that pydantic found in a body, each place once."""
    sent = cast("Json", json.loads(body))
    messages: dict[str, list[str]] = {}
    for found in error.errors(include_url=False, include_input=False):
        path = _path(found, sent)
        message = _message(found)
        if message not in messages.setdefault(path, []):
            messages[path].append(message)
    return [Problem(path, " or ".join(parts)) for path, parts in messages.items()]


def describe(problems: Sequence[Problem]) -> str:
    """A sentence that names what is wrong and where; at most three problems."""
    shown = "; ".join(
        f"{path}: {message}" if path else message for path, message in problems[:_SHOWN_IN_SENTENCE]
    )
    more = len(problems) - _SHOWN_IN_SENTENCE
    return f"{shown}; and {more} more" if more > 0 else shown


def details(problems: Sequence[Problem]) -> list[Json]:
    """The same problems as objects, for programs."""
    return [{"path": path, "message": message} for path, message in problems[:_SHOWN_IN_DETAILS]]


def _message(found: ErrorDetails) -> str:
    match found["type"]:
        case "missing":
            return "this field is required"
        case "model_type" | "model_attributes_type":
            return "must be an object" if found["loc"] else "the body must be a JSON object"
        case _:
            message = found["msg"].removeprefix("Value error, ").removeprefix("Input ")
            return message[:1].lower() + message[1:]


def _path(found: ErrorDetails, sent: Json) -> str:
    """The place in what was sent: pydantic's has names of its own in it, of members of unions."""
    path = ""
    at: Json | None = sent
    last = len(found["loc"]) - 1
    for index, part in enumerate(found["loc"]):
        if isinstance(part, int):
            path += f"[{part}]"
            at = at[part] if isinstance(at, list) and part < len(at) else None
        elif isinstance(at, dict) and part in at:
            path += f".{part[:_PATH_PART]}"
            at = at[part]
        elif index == last and found["type"] == "missing":
            path += f".{part[:_PATH_PART]}"
    return path.removeprefix(".")
