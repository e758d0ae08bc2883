"""The OpenAPI document, made from the operations and the models they name."""

import re
from collections.abc import Sequence
from functools import cache
from typing import Literal, cast

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.requests import Request

from runwell._version import __version__
from runwell.core.payloads import Json, encode_json
from runwell.core.schemas import ErrorBody
from runwell.server.backend import Backend
from runwell.server.http import Answer
from runwell.server.operations import Operation, Parameter

_OPENAPI_VERSION = "3.1.0"
_PATH_PARAMETER = re.compile(r"\{(\w+)(?::\w+)?\}")
_DESCRIPTION = (
    'Background tasks and durable runs. Every error answer is `{"error": "..."}` with a '
    "sentence for a person; 503 has `retry-after`."
)
_Mode = Literal["validation", "serialization"]
_ERRORS: dict[int, str] = {
    400: "Malformed: bad JSON, a wrong type, an unreadable parameter.",
    401: "The secret key is missing, malformed or unknown.",
    403: "A public access token lacks the scope.",
    408: "The body did not arrive in time.",
    413: "The body is too large.",
    500: "Unexpected; the message has an id that the server's log has too.",
    503: "The database can't be reached at the moment.",
}


def make_operations(documented: Sequence[Operation]) -> list[Operation]:
    """The operation that answers the document about `documented` and itself."""

    @cache
    def encoded() -> bytes:
        return encode_json(make_document([*documented, own])).encode()

    async def show_document(_request: Request, _backend: Backend) -> Answer:
        return Answer(encoded())

    own = Operation(
        method="GET",
        path="/openapi.json",
        endpoint=show_document,
        name="openapi",
        summary="This document",
        tag="server",
        answer_description="An OpenAPI 3.1 document.",
    )
    return [own]


def make_document(operations: Sequence[Operation]) -> dict[str, Json]:
    """The OpenAPI document of these operations."""
    references, definitions = _schemas(operations)
    paths: dict[str, dict[str, Json]] = {}
    for operation in operations:
        path = _PATH_PARAMETER.sub(r"{\1}", operation.path)
        paths.setdefault(path, {})[operation.method.lower()] = _describe(operation, references)
    return {
        "openapi": _OPENAPI_VERSION,
        "info": {"title": "Runwell", "version": __version__, "description": _DESCRIPTION},
        "paths": cast("Json", paths),
        "components": {
            "schemas": definitions,
            "securitySchemes": {
                "secretKey": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "The secret key of an environment: `tr_dev_...`",
                },
                "personalToken": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A personal access token: `tr_pat_...`",
                },
                "publicToken": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "JWT",
                    "description": "A public access token with a scope for it",
                },
            },
        },
    }


def _schemas(
    operations: Sequence[Operation],
) -> tuple[dict[tuple[type[BaseModel], _Mode], Json], Json]:
    models: dict[tuple[type[BaseModel], _Mode], None] = {(ErrorBody, "serialization"): None}
    for operation in operations:
        if operation.body is not None:
            models[operation.body, "validation"] = None
        if operation.answer is not None:
            models[operation.answer, "serialization"] = None
    references, schema = models_json_schema(
        list(models), ref_template="#/components/schemas/{model}"
    )
    return (
        cast("dict[tuple[type[BaseModel], _Mode], Json]", references),
        cast("Json", schema.get("$defs", {})),
    )


def _describe(
    operation: Operation, references: dict[tuple[type[BaseModel], _Mode], Json]
) -> dict[str, Json]:
    answer_content: dict[str, Json] = {}
    if operation.answer is not None:
        schema = references[operation.answer, "serialization"]
        answer_content = {"content": {"application/json": {"schema": schema}}}
    responses: dict[str, Json] = {
        str(operation.answer_status): {
            "description": operation.answer_description,
            **answer_content,
        }
    }
    error_schema = references[ErrorBody, "serialization"]
    for status, description in _errors_of(operation).items():
        responses[str(status)] = {
            "description": description,
            "content": {"application/json": {"schema": error_schema}},
        }
    described: dict[str, Json] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "tags": [operation.tag],
        "responses": responses,
        "security": _security(operation),
    }
    parameters = [*_path_parameters(operation.path), *map(_parameter, operation.parameters)]
    if parameters:
        described["parameters"] = parameters
    if operation.body is not None:
        schema = references[operation.body, "validation"]
        described["requestBody"] = {
            "required": operation.needs_body,
            "content": {operation.body_type: {"schema": schema}},
        }
    return described


def _security(operation: Operation) -> list[Json]:
    access = operation.access
    takes: dict[str, bool] = {
        "secretKey": access.takes_secret_keys,
        "personalToken": access.takes_personal_tokens,
        "publicToken": access.takes_public_tokens,
    }
    return [{name: []} for name, is_taken in takes.items() if is_taken]


def _errors_of(operation: Operation) -> dict[int, str]:
    statuses = {500, 503}
    if not operation.access.is_open:
        statuses |= {400, 401}
    if operation.access.takes_public_tokens:
        statuses.add(403)
    if operation.body is not None:
        statuses |= {408, 413}
    found = {status: _ERRORS[status] for status in statuses}
    found |= dict(operation.refusals)
    return dict(sorted(found.items()))


def _path_parameters(path: str) -> list[Json]:
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in _PATH_PARAMETER.findall(path)
    ]


def _parameter(parameter: Parameter) -> Json:
    return {
        "name": parameter.name,
        "in": parameter.place,
        "required": False,
        "description": parameter.description,
        "schema": {"type": parameter.type},
    }
