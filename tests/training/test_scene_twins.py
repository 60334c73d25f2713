"""Recipes of linear systems on simulated scenes and, with tiny networks of the real classes, on a table of NSD."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import PNDMScheduler

from fmri_models import FmriToImagePipeline
from fmri_models.evaluation.evaluate import evaluate
from fmri_models.evaluation.report import Report
from fmri_models.simulation import simulate
from fmri_models.training.estimate import estimated
from fmri_models.training.recipe import Recipe, load_recipe
from fmri_models.training.trainer import train
from tests.generation.test_stable_diffusion import make_generator as tiny_stable_diffusion
from tests.generation.test_versatile_diffusion import make_generator as tiny_versatile_diffusion

QUICK = ["drawing.num_inference_steps=2"]
EARLY = ["V1", "V2", "V3", "V4"]
TWINS = {
    "takagi_scenes": ["latents", "text_embeds"],
    "brain_diffuser_scenes": ["image_embeds", "text_embeds"],
    "unibrain_scenes": ["image_embeds", "text_embeds", "latents"],
    "brain_streams_scenes": ["image_embeds", "text_embeds", "latents"],
    "neuro_vis_scenes": ["image_embeds", "text_embeds", "latents"],
}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulate(
        "builtin:scenes", tmp_path_factory.mktemp("scenes") / "data", num_voxels=120, num_train=150, num_validation=10,
        num_test=10, repetitions=2, signal_to_noise=3.0,
    )  # fmt: skip


def rois_read(pipeline: FmriToImagePipeline, target: str) -> set[str]:
    """The regions whose voxels have any weight for a target."""
    (subject,) = pipeline.brain_model.config.subject_names
    weights = torch.cat([block.weight for block in pipeline.brain_model.head(target, subject).blocks])
    read = weights.detach().abs().sum(dim=0).numpy() > 0
    labels = np.array(pipeline.processor.subject(subject).roi)[pipeline.processor.column_voxels(subject)]
    return set(labels[read[: len(labels)]].tolist())


@pytest.mark.parametrize("name", TWINS)
def test_twins_from_a_table_to_a_report(name: str, scenes: Path, tmp_path: Path) -> None:
    recipe = load_recipe(name, [f"data={scenes}", f"out={tmp_path / 'out'}", *QUICK])
    train(recipe)
    pipeline = FmriToImagePipeline.from_pretrained(tmp_path / "out")
    assert list(recipe.targets or []) == TWINS[name]
    assert set(pipeline.brain_model.spaces) == set(TWINS[name])
    everywhere = {*EARLY, "ventral", "lateral", "parietal"}
    if name == "takagi_scenes":
        assert (rois_read(pipeline, "latents"), rois_read(pipeline, "text_embeds")) == ({*EARLY}, {"ventral"})
    elif name == "brain_streams_scenes":
        assert rois_read(pipeline, "latents") == rois_read(pipeline, "image_embeds") == {*EARLY}
        assert rois_read(pipeline, "text_embeds") == {"ventral", "lateral"}
    else:
        assert all(rois_read(pipeline, target) == everywhere for target in TWINS[name])
    rows = ["shuffled_brain", "ceiling"]
    report = evaluate(tmp_path / "out", scenes, tmp_path / "report", "small_pictures", rows=rows)
    assert report.results["brain"]["pairwise_pixcorr"]["value"] > 0.6
    check_rows(report)


def check_rows(report: Report) -> None:
    """What the brain says is above patterns of other pictures and below what was true."""
    found = {row: report.results[row]["pairwise_pixcorr"]["value"] for row in ("brain", "shuffled_brain", "ceiling")}
    assert found["shuffled_brain"] < found["brain"] <= found["ceiling"] + 0.05, found


@pytest.mark.slow
def test_the_ceiling_is_told_the_captions_that_were_learned(scenes: Path, tmp_path: Path) -> None:
    drawn = []
    for captions in ("mean", "first"):
        out = tmp_path / captions
        train(load_recipe("takagi_scenes", [f"data={scenes}", f"out={out}", f"captions={captions}", *QUICK]))
        report = out / "report"
        evaluate(out, scenes, report, "small_pictures", rows=["ceiling"])
        drawn.append({path.name: path.read_bytes() for path in (report / "images" / "ceiling").rglob("*.png")})
    assert drawn[0].keys() == drawn[1].keys() and drawn[0]
    assert all(drawn[0][name] != drawn[1][name] for name in drawn[0])


# --------------------------------------------------------------------------------------------------- recipes of NSD


@pytest.fixture(scope="module")
def generators(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny networks of the real classes in the place of the published ones."""
    folder = tmp_path_factory.mktemp("generators")
    tiny_versatile_diffusion().save_pretrained(folder / "versatile_diffusion")
    tiny_stable_diffusion(scheduler=PNDMScheduler(skip_prk_steps=True)).save_pretrained(folder / "stable_diffusion")
    return folder


@pytest.fixture(scope="module")
def two_subjects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulate(
        "builtin:scenes", tmp_path_factory.mktemp("two") / "data", num_subjects=2, num_voxels=60, num_train=120,
        num_validation=8, num_test=6, repetitions=2,
    )  # fmt: skip


def small(name: str, generators: Path, data: Path, out: Path, *overrides: str) -> Recipe:
    """A recipe for NSD on another table, with tiny networks."""
    stated = load_recipe(name).generator
    assert isinstance(stated, dict)
    options = stated["options"] | ({"low_level_side": 8} if "low_level_side" in stated["options"] else {})
    generator = stated | {"repository": str(generators / stated["name"]), "options": options}
    named = [f"data={data}", f"out={out}", "subjects=null", f"generator={json.dumps(generator)}"]
    return load_recipe(name, [*named, *QUICK, *overrides])


REGIONS = ["stages.0.objective.parts.latents.rois=[V1, V2]", "stages.0.objective.parts.text_embeds.rois=[ventral]"]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "overrides"), [
    ("takagi_nsd", REGIONS),
    ("takagi_nsd", [*REGIONS, "posterior=sample"]),
    ("brain_diffuser_nsd", []),
    ("unibrain_nsd", []),
    ("ferrante_cross_subject_nsd", ["split=default"]),
])  # fmt: skip
def test_recipes_of_nsd(name: str, overrides: list[str], generators: Path, two_subjects: Path, tmp_path: Path) -> None:
    recipe = small(name, generators, two_subjects, tmp_path / "out", *overrides)
    lines = dict(estimated(recipe))
    said = [
        word for word, is_so in (("mean", recipe.captions == "mean"), ("drawn", recipe.posterior == "sample")) if is_so
    ]
    assert all(word in lines.get("targets", "") for word in said)
    train(recipe)
    pipeline = FmriToImagePipeline.from_pretrained(tmp_path / "out")
    drawn_with = pipeline.drawing_settings
    assert (drawn_with.num_inference_steps, drawn_with.selection, drawn_with.num_candidates) == (2, "first", 1)
    report = evaluate(tmp_path / "out", two_subjects, tmp_path / "report", "small_pictures", rows=["ceiling", "floor"])
    assert report.data["test_items"] == 2 * 6
    assert all(np.isfinite(report.results[row]["pixcorr"]["value"]) for row in ("brain", "ceiling", "floor"))
    if name == "takagi_nsd":
        assert pipeline.image_generator.config.schedule == "ddim"
        assert pipeline.brain_model.spaces["latents"].shape == (4, 4, 4)


@pytest.mark.slow
def test_latents_that_were_drawn_are_what_was_fitted(generators: Path, two_subjects: Path, tmp_path: Path) -> None:
    weights = {}
    for posterior, seed in (("mode", 0), ("sample", 0), ("sample", 1), ("again", 1)):
        out = tmp_path / f"{posterior}{seed}"
        drawn = [
            f"posterior={posterior.replace('again', 'sample')}",
            f"seed={seed}",
            "targets=[latents]",
            "captions=first",
        ]
        parts = "stages.0.objective.parts={latents: {rois: [V1, V2]}}"
        train(small("takagi_nsd", generators, two_subjects, out, *drawn, parts))
        weights[posterior, seed] = FmriToImagePipeline.from_pretrained(out).brain_model.state_dict()
    fitted = {key: next(value for name, value in each.items() if "weight" in name) for key, each in weights.items()}
    assert torch.equal(fitted["sample", 1], fitted["again", 1])
    assert not torch.equal(fitted["sample", 1], fitted["sample", 0])
    assert not torch.equal(fitted["mode", 0], fitted["sample", 0])


def test_published_values() -> None:
    takagi, diffuser, unibrain, across = (
        load_recipe(f"{name}_nsd") for name in ("takagi", "brain_diffuser", "unibrain", "ferrante_cross_subject")
    )
    assert all(
        each.subjects == ["subj01", "subj02", "subj05", "subj07"] for each in (takagi, diffuser, unibrain, across)
    )
    assert isinstance(takagi.generator, dict) and takagi.generator["options"]["low_level_side"] == 320
    objective = takagi.stages[0].objective
    assert objective["penalties"] == pytest.approx([10.0**exponent for exponent in range(-6, 1)])
    assert {target: part["rois"] for target, part in objective["parts"].items()} == {
        "latents": ["early"], "text_embeds": ["ventral"],
    }  # fmt: skip
    assert all((part["penalty_per"], part["folds"]) == ("target", 5) for part in objective["parts"].values())
    assert (takagi.repetitions, takagi.captions, takagi.posterior) == ("single", "mean", "mode")
    # Forty of fifty steps.
    assert (takagi.drawing["num_inference_steps"], takagi.drawing["strength"], takagi.drawing["guidance_scale"]) == (
        50,
        0.8,
        5,
    )
    parts = diffuser.stages[0].objective["parts"]
    assert {target: part["penalties"] for target, part in parts.items()} == {
        "image_embeds": [60000], "text_embeds": [100000],
    }  # fmt: skip
    assert diffuser.processor == {"statistics": "pooled", "statistics_over": "averages", "ddof": 1}
    assert (diffuser.drawing["guidance_scale"], diffuser.drawing["text_to_image_ratio"]) == (7.5, 0.4)
    assert (unibrain.drawing["strength"], unibrain.targets) == (0.75, ["image_embeds", "text_embeds", "latents"])
    assert across.stages[0].objective["aligned_to"] == "subj01" and "test" not in across.train_parts
