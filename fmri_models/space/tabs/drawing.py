"""How events that draw are called: one at a time, whoever asks."""

from typing import Any

import gradio as gr

from ...errors import FmriModelsError
from ..gradio_queue import is_listened_to
from ..limits import Tell

# One queue for all of them: the processor's cores are the same ones.
DRAWING: dict[str, Any] = {"concurrency_id": "drawing", "concurrency_limit": 1}


def as_seen(*pictures: Any) -> dict[str, Any]:
    """Arguments of an event that draws, whose progress is shown where these pictures will be."""
    return {**DRAWING, "show_progress_on": list(pictures)}


def progress_of(progress: gr.Progress) -> Tell:
    """What is told of the share that is done, and ends a drawing that nobody waits for any more."""
    is_awaited = is_listened_to()

    def tell(share: float) -> None:
        if not is_awaited():
            raise FmriModelsError("Nobody waits for this picture any more, so that it was not drawn to its end.")
        progress(share, desc="Drawing")

    return tell
