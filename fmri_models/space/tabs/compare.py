"""Compare: what several methods make of the same responses, and what their reports say."""

import functools
from typing import Any

import gradio as gr

from ...errors import FmriModelsError
from ...evaluation.report import Report
from ...evaluation.report_pages import markdown_table
from ...evaluation.report_tables import chance_cell, metric_cell, scores_table, value_cell
from ...evaluation.table import Table
from ...names import listed, markdown, one_line
from ..chooser import Chooser
from ..figures import figures, figures_html, origin_note
from ..sentences import in_sentences
from ..shelf import Shelf
from .drawing import as_seen, progress_of


def add_tab(chooser: Chooser) -> None:
    """Adds the tab."""
    button = gr.Button("Draw with every method", variant="primary")
    drawn = figures("compared")
    chooser.forget([drawn])
    read = functools.partial(report_texts, chooser.shelf)
    compared, whole = read(chooser.data.value)
    side_by_side = gr.Markdown(compared, elem_classes=["wide-tables"])
    with gr.Accordion("All rows of each report", open=False):
        all_rows = gr.Markdown(whole, elem_classes=["wide-tables"])
    chooser.data.change(in_sentences(read), chooser.data, [side_by_side, all_rows], api_visibility="private")

    def compare(
        data: str,
        subject: str,
        stimulus: str,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 (how Gradio is told of it)
    ) -> str:
        methods = chooser.shelf.methods(data)
        decoders = {method: chooser.shelf.decoder(data, method) for method in methods}
        able = {
            method: each
            for method, each in decoders.items()
            if subject in each.subjects and stimulus in each.stimulus_ids(subject)
        }
        if not able:
            raise FmriModelsError(
                f"No method of {data} has a test trial of stimulus {one_line(stimulus, 130)} of "
                f"{one_line(subject, 80)}; choose another one."
            )
        pictures: list[tuple[Any, str]] = []
        for number, (method, decoder) in enumerate(able.items()):
            found = decoder.reconstruct(subject, stimulus)
            progress_of(progress)((number + 1) / len(able))
            if found.shown is not None and not pictures:
                pictures.append((found.shown, "shown"))
            pictures.append((found.reconstructed, method))
        note = origin_note(next(iter(decoders.values())).table.simulated)
        title = f"The same responses, read by each method{note}"
        if left_out := [method for method in methods if method not in able]:
            title += f"; {listed(left_out, most=20)} left out, which are of other subjects, or for which it is not new"
        return figures_html(pictures, title)

    inputs = [chooser.data, chooser.subject, chooser.stimulus]
    button.click(in_sentences(compare), inputs, drawn, api_name="compare", **as_seen(drawn))


def report_texts(shelf: Shelf, data: str) -> tuple[str, str]:
    """What the reports say that lie beside a table's pipelines: from brain, side by side, and all rows; as Markdown."""
    found = {method: shelf.exhibit(data, method).report() for method in shelf.methods(data)}
    known = {method: report for method, report in found.items() if report is not None}
    return _compared(known, [method for method in found if method not in known]), _whole(known)


def _compared(known: dict[str, Report], missing: list[str]) -> str:
    if not known:
        return "None of these pipelines has a report; `fmri-models evaluate` writes one."
    simulated = origin_note(any(report.data.get("simulated") for report in known.values()))
    texts = [f"### From brain, by the methods' reports{simulated}", "", *markdown_table(_side_by_side(known)), ""]
    if others := [method for method, report in known.items() if not _is_alike(report, known)]:
        texts.append(f"Measured on other trials, and so not beside these: {markdown(', '.join(others))}.\n")
    if missing:
        texts.append(f"Without a report: {markdown(', '.join(missing))}.")
    return "\n".join(texts)


def _whole(known: dict[str, Report]) -> str:
    texts = []
    for method, report in known.items():
        table = scores_table(report, with_interval=False)
        simulated = origin_note(bool(report.data.get("simulated")))
        texts += [f"### {markdown(method)}{simulated}", "", *markdown_table(table), ""]
    return "\n".join(texts)


def _side_by_side(reports: dict[str, Report]) -> Table:
    first = next(iter(reports.values()))
    alike = {method: report for method, report in reports.items() if _is_alike(report, reports)}
    lines = [
        [
            metric_cell(metric),
            chance_cell(first, metric.name),
            *(value_cell(report.results["brain"].get(metric.name)) for report in alike.values()),
        ]
        for metric in first.metrics()
    ]
    return Table("", "", ["metric", "chance", *alike], lines)


def _is_alike(report: Report, reports: dict[str, Report]) -> bool:
    """Whether a report measured the same stimuli as the first: only what did may stand in one line."""
    return report.data.get("fingerprint") == next(iter(reports.values())).data.get("fingerprint")
