"""The door for large payloads: those that came with a trigger, and those that were uploaded."""

import logging

from runwell.core.errors import RequestError
from runwell.core.payloads import MAX_PAYLOAD_BYTES, MIN_STORED_BYTES, STORE_TYPE, Json
from runwell.core.schemas import PayloadType
from runwell.engine import packets
from runwell.engine.environments import Environment
from runwell.engine.object_store import ObjectStoreError
from runwell.engine.trigger_options import encode_payload
from runwell.server.backend import Backend

_log = logging.getLogger(__name__)


async def settle_payload(
    backend: Backend, environment: Environment, payload: Json, payload_type: PayloadType
) -> tuple[Json, PayloadType]:
    """Check that an uploaded payload is there; move a large one that came in a body out of it.

    Returns what to trigger with. Not worth calling for a body of less than MIN_STORED_BYTES that
    names no uploaded payload. What the object store can't take stays in the run: it is within the
    limits, and a run is worth more than the size of its row. Raises RequestError for what is wrong
    with the payload, and ObjectStoreError when an uploaded one can't be looked for.
    """
    if payload_type == STORE_TYPE:
        if isinstance(payload, str) and payload:
            await packets.check_payload(
                backend.db, backend.store, environment, payload, now=backend.now()
            )
        return payload, payload_type
    text, data_type = encode_payload(payload, payload_type)
    data = (text or "").encode()
    if len(data) > MAX_PAYLOAD_BYTES:
        raise RequestError(
            413,
            f"the payload is {len(data):,} bytes, and at most {MAX_PAYLOAD_BYTES:,} are accepted: "
            "store it elsewhere and pass a reference",
        )
    if len(data) >= MIN_STORED_BYTES:
        try:
            path = await packets.store_payload(
                backend.db, backend.store, environment, data, data_type, now=backend.now()
            )
        except ObjectStoreError as error:
            _log.warning("payload_kept_inline", extra={"fields": {"error": str(error)}})
        else:
            return path, STORE_TYPE
    return payload, payload_type
