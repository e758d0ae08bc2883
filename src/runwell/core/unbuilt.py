"""Options of a trigger that the protocol documents and Runwell can't honour yet.

The one list of them: whoever builds an option strikes its line, and server and SDK take it from
then on. An option that is neither built nor listed here is unknown: the server ignores it, as the
protocol says, and the SDK refuses it.
"""

from typing import Final

from pydantic.alias_generators import to_snake

#: By their names on the wire, what each of them would need.
UNBUILT_OPTIONS: Final = {
    "dependentAttempt": "waiting for a run",
    "dependentBatch": "waiting for a batch",
    "resumeParentOnCompletion": "waiting for a run",
    "region": "regions",
    "gates": "gates",
    "concurrency": "concurrency gates",
    "bulkActionId": "bulk actions",
}
#: The same by their Python names.
UNBUILT_FIELDS: Final = {to_snake(name): what for name, what in UNBUILT_OPTIONS.items()}
