"""What of a request is bounded before anything reads it: its length, what all have uploaded of late, and its route.

Gradio bounds each file and not their number, reads any JSON into memory, and has routes that keep files or start
programs.
"""

import time
from collections import deque

from .answers import App, Message, Receive, Send, answer_text
from .limits import KEPT_SECONDS, MOST_KEPT_BYTES, MOST_REQUEST_BYTES

# They serve components that this page has none of: one keeps files for good, one starts ffmpeg.
_UNUSED = ("/process_recording", "/deep_link")
_UPLOAD = "/upload"


class _TooLongError(Exception):
    """More came than may come."""


class BoundedRequests:
    """An ASGI middleware that refuses what is too long, too many uploads, and routes that the page does not use.

    Args:
        app: What it stands before.
        most_bytes: Of one request.
        most_kept_bytes: Of all uploads that may still lie on the disk.
        kept_seconds: How long one may lie there.
    """

    def __init__(
        self,
        app: App,
        most_bytes: int = MOST_REQUEST_BYTES,
        most_kept_bytes: int = MOST_KEPT_BYTES,
        kept_seconds: float = KEPT_SECONDS,
    ) -> None:
        self._app, self._most, self._most_kept, self._seconds = app, most_bytes, most_kept_bytes, kept_seconds
        # [when it began, bytes]
        self._uploads: deque[list[float]] = deque()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Passes a request on, or answers it by a sentence."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif refused := self._refused(scope):
            await answer_text(send, *refused)
        else:
            await self._counted(scope, receive, send)

    def _refused(self, scope: Message) -> tuple[int, str] | None:
        """Status and sentence, where it is known before anything is read."""
        path = scope["path"].rstrip("/")
        if path.endswith(_UNUSED):
            return 404, "This page has no such route."
        if path.endswith(_UPLOAD) and self._kept() > self._most_kept:
            return 503, "Too much was uploaded here of late; try again in some minutes."
        return self._too_long if _claimed(scope) > self._most else None

    @property
    def _too_long(self) -> tuple[int, str]:
        return 413, f"The request is longer than the {self._most} bytes that this page takes; send less."

    async def _counted(self, scope: Message, receive: Receive, send: Send) -> None:
        came, has_begun = 0, False
        upload = [time.monotonic(), float(_claimed(scope))]
        if scope["path"].rstrip("/").endswith(_UPLOAD):
            self._uploads.append(upload)

        async def counted() -> Message:
            nonlocal came
            message = await receive()
            came += len(message.get("body", b""))
            if came > self._most:
                raise _TooLongError
            return message

        async def told(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self._app(scope, counted, told)
        except _TooLongError:
            if not has_begun:
                await answer_text(send, *self._too_long)
        finally:
            upload[1] = float(came)

    def _kept(self) -> float:
        """Bytes of the uploads that may not be deleted yet."""
        while self._uploads and self._uploads[0][0] <= time.monotonic() - self._seconds:
            self._uploads.popleft()
        return sum(size for _, size in self._uploads)


def _claimed(scope: Message) -> int:
    """What a request says that its length is; 0 where it says nothing of use."""
    text = next((value for name, value in scope["headers"] if name.lower() == b"content-length"), b"0")
    # No length that has more digits is one that may come.
    return int(text[:20]) if text.isdigit() else 0
