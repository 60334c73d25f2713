"""The modules for `evaluate.load`: each is loaded offline with an empty cache and says what the function says."""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fmri_models.errors import FmriModelsError
from fmri_models.evaluation import (
    category_identification,
    clip_score,
    correlation_distance,
    frechet_distance,
    identification_top1,
    mse,
    n_way_accuracy,
    n_way_identification,
    pairwise_identification,
    pairwise_pixcorr,
    pixcorr,
    retrieval_accuracy,
    ssim,
    two_way_identification,
)
from fmri_models.evaluation.loadable import as_vectors, metric_module, read_pictures
from tests.new_process import python

PICTURES = {
    "pixcorr": (pixcorr, {}),
    "ssim": (ssim, {"window": "uniform"}),
    "mse": (mse, {}),
    "pairwise_pixcorr": (pairwise_pixcorr, {}),
    "identification_top1": (identification_top1, {}),
}
VECTORS = {
    "two_way_identification": (two_way_identification, {"distractors": "reconstruction"}),
    "n_way_identification": (n_way_identification, {"n_way": 3}),
    "pairwise_identification": (pairwise_identification, {}),
    "correlation_distance": (correlation_distance, {}),
    "frechet_distance": (frechet_distance, {}),
    "clip_score": (clip_score, {}),
}
CLASSES = {"n_way_accuracy": (n_way_accuracy, {"n_way": 4, "top_k": 2})}
# What needs weights or libraries is loaded alone.
LOADED = ("lpips", "caption_scores")

PROGRAM = """
import json
import sys

import evaluate

from fmri_models.evaluation.loadable import metric_module

work = json.load(open(sys.argv[1]))
found = {}
for name, (predictions, references, options) in work.items():
    metric = evaluate.load(metric_module(name))
    computed = {} if predictions is None else metric.compute(
        predictions=predictions, references=references, **options
    )
    found[name] = computed
print("FOUND " + json.dumps(found))
"""


def saved(pictures: torch.Tensor, folder: Path) -> list[str]:
    folder.mkdir()
    for number, picture in enumerate(pictures):
        Image.fromarray((255 * picture.permute(1, 2, 0)).round().byte().numpy()).save(folder / f"{number}.png")
    return [str(folder / f"{number}.png") for number in range(len(pictures))]


def test_each_is_loaded_and_says_what_its_function_says(tmp_path, repository):
    names = {path.name for path in (repository / "evaluate_metrics").iterdir() if path.name != "__pycache__"}
    others = {"retrieval_accuracy", "category_identification", *LOADED}
    assert names == {*PICTURES, *VECTORS, *CLASSES, *others}
    generator = torch.Generator().manual_seed(0)
    files = [saved(torch.rand(5, 3, 16, 16, generator=generator), tmp_path / side) for side in ("recon", "truth")]
    recon, truth = torch.randn(2, 5, 7, generator=generator).double()
    target, own = [0, 1, 2, 3, 4], torch.randn(5, 7, generator=generator).double()
    work = {name: (*files, options) for name, (_, options) in PICTURES.items()}
    work |= {name: (recon.tolist(), truth.tolist(), options) for name, (_, options) in VECTORS.items()}
    work |= {name: (recon.tolist(), target, options) for name, (_, options) in CLASSES.items()}
    work["retrieval_accuracy"] = (recon.tolist(), truth.tolist(), {"query": "image", "top_k": 2})
    work["category_identification"] = (recon.tolist(), target, {"category_features": own.tolist()})
    work |= {name: (None, None, {}) for name in LOADED}
    (tmp_path / "work.json").write_text(json.dumps(work))
    environment = {
        **os.environ, "PYTHONPATH": str(repository), "HF_HOME": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1",
        "HF_EVALUATE_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_MODULES_CACHE": str(tmp_path / "modules"),
        "HF_EVALUATE_CACHE": str(tmp_path / "evaluate"),
    }  # fmt: skip
    command = [*python(), "-c", PROGRAM, str(tmp_path / "work.json")]
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert finished.returncode == 0, finished.stderr
    assert (tmp_path / "modules" / "evaluate_modules").is_dir()
    line = next(line for line in finished.stdout.splitlines() if line.startswith("FOUND "))
    found = json.loads(line.removeprefix("FOUND "))
    pictures = [read_pictures(side) for side in reversed(files)]
    expected = {name: function(*pictures, **options) for name, (function, options) in PICTURES.items()}
    expected |= {name: function(truth, recon, **options) for name, (function, options) in VECTORS.items()}
    expected |= {name: function(recon, target, **options) for name, (function, options) in CLASSES.items()}
    expected["retrieval_accuracy"] = retrieval_accuracy(recon, truth, query="image", top_k=2)
    expected["category_identification"] = category_identification(recon, target, own)
    for name, value in expected.items():
        assert found[name] == {name: pytest.approx(value, abs=1e-12)}, name


def test_what_does_not_fit_is_refused(tmp_path):
    with pytest.raises(FmriModelsError, match=r"'pixcor' for evaluate.load; .*mean 'pixcorr'"):
        metric_module("pixcor")
    one = saved(torch.rand(1, 3, 16, 16), tmp_path / "one")
    other = saved(torch.rand(1, 3, 16, 17), tmp_path / "other")
    with pytest.raises(FmriModelsError, match="17x16 pixels and the first one 16x16"):
        read_pictures([*one, *other])
    with pytest.raises(FmriModelsError, match=r"\[2, 3\] values"):
        as_vectors([[1, 2], [1, 2, 3]])
    Path(one[0]).write_bytes(b"no picture")
    with pytest.raises(FmriModelsError, match=r"0\.png"):
        read_pictures(one)
    assert as_vectors([np.arange(3), np.arange(3)]).dtype == torch.float64
