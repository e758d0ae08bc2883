"""Language models for tests: HTTP servers that speak as OpenAI's and Anthropic's do.

The model calls the tools that it is told of once, all in one message, and then repeats what they
answered.
"""

import contextlib
import json
import threading
from collections.abc import Generator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast

Call = tuple[str, str, dict[str, Any]]


@dataclass
class FakeModel:
    """Where it is, what it calls, and what it was sent."""

    calls: list[Call]
    url: str = ""
    requests: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])

    def answer(self, path: str, request: dict[str, Any]) -> dict[str, Any]:
        """The body of an answer."""
        self.requests.append(request)
        if path == "/v1/chat/completions":
            return self._chat(request["messages"])
        if path == "/v1/messages":
            return self._messages(request["messages"])
        raise AssertionError(f"nobody asks a model at {path}")

    def _chat(self, messages: list[dict[str, Any]]) -> dict[str, Any]:
        told = [one["content"] for one in messages if one["role"] == "tool"]
        message: dict[str, Any] = {"role": "assistant", "content": " and ".join(told) or None}
        if not told:
            message["tool_calls"] = [
                {
                    "id": call_id,
                    "type": "function",
                    "function": {"name": name, "arguments": json.dumps(arguments)},
                }
                for call_id, name, arguments in self.calls
            ]
        reason = "stop" if told else "tool_calls"
        choice = {"index": 0, "message": message, "finish_reason": reason}
        return {
            "id": "1",
            "object": "chat.completion",
            "created": 1,
            "model": "m",
            "choices": [choice],
        }

    def _messages(self, messages: list[dict[str, Any]]) -> dict[str, Any]:
        last = messages[-1]["content"]
        blocks = cast("list[dict[str, Any]]", last) if isinstance(last, list) else []
        told = [f"{'!' * bool(b.get('is_error'))}{b['content']}" for b in blocks]
        content = (
            [{"type": "text", "text": " and ".join(told)}]
            if told
            else [
                {"type": "tool_use", "id": call_id, "name": name, "input": arguments}
                for call_id, name, arguments in self.calls
            ]
        )
        return {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": "m",
            "content": content,
            "stop_reason": "end_turn" if told else "tool_use",
            "stop_sequence": None,
            "usage": {"input_tokens": 1, "output_tokens": 1},
        }


@contextlib.contextmanager
def fake_model(calls: list[Call]) -> Generator[FakeModel]:
    """A model that listens on this machine."""
    model = FakeModel(calls)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            answer = json.dumps(model.answer(self.path.partition("?")[0], json.loads(body)))
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(answer.encode())))
            self.end_headers()
            self.wfile.write(answer.encode())

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as it is named
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    model.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield model
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
