"""The environment of a process that takes runs: each finds the variables that hold for it."""

import os
from collections.abc import Mapping


class ChangedEnvironment:
    """What was changed for the run before is put back first."""

    def __init__(self) -> None:
        self._originals: dict[str, str | None] = {}

    def change(self, variables: Mapping[str, str | None]) -> None:
        """Set variables for a run; None removes one."""
        for name, value in self._originals.items():
            _set(name, value)
        self._originals = {name: os.environ.get(name) for name in variables}
        for name, value in variables.items():
            _set(name, value)


def _set(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value
