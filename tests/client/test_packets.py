"""Large payloads are uploaded before their trigger, and large values fetched where they are."""

import json

import pytest

from runwell.client.management import BlockingTasks, Tasks
from runwell.client.packets import is_large, load_results_flow
from runwell.client.run_handles import RunHandle
from runwell.client.runs import BlockingRuns, Runs
from runwell.client.transport import InternalServerError, NotFoundError, Request, Response
from runwell.core.errors import InvalidPayloadError, StringError
from runwell.core.payloads import MIN_STORED_BYTES
from runwell.core.waits import WaitResult
from tests.support.transport import FakeTransport, answer_json, fake_client

LARGE = "x" * MIN_STORED_BYTES
UPLOAD = answer_json({"presignedUrl": "https://bucket.test/a?signature=1"})
DONE = Response(200, {}, b"")
TRIGGERED = answer_json({"id": "run_1", "isCached": False})


def packet(text: str, data_type: str = "application/json") -> Response:
    return Response(200, {"content-type": data_type}, text.encode())


def run(**fields: object) -> Response:
    times = {"createdAt": "2026-03-01T12:00:00Z", "updatedAt": "2026-03-01T12:00:00Z"}
    flags = ("Queued", "Executing", "Completed", "Success", "Failed", "Cancelled", "Test")
    values = {f"is{flag}": False for flag in flags}
    return answer_json(
        {"id": "run_1", "status": "X", "taskIdentifier": "t", **times, **values, **fields}
    )


ENDED = {"isCompleted": True, "isSuccess": True, "status": "COMPLETED"}


def test_a_text_is_large_by_its_bytes() -> None:
    assert not is_large(LARGE[1:])
    assert is_large(LARGE)
    assert is_large("é" * (MIN_STORED_BYTES // 2))
    assert not is_large("é" * (MIN_STORED_BYTES // 2 - 1))


async def test_a_large_payload_is_uploaded_first_and_the_trigger_names_it() -> None:
    transport = FakeTransport(UPLOAD, DONE, TRIGGERED)
    await Tasks(fake_client(transport)).trigger("hello", LARGE, tags=["a"])
    ask, send, trigger = transport.requests
    path = ask.url.removeprefix("http://api.test/api/v1/packets/")
    assert (ask.method, path.startswith("trigger/packet_")) == ("PUT", True)
    assert (send.method, send.url) == ("PUT", "https://bucket.test/a?signature=1")
    assert send.body == json.dumps(LARGE).encode()
    assert send.headers["content-type"] == "application/json"
    # The bucket is another's: it must not see the key.
    assert "authorization" not in send.headers
    body = json.loads(trigger.body or b"")
    assert body["payload"] == path
    assert body["options"] == {"payloadType": "application/store", "tags": ["a"]}


def test_a_payload_below_the_threshold_goes_with_its_trigger() -> None:
    transport = FakeTransport(TRIGGERED)
    BlockingTasks(fake_client(transport)).trigger("hello", LARGE[:-3])
    (trigger,) = transport.requests
    assert json.loads(trigger.body or b"")["options"]["payloadType"] == "application/json"


def test_options_are_checked_before_anything_is_uploaded() -> None:
    transport = FakeTransport(UPLOAD)
    with pytest.raises(ValueError, match="tags"):
        BlockingTasks(fake_client(transport)).trigger("hello", LARGE, tags=[""])
    assert not transport.requests


def test_an_upload_is_tried_again_and_then_an_error_without_its_signature() -> None:
    transport = FakeTransport(UPLOAD, answer_json({}, 500), DONE, TRIGGERED)
    BlockingTasks(fake_client(transport)).trigger("hello", LARGE)
    assert transport.pauses == [1.0]
    transport = FakeTransport(UPLOAD, answer_json({"error": "no room"}, 503))
    with pytest.raises(InternalServerError, match="no room") as failed:
        BlockingTasks(fake_client(transport)).trigger("hello", LARGE)
    assert "503 on PUT https://bucket.test/a: " in str(failed.value)
    assert "signature" not in str(failed.value)


async def test_a_retrieved_run_has_its_large_payload_and_output() -> None:
    transport = FakeTransport(
        run(**ENDED, payloadPresignedUrl="http://s/p?1", outputPresignedUrl="http://s/o?2"),
        packet('{"json":[1]}', "application/super+json"),
        packet("42"),
    )
    handle = RunHandle("run_1", parse_output=lambda value: [value])
    found = await Runs(fake_client(transport)).retrieve(handle)
    assert found.payload == [1]
    assert found.output == [42]
    assert [request.url for request in transport.requests[1:]] == ["http://s/p?1", "http://s/o?2"]
    assert "authorization" not in transport.requests[1].headers


async def test_polling_fetches_large_values_once() -> None:
    transport = FakeTransport(
        run(payloadPresignedUrl="http://s/p"),
        run(payloadPresignedUrl="http://s/p"),
        run(**ENDED, payloadPresignedUrl="http://s/p"),
        packet('"hello"', "application/json"),
    )
    found = await Runs(fake_client(transport)).poll("run_1", poll_interval=1)
    assert found.payload == "hello"
    assert len(transport.requests) == 4


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (packet("{"), "the payload is not valid JSON"),
        (Response(200, {"content-type": "application/json"}, b"\xff"), "not valid UTF-8"),
    ],
)
def test_a_packet_that_can_not_be_read_is_an_error(answer: Response, reason: str) -> None:
    transport = FakeTransport(run(payloadPresignedUrl="http://s/p"), answer)
    with pytest.raises(InvalidPayloadError, match=reason):
        BlockingRuns(fake_client(transport)).retrieve("run_1")


def test_a_packet_that_is_gone_is_an_error() -> None:
    def gone(request: Request) -> Response:
        return answer_json({"error": "there is no such packet"}, 404)

    transport = FakeTransport(run(payloadPresignedUrl="http://s/p?key"), gone)
    with pytest.raises(NotFoundError, match=r"404 on GET http://s/p: there is no such packet"):
        BlockingRuns(fake_client(transport)).retrieve("run_1")


def test_results_that_were_left_out_are_fetched_one_by_one() -> None:
    usage = {"usage": {"durationMs": 1}}
    done = {"ok": True, "id": "run_2", "taskIdentifier": "t", **usage}
    error = {"type": "STRING_ERROR", "raw": "no"}
    transport = FakeTransport(
        answer_json({**done, "output": "[2]", "outputType": "application/json"}),
        answer_json({**done, "output": "a/b", "outputType": "application/store"}),
        UPLOAD,
        packet("[3]"),
        answer_json({"ok": False, "id": "run_4", "taskIdentifier": "t", "error": error, **usage}),
    )
    client = fake_client(transport)
    left_out = [
        WaitResult(is_ok=number != 4, run_id=f"run_{number}", is_left_out=True)
        for number in (2, 3, 4)
    ]
    given = [WaitResult(is_ok=True, output="[1]"), *left_out]
    found = client.run_blocking(load_results_flow(client, given))
    assert [result.output for result in found] == ["[1]", "[2]", "[3]", None]
    assert found[3].error == StringError(raw="no")
    assert not any(result.is_left_out for result in found)
    assert transport.requests[0].url.endswith("/api/v1/runs/run_2/result")
