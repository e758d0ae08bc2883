"""How a pytest of its own gets our plugin: by its entry point where Runwell is installed."""

from importlib.metadata import entry_points

_IS_INSTALLED = any(
    point.value == "runwell.testing.plugin" for point in entry_points(group="pytest11")
)
#: What to tell pytest: naming a plugin that is there by itself is an error.
PLUGIN = [] if _IS_INSTALLED else ["-p", "runwell.testing.plugin"]
