"""What records say: papers as they are cited, and checkpoints whose place and size are true."""

import dataclasses
import re

import pytest

from fmri_models import FmriModelsError, Method, Paper, PretrainedRecord
from fmri_models.registry import METHODS, PRETRAINED, list_pretrained, register_method


@pytest.mark.parametrize(
    ("authors", "expected"),
    [
        (("Ann Author",), "Author (2026)"),
        (("Ann Author", "Bo Writer"), "Author and Writer (2026)"),
        (("van Gerven, Marcel A. J.", "Bo Writer", "C D"), "van Gerven et al. (2026)"),
    ],
)
def test_papers_are_cited_by_their_authors(authors, expected):
    assert str(Paper("A Title", authors, 2026, "https://example.org")) == expected


@pytest.mark.parametrize(
    ("venue", "kind", "place"),
    [
        ("", "misc", None),
        ("Neural Computation", "article", "journal = {Neural Computation}"),
        ("Advances in Neural Information Processing Systems", "inproceedings", "booktitle = {Advances in"),
        ("Signals & Systems Conference", "inproceedings", r"booktitle = {Signals \& Systems Conference}"),
    ],
)
def test_papers_are_entries_of_bibliographies(venue, kind, place):
    text = Paper("On the Mind’s Eye", ("Žofia van Öl", "Bo Writer"), 2026, "https://example.org/a", venue).bibtex()
    assert text.startswith(f"@{kind}{{ol2026mind,\n") and text.endswith("\n}")
    assert "author = {Žofia van Öl and Bo Writer}" in text and "title = {{On the Mind’s Eye}}" in text
    assert ("booktitle" not in text and "journal" not in text) if place is None else place in text
    assert re.search(r"year = \{2026\},\n  (.*\n  )?url = \{https://example.org/a\},\n", text)


@pytest.mark.parametrize("authors", [(), "Ann Author"])
def test_a_paper_has_authors(authors):
    with pytest.raises(
        FmriModelsError, match="The paper 'A Title' has .* as authors; expected their names, one by one"
    ):
        Paper("A Title", authors, 2026, "https://example.org")


def test_what_bibliographies_read_as_commands_is_escaped():
    text = Paper("100 % of A & B", ("Ann Author",), 2026, "https://example.org/a_b?c&d").bibtex()
    assert r"title = {{100 \% of A \& B}}" in text and "url = {https://example.org/a_b?c&d}" in text


def test_a_checkpoint_that_comes_with_the_package_is_counted():
    (embedded,) = [each for each in list_pretrained() if each.name == "embedded"]
    files = [file for file in embedded.path().rglob("*") if file.is_file()]
    assert embedded.size == sum(file.stat().st_size for file in files) > 10**7
    assert PretrainedRecord("again", "", folder="embedded", size=3).size == embedded.size


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"state": "stolen"}, "has the state 'stolen'; expected trained here, converted, reference"),
        ({"state": "reference", "folder": "embedded"}, "reference and lies in 'embedded'; only what was trained here"),
        ({"state": "trained here"}, "trained here and lies in ''; only what was trained here has a folder"),
        ({"folder": "../cli"}, "lies in '../cli'; expected a folder of the package's assets"),
        ({"folder": "embedded", "package": "no_such"}, "lies in the package no_such, which is not installed"),
    ],
)
def test_a_record_that_can_not_be_true_is_refused(fields, expected):
    with pytest.raises(FmriModelsError, match=re.escape(expected)):
        PretrainedRecord("name", "Title", **fields)


def test_a_checkpoint_of_others_has_no_folder():
    (weights,) = [each for each in list_pretrained() if each.name == "versatile-diffusion"]
    with pytest.raises(FmriModelsError, match="versatile-diffusion lies in no package; see shi-labs/versatile-diff"):
        weights.path()


def test_a_programs_method_brings_its_checkpoints(monkeypatch):
    for registry in (METHODS, PRETRAINED):
        monkeypatch.setattr(registry, "registered", {})
    linear = METHODS.get("linear")
    ours = PretrainedRecord("ours", "Ours", state="reference", repository="user/name", size=1, package=__name__)

    def method(*pretrained: PretrainedRecord) -> Method:
        paths = [path.replace("fmri_models", __name__).replace("Linear", "Ours") for path in linear.class_paths]
        return Method("ours", "Ours", *paths, linear.objective, pretrained=pretrained)

    with pytest.raises(FmriModelsError, match="checkpoint 'embedded' is of the package 'fmri_models', says its recor"):
        register_method(method(PRETRAINED.get("embedded")))
    taken = PretrainedRecord("embedded", "Ours", state="reference", repository="user/name", package=__name__)
    with pytest.raises(FmriModelsError, match="A checkpoint named 'embedded' is registered already, by fmri_models"):
        register_method(method(taken))
    for strange, expected in (
        (dataclasses.replace(method(), paper="A Title"), "'ours' has a str as its paper; expected a Paper, or None"),
        (method("ours"), "'ours' has a str among its checkpoints; expected PretrainedRecords"),
    ):
        with pytest.raises(FmriModelsError, match=expected):
            METHODS.register(strange)
    assert not METHODS.registered and not PRETRAINED.registered
    register_method(method(ours))
    assert ours in list_pretrained() and PRETRAINED.package("ours") == __name__.partition(".")[0]
