"""What every route needs: the database, wake-ups, the clock, known keys, waiting requests."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import datetime
from typing import TypeVar

from starlette.requests import Request

from runwell.core.protocol import LEASE_SECONDS
from runwell.core.public_tokens import (
    HANDLE_EXPIRATION,
    hash_credential,
    read_expiration,
    sign_token,
)
from runwell.core.scopes import Resource
from runwell.core.timing import Clock, SystemClock
from runwell.engine import credentials, packets, variables
from runwell.engine.background import BULK_TOPIC, DATES_TOPIC, WAITS_TOPIC
from runwell.engine.backlogs import Backlogs
from runwell.engine.canceling import Canceled
from runwell.engine.change_log import Changes
from runwell.engine.ciphers import Cipher
from runwell.engine.db import Database, Transaction
from runwell.engine.environments import Environment
from runwell.engine.notifications import Signals
from runwell.engine.object_store import ObjectStore
from runwell.engine.people import Person
from runwell.server import auth
from runwell.server.access import Access
from runwell.server.auth import Credential, Grant, KeyRing
from runwell.server.http import base_url
from runwell.server.polling import Polls
from runwell.server.request_limits import Doorkeeper, RequestLimits

T = TypeVar("T")


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
        encryption_keys: Sequence[str] = (),
        limits: RequestLimits | None = None,
    ) -> None:
        """Work with an open database and started signals."""
        self.lease_seconds = lease_seconds
        self.db = db
        self.signals = signals
        self.store = store
        #: Without the loop that counts, nothing is ever refused.
        self.backlogs = backlogs or Backlogs(db)
        self.polls = Polls(signals)
        self.changes = Changes(db)
        self._clock = clock or SystemClock()
        self.keys = KeyRing()
        #: Nothing is refused unless there are limits.
        self.doorkeeper = Doorkeeper(limits or RequestLimits())
        self._encryption_keys = tuple(encryption_keys)
        self._cipher: Cipher | None = None

    def now(self) -> datetime:
        """The current instant."""
        return self._clock.now()

    async def admit(self, request: Request, access: Access) -> None:
        """Read the credential of a request before its route is called.

        Raises RequestError 401 for a credential that is missing or bad, 403 for one that is not for
        this route. What the route does then is `auth.require`.
        """
        credential = await auth.read_credential(request, access, self.keys, self.db, now=self.now())
        if isinstance(credential, Person):
            auth.hold(
                request,
                Grant(credential=None, person=credential, access=access, is_checked=True),
            )
            return
        auth.hold(
            request,
            Grant(credential=credential, access=access, is_checked=not credential.is_public),
        )
        if access.path_resource is not None:
            kind, parameter = access.path_resource
            auth.require(request, Resource(kind, request.path_params[parameter]))

    def count(self, request: Request) -> None:
        """Count a request of its credential; raises RateLimitedError when they are too many."""
        given = request.headers.get("authorization", "")
        if given:
            self.doorkeeper.count(
                hash_credential(given), self.now(), is_public=given.count(".") == 2
            )

    async def authenticate(self, request: Request) -> Environment:
        """The environment that the request's credential is of; `admit` has read it."""
        return auth.credential_of(request).environment

    async def count_variable_changes(self, request: Request) -> int:
        """How often the variables of a request's environment have changed, seconds ago at most."""
        kept = auth.credential_of(request).environment
        now = self.now()
        found = await self.keys.find(self.db, auth.read_bearer(request), now=now)
        return (found or kept).variables_version

    async def use_once(
        self,
        credential: Credential,
        request_key: str | None,
        act: Callable[[Transaction], Awaitable[T]],
    ) -> T:
        """Do something with a token that is good for one use, in one transaction with that.

        The same request sent again may do it again: `act` sees to it that it is the same thing.
        """
        token_hash, expires_at = credential.one_time_hash, credential.expires_at
        assert token_hash is not None
        assert expires_at is not None

        async def use(tx: Transaction) -> T:
            await credentials.use_token(
                tx,
                credential.environment,
                token_hash,
                request_key=request_key,
                expires_at=expires_at,
            )
            return await act(tx)

        return await self.db.run(use)

    def trigger_headers(
        self, credential: Credential, scopes: Sequence[str]
    ) -> tuple[tuple[str, str], ...]:
        """What makes a public access token of an answer: claims to sign, or the token itself.

        Who has the secret key signs; who came with a public token can't, and gets one of an hour.
        """
        environment = credential.environment
        if credential.signing_key is None:
            return (("x-trigger-jwt-claims", f'{{"sub":"{environment.public_id}","pub":true}}'),)
        now = self.now()
        token = sign_token(
            credential.signing_key,
            {"sub": environment.public_id, "pub": True},
            scopes=scopes,
            expires_at=read_expiration(HANDLE_EXPIRATION, now=now),
            now=now,
        )
        return (("x-trigger-jwt", token),)

    async def get_cipher(self) -> Cipher:
        """What encrypts environment variables: by the keys of the settings, the first of them.

        Without one by a key that the database has; what that encrypted can always be read.
        """
        if self._cipher is None:
            async with self.db.connection() as tx:
                kept = await variables.read_default_key(tx)
            self._cipher = Cipher((*self._encryption_keys, kept))
        return self._cipher

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
