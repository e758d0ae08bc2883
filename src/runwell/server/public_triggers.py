"""What a public access token may not say in a trigger: what reaches beyond its own run."""

from typing import Final

from starlette.requests import Request

from runwell.core.payloads import STORE_TYPE
from runwell.core.schemas import TriggerOptions
from runwell.server import auth

# These tie the run to another one, which may wait for it, or to what a secret key has begun.
_TIES: Final = (
    "parent_run_id",
    "parent_attempt",
    "dependent_attempt",
    "parent_batch",
    "dependent_batch",
    "bulk_action_id",
    "resume_parent_on_completion",
)


def check_options(request: Request, *options: TriggerOptions) -> None:
    """Raise ForbiddenError for options that only a secret key may give."""
    if not auth.credential_of(request).is_public:
        return
    for given in options:
        for name in _TIES:
            if getattr(given, name):
                raise auth.ForbiddenError(
                    f"options.{TriggerOptions.model_fields[name].alias}: a public access token "
                    "ties its runs to no others"
                )
        if given.queue is not None and "concurrency_limit" in given.queue.model_fields_set:
            raise auth.ForbiddenError(
                "options.queue.concurrencyLimit: a public access token doesn't change queues"
            )
        if given.payload_type == STORE_TYPE:
            # Whoever reads the run is given its payload: it must not be another run's.
            raise auth.ForbiddenError(
                "options.payloadType: a public access token names no packet in the object store"
            )
