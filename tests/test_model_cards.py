"""The cards of what comes with the package: their numbers are those that were measured, read from the cards."""

import json
import re

import pytest
import yaml
from huggingface_hub import ModelCard, parse_eval_result_entries

from fmri_models.evaluation.scene_factors import FACTOR_VALUES
from fmri_models.hub.card_check import card_differences, tables
from fmri_models.hub.card_header import PIPELINE_TAG
from fmri_models.swapping import EVAL_RESULTS_FILE
from scripts.write_model_cards import ASSETS, CARDS, ROOT, card_of_example, card_of_generator, card_of_judge, examples

FIGURES = json.loads((ASSETS / "figures.json").read_text())
TRAINING = json.loads((ASSETS / "training.json").read_text())
DRAWN = ("two_way", "kind", "colour", "place")


def found(name):
    """First cells of each table ▶ line's name ▶ cells."""
    read = tables((CARDS / name).read_text())
    return {header[0]: {line[0]: line[1:] for line in lines} for header, *lines in read}


def training_lines(*stages):
    return {
        stage: [
            f"{TRAINING[stage]['settings']['steps']:g}",
            f"{TRAINING[stage]['settings']['batch_size']:g}",
            f"{TRAINING[stage]['settings']['learning_rate']:g}",
            f"{TRAINING[stage]['seconds'] / 60:.0f}",
        ]
        for stage in stages
    }


def test_numbers_of_the_generators_card_are_those_that_were_measured():
    drawn = {row.replace("_", " "): values for row, values in FIGURES.items() if "two_way" in values}
    assert found("embedded.md") == {
        "autoencoder": {
            "mean": [f"{FIGURES['autoencoder']['psnr']:.2f}"],
            "5th percentile": [f"{FIGURES['autoencoder']['psnr_5th_percentile']:.2f}"],
        },
        "among 100": {
            "caption of a picture": [f"{FIGURES['clip']['image_to_text_top1']:.3f}"],
            "picture of a caption": [f"{FIGURES['clip']['text_to_image_top1']:.3f}"],
        },
        "drawn from": {row: [f"{values[name]:.3f}" for name in DRAWN] for row, values in drawn.items()},
        "stage": training_lines("autoencoder", "clip", "unet"),
    }


def test_numbers_of_the_judges_card_are_those_that_were_measured():
    assert found("scene_factors.md") == {
        "factor": {
            name: [str(len(values)), *(f"{FIGURES[f'classifier_{of}'][name]:.3f}" for of in ("true", "autoencoded"))]
            for name, values in FACTOR_VALUES.items()
        },
        "stage": training_lines("classifier"),
    }


def test_cards_are_those_that_the_script_writes():
    assert (CARDS / "embedded.md").read_text() == card_of_generator()
    assert (CARDS / "scene_factors.md").read_text() == card_of_judge()


@pytest.mark.parametrize("folder", examples(), ids=lambda folder: folder.name)
def test_an_examples_card_and_its_report_have_the_same_numbers(folder):
    assert (folder / "report.json").is_file()
    assert card_differences(folder) == []
    assert (CARDS / f"{folder.name}.md").read_text() == card_of_example(folder)
    data = ModelCard.load(folder / "README.md").data
    assert data.pipeline_tag == PIPELINE_TAG
    entries = parse_eval_result_entries(yaml.safe_load((folder / EVAL_RESULTS_FILE).read_text()))
    assert {entry.task_id: entry.value for entry in entries} == {
        result.metric_type: result.metric_value for result in data.eval_results
    }


def test_each_shipped_checkpoint_has_a_card():
    shipped = {"embedded", "scene_factors", *(folder.name for folder in examples())}
    cards = {path.stem for path in CARDS.glob("*.md")} - {"brain_model", "template"}
    assert shipped == {name for name in cards if not name.endswith("_template")}


@pytest.mark.parametrize("card", sorted(CARDS.glob("*.md")), ids=lambda card: card.stem)
def test_pictures_that_a_card_shows_are_there(card):
    if "template" in card.stem:
        return
    for place in re.findall(r"!\[[^]]*\]\(([^)]+)\)", card.read_text()):
        assert (ROOT / "model_cards" / place).is_file()


def test_the_citation_is_that_of_the_package():
    cff = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    text = (CARDS / "embedded.md").read_text()
    assert f"title = {{{cff['title']}}}" in text
    assert f"author = {{{{{cff['authors'][0]['name']}}}}}" in text
    assert f"version = {{{cff['version']}}}" in text
