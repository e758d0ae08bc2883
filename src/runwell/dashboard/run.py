"""The page of a run, and what can be done to it there."""

import json
from urllib.parse import parse_qs

from starlette.requests import Request

from runwell.core.errors import InvalidPayloadError, RequestError, serialize_error
from runwell.core.payloads import (
    JSON_TYPE,
    MAX_PAYLOAD_BYTES,
    STORE_TYPE,
    TEXT_TYPE,
    Json,
    decode_packet,
    parse_json,
)
from runwell.dashboard.places import Place
from runwell.dashboard.site import Done
from runwell.dashboard.views import View
from runwell.engine import canceling, explanations, replays, runs
from runwell.server.admission import admit_run
from runwell.server.backend import Backend
from runwell.server.http import MEGABYTE, path_text, read_body
from runwell.server.large_payloads import settle_payload

_LINES = 500


async def show_run(request: Request, backend: Backend, place: Place) -> View:
    """Everything about a run; raises RequestError 404 without it."""
    run_id = path_text(request, "run")
    after = request.query_params.get("after") or None
    async with backend.db.transaction() as tx:
        run = await runs.get_run(tx, place.environment, run_id)
        explanation = await explanations.explain_run(tx, place.environment, run, now=backend.now())
        lines = await runs.read_logs(tx, place.environment, run_id, after=after, limit=_LINES)
    error = None if run.error is None else serialize_error(run.error)
    return View(
        template="run.html",
        title=f"{run.task_id} {run.id}",
        nav="runs",
        place=place,
        values={
            "run": run,
            "explanation": explanation,
            "lines": lines.data,
            "more_lines": lines.next if len(lines.data) == _LINES else None,
            "payload": _read_packet(run.payload, run.payload_type),
            "output": _read_packet(run.output, run.output_type or TEXT_TYPE),
            "payload_url": _packet_url(request, backend, place, run.payload, run.payload_type),
            "output_url": _packet_url(request, backend, place, run.output, run.output_type),
            "error": error,
            "is_replayable_here": run.payload_type != STORE_TYPE,
        },
    )


async def cancel(request: Request, backend: Backend, place: Place) -> Done:
    """Cancel a run and what it has triggered."""
    run_id = path_text(request, "run")
    now = backend.now()
    canceled = await canceling.cancel_run(backend.db, place.environment, run_id, now=now)
    children = await canceling.cancel_descendants(backend.db, now=now)
    backend.wake_waiting()
    backend.wake_stopping(canceled, *children)
    return Done(message=f"Canceled {run_id}", next=place.run(run_id))


async def replay(request: Request, backend: Backend, place: Place) -> Done:
    """Trigger a run once more, with the payload as it was edited.

    Raises RequestError 400 that says where the payload is no JSON.
    """
    run_id = path_text(request, "run")
    form = await read_form(request)
    changed = None
    await admit_run(backend, place.environment, "", request_key=None)
    if "payload" in form:
        payload, payload_type = await settle_payload(
            backend, place.environment, _parse_payload(form["payload"]), JSON_TYPE
        )
        changed = replays.ChangedPayload(payload=payload, payload_type=payload_type)
    replayed = await replays.replay_run(
        backend.db, place.environment, run_id, changed=changed, now=backend.now()
    )
    backend.wake_dequeuers((place.environment.id,))
    return Done(message=f"Replayed {run_id}", next=place.run(replayed.run_id))


async def read_form(request: Request) -> dict[str, str]:
    """The fields of a form; of a name that is there several times the last one."""
    body = await read_body(request, limit=2 * MAX_PAYLOAD_BYTES + MEGABYTE)
    try:
        fields = parse_qs(body.decode(), keep_blank_values=True, max_num_fields=1_000)
    except ValueError:
        raise RequestError(
            400, "the form can't be read: it is no UTF-8 or has too many fields"
        ) from None
    return {name: values[-1] for name, values in fields.items()}


def _parse_payload(text: str) -> Json:
    if not text.strip():
        return None
    try:
        return parse_json(text.encode())
    except InvalidPayloadError as error:
        raise RequestError(400, f"the payload was not taken: {error}") from None


def _read_packet(data: str | None, data_type: str) -> str | None:
    if data is None or data_type == STORE_TYPE:
        return None
    try:
        return json.dumps(decode_packet(data, data_type), indent=2, ensure_ascii=False)
    except (InvalidPayloadError, ValueError):
        return data


def _packet_url(
    request: Request, backend: Backend, place: Place, data: str | None, data_type: str | None
) -> str | None:
    if data is None or data_type != STORE_TYPE:
        return None
    return backend.download_url(request, place.environment, data)
