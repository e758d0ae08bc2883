"""What a worker is told when it starts."""

import re
import socket
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from runwell.core.errors import ConfigurationError

Mode = Literal["fork", "spawn"]
_REGION = re.compile(r"[A-Za-z0-9_\-.]{1,64}")


def default_mode() -> Mode:
    """`fork` where it is safe; macOS' own libraries crash in forked processes."""
    return "spawn" if sys.platform == "darwin" else "fork"


@dataclass(frozen=True, kw_only=True)
class WorkerSettings:
    """Settings of a supervisor; a wrong one raises ConfigurationError when it is made.

    `capacity` is how many runs it holds at once. `state_folder` keeps unacknowledged results.
    `kept_process_runs` bounds how many runs a kept process serves.
    """

    url: str
    secret_key: str
    project_folder: Path
    state_folder: Path
    capacity: int = 10
    mode: Mode = field(default_factory=default_mode)
    project_ref: str = "~"
    #: The runs of its environment that are for this region are taken too.
    region: str | None = None
    name: str = field(default_factory=socket.gethostname)
    grace_seconds: float = 30
    cancel_grace_seconds: float = 5
    kept_process_runs: int = 1000
    min_spares: int = 2
    outbox_bytes: int = 256 * 1024 * 1024
    import_seconds: float = 120
    retire_after_seconds: float = 300
    wants_run_logs: bool = False
    is_local: bool = False

    def __post_init__(self) -> None:
        if not self.secret_key:
            raise ConfigurationError(
                "the worker has no secret key: set TRIGGER_SECRET_KEY (`runwell env` prints it)"
            )
        if not self.url.startswith(("http://", "https://")):
            raise ConfigurationError(
                f"{self.url!r} is not the URL of a server: TRIGGER_API_URL must start with http://"
            )
        if not 1 <= self.capacity <= 10_000:
            raise ConfigurationError(
                f"a worker's capacity is from 1 to 10000 runs at once, not {self.capacity}"
            )
        if self.region is not None and not _REGION.fullmatch(self.region):
            raise ConfigurationError(
                f"{self.region!r} is no name of a region: 1 to 64 letters, digits, '_', '-' and '.'"
            )
        if self.mode not in ("fork", "spawn"):
            raise ConfigurationError(f"{self.mode!r} is not a mode: it is fork or spawn")
