import pytest
import torch

from fmri_models.evaluation import Report, RowData, score_rows
from tests.evaluation.toy_report import COUNT, PROTOCOL, Classifier, TinyExtractor, smooth_pictures


@pytest.fixture(scope="module")
def material():
    """Two subjects who saw the same pictures; the brain row is right with noise."""
    truth = smooth_pictures().repeat(2, 1, 1, 1)
    noise = torch.rand(truth.shape, generator=torch.Generator().manual_seed(1))
    embeds = torch.randn(COUNT, 12, generator=torch.Generator().manual_seed(2)).repeat(2, 1)
    decoded = embeds + 0.8 * torch.randn(embeds.shape, generator=torch.Generator().manual_seed(3))
    exchanged = torch.cat([torch.arange(COUNT).roll(1), COUNT + torch.arange(COUNT).roll(1)])
    brain = 0.7 * truth + 0.3 * noise
    rows = {
        "brain": RowData(brain, decoded),
        "shuffled_brain": RowData(brain[exchanged], decoded[exchanged]),
        "mean_image": RowData(truth.mean(0, keepdim=True).expand_as(truth)),
        "ridge": RowData(None, decoded),
    }
    return {
        "rows": rows,
        "truth": truth,
        "stimulus_ids": [f"s{i:02d}" for i in range(COUNT)] * 2,
        "subjects": ["subj01"] * COUNT + ["subj02"] * COUNT,
        "gallery_embeds": embeds,
        "backgrounds": ["a", "b", "c"] * (2 * COUNT // 3),
        "factors": [{"kind": "bright" if picture.mean() > 0.5 else "dark"} for picture in truth],
        "protocol": PROTOCOL,
        "factor_classifier": Classifier(),
    }


@pytest.fixture(scope="module")
def scores(material):
    return score_rows(**material, extractors={"tiny": TinyExtractor()}, permutations=50)


@pytest.fixture(scope="module")
def report(scores):
    return Report.from_scores(
        scores,
        PROTOCOL,
        data={"name": "toy", "fingerprint": "f", "simulated": True, "mean_noise_ceiling": float("nan")},
        model={"method": "toy"},
        timing={"total_s": 1.5},
        looks=[{"time": "2026", "commit": None, "config": {"a": 1}, "score": {"pixcorr": 0.5}}],
        uses_test_images=["mean_image"],
        draws=300,
    )
