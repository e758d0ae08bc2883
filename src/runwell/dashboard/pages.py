"""Every page and every action there is."""

from starlette.types import ASGIApp

from runwell.dashboard import queues, run, runs, schedules, tasks
from runwell.dashboard.site import Action, Page, Site
from runwell.server.backend import Backend

PAGES: tuple[Page, ...] = (
    Page(path="/runs", read=runs.show_list),
    Page(path="/runs/{run}", read=run.show_run),
    Page(path="/tasks", read=tasks.show_tasks),
    Page(path="/queues", read=queues.show_queues),
    Page(path="/schedules", read=schedules.show_schedules),
)

ACTIONS: tuple[Action, ...] = (
    Action(path="/runs/{run}/cancel", act=run.cancel),
    Action(path="/runs/{run}/replay", act=run.replay),
    Action(path="/queues/{queue}/pause", act=queues.pause),
    Action(path="/queues/{queue}/resume", act=queues.resume),
    Action(path="/queues/{queue}/limit", act=queues.set_limit),
    Action(path="/schedules/{schedule}/activate", act=schedules.activate),
    Action(path="/schedules/{schedule}/deactivate", act=schedules.deactivate),
    Action(path="/schedules/{schedule}/delete", act=schedules.delete),
    Action(path="/pause", act=queues.pause_environment),
    Action(path="/resume", act=queues.resume_environment),
)


def make_site(backend: Backend, api: ASGIApp, *, is_local: bool) -> Site:
    """The dashboard before an API; `is_local` says that only this machine reaches it."""
    return Site(backend, api, PAGES, ACTIONS, is_local=is_local)
