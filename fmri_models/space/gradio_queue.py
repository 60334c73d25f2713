"""What the page reads of Gradio's queue, which has no public names for it: who waits, and whether anybody still does.

Nothing is changed there. In a version of Gradio that keeps it elsewhere, nobody is found to wait, and everybody to
listen.
"""

from collections.abc import Callable, Iterator
from typing import Any

import gradio as gr
from gradio.context import LocalContext


def num_waiting(page: gr.Blocks, session: str | None) -> int:
    """How many calls of a visitor wait, those that are being done left out.

    Args:
        page: The page.
        session: The visitor's session; None for all together who name none.
    """
    # Gradio names a call without a session after itself.
    return sum(event.session_hash == (session or event._id) for event in _waiting(page))


def is_listened_to() -> Callable[[], bool]:
    """Asked within a call of the queue: what says, in any thread, whether somebody still waits for its result."""
    page: Any = LocalContext.blocks.get(None)
    event_id = LocalContext.event_id.get(None)
    events: Any = getattr(getattr(page, "_queue", None), "event_ids_to_events", None)
    if event_id is None or events is None:
        return lambda: True

    def is_awaited() -> bool:
        # A call that was cancelled is gone from there, and its thread goes on.
        event = events.get(event_id)
        return event is not None and event.alive and page.is_running

    return is_awaited


def _waiting(page: gr.Blocks) -> Iterator[Any]:
    queues = getattr(getattr(page, "_queue", None), "event_queue_per_concurrency_id", {})
    for queue in list(queues.values()):
        yield from list(queue.queue)
