"""The one leaf awaitable that means "wait"."""

import asyncio

from runwell.core.waits import WaitOutcome


class WaitFuture(asyncio.Future[WaitOutcome]):
    """What a coroutine of a run awaits while it waits; a name of its own, so that it is known."""
