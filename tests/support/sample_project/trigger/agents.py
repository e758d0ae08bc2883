"""An agent of each provider, whose model is a server of the test."""

from typing import Any, TypedDict

from runwell import Retry, Toolbox, task, tool_task


class Talk(TypedDict):
    """Where the model is, and what it is asked."""

    url: str
    question: str


@tool_task(id="get-weather", description="The weather of a city, now")
async def get_weather(city: str) -> str:
    return f"sunny in {city}"


@tool_task(id="add-numbers", description="Add numbers up", retry=Retry(max_attempts=1))
def add_numbers(numbers: list[int]) -> int:
    if not numbers:
        raise ValueError("nothing to add")
    return sum(numbers)


toolbox = Toolbox([get_weather, add_numbers])


@task(id="ask-openai")
async def ask_openai(talk: Talk) -> object:
    # Imported here: the other tasks of the sample don't pay for it.
    from openai import AsyncOpenAI

    client = AsyncOpenAI(base_url=f"{talk['url']}/v1", api_key="test")
    messages: list[Any] = [{"role": "user", "content": talk["question"]}]
    while True:
        answer = await client.chat.completions.create(
            model="m", messages=messages, tools=toolbox.openai
        )
        message = answer.choices[0].message
        results = await toolbox.run(message)
        if not results:
            return message.content
        messages += [message.model_dump(exclude_none=True), *results]


@task(id="ask-anthropic")
def ask_anthropic(talk: Talk) -> object:
    from anthropic import Anthropic

    client = Anthropic(base_url=talk["url"], api_key="test")
    messages: list[Any] = [{"role": "user", "content": talk["question"]}]
    while True:
        message = client.messages.create(
            model="m", max_tokens=100, messages=messages, tools=toolbox.anthropic
        )
        results = toolbox.run_blocking(message)
        if not results:
            block = message.content[0]
            return block.text if block.type == "text" else None
        messages += [{"role": "assistant", "content": message.content}, *results]
