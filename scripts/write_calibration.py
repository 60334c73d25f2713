"""Writes the table of `docs/calibration.md`: each metric beside the number that the official code printed.

Reads the fixtures of `tests/fixtures/evaluation`. Stops if a number is farther off than its fixture's tolerance.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from fmri_models.evaluation import (
    category_identification,
    correlation_distance,
    identification_accuracy,
    mse,
    n_way_accuracy,
    pairwise_identification,
    pairwise_pixcorr,
    pattern_correlation,
    pixcorr,
    profile_correlation,
    retrieval_accuracy,
    ssim,
    ssim_matrix,
    two_way_identification,
)
from fmri_models.evaluation.metrics import resize_pictures
from fmri_models.evaluation.similarities import correlation_matrix

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "calibration.md"
FIXTURES = ROOT / "tests" / "fixtures" / "evaluation"
BEGIN = "<!-- calibration: written by scripts/write_calibration.py -->\n"
END = "<!-- end of calibration -->\n"


@dataclass(frozen=True)
class Compared:
    """A metric beside the official code.

    Args:
        metric: The function with what it was called with.
        source: Whose code printed the other number, and on what.
        official: Its value of each item, or their mean where it printed no more.
        ours: Likewise.
        tolerance: Of the fixture; 0 for counts.
    """

    metric: str
    source: str
    official: Tensor
    ours: Tensor
    tolerance: float

    @property
    def row(self) -> str:
        """A line of the table.

        Raises:
            SystemExit: The numbers are farther apart than allowed.
        """
        difference = (self.official - self.ours).abs().max().item()
        # Shares such as 3/7 are divided in other orders.
        if not difference <= max(self.tolerance, 1e-14):
            raise SystemExit(f"{self.metric}, {self.source}: off by {difference:.2e}, allowed are {self.tolerance:g}")
        means = f"{self.official.mean():.6f} | {self.ours.mean():.6f}"
        within = f"{self.tolerance:g}" if self.tolerance else "exact"
        return f"| {self.metric} | {self.source} | {self.official.numel()} | {means} | {within} |\n"


def table() -> str:
    """The table, as Markdown."""
    head = (
        "| metric | official code, and input | values | its mean | ours | agrees within |\n|---|---|---|---|---|---|\n"
    )
    rows = (compared.row for make in (mindeye, mindbridge, mindvis, kamitani, takagi) for compared in make())
    return head + "".join(rows)


def with_table(page: str) -> str:
    """A page with the table between its two marks."""
    before, _, rest = page.partition(BEGIN)
    return f"{before}{BEGIN}\n{table()}\n{END}{rest.partition(END)[2]}"


def mindeye() -> Iterator[Compared]:
    """The evaluation of MindEye and MindEye2."""
    pictures = _read("eval_pixcorr_ssim")
    for name, function in (("pixcorr", pixcorr), ("ssim", ssim)):
        found = function(pictures["img"], pictures["rec"], resize=425, reduction="none")
        yield Compared(f"`{name}(resize=425)`", "MindEye, six pictures of 64", pictures[name], found, 1e-6)
    features = _read("eval_two_way_and_distance")
    for name, source in (("pred_clean", "MindEye, 40 pictures"), ("pred", "the same with a duplicate and a constant")):
        official = features["perf_clean" if name == "pred_clean" else "perf"]
        found = two_way_identification(features["real"], features[name])
        yield Compared("`two_way_identification`", source, official, _one(found), 1e-12)
    found = correlation_distance(features["feat_gt"], features["feat_fake"])
    source = "MindEye, 40 pictures, in single precision"
    yield Compared("`correlation_distance`", source, features["corr_distance"], _one(found), 1e-7)
    embeddings = _read("eval_retrieval")
    both = embeddings["brain_emb"], embeddings["image_emb"]
    for query, name in (("brain", "bwd"), ("image", "fwd")):
        pools = embeddings["sample_idx"]
        found = retrieval_accuracy(*both, query=query, pools=pools, reduction="none").mean(1)
        called = f'`retrieval_accuracy(query="{query}")`'
        yield Compared(called, f"MindEye's {name}, 5 pools of 20", embeddings[name].double(), found, 1e-7)
        official = embeddings[f"full_{query}_query"].double()
        yield Compared(called, "MindEye2, all 60", official, _one(retrieval_accuracy(*both, query=query)), 1e-7)


def mindbridge() -> Iterator[Compared]:
    """The evaluation of MindBridge, which smooths or not by the version of torchvision."""
    fixture, official = _read("mindbridge_metrics"), json.loads((FIXTURES / "mindbridge_metrics.json").read_text())
    truth = F.interpolate(fixture["in/images_64"], scale_factor=4)
    recon = F.interpolate(fixture["in/recons_64"], scale_factor=8)
    for antialias, name in ((False, "no_antialias"), (True, "antialias")):
        options: dict[str, Any] = {"resize": 425, "antialias": antialias}
        for metric, function in (("pixcorr", pixcorr), ("ssim", ssim)):
            expected, found = official[f"{metric}_{name}"], function(truth, recon, **options)
            called = f"`{metric}(resize=425, antialias={antialias})`"
            yield Compared(called, "MindBridge, pictures of 256 and 512", _one(expected), _one(found), 1e-6)
        pooled = [_pooled(resize_pictures(pictures, 48, antialias)) for pictures in (truth, recon)]
        expected = official["two_way_antialias" if antialias else "two_way"]
        source = f"MindBridge, pooled pixels, antialias={antialias}"
        yield Compared("`two_way_identification`", source, _one(expected), _one(two_way_identification(*pooled)), 0)
    counts = fixture["out/two_way_feat_counts"].double() / official["two_way_feat_denominator"]
    found = two_way_identification(fixture["in/feat_real"], fixture["in/feat_pred"], reduction="none")
    yield Compared("`two_way_identification`", "MindBridge, 12 feature vectors", counts, found, 0)
    found = correlation_distance(_pooled(truth), _pooled(recon))
    expected = official["feature_distance_example"]
    yield Compared("`correlation_distance`", "MindBridge, pooled pixels", _one(expected), _one(found), 1e-6)


def mindvis() -> Iterator[Compared]:
    """The evaluation of MinD-Vis; the expectation stands beside the drawn value and is no estimate of it."""
    fixture = _read("mindvis_n_way")
    target = fixture["in.logits_gt"].argmax(1)
    for n_way, top_k, trials in ((2, 1, 40), (50, 1, 50), (50, 1, 1000), (100, 1, 100), (50, 5, 100)):
        drawn = np.random.RandomState(0)
        found = n_way_accuracy(fixture["in.logits_pred"], target, n_way, top_k, trials, drawn, reduction="none")
        exact = n_way_accuracy(fixture["in.logits_pred"], target, n_way, top_k)
        source = f"MinD-Vis, {n_way}-way top-{top_k}, {trials} draws (expectation {exact:.6f})"
        official = fixture[f"out.acc_{n_way}way_top{top_k}_{trials}trials"]
        yield Compared("`n_way_accuracy(trials=..., seed=RandomState(0))`", source, official, found, 1e-12)
    pictures = _read("mindvis_image_metrics")
    truth, recon = (pictures[name].permute(0, 3, 1, 2).double() / 255 for name in ("in.gt", "in.pred"))
    source = "MinD-Vis, six pictures of 8 bits"
    yield Compared("`pixcorr`", source, pictures["out.value_pcc"], pixcorr(truth, recon, reduction="none"), 1e-6)
    options: dict[str, Any] = {"window": "uniform", "channels": "separate"}
    found = ssim(truth, recon, reduction="none", **options)
    called = '`ssim(window="uniform", channels="separate")`'
    yield Compared(called, source, pictures["out.value_ssim"], found, 1e-6)
    found = mse(truth, recon, reduction="none") * 255**2
    source = f"{source}; its wrap-around undone, times 255²"
    yield Compared("`mse`", source, pictures["out.value_mse_float"], found, 1e-6)
    found = pairwise_pixcorr(truth, recon, reduction="none")
    yield Compared("`pairwise_pixcorr`", "MinD-Vis, pair-wise PCC", pictures["out.pairwise_pcc"], found, 0)
    similar = {"ssim": ssim_matrix(truth, recon, **options), "pcc": correlation_matrix(truth, recon)}
    found = identification_accuracy(similar["ssim"], reduction="none")
    called = "`identification_accuracy(ssim_matrix(...))`"
    yield Compared(called, "MinD-Vis, pair-wise SSIM", pictures["out.pairwise_ssim"], found, 0)
    for name, values in similar.items():
        found = identification_accuracy(values, 5, trials=20, seed=np.random.RandomState(12), reduction="none")
        official = pictures[f"out.nway5_{name}"]
        yield Compared("`identification_accuracy(n_way=5)`", f"MinD-Vis, 5-way {name.upper()}", official, found, 1e-12)


def kamitani() -> Iterator[Compared]:
    """bdpy, and the scripts of Generic Object Decoding."""
    fixture = _read("bdpy_identification")
    true, source = fixture["in.true"], "bdpy, nine patterns with a tie"
    for pred, options, name, what in (
        ("pred", {}, "identification", source),
        ("pred_nan", {}, "identification_nan", f"{source} and units of NaN"),
        ("pred", {"similarity": "euclidean"}, "identification_euclidean", source),
        ("single_pred", {"truth_index": fixture["in.single_index"]}, "identification_single", "bdpy, single trials"),
    ):
        found = pairwise_identification(true, fixture[f"in.{pred}"], **options, reduction="none")
        called = (
            'pairwise_identification(similarity="euclidean")' if "similarity" in options else "pairwise_identification"
        )
        yield Compared(f"`{called}`", what, fixture[f"out.{name}"], found, 0)
    found = profile_correlation(true, fixture["in.pred"])[None]
    yield Compared("`profile_correlation`", source, fixture["out.profile"], found, 1e-10)
    for options, name in (
        ({}, "pattern"),
        ({"mean": fixture["in.mean"], "std": fixture["in.std"]}, "pattern_normalised"),
    ):
        found = pattern_correlation(true, fixture["in.pred"], **options, reduction="none")
        called = "`pattern_correlation(mean=..., std=...)`" if options else "`pattern_correlation`"
        yield Compared(called, source, fixture[f"out.{name}"], found, 1e-10)
    fixture = _read("god_feature_prediction")
    shown = fixture["in.test_labels"].unique(return_inverse=True)[1]
    candidates = fixture["in.category_features"], fixture["in.other_category_features"]
    for fit in ("ols", "slir"):
        found = category_identification(fixture[f"out.{fit}.predicted"], shown, *candidates, reduction="none")
        what = f"Generic Object Decoding, {fit.upper()}, 7 of 37 categories"
        yield Compared("`category_identification`", what, fixture[f"out.{fit}.correct_rate"], found, 0)


def takagi() -> Iterator[Compared]:
    """The identification of Takagi & Nishimoto."""
    fixture = _read("takagi_identification")
    both = fixture["in.original"], fixture["in.generated"]
    found = two_way_identification(*both, "reconstruction", samples=True, reduction="none")
    called = '`two_way_identification(distractors="reconstruction", samples=True)`'
    yield Compared(called, "Takagi, seven pictures with five each", fixture["out.accuracy"], found, 0)


def _read(name: str) -> dict[str, Tensor]:
    return load_file(FIXTURES / f"{name}.safetensors")


def _one(value: float) -> Tensor:
    return torch.tensor([value], dtype=torch.float64)


def _pooled(pictures: Tensor) -> Tensor:
    return F.adaptive_avg_pool2d(pictures, 4).flatten(1)


def main() -> None:
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
