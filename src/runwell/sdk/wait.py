"""`wait`: let a run wait for a length of time, an instant, a token, a request or an event.

Sources: docs `wait.md`, `wait-for.md`, `wait-until.md`. While it waits a run keeps its process and
its memory, gives back its slot of the environment's concurrency, and counts no duration.
"""

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Final

from runwell.client.tokens import (
    Timeout,
    complete_flow,
    create_flow,
    list_flow,
    read_token_id,
    retrieve_flow,
    send_event_flow,
)
from runwell.client.transport import RequestOptions
from runwell.core.payloads import Json
from runwell.core.timing import Duration
from runwell.core.token_schemas import CreatedToken, TokenList, TokenObject, TokenStatus
from runwell.sdk.client import default_client
from runwell.sdk.tokens import (
    PendingToken,
    TokenReference,
    TokenResult,
    make_token_result,
    token_wait,
)
from runwell.sdk.wait_dates import date_after, date_wait, event_match, length_of, read_date
from runwell.sdk.waiting import find_current, wait_for_outcome


class WaitFunctions:
    """Lets the current run wait.

    Example:
        >>> from runwell import task, wait
        >>> @task(id="remind")
        ... async def remind(address: str) -> None:
        ...     await wait.for_(days=3)
        ...     print("sending a reminder to", address)
    """

    __slots__ = ()

    async def for_(
        self,
        *,
        seconds: float = 0,
        minutes: float = 0,
        hours: float = 0,
        days: float = 0,
        weeks: float = 0,
        months: int = 0,
        years: int = 0,
    ) -> None:
        """Wait for the sum of these; a month is one of the calendar.

        Raises ValueError for a negative length or one of more than a century, and RunwellError
        outside of a run.
        """
        length = length_of(seconds=seconds, minutes=minutes, hours=hours, days=days, weeks=weeks)
        date = date_after(length, months + 12 * years)
        await wait_for_outcome(partial(date_wait, date), what="wait.for_")

    async def until(self, date: datetime, *, throw_if_in_the_past: bool = False) -> None:
        """Wait until an instant; one that has passed is not waited for.

        `date` must be aware. With `throw_if_in_the_past` one that has passed raises ValueError.
        Raises RunwellError outside of a run.
        """
        instant = read_date(date, throw_if_in_the_past=throw_if_in_the_past)
        await wait_for_outcome(partial(date_wait, instant), what="wait.until")

    async def create_token(
        self,
        *,
        timeout: Timeout | None = None,  # noqa: ASYNC109 (of the token, not of the call)
        tags: str | Sequence[str] | None = None,
        idempotency_key: str | Sequence[str] | None = None,
        idempotency_key_ttl: Duration | None = None,
        request_options: RequestOptions | None = None,
    ) -> CreatedToken:
        """Create a token that a run can wait for; here or anywhere, inside of a run or not.

        `timeout`: a length of time, or the instant; 10 minutes without one. Whoever has the token's
        `url` can complete it with a plain POST. The same `idempotency_key` gives the same token for
        30 days, or for `idempotency_key_ttl`.

        Example:
            >>> from runwell import wait
            >>> async def ask(address: str) -> str:
            ...     token = await wait.create_token(timeout="1d", tags=["approval"])
            ...     return f"to {address}: approve at {token.url}"
        """
        flow = create_flow(
            default_client,
            timeout=timeout,
            tags=tags,
            idempotency_key=idempotency_key,
            idempotency_key_ttl=idempotency_key_ttl,
            options=request_options,
        )
        return await default_client.run(flow)

    def for_token(self, token: TokenReference) -> PendingToken:
        """Wait until a token is completed or times out.

        Await it for a `TokenResult`, or await its `.unwrap()` for the data. Raises RunwellError
        outside of a run, and WaitRefusedError for a token that isn't there.
        """
        return PendingToken(partial(_wait_for_token, read_token_id(token)))

    async def complete_token(
        self,
        token: TokenReference,
        data: object = None,
        *,
        request_options: RequestOptions | None = None,
    ) -> None:
        """Complete a token; one that is complete, or has timed out, stays as it is.

        Raises NotFoundError without it.
        """
        await default_client.run(complete_flow(default_client, token, data, request_options))

    async def retrieve_token(
        self, token: TokenReference, *, request_options: RequestOptions | None = None
    ) -> TokenObject:
        """Fetch a token; NotFoundError without it."""
        return await default_client.run(retrieve_flow(default_client, token, request_options))

    async def list_tokens(
        self,
        *,
        status: TokenStatus | Sequence[TokenStatus] | None = None,
        tags: str | Sequence[str] | None = None,
        limit: int = 25,
        after: str | None = None,
        request_options: RequestOptions | None = None,
    ) -> TokenList:
        """A page of tokens, the newest first; `pagination.next` is the next page's `after`."""
        flow = list_flow(
            default_client,
            status=status,
            tags=tags,
            limit=limit,
            after=after,
            options=request_options,
        )
        return await default_client.run(flow)

    async def for_request(
        self,
        send_url: Callable[[str], Awaitable[object] | object],
        *,
        timeout: Timeout | None = None,  # noqa: ASYNC109 (of the token, not of the call)
    ) -> Json:
        """Wait until somebody posts to a URL of this wait, and return the body.

        `send_url` gets the URL, and tells it to whoever is to post. A body that is JSON is returned
        as what it says, any other one as a text. Raises WaitTimeoutError after `timeout`.

        Example:
            >>> from runwell import task, wait
            >>> @task(id="transcribe")
            ... async def transcribe(recording: str) -> str:
            ...     async def order(url: str) -> None:
            ...         print("transcribe", recording, "and post the text to", url)
            ...
            ...     return str(await wait.for_request(order, timeout="1h"))
        """
        find_current("wait.for_request")
        token = await default_client.run(create_flow(default_client, timeout=timeout))
        told = send_url(token.url)
        if inspect.isawaitable(told):
            await told
        return (await _wait_for_token(token.id)).unwrap()

    async def for_event(
        self,
        name: str,
        *,
        filter: Mapping[str, Json] | None = None,  # noqa: A002 (the field's usual name)
        timeout: Timeout | None = None,  # noqa: ASYNC109 (of the token, not of the call)
    ) -> Json:
        """Wait for an event that `send_event` tells of, and return its payload.

        `filter` says what the payload must have: an object by its names, a list by any of its
        values. Events from before the wait began don't count. Raises WaitTimeoutError after
        `timeout`.

        Example:
            >>> from runwell import task, wait
            >>> @task(id="welcome")
            ... async def welcome(user_id: str) -> None:
            ...     await wait.for_event("user.confirmed", filter={"id": user_id}, timeout="7d")
        """
        find_current("wait.for_event")
        flow = create_flow(default_client, timeout=timeout, event=event_match(name, filter))
        return (await _wait_for_token((await default_client.run(flow)).id)).unwrap()

    async def send_event(
        self, name: str, payload: object = None, *, request_options: RequestOptions | None = None
    ) -> int:
        """Tell runs that wait for it of an event; returns how many waits it completed."""
        flow = send_event_flow(default_client, name, payload, request_options)
        return (await default_client.run(flow)).completed


wait: Final = WaitFunctions()


async def _wait_for_token(token_id: str) -> TokenResult:
    make = partial(token_wait, token_id)
    results = await wait_for_outcome(make, what="wait.for_token")
    return make_token_result(token_id, results[0])
