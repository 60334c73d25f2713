"""Writes the cards of the checkpoints that come with the package: in `model_cards/`, and beside each example.

The examples' cards are those of any pipeline, made of their reports. The figures of the embedded generator and of the
judge of scenes are those that `train_tiny_generator.py` has measured and left beside the weights.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData

from fmri_models.evaluation.scene_factors import FACTOR_VALUES
from fmri_models.hub.card_facts import citations
from fmri_models.hub.card_header import header_text
from fmri_models.hub.card_template import rendered
from fmri_models.hub.cards import CARD_FILE, write_card_of_folder
from fmri_models.project import install_lines
from fmri_models.saving import write_text
from fmri_models.version import __version__

ROOT = Path(__file__).resolve().parent.parent
CARDS = ROOT / "model_cards"
ASSETS = ROOT / "fmri_models" / "assets"
_GRID = "](grid.png)"
_DRAWN = ("two_way", "kind", "colour", "place")


def examples() -> list[Path]:
    """Folders of the examples that come with the package."""
    return sorted(index.parent for index in (ASSETS / "examples").glob("*/model_index.json"))


def card_of_example(folder: Path) -> str:
    """An example's card as it is read in `model_cards/`: its picture is elsewhere."""
    place = f"../{folder.relative_to(ROOT).as_posix()}/grid.png"
    return (folder / CARD_FILE).read_text(encoding="utf-8").replace(_GRID, f"]({place})")


def card_of_generator() -> str:
    """The card of the embedded image generator."""
    figures, training = _record("figures"), _record("training")
    drawn = [(row.replace("_", " "), values) for row, values in figures.items() if "two_way" in values]
    return rendered(
        "embedded_template.md",
        card_data=_header("text-to-image", ["image-generation", "synthetic"]),
        install_lines=install_lines(),
        reconstruction=_table(
            ["autoencoder", "PSNR in dB"],
            [
                ["mean", f"{figures['autoencoder']['psnr']:.2f}"],
                ["5th percentile", f"{figures['autoencoder']['psnr_5th_percentile']:.2f}"],
            ],
        ),
        matching=_table(
            ["among 100", "found"],
            [
                ["caption of a picture", f"{figures['clip']['image_to_text_top1']:.3f}"],
                ["picture of a caption", f"{figures['clip']['text_to_image_top1']:.3f}"],
            ],
        ),
        drawn=_table(
            ["drawn from", "two-way", "kind", "colour", "place"],
            [[row, *(f"{values[name]:.3f}" for name in _DRAWN)] for row, values in drawn],
        ),
        training=_training(training, ("autoencoder", "clip", "unet")),
        notes=_notes(training, ("autoencoder", "unet")),
        citations=citations([], __version__),
    )


def card_of_judge() -> str:
    """The card of the network that tells what is in a picture of a scene."""
    figures, training = _record("figures"), _record("training")
    return rendered(
        "scene_factors_template.md",
        card_data=_header("image-classification", ["synthetic"]),
        install_lines=install_lines(),
        factors=_table(
            ["factor", "values", "true pictures", "autoencoded pictures"],
            [
                [
                    name,
                    str(len(values)),
                    f"{figures['classifier_true'][name]:.3f}",
                    f"{figures['classifier_autoencoded'][name]:.3f}",
                ]
                for name, values in FACTOR_VALUES.items()
            ],
        ),
        training=_training(training, ("classifier",)),
        citations=citations([], __version__),
    )


def main() -> None:
    """Writes all of them."""
    for folder in examples():
        write_card_of_folder(folder)
        write_text(CARDS / f"{folder.name}.md", card_of_example(folder))
    write_text(CARDS / "embedded.md", card_of_generator())
    write_text(CARDS / "scene_factors.md", card_of_judge())


def _record(name: str) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((ASSETS / f"{name}.json").read_text(encoding="utf-8"))
    return values


def _header(task: str, tags: list[str]) -> str:
    return header_text(
        ModelCardData(library_name="fmri_models", pipeline_tag=task, license="apache-2.0", tags=["fmri", *tags])
    )


def _training(training: dict[str, Any], stages: Sequence[str]) -> str:
    header = ["stage", "steps", "batch", "learning rate", "minutes"]
    own = ("steps", "batch_size", "learning_rate")
    return _table(
        header,
        [
            [
                stage,
                *(f"{training[stage]['settings'][name]:g}" for name in own),
                f"{training[stage]['seconds'] / 60:.0f}",
            ]
            for stage in stages
        ],
    )


def _notes(training: dict[str, Any], stages: Sequence[str]) -> list[str]:
    return [note for stage in stages for note in training[stage].get("notes", [])]


def _table(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in (header, ["---"] * len(header), *lines))


if __name__ == "__main__":
    main()
