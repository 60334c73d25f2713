"""The card of the assets: what they can do and how they were made."""

import hashlib
import json
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from fmri_models import scenes
from fmri_models.evaluation.scene_factors import FACTOR_VALUES
from fmri_models.saving import write_text

from .assets import ENCODER_STAGES
from .figures import measure
from .settings import Settings

_TEMPLATE = Path(__file__).with_name("card.md")


def write_card(settings: Settings, work: Path, out: Path) -> None:
    """Writes `README.md` and, for programs, `figures.json` and `training.json` beside the weights."""
    figures = measure(settings, work, out)
    training = _training_summaries(work, out)
    weights = {path.parent.name: path for path in sorted(out.rglob("*.safetensors"))}
    drawn = {row: values for row, values in figures.items() if "two_way" in values}
    card = _TEMPLATE.read_text(encoding="utf-8").format(
        num_pictures=settings.num_pictures,
        num_validation=settings.num_validation,
        num_test=settings.num_test,
        num_drawn=min(settings.num_drawn, settings.num_test),
        seed=settings.seed,
        first_train=scenes.SEED_RANGES["generator"].start,
        first_test=scenes.SEED_RANGES["generator_test"].start,
        files="\n".join(_file_row(out, name, path) for name, path in weights.items()),
        total=f"{sum(path.stat().st_size for path in weights.values()) / 1e6:.2f}",
        psnr=f"{figures['autoencoder']['psnr']:.2f}",
        psnr_low=f"{figures['autoencoder']['psnr_5th_percentile']:.2f}",
        image_to_text=f"{figures['clip']['image_to_text_top1']:.3f}",
        text_to_image=f"{figures['clip']['text_to_image_top1']:.3f}",
        factors="\n".join(
            f"| {name} | {len(values)} | {figures['classifier_true'][name]:.3f} "
            f"| {figures['classifier_autoencoded'][name]:.3f} |"
            for name, values in FACTOR_VALUES.items()
        ),
        drawn="\n".join(_drawn_row(row, values) for row, values in drawn.items()),
        training="\n".join(_training_row(name, summary) for name, summary in training.items()),
        autoencoder_curve=_curve(training["autoencoder"], "validation_psnr", ".1f"),
        kind_curve=_curve(training["unet"], "validation_embeddings_guidance_2_kind", ".2f"),
        two_way_curve=_curve(training["unet"], "validation_embeddings_guidance_2_two_way", ".3f"),
        notes="\n\n".join(note for summary in training.values() for note in summary.get("notes", [])),
    )
    write_text(out / "figures.json", json.dumps(figures, indent=2) + "\n")
    write_text(out / "training.json", json.dumps(training, indent=2) + "\n")
    write_text(out / "README.md", card.rstrip() + "\n")


def _training_summaries(work: Path, out: Path) -> dict[str, dict[str, Any]]:
    """Settings, time and course of each stage; of those that were trained elsewhere, what the assets remember."""
    file = out / "training.json"
    summaries: dict[str, dict[str, Any]] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    for name in (*ENCODER_STAGES, "unet"):
        finished = work / name / "finished.json"
        if finished.exists():
            summary = json.loads(finished.read_text(encoding="utf-8"))
            notes = {"notes": summaries[name]["notes"]} if "notes" in summaries.get(name, {}) else {}
            summaries[name] = summary | {"course": _course(work / name / "log.jsonl")} | notes
    return summaries


def _course(log: Path) -> dict[str, dict[str, float]]:
    """Figure ▶ step ▶ value, of the figures on validation pictures."""
    course: dict[str, dict[str, float]] = {}
    for line in map(json.loads, log.read_text(encoding="utf-8").splitlines()):
        for name in line:
            if name.startswith("validation_"):
                course.setdefault(name, {})[str(line["step"])] = line[name]
    return course


def _drawn_row(row: str, values: dict[str, float]) -> str:
    numbers = " | ".join(f"{values[name]:.3f}" for name in ("two_way", "kind", "colour", "place"))
    return f"| {row.replace('_', ' ')} | {numbers} |"


def _file_row(out: Path, name: str, path: Path) -> str:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    num_parameters = sum(tensor.numel() for tensor in load_file(path).values())
    return (
        f"| `{path.relative_to(out)}` | {num_parameters / 1e6:.2f} M | {path.stat().st_size / 1e6:.2f} "
        f"| `{digest[:12]}` |"
    )


def _training_row(name: str, summary: dict[str, Any]) -> str:
    own = summary["settings"]
    return (
        f"| {name} | {own['steps']} | {own['batch_size']} | {own['learning_rate']:g} | {summary['seconds'] / 60:.0f} |"
    )


def _curve(summary: dict[str, Any], name: str, digits: str) -> str:
    points = summary.get("course", {}).get(name, {})
    return ", ".join(f"{value:{digits}} ({step})" for step, value in sorted(points.items(), key=lambda p: int(p[0])))
