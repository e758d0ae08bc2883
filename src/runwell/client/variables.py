"""`envvars`: the environment variables that the runs of an environment find."""

from collections.abc import Mapping
from typing import Final, NamedTuple
from urllib.parse import quote

from pydantic import RootModel

from runwell.client.api import ApiClient
from runwell.client.transport import Call, Flow, RequestOptions, json_body
from runwell.core.variable_schemas import Success, VariableObject

#: Stands for the project, or the environment, of the key.
OWN: Final = "~"
#: How environments are also called.
_SLUGS: Final = {"staging": "stg", "production": "prod", "development": "dev"}


class _VariableList(RootModel[list[VariableObject]]):
    """What the API lists."""


class Place(NamedTuple):
    """Which environment is meant."""

    project: str | None
    environment: str | None


class VariableFlows:
    """What both kinds of caller do, as flows."""

    def __init__(self, client: ApiClient) -> None:
        self._client = client

    def list_flow(self, place: Place, options: RequestOptions | None) -> Flow[list[VariableObject]]:
        """Ask for all."""
        call = Call(method="GET", path=_path(place), options=options)
        return (yield from self._client.ask(call, _VariableList)).root

    def upload_flow(
        self,
        place: Place,
        variables: Mapping[str, str],
        options: RequestOptions | None,
        *,
        override: bool,
        is_secret: bool,
    ) -> Flow[None]:
        """Send many."""
        for name, value in variables.items():
            _check_text(name, value)
        body: dict[str, object] = {"variables": dict(variables), "override": override}
        if is_secret:
            body["isSecret"] = True
        yield from self._send("POST", f"{_path(place)}/import", body, options)

    def create_flow(
        self,
        place: Place,
        name: str,
        value: str,
        options: RequestOptions | None,
        *,
        is_secret: bool,
    ) -> Flow[None]:
        """Send one."""
        _check_text(name, value)
        body: dict[str, object] = {"name": name, "value": value}
        if is_secret:
            body["isSecret"] = True
        yield from self._send("POST", _path(place), body, options)

    def retrieve_flow(
        self, place: Place, name: str, options: RequestOptions | None
    ) -> Flow[VariableObject]:
        """Ask for one."""
        call = Call(method="GET", path=_path(place, name), options=options)
        return self._client.ask(call, VariableObject)

    def update_flow(
        self, place: Place, name: str, value: str, options: RequestOptions | None
    ) -> Flow[None]:
        """Send another value."""
        _check_text(name, value)
        yield from self._send("PUT", _path(place, name), {"value": value}, options)

    def delete_flow(self, place: Place, name: str, options: RequestOptions | None) -> Flow[None]:
        """Forget one."""
        yield from self._send("DELETE", _path(place, name), None, options)

    def _send(
        self,
        method: str,
        path: str,
        body: dict[str, object] | None,
        options: RequestOptions | None,
    ) -> Flow[None]:
        raw = None if body is None else json_body(body)
        call = Call(method=method, path=path, body=raw, options=options)
        yield from self._client.ask(call, Success)


class EnvVars(VariableFlows):
    """Read and change the environment variables of an environment: what its runs find.

    `project` and `environment` (`"dev"`, `"staging"`, `"prod"`) say which one; without them it is
    that of the key, in a task that of the run. Runs that start after a change find the new values,
    within seconds.

    Example:
        >>> from runwell import envvars
        >>> async def set_up(url: str) -> None:
        ...     await envvars.upload({"DATABASE_URL": url, "REGION": "eu"}, override=True)
    """

    async def list(
        self,
        *,
        project: str | None = None,
        environment: str | None = None,
        request_options: RequestOptions | None = None,
    ) -> list[VariableObject]:
        """Every variable by name; the value of a secret one is not shown."""
        return await self._client.run(self.list_flow(Place(project, environment), request_options))

    async def upload(
        self,
        variables: Mapping[str, str],
        *,
        override: bool = False,
        is_secret: bool = False,
        project: str | None = None,
        environment: str | None = None,
        request_options: RequestOptions | None = None,
    ) -> None:
        """Create many, all or none; those that are there keep their values, unless `override`.

        An empty value is passed over.
        """
        await self._client.run(
            self.upload_flow(
                Place(project, environment),
                variables,
                request_options,
                override=override,
                is_secret=is_secret,
            )
        )

    async def create(
        self,
        name: str,
        value: str,
        *,
        is_secret: bool = False,
        project: str | None = None,
        environment: str | None = None,
        request_options: RequestOptions | None = None,
    ) -> None:
        """Create one; BadRequestError when it has another value. Only runs see a secret one."""
        await self._client.run(
            self.create_flow(
                Place(project, environment), name, value, request_options, is_secret=is_secret
            )
        )

    async def retrieve(
        self,
        name: str,
        *,
        project: str | None = None,
        environment: str | None = None,
        request_options: RequestOptions | None = None,
    ) -> VariableObject:
        """One with its value; NotFoundError without one."""
        return await self._client.run(
            self.retrieve_flow(Place(project, environment), name, request_options)
        )

    async def update(
        self,
        name: str,
        value: str,
        *,
        project: str | None = None,
        environment: str | None = None,
        request_options: RequestOptions | None = None,
    ) -> None:
        """Give one another value; NotFoundError without one."""
        await self._client.run(
            self.update_flow(Place(project, environment), name, value, request_options)
        )

    async def delete(
        self,
        name: str,
        *,
        project: str | None = None,
        environment: str | None = None,
        request_options: RequestOptions | None = None,
    ) -> None:
        """Delete one; NotFoundError without one. Runs that count on it fail from then on."""
        await self._client.run(self.delete_flow(Place(project, environment), name, request_options))


class BlockingEnvVars(VariableFlows):
    """Read and change the environment variables of an environment, blocking the caller.

    Example:
        >>> from runwell.sync import envvars
        >>> def region() -> str:
        ...     return envvars.retrieve("REGION", environment="prod").value
    """

    def list(
        self,
        *,
        project: str | None = None,
        environment: str | None = None,
        request_options: RequestOptions | None = None,
    ) -> list[VariableObject]:
        """Every variable by name; the value of a secret one is not shown."""
        return self._client.run_blocking(
            self.list_flow(Place(project, environment), request_options)
        )

    def upload(
        self,
        variables: Mapping[str, str],
        *,
        override: bool = False,
        is_secret: bool = False,
        project: str | None = None,
        environment: str | None = None,
        request_options: RequestOptions | None = None,
    ) -> None:
        """Create many, all or none; those that are there keep their values, unless `override`.

        An empty value is passed over.
        """
        self._client.run_blocking(
            self.upload_flow(
                Place(project, environment),
                variables,
                request_options,
                override=override,
                is_secret=is_secret,
            )
        )

    def create(
        self,
        name: str,
        value: str,
        *,
        is_secret: bool = False,
        project: str | None = None,
        environment: str | None = None,
        request_options: RequestOptions | None = None,
    ) -> None:
        """Create one; BadRequestError when it has another value. Only runs see a secret one."""
        self._client.run_blocking(
            self.create_flow(
                Place(project, environment), name, value, request_options, is_secret=is_secret
            )
        )

    def retrieve(
        self,
        name: str,
        *,
        project: str | None = None,
        environment: str | None = None,
        request_options: RequestOptions | None = None,
    ) -> VariableObject:
        """One with its value; NotFoundError without one."""
        return self._client.run_blocking(
            self.retrieve_flow(Place(project, environment), name, request_options)
        )

    def update(
        self,
        name: str,
        value: str,
        *,
        project: str | None = None,
        environment: str | None = None,
        request_options: RequestOptions | None = None,
    ) -> None:
        """Give one another value; NotFoundError without one."""
        self._client.run_blocking(
            self.update_flow(Place(project, environment), name, value, request_options)
        )

    def delete(
        self,
        name: str,
        *,
        project: str | None = None,
        environment: str | None = None,
        request_options: RequestOptions | None = None,
    ) -> None:
        """Delete one; NotFoundError without one. Runs that count on it fail from then on."""
        self._client.run_blocking(
            self.delete_flow(Place(project, environment), name, request_options)
        )


def _path(place: Place, name: str | None = None) -> str:
    environment = place.environment or OWN
    environment = _SLUGS.get(environment, environment)
    parts = [place.project or OWN, "envvars", environment]
    path = "/api/v1/projects/" + "/".join(quote(part, safe="~") for part in parts)
    if name is None:
        return path
    if not name.strip("./"):
        raise ValueError(f"{name!r} is no name of an environment variable")
    return f"{path}/{quote(name, safe='')}"


def _check_text(name: object, value: object) -> None:
    if not isinstance(name, str) or not isinstance(value, str):
        # The value itself is not shown.
        raise TypeError(f"{name!r}: a variable has a text as its value, not {type(value).__name__}")
