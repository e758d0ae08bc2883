"""Errors of runs and attempts as the database keeps them: clipped, and fit for jsonb."""

import json
from typing import assert_never

from pydantic import TypeAdapter

from runwell.core.errors import (
    BuiltInError,
    CustomError,
    InternalError,
    StringError,
    TaskRunError,
    clip,
)

_adapter: TypeAdapter[TaskRunError] = TypeAdapter(TaskRunError)
_MAX_NAME_CHARACTERS = 512


def encode_error(error: TaskRunError) -> str:
    """An error as the text of a jsonb value."""
    match error:
        case BuiltInError():
            fields = {
                "name": clip(error.name, _MAX_NAME_CHARACTERS),
                "message": clip(error.message),
                "stackTrace": clip(error.stack_trace),
            }
        case StringError() | CustomError():
            fields = {"raw": clip(error.raw)}
        case InternalError():
            fields = {"code": error.code.value}
            if error.message is not None:
                fields["message"] = clip(error.message)
            if error.stack_trace is not None:
                fields["stackTrace"] = clip(error.stack_trace)
        case _:
            assert_never(error)
    clean = {name: text.replace("\x00", "\ufffd") for name, text in fields.items()}
    return json.dumps({"type": error.type, **clean})


def decode_error(text: str | None) -> TaskRunError | None:
    """What `encode_error` wrote."""
    return None if text is None else _adapter.validate_json(text)
