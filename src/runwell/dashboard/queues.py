"""The page of queues: what runs and waits in each, pauses and limits."""

from starlette.requests import Request

from runwell.core.errors import RequestError
from runwell.dashboard.places import Place
from runwell.dashboard.run import read_form
from runwell.dashboard.site import Done
from runwell.dashboard.views import View
from runwell.engine import environments, queue_settings
from runwell.engine.queue_settings import QueueReference
from runwell.server.backend import Backend
from runwell.server.http import integer_parameter, path_text

_PAGE_SIZE = 50
_MOST_LIMIT = 100_000


async def show_queues(request: Request, backend: Backend, place: Place) -> View:
    """The queues by their names, with the load of the whole environment."""
    number = integer_parameter(request, "page", default=1, least=1, most=100_000)
    async with backend.db.transaction() as tx:
        load = await environments.get_load(tx, place.environment)
        found = await queue_settings.list_queues(
            tx, place.environment, page=number, page_size=_PAGE_SIZE
        )
    pages = max(1, -(-found.count // _PAGE_SIZE))
    return View(
        template="queues.html",
        title="Queues",
        nav="queues",
        place=place,
        values={"load": load, "queues": found.queues, "page": number, "pages": pages},
    )


async def pause(request: Request, backend: Backend, place: Place) -> Done:
    """Give out no more runs of a queue."""
    return await _set_paused(request, backend, place, is_paused=True)


async def resume(request: Request, backend: Backend, place: Place) -> Done:
    """Give out runs of a queue again."""
    return await _set_paused(request, backend, place, is_paused=False)


async def set_limit(request: Request, backend: Backend, place: Place) -> Done:
    """Put a limit over that of the code, or let that one hold again when the field is empty."""
    text = (await read_form(request)).get("limit", "").strip()
    if not text:
        queue = await queue_settings.reset_limit(backend.db, place.environment, _queue(request))
        message = f"The limit of {queue.name} is that of the code again"
    else:
        if not (text.isascii() and text.isdecimal() and int(text[:9]) <= _MOST_LIMIT):
            raise RequestError(400, f"a limit is a number from 0 to {_MOST_LIMIT:,}")
        queue = await queue_settings.override_limit(
            backend.db, place.environment, _queue(request), int(text), now=backend.now()
        )
        message = f"The limit of {queue.name} is {int(text):,}"
    backend.wake_dequeuers((place.environment.id,))
    return Done(message=message, next=place.url("queues"))


async def pause_environment(_request: Request, backend: Backend, place: Place) -> Done:
    """Give out no more runs of the environment."""
    await environments.set_paused(backend.db, place.environment, is_paused=True)
    return Done(message=f"Paused {place.environment.slug}", next=place.url("queues"))


async def resume_environment(_request: Request, backend: Backend, place: Place) -> Done:
    """Give out runs of the environment again."""
    await environments.set_paused(backend.db, place.environment, is_paused=False)
    backend.wake_dequeuers((place.environment.id,))
    return Done(message=f"Resumed {place.environment.slug}", next=place.url("queues"))


async def _set_paused(request: Request, backend: Backend, place: Place, *, is_paused: bool) -> Done:
    queue = await queue_settings.set_paused(
        backend.db, place.environment, _queue(request), is_paused=is_paused
    )
    if not is_paused:
        backend.wake_dequeuers((place.environment.id,))
    verb = "Paused" if is_paused else "Resumed"
    return Done(message=f"{verb} {queue.name}", next=place.url("queues"))


def _queue(request: Request) -> QueueReference:
    return QueueReference(type="id", value=path_text(request, "queue"))
