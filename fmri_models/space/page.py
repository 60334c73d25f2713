"""The page: what is chosen above, and tabs of what is done with it."""

import logging
import os
import socket
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.exceptions import InvalidPathError
from gradio.route_utils import FnIndexInferError
from gradio.utils import get_upload_folder
from gradio_client.utils import is_file_obj_with_meta, is_http_url_like, traverse
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse

from ..errors import FmriModelsError
from ..names import one_line
from ..process_end import Terminated
from .answers import UNEXPECTED, UNKNOWN_FUNCTION
from .bounded_requests import BoundedRequests
from .chooser import add_chooser
from .decoder import Decoder
from .fair_queue import FairQueue
from .figures import CSS as FIGURES_CSS
from .gradio_queue import num_waiting
from .limits import DELETED_EVERY, MOST_SESSIONS, MOST_UPLOAD_BYTES, MOST_WAITING
from .picture_grid import CSS as GRID_CSS
from .shelf import Exhibit, Shelf, choose_shelf
from .tabs import about, brain, compare, reconstruct, retrieve

logger = logging.getLogger(__name__)
_SECONDS_TO_END = 10.0
# Uploads and drawn pictures, in seconds: how often what is old is deleted, and what is old.
_DELETE = (DELETED_EVERY, DELETED_EVERY)
CSS = """
.gradio-container {max-width: 1100px !important; width: 100% !important; margin: 0 auto !important;}
.gradio-container main {padding: 16px !important;}
.gradio-container .prose table {display: block; overflow-x: auto; border: 0 !important;}
.wide-tables th, .wide-tables td {white-space: nowrap !important; font-variant-numeric: tabular-nums;}
/* Labels above the pictures, and not upon them. */
.picture label[data-testid="block-label"] {position: static !important; border: 0 !important; float: left;}
.picture .image-container, .picture .empty {clear: both;}
.picture .icon-button-wrapper {top: 2px !important; right: 2px !important; border: 0 !important;}
#voxel-map .image-container {padding-top: 36px;}
"""


class Page(gr.Blocks):
    """Gradio's page, whose refusals of what a function was sent are sentences."""

    async def preprocess_data(self, block_fn: Any, inputs: list[Any], *args: Any, **options: Any) -> Any:
        """See Gradio, which would fetch a file of any length from an address in place of a path."""
        try:
            traverse(inputs, _check_is_no_address, is_file_obj_with_meta)
            return await super().preprocess_data(block_fn, inputs, *args, **options)
        except gr.Error:
            raise
        except InvalidPathError as error:
            sentence = "The file is none that was uploaded to this page; upload it here first."
            raise gr.Error(sentence, print_exception=False) from error
        except Exception as error:
            logger.warning("A request of the page does not fit its function: %s", one_line(error, most=2000))
            sentence = "What was sent does not fit this function of the page; /gradio_api/info says what it takes."
            raise gr.Error(sentence, print_exception=False) from error


def build(shelf: Shelf | Decoder) -> Page:
    """The page of several exhibits, or of one decoder."""
    if isinstance(shelf, Decoder):
        decoder = shelf
        method = decoder.pipeline.brain_model.config.model_type.removeprefix("fmri-")
        shelf = Shelf([Exhibit(decoder.table.name, method, lambda: decoder)])
    with Page(title="Images from fMRI", analytics_enabled=False, delete_cache=_DELETE) as page:
        gr.Markdown(
            "# Images from fMRI\nChoose a picture that a subject saw. The decoder does not see it: it gets the voxels' "
            "responses, and draws."
        )
        chooser = add_chooser(shelf)
        with gr.Tabs():
            with gr.Tab("Reconstruct"):
                reconstruct.add_tab(chooser, page)
            with gr.Tab("Retrieve"):
                retrieve.add_tab(chooser)
            with gr.Tab("Look into the brain"):
                brain.add_tab(chooser)
            with gr.Tab("Compare"):
                compare.add_tab(chooser)
            with gr.Tab("About"):
                about.add_tab()
        note = gr.Markdown(notice(chooser.first.table.simulated), elem_id="notice")
        chooser.follow(lambda decoder, _: [notice(decoder.table.simulated)], [note])
        chooser.wire()
    # Closed to calls past the queue: they would wait without bound, and hold the threads that everything is done in.
    page.queue(max_size=MOST_WAITING, api_open=False)
    return page


def notice(simulated: bool) -> str:
    """What nobody should conclude from the pictures, as Markdown."""
    subjects = (
        "The brain activity is simulated: nothing here says how well a person's brain can be read."
        if simulated
        else "It reads only those whom it was trained on, who took part of their own will, and reads no thoughts."
    )
    return (
        f"<small>{subjects} The generator makes a plausible picture of any input, so a sharp picture is no evidence of "
        "a right one; do not use this to identify or to judge anybody. More: `docs/responsible_use.md` of "
        "fmri_models.</small>"
    )


def launch(
    model: str | None = None, data: str | None = None, port: int | None = None, unseen_session: str | None = None
) -> None:
    """Loads what is shown and serves the page until it is interrupted.

    Args:
        model: Folders or repositories of pipelines, separated by commas; the environment's FMRI_MODEL without, or see
            [`choose_shelf`].
        data: Folder or repository of the trial table; the environment's FMRI_DATA without.
        port: Port to listen on; the first free one from 7860 without.
        unseen_session: What is done with sessions of which the processor has no statistics; without, what it says.

    Raises:
        FmriModelsError: Nothing of what was named can be loaded, nobody may listen on the port, or pictures can't be
            written.
        Terminated: A signal other than that of Ctrl+C has ended it.
    """
    if port is not None:
        # Loading takes longer.
        _check_port(port)
    _check_temporary_folder()
    shelf = choose_shelf(model or os.environ.get("FMRI_MODEL"), data or os.environ.get("FMRI_DATA"), unseen_session)
    page = build(shelf)
    try:
        page.launch(server_port=port, prevent_thread_lock=True, quiet=True, **serving(page))
    except OSError as error:
        raise _no_port("any port from 7860 on" if port is None else f"the port {port}") from error
    print(f"the page: {page.local_url} (Ctrl+C ends it)", flush=True)
    try:
        while page.is_running:
            time.sleep(0.1)
    except Terminated:
        raise
    except KeyboardInterrupt:
        # The way in which it is meant to end.
        pass
    finally:
        page.close(verbose=False)
        # A thread that still draws while Python ends would end it with a crash.
        shelf.wait(_SECONDS_TO_END)


def _check_port(port: int) -> None:
    with socket.socket() as here:
        here.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            here.bind(("127.0.0.1", port))
        except OSError as error:
            raise _no_port(f"the port {port}") from error


def _check_temporary_folder() -> None:
    """Refuses to start where each picture would fail, as when the folder is another user's."""
    folder = Path(get_upload_folder())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise FmriModelsError(
            f"Pictures and uploads can't be written into {one_line(folder)} ({error.strerror}); set the environment "
            "variable GRADIO_TEMP_DIR to a folder of your own."
        ) from error


def _no_port(named: str) -> FmriModelsError:
    return FmriModelsError(
        f"The page can't listen on {named}: another program does, or this user may not; name a free one with --port."
    )


def serving(page: gr.Blocks) -> dict[str, Any]:
    """Arguments of `launch`: how the page looks, and what it takes."""
    # Fonts of the system: it asks no other server for anything.
    theme = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    css = "\n".join([CSS, FIGURES_CSS, GRID_CSS, brain.CSS])
    return {
        "theme": theme,
        "css": css,
        "share": False,
        "show_error": False,
        "max_file_size": MOST_UPLOAD_BYTES,
        # Gradio would tell any visitor who asks how often each thing was done.
        "enable_monitoring": False,
        "state_session_capacity": MOST_SESSIONS,
        "app_kwargs": {
            "middleware": [Middleware(BoundedRequests), Middleware(FairQueue, waiting=partial(num_waiting, page))],
            # A name or number of a function that there is not is met as one of the first two.
            "exception_handlers": {
                FnIndexInferError: _unknown_function,
                KeyError: _unknown_function,
                Exception: _unexpected,
            },
        },
        "footer_links": ["api"],
    }


def _check_is_no_address(file: dict[str, Any]) -> dict[str, Any]:
    if is_http_url_like(str(file["path"])):
        raise InvalidPathError("It is an address.")
    return file


async def _unknown_function(request: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"detail": UNKNOWN_FUNCTION}, 404)


async def _unexpected(request: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"detail": UNEXPECTED}, 500)
