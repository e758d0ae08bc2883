"""Payloads and outputs too large for a request: sent to and fetched from presigned URLs."""

from collections.abc import Sequence

from runwell.client.api import ApiClient
from runwell.client.transport import Call, Flow, RequestOptions
from runwell.core.batch_schemas import RunResultObject
from runwell.core.errors import InvalidPayloadError
from runwell.core.ids import make_id
from runwell.core.payloads import JSON_TYPE, MIN_STORED_BYTES, STORE_TYPE, Json, decode_packet
from runwell.core.schemas import PacketUrl, RunObject
from runwell.core.waits import WaitResult


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
    text, data_type = yield from _fetch_text(client, path, options)
    return decode_packet(text, data_type)


def load_results_flow(
    client: ApiClient, results: Sequence[WaitResult], options: RequestOptions | None = None
) -> Flow[list[WaitResult]]:
    """Results of waits with all that isn't in them: large outputs, and what was left out.

    Raises as `fetch_flow`.
    """
    loaded: list[WaitResult] = []
    for given in results:
        result = given
        if result.is_left_out:
            result = yield from _ask_for_result(client, result, options)
        if result.output_type == STORE_TYPE and result.output is not None:
            text, data_type = yield from _fetch_text(client, result.output, options)
            loaded.append(result.model_copy(update={"output": text, "output_type": data_type}))
        else:
            loaded.append(result)
    return loaded


def _ask_for_result(
    client: ApiClient, result: WaitResult, options: RequestOptions | None
) -> Flow[WaitResult]:
    call = Call(method="GET", path=f"/api/v1/runs/{result.run_id}/result", options=options)
    found = yield from client.ask(call, RunResultObject)
    return result.model_copy(
        update={
            "output": found.output,
            "output_type": found.output_type or result.output_type,
            "error": found.error or result.error,
            "is_left_out": False,
        }
    )


def load_flow(
    client: ApiClient, run: RunObject, options: RequestOptions | None = None
) -> Flow[None]:
    """Put a retrieved run's large payload and output where its small ones would be."""
    if run.payload_presigned_url is not None:
        run.payload = yield from _download(client, run.payload_presigned_url, options)
    if run.output_presigned_url is not None:
        run.output = yield from _download(client, run.output_presigned_url, options)


def _download(client: ApiClient, url: str, options: RequestOptions | None) -> Flow[Json]:
    text, data_type = yield from _download_text(client, url, options)
    return decode_packet(text, data_type)


def _fetch_text(
    client: ApiClient, path: str, options: RequestOptions | None
) -> Flow[tuple[str, str]]:
    call = Call(method="GET", path=f"/api/v1/packets/{path}", options=options)
    answer = yield from client.ask(call, PacketUrl)
    return (yield from _download_text(client, answer.presigned_url, options))


def _download_text(
    client: ApiClient, url: str, options: RequestOptions | None
) -> Flow[tuple[str, str]]:
    response = yield from client.presigned("GET", url, options=options)
    try:
        text = response.body.decode()
    except UnicodeDecodeError as error:
        raise InvalidPayloadError(f"a packet is not valid UTF-8: {error}") from None
    return text, response.headers.get("content-type", JSON_TYPE)
