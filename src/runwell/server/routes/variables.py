"""Environment variables: list, create, import, retrieve, update, delete."""

import email.parser
import email.policy
from io import StringIO

from dotenv import dotenv_values
from pydantic import TypeAdapter
from starlette.requests import Request

from runwell.core.errors import RequestError
from runwell.core.variable_schemas import (
    REDACTED,
    AllVariables,
    ImportVariablesBody,
    Success,
    VariableBody,
    VariableObject,
    VariablesErrorBody,
    VariableValueBody,
)
from runwell.engine import variables
from runwell.engine.environments import Environment
from runwell.engine.variables import Variable, VariablesError
from runwell.server.backend import Backend
from runwell.server.http import MEGABYTE, Answer, answer, path_text, read_body, read_model
from runwell.server.named_environments import environment_of
from runwell.server.operations import Operation

_LIST = TypeAdapter(list[VariableObject])
_ALL = "/api/v1/projects/{ref}/envvars"
_PATH = _ALL + "/{env}"
_MAX_BODY = 2 * MEGABYTE
_BAD = (400, "A name or a value can't be taken, or the URL names another environment.")
_GONE = (404, "There is no such variable in this environment, or no such environment.")
_TOO_MANY = (422, "There would be too many, or they would be too large.")


async def list_variables(request: Request, backend: Backend) -> Answer:
    """Every variable by name; secret values are not shown."""
    environment = await environment_of(request, backend)
    cipher = await backend.get_cipher()
    async with backend.db.transaction() as tx:
        found = await variables.list_variables(tx, environment, cipher)
    return Answer(_LIST.dump_json([_object(one) for one in found], by_alias=True))


async def read_all(request: Request, backend: Backend) -> Answer:
    """Every variable with its value: what runs get."""
    environment = await environment_of(request, backend)
    cipher = await backend.get_cipher()
    async with backend.db.transaction() as tx:
        found = await variables.read_all(tx, environment, cipher)
    return answer(AllVariables(variables=found.values, version=found.version))


async def create(request: Request, backend: Backend) -> Answer:
    """Create one."""
    environment = await environment_of(request, backend)
    body = await read_model(request, VariableBody, allows_nul=True)
    variable = Variable(name=body.name, value=body.value, is_secret=body.is_secret)
    cipher = await backend.get_cipher()
    try:
        await backend.db.run(
            lambda tx: variables.create_variable(
                tx, environment, variable, cipher, now=backend.now()
            )
        )
    except VariablesError as error:
        return _refusal(error)
    return _done(environment, backend)


async def import_many(request: Request, backend: Backend) -> Answer:
    """Create many, all or none."""
    environment = await environment_of(request, backend)
    if request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        body = _read_form(request, await read_body(request, limit=_MAX_BODY))
    else:
        body = await read_model(request, ImportVariablesBody, limit=_MAX_BODY, allows_nul=True)
    cipher = await backend.get_cipher()
    try:
        await backend.db.run(
            lambda tx: variables.import_variables(
                tx,
                environment,
                body.variables,
                cipher,
                overrides=body.override,
                is_secret=body.is_secret,
                now=backend.now(),
            )
        )
    except VariablesError as error:
        return _refusal(error)
    return _done(environment, backend)


async def retrieve(request: Request, backend: Backend) -> Answer:
    """One variable."""
    environment, name = await environment_of(request, backend), path_text(request, "name")
    cipher = await backend.get_cipher()
    async with backend.db.transaction() as tx:
        found = await variables.get_variable(tx, environment, name, cipher)
    return answer(_object(found))


async def update(request: Request, backend: Backend) -> Answer:
    """Give one another value."""
    environment, name = await environment_of(request, backend), path_text(request, "name")
    body = await read_model(request, VariableValueBody, allows_nul=True)
    cipher = await backend.get_cipher()
    try:
        await backend.db.run(
            lambda tx: variables.update_variable(
                tx, environment, name, body.value, cipher, now=backend.now()
            )
        )
    except VariablesError as error:
        return _refusal(error)
    return _done(environment, backend)


async def delete(request: Request, backend: Backend) -> Answer:
    """Delete one."""
    environment, name = await environment_of(request, backend), path_text(request, "name")
    await backend.db.run(lambda tx: variables.delete_variable(tx, environment, name))
    return _done(environment, backend)


def _done(environment: Environment, backend: Backend) -> Answer:
    # The next dequeue at this server says that there are others; at another one within seconds.
    backend.keys.forget(environment)
    return answer(Success())


def _object(variable: Variable) -> VariableObject:
    return VariableObject(
        name=variable.name,
        value=REDACTED if variable.is_secret else variable.value,
        is_secret=variable.is_secret,
    )


def _refusal(error: VariablesError) -> Answer:
    return answer(
        VariablesErrorBody(
            error=str(error),
            variable_errors=[
                {"key": name[:256], "error": problem} for name, problem in error.problems.items()
            ],
        ),
        status=400,
    )


def _read_form(request: Request, raw: bytes) -> ImportVariablesBody:
    """A form with a dotenv file in `variables`, and perhaps `override`."""
    head = f"content-type: {request.headers['content-type']}\r\n\r\n".encode("latin-1", "replace")
    form = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + raw)
    fields: dict[str, str] = {}
    for part in form.iter_parts() if form.is_multipart() else ():
        name = part.get_param("name", header="content-disposition")
        content = part.get_payload(decode=True)
        if isinstance(name, str) and isinstance(content, bytes):
            fields[name] = content.decode("utf-8", "replace")
    if "variables" not in fields:
        raise RequestError(400, "the form has no field 'variables' with a dotenv file")
    values = dotenv_values(stream=StringIO(fields["variables"]), interpolate=False)
    return ImportVariablesBody(
        variables={name: value or "" for name, value in values.items()},
        override=fields.get("override", "").strip().lower() == "true",
    )


operations: list[Operation] = [
    Operation(
        method="GET",
        path=_ALL,
        endpoint=read_all,
        name="readAllVariables",
        summary="Read the environment variables that the key's environment gives to its runs",
        tag="environment variables",
        answer=AllVariables,
        answer_description="Names and values, secret ones too.",
        refusals=(_BAD,),
    ),
    Operation(
        method="GET",
        path=_PATH,
        endpoint=list_variables,
        name="listVariables",
        summary="List environment variables",
        tag="environment variables",
        answer_description="A list of `{name, value, isSecret}`; secret values are not shown.",
        refusals=(_BAD,),
    ),
    Operation(
        method="POST",
        path=_PATH,
        endpoint=create,
        name="createVariable",
        summary="Create an environment variable",
        tag="environment variables",
        body=VariableBody,
        answer=Success,
        refusals=(_BAD, _TOO_MANY),
    ),
    Operation(
        method="POST",
        path=_PATH + "/import",
        endpoint=import_many,
        name="importVariables",
        summary="Create many environment variables; also a form with a dotenv file",
        tag="environment variables",
        body=ImportVariablesBody,
        answer=Success,
        refusals=(_BAD, _TOO_MANY),
    ),
    Operation(
        method="GET",
        path=_PATH + "/{name}",
        endpoint=retrieve,
        name="retrieveVariable",
        summary="Retrieve an environment variable",
        tag="environment variables",
        answer=VariableObject,
        answer_description="Its value; not that of a secret one.",
        refusals=(_BAD, _GONE),
    ),
    Operation(
        method="PUT",
        path=_PATH + "/{name}",
        endpoint=update,
        name="updateVariable",
        summary="Give an environment variable another value",
        tag="environment variables",
        body=VariableValueBody,
        answer=Success,
        refusals=(_BAD, _GONE, _TOO_MANY),
    ),
    Operation(
        method="DELETE",
        path=_PATH + "/{name}",
        endpoint=delete,
        name="deleteVariable",
        summary="Delete an environment variable",
        tag="environment variables",
        answer=Success,
        refusals=(_BAD, _GONE),
    ),
]
