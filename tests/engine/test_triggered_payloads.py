"""What a trigger brings along: its payload, its metadata, its context."""

import json

import pytest

from runwell.core.errors import RequestError
from runwell.core.payloads import MAX_METADATA_BYTES, Json
from runwell.core.schemas import TriggerBody
from runwell.engine.db import Database
from runwell.engine.triggering import COLUMNS, TriggerRequest, trigger_run
from tests.support.factories import (
    NOW,
    make_scene,
    make_task,
    read,
)
from tests.support.rows import count_runs, trigger_row


def _body(text: str) -> TriggerBody:
    return TriggerBody.model_validate_json(text)


@pytest.mark.parametrize(
    ("sent", "payload_type", "stored", "stored_type"),
    [
        (None, "application/json", None, "application/json"),
        (None, "application/super+json", None, "application/json"),
        ('{"a":1}', "application/json", '{"a":1}', "application/json"),
        ("hello", "application/json", '"hello"', "application/json"),
        ("12", "application/json", "12", "application/json"),
        ({"a": [1, None, "ü"]}, "application/json", '{"a":[1,null,"ü"]}', "application/json"),
        (5, "application/json", "5", "application/json"),
        (False, "application/json", "false", "application/json"),
        ("hello", "text/plain", "hello", "text/plain"),
        ('{"json":1}', "application/super+json", '{"json":1}', "application/super+json"),
    ],
)
async def test_a_payload_is_kept_as_the_text_it_stands_for(
    db: Database, sent: Json, payload_type: str, stored: str | None, stored_type: str
) -> None:
    scene = await make_scene(db, make_task())
    row = await trigger_row(scene, payload=sent, payloadType=payload_type)
    assert (row["payload"], row["payload_type"]) == (stored, stored_type)


@pytest.mark.parametrize(
    ("sent", "payload_type", "words"),
    [
        ('{"a":', "application/json", "not valid JSON"),
        ("[NaN]", "application/json", "NaN is not a JSON number"),
        ('"\\u0000"', "application/json", "NUL"),
        ("a\x00", "application/json", "NUL"),
        ({"a": "\x00"}, "application/json", "NUL"),
        ("a\x00", "text/plain", "NUL"),
        ("[" * 300 + "]" * 300, "application/json", "nested deeper"),
        ("1", "application/super+json", "not superjson"),
    ],
)
async def test_a_payload_that_can_not_be_kept_is_refused(
    db: Database, sent: Json, payload_type: str, words: str
) -> None:
    scene = await make_scene(db, make_task())
    with pytest.raises(RequestError, match=words) as refused:
        await scene.trigger(payload=sent, payloadType=payload_type)
    assert refused.value.status == 400
    assert await count_runs(db) == 0


async def test_a_payload_in_the_object_store_is_its_path(db: Database) -> None:
    scene = await make_scene(db, make_task())
    row = await trigger_row(scene, payload="run_1/payload.json", payloadType="application/store")
    assert (row["payload"], row["payload_type"]) == ("run_1/payload.json", "application/store")
    with pytest.raises(RequestError, match="it is the path of a packet") as refused:
        await scene.trigger(payload={"a": 1}, payloadType="application/store")
    assert refused.value.status == 400


async def test_metadata_may_come_as_a_text_of_json(db: Database) -> None:
    scene = await make_scene(db, make_task())
    row = await trigger_row(scene, metadata='{"a":1}', metadataType="application/json")
    assert json.loads(row["metadata"]) == {"a": 1}


@pytest.mark.parametrize(
    ("metadata", "status", "words"),
    [
        ([1], 400, "must be a JSON object"),
        ("{", 400, "not valid JSON"),
        ('{"a":"\\u0000"}', 400, "NUL"),
        ({"a": "\x00"}, 400, "NUL"),
        ({"a": "x" * MAX_METADATA_BYTES}, 422, "bytes; 262144 at most"),
    ],
)
async def test_metadata_that_can_not_be_kept_is_refused(
    db: Database, metadata: Json, status: int, words: str
) -> None:
    scene = await make_scene(db, make_task())
    with pytest.raises(RequestError, match=words) as refused:
        await scene.trigger(metadata=metadata)
    assert refused.value.status == status


async def test_a_context_with_a_nul_is_refused(db: Database) -> None:
    scene = await make_scene(db, make_task())
    request = TriggerRequest(task_id="add", body=_body('{"context": {"a": "\\u0000"}}'))
    with pytest.raises(RequestError, match="NUL") as refused:
        await trigger_run(db, scene.environment, request, now=NOW)
    assert refused.value.status == 400


async def test_a_new_run_has_the_columns_of_its_type_in_their_order(db: Database) -> None:
    rows = await read(
        db,
        "SELECT a.attname AS name FROM pg_attribute a JOIN pg_type t ON t.typrelid = a.attrelid "
        "WHERE t.typname = 'new_run' AND NOT a.attisdropped ORDER BY a.attnum",
    )
    assert tuple(row["name"] for row in rows) == COLUMNS
