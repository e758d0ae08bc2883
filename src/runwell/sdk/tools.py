"""Tasks as tools of language models: what a model is told of them, and its calls as child runs.

Source: docs `guides/ai-agents`, and `toolTask` of `tasks/schemaTask.md`. The forms are those of the
providers' own clients: OpenAI's chat completions and responses, Anthropic's messages, and plain
JSON schema.
"""

import json
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, Never, TypeVar, Unpack, cast, overload

from runwell.client.batching import BatchEntry
from runwell.client.options import MachineOption, Queue, Retry
from runwell.client.triggering import TriggerOptions
from runwell.core.errors import RunwellError
from runwell.core.payloads import Json
from runwell.core.timing import Duration
from runwell.sdk.and_wait import BatchResult, batch_and_block, batch_and_wait
from runwell.sdk.catalog import TaskFunction, catalog
from runwell.sdk.definitions import read_task_options
from runwell.sdk.idempotency import idempotency_keys
from runwell.sdk.runtime import RunContext
from runwell.sdk.subtasks import Failed, Ok, PendingResult
from runwell.sdk.task import Task, TaskOptions
from runwell.sdk.tool_calls import ToolCall, answer_calls, read_calls

PayloadT = TypeVar("PayloadT")
PayloadT_contra = TypeVar("PayloadT_contra", contravariant=True)
OutputT = TypeVar("OutputT")
OutputT_co = TypeVar("OutputT_co", covariant=True)

_NO_NAME = re.compile(r"[^a-zA-Z0-9_-]")
_MOST_NAME_CHARACTERS = 64
_NOTHING: dict[str, Json] = {"type": "object", "properties": {}, "additionalProperties": False}


@dataclass(frozen=True, kw_only=True)
class Tool:
    """What a model is told of a task: a name, what it does, and the JSON schema of its arguments.

    Example:
        >>> from runwell import tool_task
        >>> @tool_task(id="get-weather", description="The weather of a city, now")
        ... async def get_weather(city: str) -> str:
        ...     return f"sunny in {city}"
        >>> get_weather.tool.anthropic["input_schema"]["required"]
        ['city']
        >>> get_weather.tool.openai["function"]["name"]
        'get-weather'
    """

    name: str
    description: str
    parameters: dict[str, Json]

    @property
    def openai(self) -> dict[str, Json]:
        """The form of OpenAI's chat completions, and of what speaks their protocol."""
        function: dict[str, Json] = {
            "name": self.name,
            "description": self.description,
            "parameters": self.parameters,
        }
        return {"type": "function", "function": function}

    @property
    def openai_responses(self) -> dict[str, Json]:
        """The form of OpenAI's responses."""
        return {
            "type": "function",
            "name": self.name,
            "description": self.description,
            "parameters": self.parameters,
            "strict": False,
        }

    @property
    def anthropic(self) -> dict[str, Json]:
        """The form of Anthropic's messages."""
        return {
            "name": self.name,
            "description": self.description,
            "input_schema": self.parameters,
        }

    @property
    def json_schema(self) -> dict[str, Json]:
        """The arguments as a JSON schema that has the tool's name and description."""
        return {**self.parameters, "title": self.name, "description": self.description}


class ToolTask(Task[PayloadT_contra, OutputT_co], Generic[PayloadT_contra, OutputT_co]):
    """A task that language models can call. Made by `@tool_task`.

    Called within a run, it triggers a run and waits for it: `await get_weather("Oslo").unwrap()`.
    """

    @cached_property
    def tool(self) -> Tool:
        """What a model is told of it; raises ConfigurationError without a schema."""
        return Tool(
            name=_NO_NAME.sub("_", self.id)[:_MOST_NAME_CHARACTERS],
            description=self.options.description or self.__doc__ or "",
            parameters=self._parameters,
        )

    @overload
    def __call__(
        self: "ToolTask[None, OutputT]", payload: None = None, /, **options: Unpack[TriggerOptions]
    ) -> PendingResult[OutputT]: ...
    @overload
    def __call__(
        self, payload: PayloadT_contra, /, **options: Unpack[TriggerOptions]
    ) -> PendingResult[OutputT_co]: ...
    def __call__(
        self, payload: object = None, /, **options: Unpack[TriggerOptions]
    ) -> PendingResult[Any]:
        """Trigger a run and let the current run wait for its end; see `trigger_and_wait`."""
        return self.trigger_and_wait(cast("PayloadT_contra", payload), **options)

    def read_arguments(self, arguments: Mapping[str, Json]) -> Json:
        """The payload that a model's arguments stand for."""
        name = self._wrapped
        if self.payload_name is None:
            return None
        return dict(arguments) if name is None else arguments.get(name)

    @cached_property
    def _parameters(self) -> dict[str, Json]:
        if self.payload_name is None:
            return _NOTHING
        schema = self.payload_schema() or {}
        if self._wrapped is None:
            return schema
        # Models give arguments by name: one that is no object gets the parameter's.
        definitions = schema.pop("$defs", None)
        properties: dict[str, Json] = {self._wrapped: schema}
        wrapped: dict[str, Json] = {
            "type": "object",
            "properties": properties,
            "required": [self._wrapped],
        }
        return wrapped if definitions is None else {**wrapped, "$defs": definitions}

    @cached_property
    def _wrapped(self) -> str | None:
        schema = self.payload_schema() or {}
        return None if schema.get("type") == "object" or "$ref" in schema else self.payload_name


class ToolTaskDecorator:
    """What `tool_task(...)` gives: it takes the function and returns the task."""

    def __init__(self, options: TaskOptions) -> None:
        self._options = options

    @overload
    def __call__(
        self, function: Callable[[PayloadT], Awaitable[OutputT]], /
    ) -> ToolTask[PayloadT, OutputT]: ...
    @overload
    def __call__(
        self, function: Callable[[], Awaitable[OutputT]], /
    ) -> ToolTask[None, OutputT]: ...
    @overload
    def __call__(
        self, function: Callable[[PayloadT], OutputT], /
    ) -> ToolTask[PayloadT, OutputT]: ...
    @overload
    def __call__(self, function: Callable[[], OutputT], /) -> ToolTask[None, OutputT]: ...
    @overload
    def __call__(
        self, function: Callable[[PayloadT, RunContext], Awaitable[OutputT]], /
    ) -> ToolTask[PayloadT, OutputT]: ...
    @overload
    def __call__(
        self, function: Callable[[PayloadT, RunContext], OutputT], /
    ) -> ToolTask[PayloadT, OutputT]: ...
    def __call__(self, function: TaskFunction, /) -> object:
        """The task of this function, noted in the catalogue."""
        return catalog.add_task(ToolTask[object, object](function, self._options))


def tool_task(
    *,
    id: str,  # noqa: A002 (the name of the platform's documentation)
    description: str,
    retry: Retry | None = None,
    queue: Queue | None = None,
    machine: MachineOption | None = None,
    max_duration: Duration | None = None,
    ttl: Duration | None = None,
    keep_process: bool = False,
) -> ToolTaskDecorator:
    """Turn a function into a task that language models can call; options are those of `@task`.

    `description` tells the model when to call it and what it answers. The payload's annotation is
    what the model has to give: a model, dataclass or TypedDict of arguments, or a single value,
    which the model gives by the parameter's name.

    Example:
        >>> from runwell import tool_task
        >>> @tool_task(id="add-up", description="Add up numbers")
        ... def add_up(numbers: list[int]) -> int:
        ...     return sum(numbers)
        >>> add_up.tool.parameters["properties"]["numbers"]["items"]
        {'type': 'integer'}
    """
    return ToolTaskDecorator(
        read_task_options(
            id=id,
            retry=retry,
            queue=queue,
            machine=machine,
            max_duration=max_duration,
            ttl=ttl,
            description=description,
            keep_process=keep_process,
        )
    )


AnyToolTask = ToolTask[object, object]


class Toolbox:
    """The tools of an agent: what its model is told of them, and its calls as child runs.

    What it gives are dicts, typed as anything: each provider's client has its own types for them.

    Example:
        >>> from runwell import Toolbox, tool_task
        >>> @tool_task(id="look-up", description="The page of a word in the lexicon")
        ... async def look_up(word: str) -> str:
        ...     return f"{word}: a word"
        >>> toolbox = Toolbox([look_up])
        >>> [tool["function"]["name"] for tool in toolbox.openai]
        ['look-up']
        >>> async def answer_of(message: object) -> list[dict[str, object]]:
        ...     return await toolbox.run(message)
    """

    def __init__(self, tools: "Iterable[ToolTask[Never, object]]") -> None:
        """Raises ValueError when two tools have one name."""
        self._tools: dict[str, AnyToolTask] = {}
        for tool in tools:
            name = tool.tool.name
            if name in self._tools:
                raise ValueError(f"two tools are named {name!r}: give one of the tasks another id")
            self._tools[name] = cast("AnyToolTask", tool)

    @property
    def openai(self) -> list[Any]:
        """`tools=` of OpenAI's chat completions."""
        return [tool.tool.openai for tool in self._tools.values()]

    @property
    def openai_responses(self) -> list[Any]:
        """`tools=` of OpenAI's responses."""
        return [tool.tool.openai_responses for tool in self._tools.values()]

    @property
    def anthropic(self) -> list[Any]:
        """`tools=` of Anthropic's messages."""
        return [tool.tool.anthropic for tool in self._tools.values()]

    async def run(self, message: object) -> list[Any]:
        """Do what a model asks for, each call as a child run, all at once.

        `message` is what the provider's client answered, or the same as a dict: a chat completion
        or its message, a response, a message of Anthropic's. Returns what is to be appended to the
        conversation, in the provider's form, empty when the model called nothing. A call that can't
        be made (an unknown tool, arguments that don't fit) and one whose run failed are told the
        model as errors. The id of a call is the idempotency key of its run.

        Raises ValueError for what is no message of a provider, and RunwellError outside of a run.
        """
        style, calls = read_calls(message)
        entries, errors = self._prepare(calls)
        done = await batch_and_wait(list(entries.values()), {}) if entries else None
        return answer_calls(style, calls, self._outcomes(entries, done) | errors)

    def run_blocking(self, message: object) -> list[Any]:
        """The same for `def` tasks."""
        style, calls = read_calls(message)
        entries, errors = self._prepare(calls)
        done = batch_and_block(list(entries.values()), {}) if entries else None
        return answer_calls(style, calls, self._outcomes(entries, done) | errors)

    def _prepare(
        self, calls: Sequence[ToolCall]
    ) -> tuple[dict[str, BatchEntry], dict[str, tuple[bool, str]]]:
        entries: dict[str, BatchEntry] = {}
        errors: dict[str, tuple[bool, str]] = {}
        for call in calls:
            try:
                entries[call.id] = self._entry(call)
            except (RunwellError, ValueError) as error:
                errors[call.id] = (False, str(error))
        return entries, errors

    def _entry(self, call: ToolCall) -> BatchEntry:
        task = self._tools.get(call.name)
        if task is None:
            raise ValueError(f"there is no tool {call.name!r}: there are {', '.join(self._tools)}")
        payload = task.parse_payload(task.read_arguments(call.read_arguments()))
        return BatchEntry(
            task_id=task.id,
            payload=task.encode_payload(payload),
            options={"idempotency_key": idempotency_keys.create(call.id, scope="run")},
            parse_output=_as_it_is,
        )

    @staticmethod
    def _outcomes(
        entries: Mapping[str, BatchEntry], done: BatchResult[object] | None
    ) -> dict[str, tuple[bool, str]]:
        found: dict[str, tuple[bool, str]] = {}
        for call_id, result in zip(entries, done.runs if done else (), strict=True):
            match result:
                case Ok(output=str(text)):
                    found[call_id] = (True, text)
                case Ok(output=output):
                    found[call_id] = (True, json.dumps(output, ensure_ascii=False))
                case Failed(error=error):
                    found[call_id] = (False, str(error))
        return found


def _as_it_is(value: Json) -> object:
    return value
