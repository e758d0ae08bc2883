"""The environment variables that the server has for this worker's runs.

They are there when a warm parent starts, so that task files see them; what has changed since comes
with each run. Their values are never logged.
"""

from collections.abc import Mapping

from runwell.client.transport import ApiError
from runwell.client.workers import WorkerClient
from runwell.core.variable_schemas import AllVariables, ConnectedAnswer
from runwell.worker.link import ServerLink
from runwell.worker.process import own_variable


class RunVariables:
    """Variables as runs that start now are to find them."""

    def __init__(self, client: WorkerClient, link: ServerLink) -> None:
        self._client = client
        self._link = link
        self._version = 0
        self._is_development = False
        self.values: Mapping[str, str] = {}

    def learn(self, answer: ConnectedAnswer) -> None:
        """These are told to whoever connects."""
        self._is_development = answer.environment.type == "DEVELOPMENT"
        self._take(answer.variables)

    async def catch_up(self, version: int) -> None:
        """Fetch them when the server says that they have changed; waits for the server."""
        if version == self._version:
            return
        try:
            found = await self._link.call(self._client.read_variables)
        except ApiError:
            # Refused: the next answer says again that they have changed.
            return
        self._take(found)

    def changes_since(self, known: Mapping[str, str]) -> dict[str, str | None]:
        """What a process that started with `known` must change; None is a variable to remove."""
        if known is self.values:
            return {}
        changes: dict[str, str | None] = {
            name: value for name, value in self.values.items() if known.get(name) != value
        }
        for name in known.keys() - self.values.keys():
            changes[name] = own_variable(name)
        return changes

    def _take(self, found: AllVariables) -> None:
        self._version = found.version
        # Who develops has values of their own in the terminal, and means those.
        self.values = {
            name: value
            for name, value in found.variables.items()
            if not (self._is_development and own_variable(name) is not None)
        }
