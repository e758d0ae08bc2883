"""What the supervisor makes of a run's word that it is blocked."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

from runwell.core.waits import CompletedWait, DateWait, ResumeAnswer, WaitAnswer, WaitBody
from runwell.worker.controller import RunController
from runwell.worker.link import ServerLink
from runwell.worker.messages import WaitOrder
from runwell.worker.waits import Waits
from tests.support.factories import NOW


class _Server:
    """Takes waits, and gives the results that a test puts in."""

    def __init__(self) -> None:
        self.told: asyncio.Queue[WaitBody] = asyncio.Queue()
        self.results: asyncio.Queue[CompletedWait] = asyncio.Queue()

    async def wait(self, body: WaitBody) -> WaitAnswer:
        await self.told.put(body)
        return WaitAnswer(is_blocked=body.is_blocked)

    async def resume(self, _: object) -> ResumeAnswer:
        return ResumeAnswer(waits=[await self.results.get()])


class _Run:
    """A run of which only its waits matter."""

    def __init__(self) -> None:
        self.run: Any = SimpleNamespace(run_id="run_1", snapshot_id=1)
        self.controller = RunController(self.run)
        self.has_ended = False
        self.given: asyncio.Queue[str] = asyncio.Queue()

    def give_result(self, outcome: Any) -> None:
        self.given.put_nowait(outcome.wait_id)

    def block(self) -> None:
        self.controller.block(0)

    def unblock(self) -> None:
        self.controller.unblock(1)


async def test_a_result_that_crosses_the_word_that_a_run_is_blocked_takes_it_back() -> None:
    server, run = _Server(), _Run()
    held: Any = {"run_1": run}
    session: Any = SimpleNamespace(worker_id="worker_1")
    room = asyncio.Event()
    waits = Waits(cast("Any", server), ServerLink(lambda _: None), session, held, room.set)
    loops = [asyncio.create_task(waits.tell()), asyncio.create_task(waits.listen())]
    process = cast("Any", run)
    try:
        early, late = (DateWait(wait_id=name, date=NOW) for name in ("early", "late"))
        waits.begin(process, WaitOrder(waits=[early, late]))
        assert not (await server.told.get()).is_blocked
        server.results.put_nowait(CompletedWait(run_id="run_1", snapshot_id=1, wait_id="early"))
        assert await run.given.get() == "early"
        # Said before the run had seen the result.
        waits.begin(process, WaitOrder(is_blocked=True, seen=0))
        assert not (await server.told.get()).is_blocked
        assert waits.blocked == 0
        # And said again with it.
        waits.begin(process, WaitOrder(is_blocked=True, seen=1))
        assert (await server.told.get()).is_blocked
        await room.wait()
        assert waits.blocked == 1
    finally:
        for loop in loops:
            loop.cancel()
        await asyncio.wait(loops)
