"""What a recipe will cost, before anything is allocated."""

import re
import resource

import numpy as np
import pytest

from fmri_models.data import TrialTableWriter
from fmri_models.errors import FmriModelsError
from fmri_models.generation.loading import load_image_generator
from fmri_models.objectives import GradientObjective
from fmri_models.training import cost_by_gradient
from fmri_models.training.estimate import estimate
from fmri_models.training.planned_generators import planned_generator
from fmri_models.training.recipe import load_recipe
from tests.training.small_method import SmallObjective

# MindEye at its published size on NSD's first subject, high level and low level.
PUBLISHED = """
method: mindeye
generator: versatile_diffusion
processor: {statistics: identity}
stages:
  - name: high_level
    objective: {modules: [backbone, prior]}
    training: {epochs: 240, batch_size: 32, mixed_precision: bf16}
  - name: low_level
    objective: {modules: [low_level]}
    training: {epochs: 120, batch_size: 8}
"""


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A recipe and a table with as many voxels as the first subject of NSD."""
    folder = tmp_path_factory.mktemp("published")
    ids = [f"picture{index}" for index in range(64)]
    with TrialTableWriter(
        folder / "data", name="wide", simulated=True, description="For tests.", license="CC0", source="drawn"
    ) as writer:
        writer.add_stimuli(
            {"stimulus_id": name, "image": np.full((8, 8, 3), 3 * row, np.uint8), "captions": [], "category": None,
             "factors": None}
            for row, name in enumerate(ids)
        )  # fmt: skip
        writer.add_voxels("subj01", 15_724, roi=["V1"] * 15_724)
        writer.add_trials(
            "subj01", "train", stimulus_ids=ids, sessions=[1] * 64, runs=[1] * 64, trials=list(range(64)),
            repetitions=[0] * 64, fmri=np.zeros((64, 15_724), np.float32),
        )  # fmt: skip
    path = folder / "published.yaml"
    path.write_text(PUBLISHED)
    return lambda *overrides: load_recipe(str(path), [f"data={folder / 'data'}", *overrides])


def lines_of(text):
    """(key, value) of each line; a line without a key goes on with the one above."""
    lines, key = [], ""
    for line in text.splitlines():
        key = line[:11].strip() or key
        lines.append((key, line[11:]))
    return lines


def test_the_published_size_is_told_before_anything_is_allocated(published):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    lines = lines_of(estimate(published()))
    # Kilobytes; the weights alone are 4.5 GB.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000
    high_level = lines[lines.index(("stage", "high_level")) : lines.index(("stage", "low_level"))]
    told = dict(reversed(high_level))
    # Backbone and prior of the published checkpoint, without the 16 rotary frequencies, which are constants.
    trained = 947_579_904 + 56_055_184 - 16
    assert told["parameters"] == f"{trained:,} are trained"
    # 16 bytes for each, and 4 for each of the low-level branch, which only lies there in this stage.
    low_level = int(dict(lines)["parameters"].split()[0].replace(",", ""))
    assert told["memory"].startswith(f"{(16 * trained + 4 * low_level) / 2**30:.2f} GiB for weights, gradients")
    assert told["time"].startswith(
        "not measured, because the targets come from the image generator versatile_diffusion"
    )
    smaller = [text for key, text in high_level if key == "smaller"]
    assert [re.sub(r"^[\d.]+ GiB with ", "", text) for text in smaller] == [
        "optimizer=adafactor",
        "parameter_dtype=bfloat16",
        "optimizer=adafactor parameter_dtype=bfloat16",
        "a quarter of the activations, and as many rows compared, with batch_size=8 gradient_accumulation_steps=4 "
        "gradient_accumulation=cached",
        "(on the command line: stages.0.training.KEY=VALUE)",
    ]
    # 8 bytes a parameter, 8, and 4, next to the 4 of each that is read.
    sizes = [float(text.split()[0]) for text in smaller[:3]]
    assert sizes == pytest.approx([8.25, 8.25, 4.5], abs=0.1)


def test_what_the_options_save_is_what_they_then_take(published):
    text = estimate(published())
    for options in ("optimizer=adafactor", "parameter_dtype=bfloat16"):
        promised = re.findall(rf"([\d.]+) GiB with {options}\n", text)[0]
        with_it = estimate(published(f"stages.0.training.{options}"))
        assert f"memory     {promised} GiB for weights" in with_it
        assert len(re.findall(rf" GiB with {options}", with_it)) < len(re.findall(rf" GiB with {options}", text))


def test_summed_gradients_need_the_largest_once_more(published):
    """Held by autograd before it is added: 4 bytes for each weight of the matrix of 4,096 by 257 times 768."""
    alone, summed = (
        float(re.search(r"memory     ([\d.]+) GiB", estimate(published(*overrides)))[1])
        for overrides in ([], ["stages.0.training.gradient_accumulation_steps=2"])
    )
    assert summed - alone == pytest.approx(4 * 4096 * 257 * 768 / 2**30, abs=0.011)


def test_less_than_what_is_free_is_not_called_too_much(published, monkeypatch):
    monkeypatch.setattr(cost_by_gradient, "available_memory", lambda: 2**40)
    assert "MORE THAN" not in estimate(published())
    monkeypatch.setattr(cost_by_gradient, "available_memory", lambda: 2**32)
    assert "MORE THAN THE 4.00 GiB that are free here" in estimate(published())


def test_steps_are_not_timed_where_they_would_fill_the_memory(make_recipe, monkeypatch):
    recipe = make_recipe("out")
    assert "5 real steps took" in estimate(recipe)
    monkeypatch.setattr(cost_by_gradient, "available_memory", lambda: 1000)
    text = estimate(recipe)
    assert "time       not measured" in text and "\nsmaller    " in text


def test_a_stage_without_trials_is_a_sentence(published):
    with pytest.raises(FmriModelsError, match="'low_level' has no trials to learn from in validation"):
        estimate(published("stages.1.train_on=[validation]"))


def test_any_method_is_estimated_in_closed_form(make_recipe, monkeypatch):
    """The small one, as any, keeps nothing of its spaces but what its configuration has."""
    recipe = make_recipe("out", "stages.0.training=null")
    assert "steps      0 (closed form)" in estimate(recipe)

    class ByGradient(GradientObjective):
        losses = SmallObjective.losses

    monkeypatch.setattr("tests.training.small_method.SmallObjective", ByGradient)
    with pytest.raises(FmriModelsError, match="says nothing on training.* at least steps or epochs"):
        estimate(recipe)


def test_generators_in_folders_are_loaded_and_published_ones_are_not(tmp_path):
    folder = tmp_path / "generator"
    load_image_generator("embedded", (3, 64, 64)).save_pretrained(folder)
    assert planned_generator(str(folder)) is None and planned_generator("pixels") is None
    assert planned_generator({"name": "versatile_diffusion", "repository": str(folder)}) is None
    planned = planned_generator({"name": "versatile_diffusion", "revision": "main"})
    assert planned.image_embedding_space.shape == (257, 768) and planned.latent_space.shape == (4, 64, 64)
    assert planned_generator("shi-labs/versatile-diffusion") == planned


@pytest.mark.parametrize(
    "name", ["versatile_diffusion", "stable_unclip", "kandinsky", "ip_adapter", "stable_diffusion"]
)
def test_a_generator_of_gigabytes_says_its_spaces_without_its_weights(name):
    planned = planned_generator(name)
    embeds = planned.text_embedding_space if name == "stable_diffusion" else planned.image_embedding_space
    assert embeds.size > 0 and planned.latent_space.shape[0] == 4
