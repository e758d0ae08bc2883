"""Blocks of code as spans of the current run's trace: what `logger.trace` makes."""

from collections.abc import Mapping
from types import TracebackType
from typing import Self

from runwell.sdk.runtime import OpenSpan, find_runtime
from runwell.sdk.values import to_json_value


class TracedBlock:
    """A block of code that is a span of the run's trace; `logger.trace` makes one.

    Use it with `with` or with `async with`. Lines that are written in the block, requests that are
    made there and blocks within it are under it in the trace. An error that leaves the block marks
    the span and goes on. Outside of a run it does nothing.

    Example:
        >>> from runwell import logger
        >>> with logger.trace("fetch user", id=1) as span:
        ...     span.set_attribute("user.name", "Ada")
        ...     span.add_event("found")
    """

    __slots__ = ("_attributes", "_name", "_span")

    def __init__(self, name: str, attributes: Mapping[str, object]) -> None:
        """Not begun yet."""
        self._name = name
        self._attributes = attributes
        self._span: OpenSpan | None = None

    def set_attribute(self, name: str, value: object) -> None:
        """Say something about the block; what has no JSON form is written as its text."""
        self.set_attributes({name: value})

    def set_attributes(self, attributes: Mapping[str, object]) -> None:
        """Say several things about the block."""
        if self._span is not None:
            self._span.set({name: to_json_value(value) for name, value in attributes.items()})

    def add_event(self, name: str, /, **attributes: object) -> None:
        """Note that something happened now."""
        if self._span is not None:
            named = {key: to_json_value(value) for key, value in attributes.items()}
            self._span.add_event(name, named)

    def __enter__(self) -> Self:
        """Begin."""
        runtime = find_runtime()
        if runtime is not None:
            named = {key: to_json_value(value) for key, value in self._attributes.items()}
            self._span = runtime.begin_span(self._name, named)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End."""
        span, self._span = self._span, None
        if span is not None:
            span.end(error)

    async def __aenter__(self) -> Self:
        """Begin."""
        return self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End."""
        self.__exit__(kind, error, traceback)
