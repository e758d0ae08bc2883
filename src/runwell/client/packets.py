"""Payloads and outputs too large for a request: sent to and fetched from presigned URLs."""

from runwell.client.api import ApiClient
from runwell.client.transport import Call, Flow, RequestOptions, Response
from runwell.core.errors import InvalidPayloadError
from runwell.core.ids import make_id
from runwell.core.payloads import JSON_TYPE, MIN_STORED_BYTES, Json, decode_packet
from runwell.core.schemas import PacketUrl, RunObject


def is_large(text: str) -> bool:
    """Whether a payload or output travels by the object store."""
    # A character is at most four bytes.
    return len(text) * 4 >= MIN_STORED_BYTES and len(text.encode()) >= MIN_STORED_BYTES


def upload_payload_flow(
    client: ApiClient, payload: str, options: RequestOptions | None
) -> Flow[str]:
    """Upload a JSON payload, and return the path that a trigger gives in its place."""
    path = f"trigger/{make_id('packet')}/payload.json"
    yield from upload_flow(client, path, payload.encode(), JSON_TYPE, options)
    return path


def upload_flow(
    client: ApiClient,
    path: str,
    data: bytes,
    data_type: str,
    options: RequestOptions | None = None,
) -> Flow[None]:
    """Upload a packet; sent again it replaces itself. Raises ApiError."""
    call = Call(method="PUT", path=f"/api/v1/packets/{path}", options=options)
    answer = yield from client.ask(call, PacketUrl)
    yield from client.presigned(
        "PUT", answer.presigned_url, data=data, data_type=data_type, options=options
    )


def fetch_flow(client: ApiClient, path: str, options: RequestOptions | None = None) -> Flow[Json]:
    """The value of a packet by its path.

    Raises ApiError (NotFoundError when it is gone) or InvalidPayloadError.
    """
    call = Call(method="GET", path=f"/api/v1/packets/{path}", options=options)
    answer = yield from client.ask(call, PacketUrl)
    return (yield from _download(client, answer.presigned_url, options))


def load_flow(
    client: ApiClient, run: RunObject, options: RequestOptions | None = None
) -> Flow[None]:
    """Put a retrieved run's large payload and output where its small ones would be."""
    if run.payload_presigned_url is not None:
        run.payload = yield from _download(client, run.payload_presigned_url, options)
    if run.output_presigned_url is not None:
        run.output = yield from _download(client, run.output_presigned_url, options)


def _download(client: ApiClient, url: str, options: RequestOptions | None) -> Flow[Json]:
    response = yield from client.presigned("GET", url, options=options)
    return _decode(response)


def _decode(response: Response) -> Json:
    try:
        text = response.body.decode()
    except UnicodeDecodeError as error:
        raise InvalidPayloadError(f"a packet is not valid UTF-8: {error}") from None
    return decode_packet(text, response.headers.get("content-type", JSON_TYPE))
