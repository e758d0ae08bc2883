"""Large payloads and outputs over HTTP: presigned URLs, uploads, downloads, triggers."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from runwell.core.ids import make_request_key
from runwell.core.payloads import MAX_OUTPUT_BYTES, MAX_PAYLOAD_BYTES, MIN_STORED_BYTES, STORE_TYPE
from runwell.engine.file_store import FileStore
from runwell.engine.object_store import ObjectStoreError
from runwell.engine.s3_store import S3Store
from tests.server.serving import Served, error_of, serving
from tests.support.s3 import CREDENTIALS, s3_server

PACKET = "/api/v1/packets/run_1/payload.json"
TRIGGER = "/api/v1/tasks/hello/trigger"
LARGE = "x" * MIN_STORED_BYTES
JSON = {"content-type": "application/json"}


async def upload(served: Served, data: bytes, data_type: str = "application/json") -> None:
    answer = await served.client.put(PACKET)
    assert answer.status_code == 200, answer.text
    assert answer.json()["storagePath"] == "run_1/payload.json"
    async with httpx.AsyncClient() as anybody:
        sent = await anybody.put(
            answer.json()["presignedUrl"], content=data, headers={"content-type": data_type}
        )
        assert sent.status_code == 200, sent.text


async def download(url: str) -> httpx.Response:
    async with httpx.AsyncClient() as anybody:
        return await anybody.get(url)


async def test_an_uploaded_payload_is_triggered_by_its_path_and_shown_as_a_url(
    database_url: str,
) -> None:
    async with serving(database_url) as served:
        await upload(served, b'{"json":{"a":1}}', "application/super+json")
        run_id = await served.trigger(
            payload="run_1/payload.json", options={"payloadType": STORE_TYPE}
        )
        run = await served.get(f"/api/v3/runs/{run_id}")
        assert "payload" not in run
        found = await download(run["payloadPresignedUrl"])
        assert found.content == b'{"json":{"a":1}}'
        assert found.headers["content-type"] == "application/super+json"
        for path in (PACKET, f"/api/v1/runs/{run_id}/packets/payload"):
            url = (await served.get(path))["presignedUrl"]
            assert (await download(url)).content == b'{"json":{"a":1}}'


async def test_4x_clients_write_the_slashes_of_a_path_encoded(database_url: str) -> None:
    async with serving(database_url) as served:
        answer = await served.client.put("/api/v2/packets/trigger%2Fpacket_1%2Fpayload.json")
        assert answer.json()["storagePath"] == "trigger/packet_1/payload.json"
        assert "/trigger/packet_1/payload.json?" in answer.json()["presignedUrl"]


@pytest.mark.parametrize(
    ("payload", "payload_type", "stored"),
    [
        (LARGE, "text/plain", LARGE),
        (f'{{"json":"{LARGE}"}}', "application/super+json", f'{{"json":"{LARGE}"}}'),
        ({"a": LARGE}, "application/json", f'{{"a":"{LARGE}"}}'),
    ],
    ids=["text", "superjson", "json"],
)
async def test_a_large_payload_in_the_body_goes_to_the_object_store(
    database_url: str, payload: object, payload_type: str, stored: str
) -> None:
    async with serving(database_url) as served:
        run_id = await served.trigger(payload=payload, options={"payloadType": payload_type})
        run = await served.get(f"/api/v3/runs/{run_id}")
        found = await download(run["payloadPresignedUrl"])
        assert found.text == stored
        assert found.headers["content-type"] == payload_type


async def test_a_payload_below_the_threshold_stays_in_its_run(database_url: str) -> None:
    async with serving(database_url) as served:
        run_id = await served.trigger(payload=LARGE[1:], options={"payloadType": "text/plain"})
        assert (await served.get(f"/api/v3/runs/{run_id}"))["payload"] == LARGE[1:]
        answer = await served.client.get(f"/api/v1/runs/{run_id}/packets/payload")
        assert answer.status_code == 404


async def test_a_payload_stays_in_its_run_while_the_object_store_fails(
    database_url: str, tmp_path: Path
) -> None:
    class Full(FileStore):
        async def write(self, key: str, data: bytes, data_type: str) -> None:
            raise ObjectStoreError("full")

    async with serving(database_url, Full(tmp_path, b"secret")) as served:
        run_id = await served.trigger(payload={"a": LARGE})
        assert (await served.get(f"/api/v3/runs/{run_id}"))["payload"] == {"a": LARGE}
        url = (await served.client.put(PACKET)).json()["presignedUrl"]
        answer = await served.client.put(url, content=b"1", headers=JSON)
        assert answer.status_code == 503
        assert error_of(answer) == "full"


async def test_a_large_output_is_shown_as_a_url(database_url: str) -> None:
    async with serving(database_url) as served:
        version, worker = await served.register("hello"), await served.connect()
        run_id = await served.trigger(payload={})
        dequeued = await served.act(
            "dequeue",
            workerId=worker,
            requestId=make_request_key(),
            backgroundWorkerIds=[version],
            maxRuns=1,
        )
        await upload(served, b"[1]")
        run, now = dequeued["runs"][0], datetime.now(UTC).isoformat()
        lease = {"runId": run["runId"], "snapshotId": run["snapshotId"]}
        spent = {"startedAt": now, "finishedAt": now, "durationMs": 5}
        output = {"output": "run_1/payload.json", "outputType": STORE_TYPE}
        report = {"type": "complete", **lease, **spent, **output}
        answer = await served.act("report", workerId=worker, reports=[report])
        assert answer["results"] == ["accepted"]
        run = await served.get(f"/api/v3/runs/{run_id}")
        assert "output" not in run
        assert (await download(run["outputPresignedUrl"])).content == b"[1]"
        url = (await served.get(f"/api/v1/runs/{run_id}/packets/output"))["presignedUrl"]
        assert (await download(url)).content == b"[1]"


async def test_what_is_larger_than_an_output_may_be_is_refused_while_it_comes_in(
    database_url: str,
) -> None:
    async with serving(database_url) as served:
        url = (await served.client.put(PACKET)).json()["presignedUrl"]
        data = b"x" * (MAX_OUTPUT_BYTES + 1)

        async def without_length() -> AsyncIterator[bytes]:
            yield data

        for content in (data, without_length()):
            answer = await served.client.put(url, content=content, headers=JSON)
            assert answer.status_code == 413
            assert "at most 10,485,760 bytes" in error_of(answer)
        assert (await download(await url_to_get(served))).status_code == 404


async def url_to_get(served: Served) -> str:
    return str((await served.get(PACKET))["presignedUrl"])


async def test_an_uploaded_payload_may_be_no_larger_than_one_in_a_body(database_url: str) -> None:
    async with serving(database_url) as served:
        await upload(served, b"x" * (MAX_PAYLOAD_BYTES + 1), "text/plain")
        body = {"payload": "run_1/payload.json", "options": {"payloadType": STORE_TYPE}}
        answer = await served.client.post(TRIGGER, json=body)
        assert answer.status_code == 413
        assert "3,145,729 bytes, and at most 3,145,728" in error_of(answer)


async def test_what_is_no_packet_is_refused_with_what_to_do(database_url: str) -> None:
    async with serving(database_url) as served:
        for payload, status, reason in (
            ("no/such", 422, "was never uploaded, or is gone"),
            ("../x", 400, "is no path of a packet"),
            ("", 400, "with application/store it is the path of a packet"),
            ({"a": 1}, 400, "with application/store it is the path of a packet"),
            (None, 400, "with application/store it is the path of a packet"),
        ):
            body = {"payload": payload, "options": {"payloadType": STORE_TYPE}}
            answer = await served.client.post(TRIGGER, json=body)
            assert answer.status_code == status, (payload, answer.text)
            assert reason in error_of(answer)
        for path in ("/api/v1/packets/%2e%2e/a", "/api/v1/packets/a%00", "/api/v1/packets/a//b"):
            assert (await served.client.put(path)).status_code == 400
            assert (await served.client.get(path)).status_code == 400


async def test_a_presigned_url_opens_one_packet_and_only_one_way(database_url: str) -> None:
    async with serving(database_url) as served:
        await upload(served, b"[1]")
        url = await url_to_get(served)
        answer = await served.client.put(url, content=b"2", headers=JSON)
        assert answer.status_code == 403
        for changed in (
            url.replace("payload.json", "other.json"),
            url.replace("expires=", "expires=9"),
            url[:-1] + ("0" if url[-1] != "0" else "1"),
            url.partition("?")[0],
        ):
            answer = await download(changed)
            assert answer.status_code == 403
            assert "ask anew" in error_of(answer)
        plain = await served.client.put(
            (await served.client.put(PACKET)).json()["presignedUrl"],
            content=b"2",
            headers={"content-type": "image/png"},
        )
        assert plain.status_code == 400
        assert (await download(url)).content == b"[1]"


async def test_urls_name_the_server_as_its_caller_reaches_it(database_url: str) -> None:
    async with serving(database_url) as served:
        headers = {"host": "runs.example.com", "x-forwarded-proto": "https"}
        answer = await served.client.get(PACKET, headers=headers)
        assert answer.json()["presignedUrl"].startswith("https://runs.example.com/packets/")


async def test_packets_need_a_key_and_are_those_of_its_environment(database_url: str) -> None:
    async with serving(database_url) as served:
        await upload(served, b"[1]")
        headers = {"authorization": f"Bearer {served.keys['prod']}"}
        answer = await served.client.get(PACKET, headers=headers)
        assert (await download(answer.json()["presignedUrl"])).status_code == 404
        for method in ("GET", "PUT"):
            headers = {"authorization": "Bearer tr_dev_unknown"}
            answer = await served.client.request(method, PACKET, headers=headers)
            assert answer.status_code == 401


async def test_with_s3_the_urls_are_those_of_the_bucket(database_url: str) -> None:
    with s3_server() as s3:
        store = S3Store(s3.make_bucket(), CREDENTIALS)
        async with serving(database_url, store) as served:
            url = (await served.client.put(PACKET)).json()["presignedUrl"]
            assert url.startswith(s3.url)
            async with httpx.AsyncClient() as anybody:
                await anybody.put(url, content=b"[1]", headers=JSON)
            small = await served.trigger(
                payload="run_1/payload.json", options={"payloadType": STORE_TYPE}
            )
            large = await served.trigger(payload={"a": LARGE})
            for run_id, expected in ((small, "[1]"), (large, f'{{"a":"{LARGE}"}}')):
                run = await served.get(f"/api/v3/runs/{run_id}")
                found = await download(run["payloadPresignedUrl"])
                assert found.text == expected
                assert found.headers["content-type"] == "application/json"
            answer = await served.client.get("/packets/env/a")
            assert answer.status_code == 404
            assert "keeps its packets elsewhere" in error_of(answer)
        await store.close()
