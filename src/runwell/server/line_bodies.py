"""Bodies that are one JSON value a line, read while they come in."""

import asyncio
from collections.abc import AsyncGenerator

from starlette.requests import Request

from runwell.core.errors import RequestError
from runwell.server.http import ClientGoneError

#: So long may nothing come in.
_IDLE_SECONDS = 60.0


async def read_lines(request: Request, *, limit: int) -> AsyncGenerator[tuple[int, bytes]]:
    """The lines of a body that aren't blank, each with its number from 1 on.

    Raises RequestError 413 for a line of more than `limit` bytes and 408 when nothing comes for a
    minute, and ClientGoneError when the stream breaks.
    """
    async for lines in read_line_groups(request, limit=limit):
        for numbered in lines:
            yield numbered


async def read_line_groups(
    request: Request, *, limit: int, idle_seconds: float = _IDLE_SECONDS
) -> AsyncGenerator[list[tuple[int, bytes]]]:
    """The same, as many at a time as have come in together; 408 after `idle_seconds` of nothing."""
    rest, number = bytearray(), 0
    is_last = False
    while not is_last:
        part, is_last = await _receive(request, idle_seconds)
        searched = len(rest)
        rest += part
        lines: list[tuple[int, bytes]] = []
        while (end := rest.find(b"\n", searched)) >= 0:
            number, searched = number + 1, 0
            line = bytes(rest[:end])
            del rest[: end + 1]
            _check(line, number, limit)
            if line.strip():
                lines.append((number, line))
        if lines:
            yield lines
        _check(rest, number + 1, limit)
    if rest.strip():
        yield [(number + 1, bytes(rest))]


def _check(line: bytes | bytearray, number: int, limit: int) -> None:
    if len(line) > limit:
        raise RequestError(
            413, f"line {number} is too long: at most {limit:,} bytes are accepted in one"
        )


async def _receive(request: Request, idle_seconds: float) -> tuple[bytes, bool]:
    try:
        async with asyncio.timeout(idle_seconds):
            message = await request.receive()
    except TimeoutError:
        raise RequestError(
            408, f"nothing more of the body came for {idle_seconds:.0f} seconds"
        ) from None
    if message["type"] == "http.disconnect":
        raise ClientGoneError
    part: bytes = message.get("body", b"")
    return part, not message.get("more_body", False)
