"""What a supervisor remembers across restarts, in a folder that only one supervisor uses."""

import fcntl
import json
import os
from pathlib import Path
from typing import cast

from runwell.core.errors import ConfigurationError

_MAX_SUPERVISORS = 64


class StateFolder:
    """A folder of a supervisor's own: the id it had, and its outbox.

    Supervisors that are given the same folder get numbered ones inside it, so that each one finds
    its own again, or that of one that was killed.
    """

    def __init__(self, path: Path, lock: int) -> None:
        """Use `open`."""
        self.path = path
        self._lock = lock

    @classmethod
    def open(cls, root: Path) -> "StateFolder":
        """Take the first folder that nobody holds; raises ConfigurationError when there is none."""
        for number in range(1, _MAX_SUPERVISORS + 1):
            path = root / str(number)
            try:
                path.mkdir(mode=0o700, parents=True, exist_ok=True)
                # Not inherited: a child that outlives us would hold the lock.
                lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except OSError as error:
                raise ConfigurationError(
                    f"the worker can't keep its state in {path}: {error.strerror}. Choose another "
                    "folder, or make this one writable"
                ) from None
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(lock)
                continue
            except OSError as error:
                os.close(lock)
                raise ConfigurationError(
                    f"the worker can't lock {path / 'lock'}: {error.strerror}. Choose a folder on "
                    "a local disk"
                ) from None
            return cls(path, lock)
        raise ConfigurationError(
            f"{_MAX_SUPERVISORS} workers use the state folder {root} already: give this one another"
        )

    def read_worker_id(self) -> str | None:
        """The id that the last supervisor had here, if any is known."""
        try:
            state = cast("object", json.loads((self.path / "worker.json").read_bytes()))
        except (OSError, ValueError):
            return None
        if not isinstance(state, dict):
            return None
        worker_id = cast("dict[str, object]", state).get("workerId")
        return worker_id if isinstance(worker_id, str) else None

    def write_worker_id(self, worker_id: str | None) -> None:
        """Remember the id for the next start; None when there is nothing to take over."""
        text = json.dumps({"workerId": worker_id, "pid": os.getpid()})
        new = self.path / "worker.json.new"
        new.write_text(text)
        new.replace(self.path / "worker.json")

    def close(self) -> None:
        """Let the next supervisor have the folder."""
        os.close(self._lock)
