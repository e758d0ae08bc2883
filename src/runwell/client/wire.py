"""HTTP/1.1 as bytes: a request into what is sent, what arrives into a response. No I/O.

Only what a client of one JSON API needs: no compression, no redirects, no upgrades. Why we have it:
`adr/0002-a-small-http-client.md`.
"""

from enum import Enum, auto
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from runwell.client.transport import Request, Response

#: No honest answer is larger: an output of 10 MB, once more as JSON text, and the rest of its run.
MAX_BODY_BYTES: Final = 64 * 1024 * 1024
_MAX_HEAD_BYTES: Final = 64 * 1024
_MAX_CHUNK_LINE_BYTES: Final = 1024


class Origin(NamedTuple):
    """The server that a URL names; what a connection belongs to."""

    host: str
    port: int
    is_tls: bool


def origin_of(url: str) -> Origin:
    """The server of a URL with a scheme and a host."""
    parts = urlsplit(url)
    is_tls = parts.scheme == "https"
    return Origin(parts.hostname or "", parts.port or (443 if is_tls else 80), is_tls)


class MalformedAnswerError(Exception):
    """What arrived is not an HTTP answer, or ends too early."""


def encode_request(request: Request) -> bytes:
    """The bytes of a request."""
    parts = urlsplit(request.url)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    body = request.body or b""
    host = parts.netloc.rpartition("@")[2]
    lines = [f"{request.method} {target} HTTP/1.1", f"host: {host}"]
    lines += [f"{name}: {value}" for name, value in request.headers.items()]
    if body or request.method != "GET":
        lines.append(f"content-length: {len(body)}")
    head = "\r\n".join(lines)
    if any(c in head for c in ("\r\n ", "\r\n\r\n")) or head.count("\n") != len(lines) - 1:
        raise ValueError("a header or the URL of a request holds a line break")
    return f"{head}\r\n\r\n".encode("latin-1") + body


class _Part(Enum):
    HEAD = auto()
    SIZED = auto()
    CHUNK_SIZE = auto()
    CHUNK = auto()
    TRAILER = auto()
    UNTIL_CLOSE = auto()
    DONE = auto()


class ResponseReader:
    """Bytes in, one response out."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._body = bytearray()
        self._part = _Part.HEAD
        self._left = 0
        self._status = 0
        self._headers: dict[str, str] = {}
        #: Whether anything has arrived.
        self.has_begun = False
        #: Whether the connection can take another request afterwards.
        self.keeps_alive = False

    def feed(self, data: bytes) -> Response | None:
        """Take what arrived; the response when it is complete. Raises MalformedAnswerError."""
        self.has_begun = self.has_begun or bool(data)
        self._buffer += data
        while self._part is not _Part.DONE and self._step():
            pass
        if len(self._body) + len(self._buffer) > MAX_BODY_BYTES:
            raise MalformedAnswerError(f"it is larger than {MAX_BODY_BYTES:,} bytes")
        return self._response() if self._part is _Part.DONE else None

    def feed_eof(self) -> Response:
        """The other side has closed; the response if that was its end."""
        if self._part is not _Part.UNTIL_CLOSE:
            raise MalformedAnswerError("the connection was closed before the answer was complete")
        return self._response()

    def _response(self) -> Response:
        if self._buffer:
            # Nobody has asked for more: what this connection says next belongs to nothing.
            self.keeps_alive = False
        return Response(self._status, self._headers, bytes(self._body))

    def _step(self) -> bool:
        """Read on by one part; False when more bytes are needed for that."""
        match self._part:
            case _Part.HEAD:
                return self._read_head()
            case _Part.SIZED:
                return self._take(_Part.DONE)
            case _Part.CHUNK_SIZE:
                return self._read_chunk_size()
            case _Part.CHUNK:
                return self._take(_Part.CHUNK_SIZE)
            case _Part.TRAILER:
                return self._read_trailer()
            case _Part.UNTIL_CLOSE:
                self._body += self._buffer
                self._buffer.clear()
                return False
            case _Part.DONE:
                return False

    def _read_head(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(self._buffer) > _MAX_HEAD_BYTES:
                raise MalformedAnswerError("its headers don't end")
            if not b"HTTP/".startswith(self._buffer[:5]):
                raise MalformedAnswerError("it is not HTTP")
            return False
        status_line, *lines = self._buffer[:end].decode("latin-1").split("\r\n")
        del self._buffer[: end + 4]
        version, _, rest = status_line.partition(" ")
        status = rest[:3]
        if not version.startswith("HTTP/1.") or not (status.isascii() and status.isdecimal()):
            raise MalformedAnswerError("it is not HTTP/1.1")
        self._status = int(status)
        if 100 <= self._status < 200:
            return True
        self._headers = _headers(lines)
        asked = self._headers.get("connection", "").lower()
        self.keeps_alive = asked != "close" if version == "HTTP/1.1" else asked == "keep-alive"
        self._part = self._body_part()
        return True

    def _body_part(self) -> _Part:
        if self._status in (204, 304):
            return _Part.DONE
        if "chunked" in self._headers.get("transfer-encoding", "").lower():
            return _Part.CHUNK_SIZE
        length = self._headers.get("content-length")
        if length is None:
            self.keeps_alive = False
            return _Part.UNTIL_CLOSE
        if not (length.isascii() and length.isdecimal()) or len(length) > 15:
            raise MalformedAnswerError(f"its content-length is {length!r}")
        self._left = int(length)
        if self._left > MAX_BODY_BYTES:
            raise MalformedAnswerError(f"it is larger than {MAX_BODY_BYTES:,} bytes")
        return _Part.SIZED if self._left else _Part.DONE

    def _take(self, then: _Part) -> bool:
        taken = self._buffer[: self._left]
        del self._buffer[: self._left]
        self._left -= len(taken)
        if then is _Part.CHUNK_SIZE:
            # A chunk is followed by a line break, which is no part of the body.
            self._body += taken
            if self._left == 0:
                del self._body[-2:]
        else:
            self._body += taken
        if self._left == 0:
            self._part = then
        return self._left == 0

    def _read_chunk_size(self) -> bool:
        end = self._buffer.find(b"\r\n")
        if end < 0:
            if len(self._buffer) > _MAX_CHUNK_LINE_BYTES:
                raise MalformedAnswerError("the size of a chunk doesn't end")
            return False
        digits = self._buffer[:end].partition(b";")[0].strip()
        del self._buffer[: end + 2]
        try:
            size = int(digits, 16)
        except ValueError:
            raise MalformedAnswerError("the size of a chunk is no number") from None
        if not 0 <= size <= MAX_BODY_BYTES:
            raise MalformedAnswerError(f"a chunk of {size} bytes")
        self._part, self._left = (_Part.CHUNK, size + 2) if size else (_Part.TRAILER, 0)
        return True

    def _read_trailer(self) -> bool:
        end = self._buffer.find(b"\r\n")
        if end < 0:
            return False
        del self._buffer[: end + 2]
        if end == 0:
            self._part = _Part.DONE
        return True


def _headers(lines: list[str]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon:
            raise MalformedAnswerError("one of its headers has no colon")
        name, value = name.lower(), value.strip()
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers
