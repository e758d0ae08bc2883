"""Large payloads and outputs through server and worker: nobody who runs a task notices them."""

import shutil
from collections.abc import Generator
from pathlib import Path

import httpx
import pytest

from runwell.core.payloads import MIN_STORED_BYTES
from tests.support.platform import (
    FINISH_SECONDS,
    Platform,
    Session,
    open_session,
    temporary_platform,
)

LARGE = "é" * (MIN_STORED_BYTES // 2)


@pytest.fixture(scope="module")
def platform() -> Generator[Platform]:
    with temporary_platform() as platform:
        yield platform


def packets_of(platform: Platform) -> Path:
    return platform.server.data_dir / "packets"


async def read_types(session: Session, run_id: str) -> tuple[str, str]:
    rows = await session.fetch("SELECT payload_type, output_type FROM runs WHERE id = $1", run_id)
    return rows[0]["payload_type"], rows[0]["output_type"]


async def test_a_task_takes_and_returns_large_values_as_it_does_small_ones(
    platform: Platform,
) -> None:
    async with open_session(platform) as session:
        run_id = await session.trigger("echo", {"text": LARGE})
        run = await session.runs.poll(run_id, poll_interval=0.05, timeout=FINISH_SECONDS)
        assert run.status == "COMPLETED", run.error
        assert run.payload == {"text": LARGE}
        assert run.output == {"text": LARGE}
        assert await read_types(session, run_id) == ("application/store", "application/store")
        await session.check_settled([run_id])


@pytest.mark.parametrize("task_id", ["lengths-of-outputs", "blocking-lengths-of-outputs"])
async def test_a_run_that_waits_gets_large_outputs_as_it_gets_small_ones(
    platform: Platform, task_id: str
) -> None:
    async with open_session(platform) as session:
        run_id = await session.trigger(task_id, MIN_STORED_BYTES)
        run = await session.runs.poll(run_id, poll_interval=0.05, timeout=FINISH_SECONDS)
        assert run.status == "COMPLETED", run.error
        assert run.output == [MIN_STORED_BYTES, MIN_STORED_BYTES, 1]


async def test_a_run_whose_payload_is_gone_fails_at_once_and_says_so(platform: Platform) -> None:
    async with open_session(platform) as session:
        run_id = await session.trigger("echo", LARGE, delay="1h")
        shutil.rmtree(packets_of(platform))
        await session.runs.reschedule(run_id, delay="1s")
        await session.wait_for_row(
            "the run has ended",
            "SELECT 1 FROM runs WHERE id = $1 AND execution_status = 'FINISHED'",
            run_id,
        )
        rows = await session.fetch(
            "SELECT status, error->>'code' AS code, error->>'message' AS message, attempt_number "
            "FROM runs WHERE id = $1",
            run_id,
        )
        assert rows[0]["code"] == "TASK_INPUT_ERROR"
        assert "is not in the object store any more (packet trigger/packet_" in rows[0]["message"]
        assert rows[0]["attempt_number"] == 1


async def test_a_large_output_is_kept_in_the_database_when_the_store_takes_nothing(
    platform: Platform,
) -> None:
    async with open_session(platform) as session:
        folder = packets_of(platform)
        shutil.rmtree(folder, ignore_errors=True)
        # A file where the folder should be.
        folder.write_bytes(b"")
        try:
            run_id = await session.trigger("large-output", MIN_STORED_BYTES)
            run = await session.runs.poll(run_id, poll_interval=0.05, timeout=FINISH_SECONDS)
        finally:
            folder.unlink()
            # This worker would not try the store for a while, and other tests come after.
            session.kill("supervisor")
            platform.mend()
            platform.wait_until_whole()
        assert run.status == "COMPLETED", run.error
        assert run.output == "x" * MIN_STORED_BYTES
        assert await read_types(session, run_id) == ("application/json", "application/json")


async def test_an_upload_survives_a_server_that_is_killed_before_the_trigger(
    platform: Platform,
) -> None:
    headers = {"authorization": f"Bearer {platform.secret_key}"}
    async with (
        open_session(platform) as session,
        httpx.AsyncClient(base_url=platform.server.url, headers=headers, timeout=20) as client,
    ):
        path = "run_1/payload.json"
        urls = [
            (await client.request(method, f"/api/v1/packets/{path}")).json()["presignedUrl"]
            for method in ("PUT", "GET")
        ]
        text = {"content-type": "text/plain"}
        (await client.put(urls[0], content=LARGE.encode(), headers=text)).raise_for_status()
        platform.server.kill()
        platform.mend()
        platform.wait_until_whole()
        # What the killed server signed is good at its successor.
        assert (await client.get(urls[1])).text == LARGE
        answer = await client.post(
            "/api/v1/tasks/echo/trigger",
            json={"payload": path, "options": {"payloadType": "application/store"}},
        )
        run = await session.runs.poll(
            answer.json()["id"], poll_interval=0.05, timeout=FINISH_SECONDS
        )
        assert run.output == LARGE


async def test_an_output_survives_a_worker_that_is_killed_after_its_upload(
    platform: Platform,
) -> None:
    async with open_session(platform) as session:
        run_id = await session.trigger("large-output", MIN_STORED_BYTES, delay="1s")
        async with session.hold("LOCK TABLE run_attempts IN ACCESS EXCLUSIVE MODE"):
            await session.wait_for_row(
                "the output's packet is known",
                "SELECT 1 FROM packets WHERE path LIKE $1 || '/%/output.json'",
                run_id,
            )
            await session.wait_until_blocked()
            session.kill("supervisor")
        platform.mend()
        run = await session.runs.poll(run_id, poll_interval=0.05, timeout=FINISH_SECONDS)
        assert run.status == "COMPLETED", run.error
        assert run.output == "x" * MIN_STORED_BYTES
        await session.check_settled([run_id])
