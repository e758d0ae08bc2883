"""One HTTP connection with as little of its own cost as Python allows: hand-made requests."""

import asyncio
import json
from typing import Any, Self, cast


class HttpConnection(asyncio.Protocol):
    """A kept connection; one request at a time. `post` raises RuntimeError for what is no 2xx."""

    def __init__(self, host_port: str, secret_key: str) -> None:
        self._head = (
            f"Host: {host_port}\r\nAuthorization: Bearer {secret_key}\r\n"
            "Content-Type: application/json\r\nContent-Length: "
        )
        self._buffer = b""
        self._needed = -1
        self._answer: asyncio.Future[bytes] | None = None
        self._transport: asyncio.Transport | None = None

    @classmethod
    async def open(cls, port: int, secret_key: str) -> Self:
        """Connect to a server on this machine."""
        loop = asyncio.get_running_loop()
        _, protocol = await loop.create_connection(
            lambda: cls(f"127.0.0.1:{port}", secret_key), "127.0.0.1", port
        )
        return protocol

    def prepare(self, path: str, body: bytes, *, method: str = "POST") -> bytes:
        """The bytes of a request."""
        return f"{method} {path} HTTP/1.1\r\n{self._head}{len(body)}\r\n\r\n".encode() + body

    async def send(self, request: bytes) -> bytes:
        """Send a prepared request and return the body of its answer."""
        assert self._transport is not None
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer

    async def post(self, path: str, body: object) -> Any:  # noqa: ANN401 (JSON as it comes)
        """Post JSON and return the answer's."""
        return json.loads(await self.send(self.prepare(path, json.dumps(body).encode())))

    async def get(self, path: str) -> Any:  # noqa: ANN401 (JSON as it comes)
        """The JSON at a path."""
        return json.loads(await self.send(self.prepare(path, b"", method="GET")))

    def close(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        # Not isinstance: uvloop's transports are none of asyncio's classes.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Collect an answer, and give it to who waits once it is complete."""
        self._buffer += data
        if self._needed < 0:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            head = self._buffer[:end].lower()
            length = head.partition(b"content-length:")[2].partition(b"\r\n")[0]
            self._needed = end + 4 + int(length)
        if len(self._buffer) < self._needed or self._answer is None or self._answer.done():
            return
        head, _, body = self._buffer.partition(b"\r\n\r\n")
        self._buffer, self._needed = b"", -1
        if head.startswith(b"HTTP/1.1 2"):
            self._answer.set_result(body)
        else:
            shown = head.splitlines()[0] + b" " + body
            self._answer.set_exception(RuntimeError(shown[:600].decode(errors="replace")))

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell who waits."""
        if self._answer is not None and not self._answer.done():
            error = RuntimeError(f"the server closed the connection ({exc})")
            self._answer.set_exception(error)
