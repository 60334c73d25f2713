"""The objective in closed form of the page on training fits; the page itself runs in test_code_blocks.py."""

import math
from types import SimpleNamespace

import numpy as np
import torch

from fmri_models.closed_form_trials import ClosedFormTrials, IndexedTargets
from fmri_models.encoders.subject_linear import SubjectLinear
from tests.small_demo import blocks_of


def test_the_objectives_of_the_page_work(repository):
    """That in closed form reads ClosedFormTrials of two subjects and sets layers that predict."""
    names: dict = {}
    for block in blocks_of(repository / "docs" / "training.md"):
        if "Objective(" in block:
            exec(block, names)
    rng, space = np.random.default_rng(0), (2, 3)
    maps = {subject: rng.normal(size=(width, 6)) for subject, width in (("a", 4), ("b", 5))}
    fmri = {subject: rng.normal(size=(50, len(each))).astype(np.float32) for subject, each in maps.items()}
    values = {subject: (fmri[subject] @ maps[subject] + 3).astype(np.float32) for subject in maps}
    trials = {
        subject: ClosedFormTrials(
            fmri[subject], np.arange(50), {"latents": IndexedTargets(values[subject], np.arange(50))}
        )
        for subject in maps
    }
    layers = SubjectLinear([4, 5], math.prod(space))
    config = SimpleNamespace(subject_names=["a", "b"])
    names["MyFittedObjective"](penalty=1e-3).fit(SimpleNamespace(config=config, heads={"latents": layers}), trials)
    for index, subject in enumerate(maps):
        predicted = layers.layers[index](torch.from_numpy(fmri[subject])).detach().numpy()
        assert np.corrcoef(predicted.ravel(), values[subject].ravel())[0, 1] > 0.9
    assert names["MyMethodObjective"]().voxel_noise == 0.1
