"""What a project adds to its telemetry: `define_config(telemetry=Telemetry(...))`.

OpenTelemetry itself is not imported here: what is given is used by the worker.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

#: What an object must have to be what the option is about.
_METHODS: dict[str, tuple[str, ...]] = {
    "instrumentations": ("instrument",),
    "span_processors": ("on_start", "on_end", "force_flush"),
    "exporters": ("export", "shutdown"),
    "log_exporters": ("export", "shutdown"),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Telemetry:
    """What of OpenTelemetry a project uses besides the trace that each run has.

    `instrumentations` are instrumentors of libraries, called once in a worker's process. Those of
    httpx, requests, aiohttp and urllib need not be named: they are used when they are installed,
    unless `instrument_http` is false. `span_processors` see every span. `exporters` get the spans,
    and `log_exporters` the lines of `logger`, `logging` and `warnings`, of each run in its own
    process; what they have not sent two seconds after the run's code ended is given up, and what
    they raise is a line of the run's log. No exporter can fail a run.

    Raises ValueError for an object that is not what its option is about.

    Example:
        >>> from runwell import Telemetry, define_config
        >>> config = define_config(telemetry=Telemetry(instrument_http=False))
    """

    instrumentations: Sequence[object] = ()
    span_processors: Sequence[object] = ()
    exporters: Sequence[object] = ()
    log_exporters: Sequence[object] = ()
    instrument_http: bool = True

    def __post_init__(self) -> None:
        """Check what was given."""
        for option, methods in _METHODS.items():
            given: object = getattr(self, option)
            if not isinstance(given, list | tuple):
                raise ValueError(f"{option}={given!r}: it takes a list")
            for one in cast("Sequence[object]", given):
                if isinstance(one, type) or not all(hasattr(one, name) for name in methods):
                    raise ValueError(
                        f"{option}: {one!r} must be an object with "
                        f"{', '.join(f'{name}()' for name in methods)}"
                    )


def read_telemetry(value: object) -> Telemetry:
    """The option of `define_config`; raises ValueError for anything else."""
    if value is None:
        return Telemetry()
    if isinstance(value, Telemetry):
        return value
    raise ValueError(f"telemetry={value!r}: it takes Telemetry(exporters=[...], ...)")
