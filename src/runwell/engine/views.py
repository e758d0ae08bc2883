"""Which transactions had ended at a moment: PostgreSQL's own snapshots, as values.

"View" because a snapshot is something else here (a run's). A reader that has seen all that a view
shows, and next reads what was changed by transactions outside of it, misses nothing, in whatever
order transactions commit (`engine/adr/0006-realtime.md`).
"""

import re
from dataclasses import dataclass
from typing import Self

_OFFSET = re.compile(r"(\d{1,19})_(0|[1-9]\d{0,18}(?:\.[1-9]\d{0,18})*)")


@dataclass(frozen=True, slots=True)
class View:
    """The transactions below `xmax` that are not in `running` had ended."""

    xmax: int
    running: frozenset[int] = frozenset()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read PostgreSQL's form `xmin:xmax:running,running`."""
        _, xmax, running = text.split(":")
        return cls(int(xmax), frozenset(int(xid) for xid in running.split(",") if xid))

    @classmethod
    def from_offset(cls, text: str) -> Self:
        """Read what `offset` wrote; raises ValueError for anything else."""
        match = _OFFSET.fullmatch(text)
        if match is None:
            raise ValueError(text)
        xmax = int(match[1])
        running = frozenset(xmax - int(back) for back in match[2].split(".") if back != "0")
        if running and min(running) <= 0:
            raise ValueError(text)
        return cls(xmax, running)

    @property
    def xmin(self) -> int:
        """All transactions below this one had ended."""
        return min(self.running, default=self.xmax)

    @property
    def offset(self) -> str:
        """The view as text that fits into a URL: `120_0`, or `120_3.5` when 117 and 115 ran."""
        running = ".".join(str(self.xmax - xid) for xid in sorted(self.running, reverse=True))
        return f"{self.xmax}_{running or 0}"

    def __str__(self) -> str:
        running = ",".join(str(xid) for xid in sorted(self.running))
        return f"{self.xmin}:{self.xmax}:{running}"

    def covers(self, other: "View") -> bool:
        """Whether all that had ended in the other view had ended in this one."""
        return other.xmax <= self.xmax and all(
            xid >= other.xmax or xid in other.running for xid in self.running
        )
