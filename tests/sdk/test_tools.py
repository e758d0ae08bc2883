"""Tasks as tools of models: what models are told, and how their calls are read and answered."""

from dataclasses import dataclass
from typing import Any, TypedDict

import pytest
from anthropic.types import Message, TextBlock, ToolUseBlock, Usage
from openai.types.chat import ChatCompletionMessage, ChatCompletionMessageFunctionToolCall
from openai.types.chat.chat_completion_message_function_tool_call import Function
from openai.types.responses import ResponseFunctionToolCall
from pydantic import BaseModel

from runwell import RunContext, Toolbox, tool_task
from runwell.core.errors import RunwellError
from runwell.sdk.tool_calls import ToolCall, answer_calls, read_calls


class Search(BaseModel):
    """What to look for."""

    query: str
    most: int = 10


class Place(TypedDict):
    city: str


@dataclass
class Step:
    number: int


@pytest.fixture
def tools() -> dict[str, Any]:
    @tool_task(id="search", description="Search the web")
    async def search(query: Search) -> list[str]:
        return [query.query]

    @tool_task(id="get weather", description="The weather of a city")
    async def weather(place: Place, ctx: RunContext) -> str:
        return place["city"]

    @tool_task(id="add", description="Add numbers")
    def add(numbers: list[int]) -> int:
        return sum(numbers)

    @tool_task(id="steps", description="Go some steps")
    def steps(steps: list[Step]) -> int:
        return len(steps)

    @tool_task(id="now", description="The time")
    def now() -> str:
        return "now"

    return {"search": search, "weather": weather, "add": add, "steps": steps, "now": now}


def test_a_tool_has_the_schema_of_its_payload_in_each_form(tools: dict[str, Any]) -> None:
    tool = tools["search"].tool
    assert tool.parameters["required"] == ["query"]
    assert tool.openai["function"]["parameters"] == tool.parameters
    assert tool.openai_responses["name"] == "search"
    assert tool.anthropic["input_schema"] == tool.parameters
    assert tool.json_schema["description"] == "Search the web"


def test_a_name_has_only_what_models_allow(tools: dict[str, Any]) -> None:
    assert tools["weather"].tool.name == "get_weather"


def test_a_payload_that_is_no_object_is_given_by_its_name(tools: dict[str, Any]) -> None:
    parameters = tools["add"].tool.parameters
    assert parameters["properties"]["numbers"]["type"] == "array"
    assert tools["add"].read_arguments({"numbers": [1, 2]}) == [1, 2]
    steps = tools["steps"].tool.parameters
    assert "Step" in steps["$defs"]
    assert "$defs" not in steps["properties"]["steps"]
    assert tools["search"].read_arguments({"query": "a"}) == {"query": "a"}
    assert tools["now"].tool.parameters["properties"] == {}
    assert tools["now"].read_arguments({"any": 1}) is None


def test_two_tools_of_one_name_are_refused(tools: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="two tools are named"):
        Toolbox([tools["add"], tools["add"]])


CHAT = ChatCompletionMessage(
    role="assistant",
    content=None,
    tool_calls=[
        ChatCompletionMessageFunctionToolCall(
            id="call_1",
            type="function",
            function=Function(name="add", arguments='{"numbers": [1]}'),
        )
    ],
)
MESSAGE = Message(
    id="msg_1",
    type="message",
    role="assistant",
    model="m",
    usage=Usage(input_tokens=1, output_tokens=1),
    content=[
        TextBlock(type="text", text="I shall add."),
        ToolUseBlock(id="call_1", type="tool_use", name="add", input={"numbers": [1]}),
    ],
)
RESPONSE_CALL = ResponseFunctionToolCall(
    type="function_call", call_id="call_1", name="add", arguments='{"numbers": [1]}'
)


@pytest.mark.parametrize(
    ("message", "style"),
    [
        (CHAT, "openai"),
        (CHAT.model_dump(), "openai"),
        ({"choices": [{"message": CHAT.model_dump()}]}, "openai"),
        (MESSAGE, "anthropic"),
        (MESSAGE.model_dump(), "anthropic"),
        ({"output": [{"type": "message"}, RESPONSE_CALL.model_dump()]}, "openai_responses"),
    ],
)
def test_the_calls_of_each_provider_are_read(message: object, style: str) -> None:
    found, calls = read_calls(message)
    assert found == style
    assert [(call.id, call.name, call.read_arguments()) for call in calls] == [
        ("call_1", "add", {"numbers": [1]})
    ]


def test_a_message_without_calls_has_none() -> None:
    assert read_calls({"role": "assistant", "content": "Hello"}) == ("openai", [])
    assert read_calls({"role": "assistant", "content": [{"type": "text", "text": "Hi"}]})[1] == []


@pytest.mark.parametrize("message", [None, "text", {"role": "user", "content": "x"}, {}, []])
def test_what_is_no_message_of_a_model_is_refused(message: object) -> None:
    with pytest.raises(ValueError, match="no message of a model"):
        read_calls(message)


def test_each_provider_gets_its_own_answers() -> None:
    calls = [ToolCall(id="a", name="add", arguments={}), ToolCall(id="b", name="x", arguments={})]
    outcomes = {"a": (True, "3"), "b": (False, "no such tool")}
    assert answer_calls("openai", calls, outcomes) == [
        {"role": "tool", "tool_call_id": "a", "content": "3"},
        {"role": "tool", "tool_call_id": "b", "content": '{"error": "no such tool"}'},
    ]
    assert answer_calls("openai_responses", calls, outcomes)[0] == {
        "type": "function_call_output",
        "call_id": "a",
        "output": "3",
    }
    (answer,) = answer_calls("anthropic", calls, outcomes)
    assert answer["content"] == [
        {"type": "tool_result", "tool_use_id": "a", "content": "3"},
        {
            "type": "tool_result",
            "tool_use_id": "b",
            "content": "no such tool",
            "is_error": True,
        },
    ]
    assert answer_calls("anthropic", [], {}) == []


async def test_calls_that_can_not_be_made_are_told_the_model_without_a_run(
    tools: dict[str, Any],
) -> None:
    toolbox = Toolbox([tools["add"], tools["search"]])
    message = {
        "role": "assistant",
        "tool_calls": [
            {"id": "1", "function": {"name": "fly", "arguments": "{}"}},
            {"id": "2", "function": {"name": "add", "arguments": "{"}},
            {"id": "3", "function": {"name": "add", "arguments": '{"numbers": ["x"]}'}},
            {"id": "4", "function": {"name": "add", "arguments": "[1]"}},
        ],
    }
    fly, half, wrong, array = await toolbox.run(message)
    assert "there is no tool 'fly': there are add, search" in str(fly["content"])
    assert "no JSON" in str(half["content"])
    assert "valid integer" in str(wrong["content"])
    assert "JSON object" in str(array["content"])


async def test_a_call_outside_of_a_run_is_refused(tools: dict[str, Any]) -> None:
    with pytest.raises(RunwellError):
        await tools["add"]([1])
