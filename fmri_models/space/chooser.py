"""What all tabs speak of: data set, method, subject and picture."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from ..errors import FmriModelsError
from .decoder import Decoder
from .figures import origin_note
from .open_fields import Dropdown
from .picture_grid import MARK_CHOSEN, MOST_THUMBNAILS, grid_html, picture_grid
from .pictures import descriptions
from .sentences import in_sentences
from .shelf import Shelf

Follower = Callable[[Decoder, str], list[Any]]


@dataclass(frozen=True)
class Chooser:
    """The fields at the top of the page.

    Args:
        shelf: What can be chosen.
        data, method, subject, stimulus: The fields.
        grid: The subject's test pictures.
        about: What is known of them.
        followers: What else changes with the choice of a method or subject: functions of decoder and subject, and the
            components that they give updates of.
        results: What is empty again once anything else is chosen.
    """

    shelf: Shelf
    data: gr.Dropdown
    method: gr.Dropdown
    subject: gr.Dropdown
    stimulus: gr.Dropdown
    grid: gr.HTML
    about: gr.Markdown
    followers: list[tuple[Follower, list[Any]]] = field(default_factory=list)
    results: list[Any] = field(default_factory=list)

    @property
    def fields(self) -> list[gr.Dropdown]:
        """The fields, as inputs of whatever depends on all of them."""
        return [self.data, self.method, self.subject, self.stimulus]

    @property
    def first(self) -> Decoder:
        """The decoder that the page begins with."""
        return self.shelf.decoder(self.data.value, self.method.value)

    def follow(self, function: Follower, components: list[Any]) -> None:
        """Gives components what a function says of decoder and subject whenever these change."""
        self.followers.append((function, components))

    def forget(self, components: list[Any]) -> None:
        """Empties components when something else is chosen: what was made of one picture says nothing of another."""
        self.results.extend(components)

    def label(self, component: Any, text: str) -> None:
        """Labels a picture, and says there whether the brain is simulated: a screenshot has no more than that."""
        component.label = f"{text}{origin_note(self.first.table.simulated)}"
        self.follow(
            lambda decoder, subject: [gr.update(label=f"{text}{origin_note(decoder.table.simulated)}")], [component]
        )

    def wire(self) -> None:
        """Connects the fields, once all tabs are there."""
        shelf = self.shelf

        def choose_data(data: str) -> Any:
            methods = shelf.methods(data)
            return gr.update(choices=methods, value=methods[0])

        def choose_method(data: str, method: str, subject: str, stimulus: str) -> list[Any]:
            decoder = shelf.decoder(data, method)
            subject = subject if subject in decoder.subjects else decoder.subjects[0]
            ids = decoder.stimulus_ids(subject)
            stimulus = stimulus if stimulus in ids else ids[0]
            own = [
                gr.update(choices=decoder.subjects, value=subject),
                gr.update(choices=ids, value=stimulus),
                _grid(decoder, subject, stimulus),
                decoder.about,
            ]
            return own + [update for function, _ in self.followers for update in function(decoder, subject)]

        def choose_picture(event: gr.EventData) -> str:
            return str(event.value)

        followers = [component for _, components in self.followers for component in components]
        outputs = [self.subject, self.stimulus, self.grid, self.about, *followers]
        private: dict[str, Any] = {"api_visibility": "private"}
        self.data.input(in_sentences(choose_data), self.data, self.method, **private).then(
            in_sentences(choose_method), self.fields, outputs, **private
        )
        gr.on([self.method.input, self.subject.input], in_sentences(choose_method), self.fields, outputs, **private)
        self.grid.select(in_sentences(choose_picture), None, self.stimulus, show_progress="hidden", **private)
        self.stimulus.change(None, self.stimulus, None, js=MARK_CHOSEN, **private)
        gr.on(
            [each.change for each in self.fields],
            lambda: [gr.update(value=None) for _ in self.results],
            None,
            self.results,
            show_progress="hidden",
            queue=False,
            **private,
        )


def add_chooser(shelf: Shelf) -> Chooser:
    """Adds the fields, and what they say of what was chosen."""
    decoder, grid_of_first = _first_shown(shelf)
    data = shelf.data_sets[0]
    methods = shelf.methods(data)
    subject = decoder.subjects[0]
    ids = decoder.stimulus_ids(subject)
    with gr.Row():
        with gr.Column(scale=1, min_width=240):
            data_field = Dropdown(shelf.data_sets, value=data, label="Data set", elem_id="data")
            method = Dropdown(methods, value=methods[0], label="Method", elem_id="method")
            subjects = Dropdown(decoder.subjects, value=subject, label="Subject", elem_id="subject")
            stimulus = Dropdown(ids, value=ids[0], label="Test picture", elem_id="stimulus")
        with gr.Column(scale=2, min_width=240):
            grid = picture_grid(value=grid_of_first)
    about = gr.Markdown(decoder.about, elem_id="about-trials")
    return Chooser(shelf, data_field, method, subjects, stimulus, grid, about)


def _first_shown(shelf: Shelf) -> tuple[Decoder, str]:
    """The first decoder that can be loaded, and its grid; what can't be, such as half a demo, is left out.

    Raises:
        FmriModelsError: None can.
    """
    while True:
        data = shelf.data_sets[0]
        method = shelf.methods(data)[0]
        try:
            decoder = shelf.decoder(data, method)
            subject = decoder.subjects[0]
            return decoder, _grid(decoder, subject, decoder.stimulus_ids(subject)[0])
        except FmriModelsError as error:
            shelf.leave_out(data, method, error)


def _grid(decoder: Decoder, subject: str, chosen: str) -> str:
    ids = decoder.stimulus_ids(subject)[:MOST_THUMBNAILS]
    return grid_html(ids, decoder.pictures(ids), descriptions(decoder.table, ids), chosen)
