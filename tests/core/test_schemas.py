"""The bodies of the public API, as clients send them."""

import pytest
from pydantic import ValidationError

from runwell.core.machines import MachineName
from runwell.core.schemas import (
    MAX_TAG_CHARACTERS,
    Pagination,
    TriggerBody,
    TriggerOptions,
)


def test_a_trigger_body_of_the_javascript_client_is_read() -> None:
    body = TriggerBody.model_validate_json(
        """{"payload": "{\\"json\\":1}", "options": {"payloadType": "application/super+json",
        "queue": {"name": "q", "concurrencyLimit": 3}, "idempotencyKeyTTL": "1h", "tags": "one",
        "maxAttempts": 2, "machine": "small-2x", "test": false}, "somethingNew": true}"""
    )
    assert body.options.tags == ["one"]
    assert body.options.idempotency_key_ttl == "1h"
    assert body.options.machine is MachineName.SMALL_2X
    assert body.options.queue is not None
    assert body.options.queue.concurrency_limit == 3


def test_an_empty_body_triggers_without_a_payload() -> None:
    body = TriggerBody.model_validate_json("{}")
    assert body.payload is None
    assert body.options == TriggerOptions()


def test_a_queue_says_whether_its_limit_was_sent() -> None:
    sent = TriggerBody.model_validate_json('{"options": {"queue": {"concurrencyLimit": null}}}')
    absent = TriggerBody.model_validate_json('{"options": {"queue": {"name": "q"}}}')
    assert sent.options.queue is not None
    assert absent.options.queue is not None
    assert "concurrency_limit" in sent.options.queue.model_fields_set
    assert "concurrency_limit" not in absent.options.queue.model_fields_set


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ('{"machine": "huge"}', "machine"),
        ('{"maxAttempts": 0}', "maxAttempts"),
        ('{"maxAttempts": "3"}', "maxAttempts"),
        ('{"tags": [""]}', "tags"),
        ('{"tags": ["' + "x" * (MAX_TAG_CHARACTERS + 1) + '"]}', "tags"),
        ('{"tags": 1}', "tags"),
        ('{"queue": {"concurrencyLimit": -1}}', "queue"),
        ('{"concurrencyKey": ""}', "concurrencyKey"),
        ('{"payloadType": "image/png"}', "payloadType"),
    ],
)
def test_an_option_that_is_wrong_is_named(options: str, field: str) -> None:
    with pytest.raises(ValidationError) as raised:
        TriggerBody.model_validate_json(f'{{"options": {options}}}')
    assert raised.value.errors()[0]["loc"][:2] == ("options", field)


def test_an_option_of_another_generation_of_clients_is_ignored() -> None:
    body = TriggerBody.model_validate_json('{"options": {"fromLater": [1]}, "more": {}}')
    assert body.options == TriggerOptions()


def test_names_are_camel_case_on_the_wire_only() -> None:
    options = TriggerOptions.model_validate({"max_attempts": 2, "idempotency_key_ttl": "1h"})
    assert options.model_dump(by_alias=True, exclude_unset=True) == {
        "maxAttempts": 2,
        "idempotencyKeyTTL": "1h",
    }
    assert Pagination(next="x").model_dump(exclude_none=True) == {"next": "x"}
