"""How long pauses between repetitions pass: by a wait of the run, which gives back its slots.

Short ones are slept: a wait costs a few milliseconds, and others may take the slots meanwhile.
"""

import asyncio
import threading
import time
from datetime import timedelta
from functools import partial
from typing import Final

from runwell.sdk.runtime import find_runtime
from runwell.sdk.wait_dates import date_after, date_wait
from runwell.sdk.waiting import WaitRefusedError, block_for_outcome, wait_for_outcome

_WAIT_FROM_SECONDS: Final = 5.0


async def pause(seconds: float, what: str) -> None:
    """Let so many seconds pass; `what` is who pauses."""
    until = time.monotonic() + seconds
    if _is_wait(seconds):
        date = date_after(timedelta(seconds=seconds), 0)
        try:
            await wait_for_outcome(partial(date_wait, date), what=what)
        except WaitRefusedError:
            # Whatever the server has against it, the repetition is to come.
            await asyncio.sleep(max(0.0, until - time.monotonic()))
    else:
        await asyncio.sleep(seconds)


def pause_blocking(seconds: float, what: str) -> None:
    """The same, blocking the thread."""
    until = time.monotonic() + seconds
    if _is_wait(seconds):
        date = date_after(timedelta(seconds=seconds), 0)
        try:
            block_for_outcome(partial(date_wait, date), what=what)
        except WaitRefusedError:
            time.sleep(max(0.0, until - time.monotonic()))
    else:
        time.sleep(seconds)


def _is_wait(seconds: float) -> bool:
    # A run waits by its main thread; another one that sleeps keeps nobody from waiting.
    is_main = threading.current_thread() is threading.main_thread()
    return seconds >= _WAIT_FROM_SECONDS and is_main and find_runtime() is not None
