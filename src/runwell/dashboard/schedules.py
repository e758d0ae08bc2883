"""The page of schedules: when each ticks next; stop, start and delete those not of the code."""

from starlette.requests import Request

from runwell.dashboard.places import Place
from runwell.dashboard.site import Done
from runwell.dashboard.views import View
from runwell.engine import schedules
from runwell.engine.db import Transaction
from runwell.engine.schedules import Schedule
from runwell.server.backend import Backend
from runwell.server.http import integer_parameter, path_text

_PAGE_SIZE = 50


async def show_schedules(request: Request, backend: Backend, place: Place) -> View:
    """The schedules, the newest first."""
    number = integer_parameter(request, "page", default=1, least=1, most=100_000)
    async with backend.db.transaction() as tx:
        found, count = await schedules.list_schedules(
            tx, place.environment, page=number, page_size=_PAGE_SIZE
        )
    pages = max(1, -(-count // _PAGE_SIZE))
    return View(
        template="schedules.html",
        title="Schedules",
        nav="schedules",
        place=place,
        values={"schedules": found, "page": number, "pages": pages},
    )


async def activate(request: Request, backend: Backend, place: Place) -> Done:
    """Let a schedule tick again."""
    return await _set_active(request, backend, place, is_active=True)


async def deactivate(request: Request, backend: Backend, place: Place) -> Done:
    """Stop a schedule."""
    return await _set_active(request, backend, place, is_active=False)


async def delete(request: Request, backend: Backend, place: Place) -> Done:
    """Forget a schedule; its runs stay."""
    schedule_id = path_text(request, "schedule")

    async def act(tx: Transaction) -> None:
        await schedules.delete_schedule(tx, place.environment, schedule_id)

    await backend.db.run(act)
    return Done(message=f"Deleted {schedule_id}", next=place.url("schedules"))


async def _set_active(request: Request, backend: Backend, place: Place, *, is_active: bool) -> Done:
    schedule_id = path_text(request, "schedule")

    async def act(tx: Transaction) -> Schedule:
        return await schedules.set_active(
            tx, place.environment, schedule_id, is_active=is_active, now=backend.now()
        )

    await backend.db.run(act)
    verb = "Activated" if is_active else "Deactivated"
    return Done(message=f"{verb} {schedule_id}", next=place.url("schedules"))
