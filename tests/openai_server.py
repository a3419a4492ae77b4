"""A server on the loopback that speaks OpenAI's chat protocol, and says what a test wants it to say."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from langchain_openai import ChatOpenAI

Brain = Callable[[dict[str, Any]], dict[str, Any]]
"""From the body of a request to the message that answers it: :func:`says` or :func:`calls`."""

PIECE = 5  # characters of words and of arguments that are streamed at once


def says(text: str) -> dict[str, Any]:
    """An answer in words."""
    return {"role": "assistant", "content": text}


def calls(name: str, **arguments: Any) -> dict[str, Any]:
    """A call of one tool."""
    function = {"name": name, "arguments": json.dumps(arguments)}
    tool_calls = [{"index": 0, "id": "call_1", "type": "function", "function": function}]
    return {"role": "assistant", "content": None, "tool_calls": tool_calls}


@dataclass
class OpenAIServer:
    """A running server.

    Attributes:
        url: where its API begins, with ``/v1``.
        requests: bodies of the requests so far.
    """

    url: str
    requests: list[dict[str, Any]] = field(default_factory=list)

    def chat_model(self, **options: Any) -> ChatOpenAI:
        """A chat model of langchain-openai that talks to this server."""
        from langchain_openai import ChatOpenAI

        settings = {"model": "local", "api_key": "none", "max_retries": 0, "timeout": 60, **options}
        return ChatOpenAI(base_url=self.url, **settings)


@contextmanager
def openai_server(brain: Brain) -> Iterator[OpenAIServer]:
    """Serve a brain; the test needs ``@pytest.mark.allow_hosts(["127.0.0.1"])``."""

    class Handler(_Handler):
        answer = staticmethod(brain)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    running = Handler.running = OpenAIServer(f"http://127.0.0.1:{server.server_port}/v1")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield running
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    """``POST /v1/chat/completions``, whole or streamed."""

    answer: Brain
    running: OpenAIServer

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.running.requests.append(request)
        message = self.answer(request)
        reason = "tool_calls" if "tool_calls" in message else "stop"
        common = {"id": "1", "created": 0, "model": request["model"]}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        self.send_response(200)
        if not request.get("stream"):
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            choice = {"index": 0, "message": message, "finish_reason": reason}
            body = {**common, "object": "chat.completion", "choices": [choice], "usage": usage}
            self.wfile.write(json.dumps(body).encode())
            return
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        for piece in [*_pieces(message), {}]:
            choice = {"index": 0, "delta": piece, "finish_reason": None if piece else reason}
            self._event({**common, "object": "chat.completion.chunk", "choices": [choice]})
        if (request.get("stream_options") or {}).get("include_usage"):
            self._event({**common, "object": "chat.completion.chunk", "choices": [], "usage": usage})
        self.wfile.write(b"data: [DONE]\n\n")

    def _event(self, body: dict[str, Any]) -> None:
        self.wfile.write(f"data: {json.dumps(body)}\n\n".encode())

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


def _pieces(message: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A message as the deltas of a stream: words in pieces, a call by its name and then its arguments in pieces."""
    yield {"role": "assistant", "content": ""}
    for text in _cut(message["content"] or ""):
        yield {"content": text}
    for call in message.get("tool_calls", ()):
        arguments = call["function"]["arguments"]
        yield {"tool_calls": [{**call, "function": {**call["function"], "arguments": ""}}]}
        for text in _cut(arguments):
            yield {"tool_calls": [{"index": call["index"], "function": {"arguments": text}}]}


def _cut(text: str) -> Iterator[str]:
    return (text[start : start + PIECE] for start in range(0, len(text), PIECE))
