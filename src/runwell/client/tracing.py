"""The seam to whoever traces calls of the API: in a run, each trigger is a span of its trace."""

import re
from collections.abc import Callable
from typing import Protocol
from urllib.parse import unquote

from runwell.client.transport import Call, Flow, Response

_TRIGGER = re.compile(r"/api/v1/tasks/([^/]+)/trigger")
_BATCHES = ("/api/v1/tasks/batch", "/api/v2/tasks/batch")


class TracedCall(Protocol):
    """A span that goes on while a call is under way."""

    @property
    def traceparent(self) -> str:
        """What the server is told, so that what comes of the call belongs to the trace."""
        ...

    def end(self, error: BaseException | None) -> None:
        """The call is over. Must not raise."""
        ...


#: Begins the span of a trigger by its name; None outside of a run, where nothing is traced.
begin_call: Callable[[str], TracedCall | None] | None = None


def set_tracer(begin: Callable[[str], TracedCall | None] | None) -> None:
    """Have triggers traced; None: no more."""
    global begin_call
    begin_call = begin


def traced_flow(call: Call, send: Callable[[Call], Flow[Response]]) -> Flow[Response]:
    """The flow of a call, within a span if it is a trigger and somebody traces."""
    traced = None if begin_call is None else _begin(call, begin_call)
    if traced is None:
        return (yield from send(call))
    headers = {**call.headers, "traceparent": traced.traceparent}
    try:
        response = yield from send(
            Call(
                method=call.method,
                path=call.path,
                query=call.query,
                body=call.body,
                headers=headers,
                options=call.options,
            )
        )
    except BaseException as error:
        traced.end(error)
        raise
    traced.end(None)
    return response


def _begin(call: Call, begin: Callable[[str], TracedCall | None]) -> TracedCall | None:
    if call.method != "POST":
        return None
    found = _TRIGGER.fullmatch(call.path)
    if found is not None:
        return begin(f"{unquote(found[1])}.trigger()")
    return begin("batch.trigger()") if call.path in _BATCHES else None
