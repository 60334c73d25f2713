"""Fields whose values the page checks itself, so that whatever comes is used or answered by a sentence.

Gradio's own checks know the choices that the page began with, or that a browser was sent: a program that names another
data set, and a browser whose session was forgotten, would be refused. They fail without a word on an emptied slider.
"""

from abc import ABCMeta
from typing import Any

import gradio as gr
from gradio.component_meta import ComponentMeta


class _WithoutStub(ComponentMeta):
    """Gradio writes a stub file beside the module of each component that is defined."""

    def __new__(cls, name: str, bases: tuple[type, ...], attrs: dict[str, Any]) -> type:
        return ABCMeta.__new__(cls, name, bases, attrs)


class Dropdown(gr.Dropdown, metaclass=_WithoutStub):
    """A list whose choices the handlers look up themselves."""

    # The browser shows it as what it inherits from.
    is_template = True

    def preprocess(self, payload: Any) -> Any:
        """What was chosen, whatever it is."""
        return payload


class Slider(gr.Slider, metaclass=_WithoutStub):
    """A slider whose number the handlers check; None where it was emptied."""

    is_template = True

    def preprocess(self, payload: Any) -> Any:
        """What was given, whatever it is."""
        return payload


class Number(gr.Number, metaclass=_WithoutStub):
    """A number that the handlers check; None where it was emptied."""

    is_template = True

    def preprocess(self, payload: Any) -> Any:
        """What was given, whatever it is."""
        return payload
