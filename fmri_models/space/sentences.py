"""What a visitor is told when something fails: one sentence, without a path of the server."""

import functools
import html
import logging
import re
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import gradio as gr

from ..errors import FmriModelsError
from ..names import one_line
from .answers import UNEXPECTED

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")
logger = logging.getLogger(__name__)
# The folders of a path from the root; a slash in a word or an address is none.
_FOLDERS = re.compile(r"(?<![\w/.:~<])/(?:[^\s/]+/)*(?=[^\s/])")


def in_sentences(function: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """A handler of the page's events whose errors are sentences on the page; the page goes on."""

    @functools.wraps(function)
    def handler(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        try:
            return function(*args, **kwargs)
        except FmriModelsError as error:
            told = _without_folders(str(error))
            if told != str(error):
                logger.warning("A request of the page failed: %s", one_line(error, most=2000))
            # The page takes it for HTML.
            raise gr.Error(html.escape(one_line(told, most=2000)), print_exception=False) from error
        except gr.Error:
            raise
        except Exception as error:
            logger.exception("A request of the page failed.")
            # It is in the log already.
            raise gr.Error(UNEXPECTED, print_exception=False) from error

    return handler


def _without_folders(sentence: str) -> str:
    """A sentence that calls files of the server by their names alone."""
    return _FOLDERS.sub("", sentence)
