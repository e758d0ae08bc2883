"""The tool calls in a model's message, and their answers, in the forms of the providers."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast

from runwell.core.payloads import Json

#: Whose message it is: which form its answers have.
Style = Literal["openai", "openai_responses", "anthropic"]

_WANTED = (
    "a chat completion or response of OpenAI's client, a message of Anthropic's, or the same as a "
    "dict"
)


@dataclass(frozen=True, kw_only=True)
class ToolCall:
    """One call: `arguments` are an object, or the text of one."""

    id: str
    name: str
    arguments: object

    def read_arguments(self) -> dict[str, Json]:
        """The arguments by name; raises ValueError that a model can understand."""
        value = self.arguments
        if isinstance(value, str):
            try:
                value = json.loads(value or "{}")
            except ValueError as error:
                raise ValueError(f"the arguments are no JSON: {error}") from None
        if not isinstance(value, dict):
            raise ValueError("the arguments must be a JSON object")
        return cast("dict[str, Json]", value)


def read_calls(message: object) -> tuple[Style, list[ToolCall]]:
    """The calls of a message in their order; raises ValueError for what is none of a provider's."""
    found = _as_dict(message)
    match found:
        case {"choices": choices} if _as_list(choices):
            return read_calls(_as_dict(_as_list(choices)[0]).get("message"))
        case {"role": "assistant", "tool_calls": calls}:
            return "openai", [_read_openai(_as_dict(call)) for call in _as_list(calls)]
        case {"output": output} if isinstance(output, list):
            items = [_as_dict(item) for item in cast("list[object]", output)]
            chosen = [item for item in items if item.get("type") == "function_call"]
            return "openai_responses", [_read_response(item) for item in chosen]
        case {"role": "assistant", "content": content} if isinstance(content, list):
            blocks = [_as_dict(block) for block in cast("list[object]", content)]
            chosen = [block for block in blocks if block.get("type") == "tool_use"]
            return "anthropic", [_read_anthropic(block) for block in chosen]
        case {"role": "assistant"}:
            return "openai", []
        case _:
            raise ValueError(f"this is no message of a model: it takes {_WANTED}")


def answer_calls(
    style: Style, calls: Sequence[ToolCall], outcomes: Mapping[str, tuple[bool, str]]
) -> list[dict[str, Json]]:
    """What to append to the conversation: for each call whether it went well, and the text."""
    results = [(call, *outcomes[call.id]) for call in calls]
    match style:
        case "openai":
            return [
                {"role": "tool", "tool_call_id": call.id, "content": _openai_text(text, is_ok)}
                for call, is_ok, text in results
            ]
        case "openai_responses":
            return [
                {
                    "type": "function_call_output",
                    "call_id": call.id,
                    "output": _openai_text(text, is_ok),
                }
                for call, is_ok, text in results
            ]
        case "anthropic":
            blocks: list[Json] = [_anthropic_block(*result) for result in results]
            return [{"role": "user", "content": blocks}] if blocks else []


def _openai_text(text: str, is_ok: bool) -> str:
    # OpenAI has no mark for it.
    return text if is_ok else json.dumps({"error": text}, ensure_ascii=False)


def _anthropic_block(call: ToolCall, is_ok: bool, text: str) -> dict[str, Json]:
    block: dict[str, Json] = {"type": "tool_result", "tool_use_id": call.id, "content": text}
    return block if is_ok else {**block, "is_error": True}


def _read_openai(call: dict[str, object]) -> ToolCall:
    function = _as_dict(call.get("function"))
    return ToolCall(
        id=str(call.get("id")), name=str(function.get("name")), arguments=function.get("arguments")
    )


def _read_response(item: dict[str, object]) -> ToolCall:
    return ToolCall(
        id=str(item.get("call_id")), name=str(item.get("name")), arguments=item.get("arguments")
    )


def _read_anthropic(block: dict[str, object]) -> ToolCall:
    return ToolCall(
        id=str(block.get("id")), name=str(block.get("name")), arguments=block.get("input")
    )


def _as_list(value: object) -> list[object]:
    return cast("list[object]", value) if isinstance(value, list) else []


def _as_dict(value: object) -> dict[str, object]:
    """A dict, or the fields of a client's pydantic model."""
    if isinstance(value, dict):
        return cast("dict[str, object]", value)
    dump = getattr(value, "model_dump", None)
    if callable(dump):
        return cast("dict[str, object]", dump())
    return {}
