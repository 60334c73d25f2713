"""Guides of the linear method: configuration, heads, decoding, saving."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fmri_models import FmriProcessor, FmriToImagePipeline
from fmri_models.closed_form_trials import ClosedFormTrials, IndexedTargets
from fmri_models.conditions import Conditions
from fmri_models.encoders.selected_linear import SelectedLinear
from fmri_models.errors import FmriModelsError
from fmri_models.generation.pixels import PixelsImageGenerator
from fmri_models.models.linear import LinearConfig, LinearModel, LinearObjective, LinearPipeline
from fmri_models.models.mindeye import MindEyeConfig

SPACES = {
    "net.conv1": {"encoder": "net", "layer": "conv1", "shape": [2, 3, 3]},
    "net.fc2": {"encoder": "net", "layer": "fc2", "shape": [4]},
}


def guided_config(subject_names: list[str], num_voxels: list[int], **options: Any) -> LinearConfig:
    return LinearConfig(
        subject_names=subject_names, num_voxels=num_voxels, guide_spaces=SPACES, targets_a_block=5, **options
    )


def fitted(options: dict[str, Any] | None = None, **objective: Any) -> tuple[LinearModel, np.ndarray, dict[str, Any]]:
    rng = np.random.default_rng(0)
    fmri = rng.normal(size=(80, 12)).astype(np.float32)
    targets = {}
    for name, units in (("net.conv1", 18), ("net.fc2", 4)):
        values = (fmri @ rng.normal(size=(12, units)) + 3).astype(np.float32)
        targets[name] = IndexedTargets(values, np.arange(80))
    trials = ClosedFormTrials(fmri, np.array([f"s{row}" for row in range(80)]), targets)
    model = LinearModel(guided_config(["subj01"], [12], **(options or {})))
    LinearObjective(**objective).fit(model, {"subj01": trials})
    return model.eval(), fmri, {name: each.values for name, each in targets.items()}


def test_guides_are_fitted_and_decoded_by_their_names() -> None:
    model, fmri, truth = fitted(penalties=[1e-3])
    decoding = model.decode(torch.from_numpy(fmri))
    assert decoding.guides is not None and decoding.guides["net.conv1"].shape == (80, 2, 3, 3)
    for name, values in decoding.guides.items():
        np.testing.assert_allclose(values.flatten(1).numpy(), truth[name], atol=1e-2)
    one = model.decode_guides(torch.from_numpy(fmri[:7]), guides=["net.fc2"])
    assert list(one) == ["net.fc2"]
    torch.testing.assert_close(one["net.fc2"], decoding.guides["net.fc2"][:7])
    assert model.decode(torch.from_numpy(fmri), guides=()).guides is None
    with pytest.raises(FmriModelsError, match="decodes no guide 'net.fc9'; it decodes net.conv1, net.fc2"):
        model.decode_guides(torch.from_numpy(fmri), guides=["net.fc9"])


def test_options_for_all_guides_or_one() -> None:
    parts = {"guides": {"standardise_targets": True}, "net.fc2": {"solver": "sparse", "iterations": 20}}
    model, _, _ = fitted({"voxels_per_target": {"guides": 5}}, penalties=[1.0], parts=parts)
    assert model.config.num_selected("net.conv1") == model.config.num_selected("net.fc2") == 5
    assert isinstance(model.head("net.conv1", "subj01").blocks[0], SelectedLinear)
    # The sparse solver has no penalty.
    assert model.config.penalties["subj01"].keys() == {"net.conv1"}
    with pytest.raises(FmriModelsError, match="voxels_per_target names 'net.fc9'.*net.conv1, net.fc2, guides"):
        guided_config(["subj01"], [12], voxels_per_target={"net.fc9": 5})
    with pytest.raises(FmriModelsError, match="parts names 'latents', and the model decodes net.conv1, net.fc2"):
        fitted(parts={"latents": {}})


def test_spread_of_guides_over_a_whole_test_set() -> None:
    model, fmri, truth = fitted(penalties=[300.0], parts={"guides": {"restandardise": "test"}})
    assert model.is_transductive
    decoding = model.decode(torch.from_numpy(fmri))
    changed = model.restandardised(decoding).guides
    assert changed is not None
    for name, values in changed.items():
        np.testing.assert_allclose(values.flatten(1).mean(0), truth[name].mean(0), atol=1e-3)
        np.testing.assert_allclose(values.flatten(1).std(0, correction=0), truth[name].std(0), rtol=1e-3)


def test_other_methods_and_generators_refuse_guides() -> None:
    with pytest.raises(FmriModelsError, match="MindEyeConfig has guide_spaces .*its method decodes no guides"):
        MindEyeConfig(subject_names=["subj01"], num_voxels=[12], guide_spaces=SPACES)
    with pytest.raises(FmriModelsError, match="guide_spaces has 'conv1'; expected names of a network and its layer"):
        LinearConfig(subject_names=["subj01"], num_voxels=[12], guide_spaces={"conv1": SPACES["net.fc2"]})
    with pytest.raises(FmriModelsError, match="PixelsImageGenerator takes no guide net.fc2, and no other"):
        PixelsImageGenerator(1, 4, 4)(guides={"net.fc2": torch.zeros(2, 4)})
    with pytest.raises(FmriModelsError, match="guides is a Tensor; expected a mapping of names"):
        Conditions(guides=torch.zeros(2, 4))  # type: ignore[arg-type]


def test_names_of_guides_that_would_mistake_layers_are_refused() -> None:
    of_subjects: dict[str, Any] = {"subject_names": ["subj01"], "num_voxels": [12]}
    with pytest.raises(FmriModelsError, match="guide vgg19.conv1_1 has the space of the layer 'fc2'; expected that of"):
        LinearConfig(**of_subjects, guide_spaces={"vgg19.conv1_1": SPACES["net.fc2"]})
    alike = {f"net.{layer}": {**SPACES["net.fc2"], "layer": layer} for layer in ("a.b", "a-b")}
    with pytest.raises(FmriModelsError, match="has net.a.b and net.a-b, whose weights would have the same names"):
        LinearConfig(**of_subjects, guide_spaces=alike)


def test_a_saved_pipeline_decodes_the_same(tmp_path: Path) -> None:
    model, fmri, _ = fitted(penalties=[1.0])
    processor = FmriProcessor.fit({"subj01": fmri})
    LinearPipeline(model, processor).save_pretrained(tmp_path / "pipeline")
    again = FmriToImagePipeline.from_pretrained(tmp_path / "pipeline")
    assert again.brain_model.config.guides == model.config.guides
    ids = torch.zeros(80, dtype=torch.long)
    found = again.decode(torch.from_numpy(fmri), ids).guides
    for name, values in model.decode(torch.from_numpy(fmri)).guides.items():
        torch.testing.assert_close(found[name], values)
        alone = torch.cat([again.decode(torch.from_numpy(row[None]), ids[:1]).guides[name] for row in fmri[:5]])
        torch.testing.assert_close(values[:5], alone, atol=1e-5, rtol=1e-5)


def test_the_loss_of_guides_trains_their_heads() -> None:
    model = LinearModel(guided_config(["subj01"], [12]))
    fmri = torch.randn(4, 12)
    output = model(fmri, guides={"net.fc2": torch.ones(4, 4)})
    assert output.losses.keys() == {"net.fc2"}
    output.loss.backward()
    assert model.head("net.fc2", "subj01").blocks[0].weight.grad.abs().sum() > 0
    assert model.head("net.conv1", "subj01").blocks[0].weight.grad is None
    whole = torch.compile(model.eval(), fullgraph=True, backend="eager")(fmri)
    torch.testing.assert_close(whole.guides["net.conv1"], model(fmri).guides["net.conv1"])
