"""Changes of metadata that a run has made and the server doesn't have yet."""

from runwell.core.metadata import Operation, Target, merge_operation
from runwell.core.protocol import MetadataUpdate
from runwell.worker.messages import MetadataChange


class MetadataCollector:
    """Takes a run's changes, and gives them in one update."""

    def __init__(self) -> None:
        self._pending: dict[Target, list[Operation]] = {"run": [], "parent": [], "root": []}
        self._number = 0
        self._has_any = False

    def add(self, change: MetadataChange) -> None:
        """Take a change."""
        if change.operation is not None:
            self._number = change.number
            self._has_any = True
            merge_operation(self._pending[change.target], change.operation)

    def take(self) -> MetadataUpdate | None:
        """All there is, which is forgotten here; None when there is nothing."""
        if not self._has_any:
            return None
        pending = self._pending
        self._pending = {"run": [], "parent": [], "root": []}
        self._has_any = False
        return MetadataUpdate.model_construct(
            seq=self._number,
            operations=pending["run"],
            parent_operations=pending["parent"],
            root_operations=pending["root"],
        )
