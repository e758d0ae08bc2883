"""A testing kit: a project's tasks run in the process of its tests, with the rules of the engine.

The fixture `runwell_test` of our pytest plugin gives a `RunwellTest`. Nothing is imported before it
is asked for: pytest loads the plugin in sessions that have nothing to do with Runwell, too.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runwell.testing.crashing import Crash as Crash
    from runwell.testing.crashing import CrashReport as CrashReport
    from runwell.testing.kit import RunwellTest as RunwellTest
    from runwell.testing.kit import TestedRun as TestedRun

__all__ = ["Crash", "CrashReport", "RunwellTest", "TestedRun"]

_HOMES = {"Crash": "crashing", "CrashReport": "crashing", "RunwellTest": "kit", "TestedRun": "kit"}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'runwell.testing' has no {name!r}")
    return getattr(importlib.import_module(f"runwell.testing.{_HOMES[name]}"), name)
