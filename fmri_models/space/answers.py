"""What a request is answered that does not get as far as a function of the page: a sentence."""

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

UNKNOWN_FUNCTION = "This page has no such function; /gradio_api/info says which there are, and what they take."
UNEXPECTED = "This could not be done; what went wrong stands in the server's log."


async def answer_text(send: Send, status: int, text: str) -> None:
    """Answers by a text, and closes the connection: there may be more to come that nobody will read."""
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]
    await _answer(send, status, headers, text.encode())


async def answer_json(send: Send, status: int, text: str) -> None:
    """Answers as Gradio answers calls, so that its page shows the text."""
    await _answer(send, status, [(b"content-type", b"application/json")], json.dumps({"detail": text}).encode())


async def _answer(send: Send, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
