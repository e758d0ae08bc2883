"""Machine presets: what a run may use of the machine that it runs on (docs `machines.md`)."""

from enum import StrEnum

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel


class MachineName(StrEnum):
    """The machine presets."""

    MICRO = "micro"
    SMALL_1X = "small-1x"
    SMALL_2X = "small-2x"
    MEDIUM_1X = "medium-1x"
    MEDIUM_2X = "medium-2x"
    LARGE_1X = "large-1x"
    LARGE_2X = "large-2x"


class MachinePreset(BaseModel):
    """What a preset grants: `cpu` in cores, `memory` in GB."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True)

    name: MachineName
    cpu: float
    memory: float
    cents_per_ms: float = 0


MACHINES: dict[MachineName, MachinePreset] = {
    name: MachinePreset(name=name, cpu=cpu, memory=memory)
    for name, cpu, memory in (
        (MachineName.MICRO, 0.25, 0.25),
        (MachineName.SMALL_1X, 0.5, 0.5),
        (MachineName.SMALL_2X, 1, 1),
        (MachineName.MEDIUM_1X, 1, 2),
        (MachineName.MEDIUM_2X, 2, 4),
        (MachineName.LARGE_1X, 4, 8),
        (MachineName.LARGE_2X, 8, 16),
    )
}
DEFAULT_MACHINE = MachineName.SMALL_1X
