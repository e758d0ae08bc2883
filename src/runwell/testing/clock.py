"""A clock that can be moved forward: what waits for an instant need not wait for it."""

from datetime import UTC, datetime, timedelta


class SkippingClock:
    """The machine's clock, ahead by what was skipped. It never goes back."""

    def __init__(self) -> None:
        self._skipped = timedelta()

    def now(self) -> datetime:
        """The current instant, aware, in UTC."""
        return datetime.now(UTC) + self._skipped

    def skip_to(self, instant: datetime) -> None:
        """Make it at least `instant` now."""
        self._skipped += max(timedelta(), instant - self.now())
