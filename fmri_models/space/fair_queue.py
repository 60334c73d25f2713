"""A place in the queue for everybody: no visitor has more than a few calls waiting, so that none fills it."""

import json
from collections import Counter
from collections.abc import Callable

from .answers import App, Message, Receive, Send, answer_json
from .limits import MOST_WAITING_EACH

Waiting = Callable[[str | None], int]
_CALLS = ("/queue/join", "/call/")


class FairQueue:
    """An ASGI middleware that refuses a call of whoever has enough of them waiting.

    A visitor is a session of Gradio, as each browser's tab has one; programs that name none are one visitor together.

    Args:
        app: What it stands before.
        waiting: Session, or None for all that name none ▶ how many of its calls wait.
        most: How many may.
    """

    def __init__(self, app: App, waiting: Waiting, most: int = MOST_WAITING_EACH) -> None:
        self._app, self._waiting, self._most = app, waiting, most
        # Calls that are not in the queue yet, of those who send many at once.
        self._coming: Counter[str | None] = Counter()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Passes a request on, or answers it by a sentence."""
        is_call = (
            scope["type"] == "http" and scope["method"] == "POST" and any(part in scope["path"] for part in _CALLS)
        )
        if not is_call:
            await self._app(scope, receive, send)
            return
        messages = [await receive()]
        while messages[-1]["type"] == "http.request" and messages[-1].get("more_body"):
            messages.append(await receive())
        session = _session(b"".join(message.get("body", b"") for message in messages))
        if self._waiting(session) + self._coming[session] >= self._most:
            sentence = f"You have {self._most} calls waiting here already; wait until one of them is done."
            await answer_json(send, 429, sentence)
            return

        async def again() -> Message:
            return messages.pop(0) if messages else await receive()

        self._coming[session] += 1
        try:
            await self._app(scope, again, send)
        finally:
            self._coming[session] -= 1
            if not self._coming[session]:
                del self._coming[session]


def _session(body: bytes) -> str | None:
    """The session that a call names; None where it names none, or is none that Gradio takes."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return None
    session = found.get("session_hash") if isinstance(found, dict) else None
    return session if isinstance(session, str) and session else None
