"""What every route needs: the database, wake-ups, the clock, known keys, waiting requests."""

from collections.abc import Iterable
from datetime import datetime

from starlette.requests import Request

from runwell.core.protocol import LEASE_SECONDS
from runwell.core.timing import Clock, SystemClock
from runwell.engine import packets
from runwell.engine.background import BULK_TOPIC, DATES_TOPIC, WAITS_TOPIC
from runwell.engine.backlogs import Backlogs
from runwell.engine.canceling import Canceled
from runwell.engine.db import Database
from runwell.engine.environments import Environment
from runwell.engine.notifications import Signals
from runwell.engine.object_store import ObjectStore
from runwell.server.auth import KeyRing, read_secret_key, unknown_key
from runwell.server.http import base_url
from runwell.server.polling import Polls


class Backend:
    """The open parts that routes work with; whoever opened them closes them."""

    def __init__(
        self,
        db: Database,
        signals: Signals,
        store: ObjectStore,
        *,
        clock: Clock | None = None,
        lease_seconds: float = LEASE_SECONDS,
        backlogs: Backlogs | None = None,
    ) -> None:
        """Work with an open database and started signals."""
        self.lease_seconds = lease_seconds
        self.db = db
        self.signals = signals
        self.store = store
        #: Without the loop that counts, nothing is ever refused.
        self.backlogs = backlogs or Backlogs(db)
        self.polls = Polls(signals)
        self._clock = clock or SystemClock()
        self.keys = KeyRing()

    def now(self) -> datetime:
        """The current instant."""
        return self._clock.now()

    async def authenticate(self, request: Request) -> Environment:
        """The environment whose secret key the request carries; raises RequestError 401."""
        key = read_secret_key(request)
        found = await self.keys.find(self.db, key, now=self.now())
        if found is None:
            raise unknown_key()
        return found

    def download_url(self, request: Request, environment: Environment, path: str) -> str:
        """Where whoever made this request finds a packet, for five minutes."""
        key = packets.key_of(environment, path)
        return self.store.sign_download(key, base_url=base_url(request), now=self.now())

    def wake_dequeuers(self, environment_ids: Iterable[int]) -> None:
        """Say that there may be something to dequeue in these environments."""
        for environment_id in environment_ids:
            self.signals.wake(runs_topic(environment_id))

    def wake_waiting(self) -> None:
        """Say that runs which wait may be able to go on."""
        self.signals.wake_here(WAITS_TOPIC)

    def note_dates(self) -> None:
        """Say that runs wait for dates that were not known before."""
        self.signals.wake_here(DATES_TOPIC)

    def note_bulk_action(self) -> None:
        """Say that there is a new bulk action."""
        self.signals.wake_here(BULK_TOPIC)

    def wake_stopping(self, *canceled: Canceled) -> None:
        """Tell the workers of canceled runs that they have something to stop."""
        for worker_id in {one.worker_id for one in canceled if one.worker_id is not None}:
            self.signals.wake(worker_topic(worker_id))


def runs_topic(environment_id: int) -> str:
    """Woken when an environment may have something to dequeue."""
    return f"runs:{environment_id}"


def resume_topic(worker_id: str) -> str:
    """Woken when a run that a worker holds may go on."""
    return f"resume:{worker_id}"


def worker_topic(worker_id: str) -> str:
    """Woken when a run that a worker holds was canceled."""
    return f"worker:{worker_id}"
