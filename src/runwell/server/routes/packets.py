"""Packets: the URLs of large payloads and outputs, and what lies behind those of this server."""

from starlette.requests import Request

from runwell.core.errors import RequestError
from runwell.core.payloads import (
    JSON_TYPE,
    MAX_OUTPUT_BYTES,
    STORE_TYPE,
    SUPER_JSON_TYPE,
    TEXT_TYPE,
)
from runwell.core.schemas import PacketUrl
from runwell.core.scopes import Resource
from runwell.engine import packets, runs
from runwell.engine.environments import Environment
from runwell.engine.file_store import URL_PREFIX, FileStore
from runwell.server import auth
from runwell.server.allowed_runs import get_allowed_run, resources_of
from runwell.server.backend import Backend
from runwell.server.http import Answer, answer, base_url, read_body
from runwell.server.operations import Operation, Parameter

_DATA_TYPES = (JSON_TYPE, SUPER_JSON_TYPE, TEXT_TYPE)
_BAD_PATH = (400, "The path is none that a packet may have.")
_NO_PACKET = (404, "There is no such run, or it has no large payload or output.")
_BAD_URL = (403, "The URL was not made by this server, was changed, or has expired.")
_SIGNATURE = (
    Parameter(name="expires", description="From the presigned URL", type="integer"),
    Parameter(name="signature", description="From the presigned URL"),
)


async def make_upload_url(request: Request, backend: Backend) -> Answer:
    """Say where a packet is to be sent."""
    environment = await backend.authenticate(request)
    path: str = request.path_params["path"]
    await packets.register_upload(backend.db, environment, path, now=backend.now())
    url = backend.store.sign_upload(
        packets.key_of(environment, path), base_url=base_url(request), now=backend.now()
    )
    return answer(PacketUrl(presigned_url=url, storage_path=path))


async def make_download_url(request: Request, backend: Backend) -> Answer:
    """Say where a packet is to be fetched."""
    environment = await backend.authenticate(request)
    path: str = request.path_params["path"]
    packets.check_path(path)
    if auth.credential_of(request).is_public:
        await _require_run_of(request, backend, environment, path)
    return answer(PacketUrl(presigned_url=backend.download_url(request, environment, path)))


async def make_url_of_run(request: Request, backend: Backend) -> Answer:
    """Say where the payload or the output of a run is to be fetched."""
    environment = await backend.authenticate(request)
    run_id, what = request.path_params["runId"], request.path_params["what"]
    async with backend.db.transaction() as tx:
        run = await get_allowed_run(request, tx, environment, run_id)
    found = {
        "payload": (run.payload, run.payload_type),
        "output": (run.output, run.output_type),
    }.get(what)
    if found is None or found[0] is None or found[1] != STORE_TYPE:
        raise RequestError(404, f"run {run.id} has no {what[:32]} in the object store")
    return answer(PacketUrl(presigned_url=backend.download_url(request, environment, found[0])))


async def upload(request: Request, backend: Backend) -> Answer:
    """Take a packet at a presigned URL."""
    key, store = _open(request, backend, "PUT")
    data_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if data_type not in _DATA_TYPES:
        raise RequestError(
            400, f"the header content-type must be one of {', '.join(_DATA_TYPES)}: it is kept"
        )
    data = await read_body(request, limit=MAX_OUTPUT_BYTES)
    await store.write(key, data, data_type)
    return Answer(b"{}")


async def download(request: Request, backend: Backend) -> Answer:
    """Send the packet of a presigned URL, with exactly its data type."""
    key, store = _open(request, backend, "GET")
    found = await store.read(key)
    if found is None:
        raise RequestError(404, "there is no such packet: it was never uploaded, or is gone")
    return Answer(found.data, headers=(("content-type", found.data_type),))


async def _require_run_of(
    request: Request, backend: Backend, environment: Environment, path: str
) -> None:
    """A public token may fetch what belongs to a run that it may read."""
    async with backend.db.connection() as tx:
        found = await packets.list_run_ids(tx, environment, path)
        for run_id in found:
            run = await runs.get_run(tx, environment, run_id)
            if auth.may(request, *resources_of(run)):
                auth.require(request, *resources_of(run))
                return
    auth.require(request, Resource("runs"))


def _open(request: Request, backend: Backend, method: str) -> tuple[str, FileStore]:
    key: str = request.path_params["key"]
    store = backend.store
    if not isinstance(store, FileStore):
        raise RequestError(404, "this server keeps its packets elsewhere")
    query = request.query_params
    is_allowed = store.may(
        method,
        key,
        expires=query.get("expires", ""),
        signature=query.get("signature", ""),
        now=backend.now(),
    )
    if not is_allowed:
        raise RequestError(403, "this URL was not made here, was changed, or has expired: ask anew")
    return key, store


operations: list[Operation] = [
    Operation(
        method="PUT",
        path="/api/v1/packets/{path:path}",
        endpoint=make_upload_url,
        name="createPacketUpload",
        summary="Make a URL to PUT a large payload or output at",
        tag="packets",
        answer=PacketUrl,
        answer_description="The URL; it is good for five minutes.",
        refusals=(_BAD_PATH, (409, "An earlier packet of this path is being deleted.")),
    ),
    Operation(
        method="GET",
        path="/api/v1/packets/{path:path}",
        endpoint=make_download_url,
        name="createPacketDownload",
        summary="Make a URL to GET a large payload or output at",
        tag="packets",
        answer=PacketUrl,
        answer_description="The URL; it is good for five minutes.",
        refusals=(_BAD_PATH,),
    ),
    Operation(
        method="PUT",
        path="/api/v2/packets/{path:path}",
        endpoint=make_upload_url,
        name="createPacketUpload4x",
        summary="Make a URL to PUT a large payload or output at, for 4.x clients",
        tag="packets",
        answer=PacketUrl,
        answer_description="The URL, and what to trigger with.",
        refusals=(_BAD_PATH, (409, "An earlier packet of this path is being deleted.")),
    ),
    Operation(
        method="GET",
        path="/api/v1/runs/{runId}/packets/{what}",
        endpoint=make_url_of_run,
        name="createPacketDownloadOfRun",
        summary="Make a URL to GET a run's large `payload` or `output` at",
        tag="packets",
        answer=PacketUrl,
        answer_description="The URL; it is good for five minutes.",
        refusals=(_NO_PACKET,),
    ),
    Operation(
        method="PUT",
        path=URL_PREFIX + "{key:path}",
        endpoint=upload,
        name="uploadPacket",
        summary="Send a packet, at a presigned URL of this server",
        tag="packets",
        parameters=_SIGNATURE,
        refusals=(_BAD_URL, (413, "The packet is too large.")),
    ),
    Operation(
        method="GET",
        path=URL_PREFIX + "{key:path}",
        endpoint=download,
        name="downloadPacket",
        summary="Fetch a packet, at a presigned URL of this server",
        tag="packets",
        answer_description="The packet; its content type is its data type.",
        parameters=_SIGNATURE,
        refusals=(_BAD_URL, (404, "There is no such packet.")),
    ),
]
