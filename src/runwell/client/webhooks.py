"""`webhooks`: read what an alert sends to a URL of yours, and know that it is from Runwell."""

import hmac
from collections.abc import Mapping

from pydantic import TypeAdapter, ValidationError

from runwell.client.options import read_duration
from runwell.core.errors import RunwellError
from runwell.core.timing import Clock, Duration, SystemClock
from runwell.core.webhook_events import (
    SIGNATURE_HEADER,
    DeploymentFailedEvent,
    DeploymentSucceededEvent,
    RunFailedEvent,
    WebhookEvent,
    is_recent,
    sign_webhook,
)


class WebhookError(RunwellError):
    """A request to a webhook is not from Runwell, was changed, or can't be read: answer 400.

    Example:
        >>> from runwell import WebhookError, webhooks
        >>> webhooks.construct_event(b"{}", {}, "secret")
        Traceback (most recent call last):
        runwell.client.webhooks.WebhookError: there is no header x-trigger-signature-hmacsha256
    """


class Webhooks:
    """Read what an alert sends to a URL of yours, and know that it is from Runwell.

    Example:
        >>> from runwell import RunFailedEvent, webhooks
        >>> def receive(body: bytes, headers: dict[str, str], secret: str) -> None:
        ...     event = webhooks.construct_event(body, headers, secret)
        ...     if isinstance(event, RunFailedEvent):
        ...         print(event.object.run.id, event.object.run.error)
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._events: TypeAdapter[WebhookEvent] | None = None

    def construct_event(
        self,
        body: bytes | str,
        headers: Mapping[str, str],
        secret: str,
        *,
        tolerance: Duration | None = None,
    ) -> RunFailedEvent | DeploymentSucceededEvent | DeploymentFailedEvent:
        """The event in a request, once its signature is right; does no I/O, so it is not async.

        `body` is exactly what arrived: parsing it and writing it again changes it. `headers` may
        have names in any case. `secret` is that of the alert channel. With `tolerance` an event
        that was made longer ago is refused, so that nobody can send an old one again; a delivery
        that failed is repeated for a while, with the time of the first. Raises WebhookError.
        """
        raw = body.encode() if isinstance(body, str) else bytes(body)
        signature = _find(headers)
        if signature is None:
            raise WebhookError(f"there is no header {SIGNATURE_HEADER}")
        if not secret:
            raise WebhookError("the secret is empty: it is that of the alert channel")
        expected = sign_webhook(raw, secret)
        if not hmac.compare_digest(expected.encode(), signature.encode("utf-8", "replace")):
            raise WebhookError(
                "the signature is not that of this body by this secret: is it the channel's, and "
                "is the body as it arrived?"
            )
        if self._events is None:
            self._events = TypeAdapter(WebhookEvent)
        try:
            event = self._events.validate_json(raw)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(str(part) for part in first["loc"]) or "the body"
            raise WebhookError(f"the event can't be read: {place}: {first['msg']}") from None
        if tolerance is not None:
            seconds = read_duration("tolerance", tolerance).total_seconds()
            if not is_recent(event.created, self._clock.now(), seconds):
                raise WebhookError(f"the event is of {event.created.isoformat()}: too long ago")
        return event


def _find(headers: Mapping[str, str]) -> str | None:
    for name, value in headers.items():
        if name.lower() == SIGNATURE_HEADER:
            return value
    return None


webhooks = Webhooks()
