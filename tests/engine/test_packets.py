"""Packets: none is forgotten, none goes while a run refers to it."""

from datetime import timedelta
from pathlib import Path

import pytest

from runwell.core.errors import RequestError
from runwell.core.ids import make_request_key
from runwell.core.payloads import MAX_PAYLOAD_BYTES, STORE_TYPE
from runwell.engine import packets
from runwell.engine.db import Database
from runwell.engine.file_store import FileStore
from runwell.engine.object_store import ObjectStoreError
from tests.support.factories import Scene, complete, make_scene, make_task, read

PATH = "trigger/packet_1/payload.json"
DAY = 24 * 3600


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path, b"secret")


async def upload(scene: Scene, store: FileStore, path: str = PATH, data: bytes = b"[1]") -> None:
    await packets.register_upload(scene.db, scene.environment, path, now=scene.now)
    await store.write(packets.key_of(scene.environment, path), data, "application/json")


async def check(scene: Scene, store: FileStore, path: str = PATH) -> None:
    await packets.check_payload(scene.db, store, scene.environment, path, now=scene.now)


async def sweep(scene: Scene, store: FileStore, *, after: float) -> int:
    return await packets.sweep(scene.db, store, now=scene.later(after))


async def is_there(scene: Scene, store: FileStore, path: str = PATH) -> bool:
    return await store.find_size(packets.key_of(scene.environment, path)) is not None


async def count(scene: Scene) -> int:
    return int((await read(scene.db, "SELECT count(*) AS number FROM packets"))[0]["number"])


async def test_an_upload_whose_caller_died_before_the_trigger_is_deleted_after_a_day(
    db: Database, store: FileStore
) -> None:
    scene = await make_scene(db, make_task())
    await upload(scene, store)
    await packets.register_upload(db, scene.environment, "never/sent", now=scene.now)
    assert await sweep(scene, store, after=DAY - 1) == 0
    assert await is_there(scene, store)
    assert await sweep(scene, store, after=1) == 2
    assert not await is_there(scene, store)
    assert await count(scene) == 0


async def test_a_packet_stays_as_long_as_a_run_refers_to_it(db: Database, store: FileStore) -> None:
    scene = await make_scene(db, make_task())
    await upload(scene, store)
    await upload(scene, store, "attempt_1/output.json")
    await check(scene, store)
    await scene.trigger(payload=PATH, payloadType=STORE_TYPE)
    worker = await scene.connect()
    run = await worker.start_one()
    assert (run.payload, run.payload_type) == (PATH, STORE_TYPE)
    report = complete(run, "attempt_1/output.json").model_copy(update={"output_type": STORE_TYPE})
    assert await worker.report(report) == ["accepted"]
    assert await sweep(scene, store, after=DAY) == 2
    assert await sweep(scene, store, after=100 * DAY) == 0
    assert await is_there(scene, store)
    assert await is_there(scene, store, "attempt_1/output.json")


async def test_a_trigger_whose_answer_was_lost_is_sent_again_with_the_same_packet(
    db: Database, store: FileStore
) -> None:
    scene = await make_scene(db, make_task())
    await upload(scene, store)
    key = make_request_key(scene.now)
    for _ in range(2):
        await check(scene, store)
        await scene.trigger(payload=PATH, payloadType=STORE_TYPE, request_key=key)
    assert len(await read(db, "SELECT id FROM runs")) == 1
    await sweep(scene, store, after=DAY)
    assert await is_there(scene, store)


async def test_a_packet_that_is_about_to_be_used_is_given_another_day(
    db: Database, store: FileStore
) -> None:
    scene = await make_scene(db, make_task())
    await upload(scene, store)
    scene.later(DAY - 1)
    await check(scene, store)
    assert await sweep(scene, store, after=2) == 0
    assert await is_there(scene, store)


async def test_a_packet_that_is_being_deleted_is_not_taken_for_a_run_nor_sent_again(
    db: Database, tmp_path: Path
) -> None:
    class Away(FileStore):
        async def delete(self, key: str) -> None:
            raise ObjectStoreError("away")

    scene, away = await make_scene(db, make_task()), Away(tmp_path, b"secret")
    await upload(scene, away)
    with pytest.raises(ObjectStoreError, match="away"):
        await sweep(scene, away, after=DAY)
    with pytest.raises(RequestError, match=f"packet {PATH} was never uploaded, or is gone"):
        await check(scene, away)
    with pytest.raises(RequestError, match="is being deleted just now: try again") as refused:
        await packets.register_upload(db, scene.environment, PATH, now=scene.now)
    assert refused.value.status == 409
    # Its deletion is taken up again, by whichever server, and then the path is free.
    store = FileStore(tmp_path, b"secret")
    assert await sweep(scene, store, after=601) == 1
    assert not await is_there(scene, store)
    await upload(scene, store)
    await check(scene, store)


async def test_a_payload_that_was_not_uploaded_or_is_too_large_is_refused(
    db: Database, store: FileStore
) -> None:
    scene = await make_scene(db, make_task())
    with pytest.raises(RequestError, match=r"ask for a URL with PUT /api/v1/packets/a/b"):
        await check(scene, store, "a/b")
    await packets.register_upload(db, scene.environment, "a/b", now=scene.now)
    with pytest.raises(RequestError, match=r"was never uploaded"):
        await check(scene, store, "a/b")
    await upload(scene, store, "a/b", b"x" * (MAX_PAYLOAD_BYTES + 1))
    with pytest.raises(RequestError, match=r"is 3,145,729 bytes, and at most 3,145,728") as refused:
        await check(scene, store, "a/b")
    assert refused.value.status == 413


async def test_packets_of_another_environment_are_not_seen(db: Database, store: FileStore) -> None:
    scene = await make_scene(db, make_task())
    await upload(scene, store)
    other = await make_scene(db, slug="dev")
    with pytest.raises(RequestError, match="was never uploaded"):
        await check(other, store)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/a",
        "a/",
        "a//b",
        "..",
        "a/../b",
        "./a",
        "a/.",
        "a b",
        "a?b",
        "a%2fb",
        "\x00",
        "a" * 513,
    ],
)
def test_a_path_that_could_mean_another_place_is_refused(path: str) -> None:
    with pytest.raises(RequestError, match="is no path of a packet") as refused:
        packets.check_path(path)
    assert refused.value.status == 400


@pytest.mark.parametrize("path", ["run_1/payload.json", "attempt_1/output.json", "a", "a..b/.c"])
def test_paths_of_the_documented_clients_are_taken(path: str) -> None:
    packets.check_path(path)


async def test_a_sweep_looks_at_no_packet_that_a_run_is_known_to_refer_to(db: Database) -> None:
    plan = "\n".join(
        row[0]
        for row in await read(
            db,
            "EXPLAIN SELECT p.path FROM packets p WHERE p.expires_at <= now() "
            "ORDER BY p.expires_at LIMIT 100",
        )
    )
    assert "packets_that_expire" in plan
    assert timedelta(days=1) == packets.UNUSED_LIFETIME
