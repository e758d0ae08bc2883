"""Threads and thread pools go on in the span that they were given their work in.

Python gives a new thread an empty context. Only OpenTelemetry's part of it is handed on: whatever
else user code keeps in context variables stays as Python has it.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from typing import ParamSpec, TypeVar, cast

from opentelemetry import context as otel_context

P = ParamSpec("P")
T = TypeVar("T")


@cache
def inherit_spans() -> None:
    """Have every thread that is started from here on, and every pool, inherit the current span."""
    start, submit = threading.Thread.start, ThreadPoolExecutor.submit

    def start_inheriting(self: threading.Thread) -> None:
        thread, inherited = self, otel_context.get_current()
        if inherited:
            run = thread.run

            def run_inheriting() -> None:
                # Not for longer than the thread runs: it would hold itself.
                vars(thread).pop("run", None)
                within(inherited, run)()

            thread.run = run_inheriting
        start(thread)

    def submit_inheriting(
        pool: ThreadPoolExecutor, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Future[T]:
        inherited = otel_context.get_current()
        if inherited:
            work = within(inherited, work)
        return submit(pool, work, *args, **kwargs)

    threading.Thread.start = start_inheriting
    ThreadPoolExecutor.submit = cast("Callable[..., Future[object]]", submit_inheriting)


def within(inherited: otel_context.Context, work: Callable[P, T]) -> Callable[P, T]:
    """The same work in a context."""

    def work_within(*args: P.args, **kwargs: P.kwargs) -> T:
        token = otel_context.attach(inherited)
        try:
            return work(*args, **kwargs)
        finally:
            otel_context.detach(token)

    return work_within
