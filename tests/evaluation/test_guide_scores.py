"""Scores of decoded guides: those of the single measures, with a null where nothing is decoded."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fmri_models.data.targets import cached_guides
from fmri_models.evaluation.guide_report import guide_scores, guides_content
from fmri_models.evaluation.guide_scores import (
    IDENTIFICATION,
    PATTERN_CORRELATION,
    GuideOfSubject,
    GuidesOfSubject,
    score_guides,
)
from fmri_models.evaluation.identification import (
    category_identification,
    pairwise_identification,
    pattern_correlation,
    profile_correlation,
)
from fmri_models.guides import GuideSet, guide_sources
from tests.data.test_targets import write_table

GUIDE = "scene_vgg.fc4"


class Decoder:
    """Gives what it was told, whatever the patterns."""

    is_transductive = False

    def __init__(self, guides: GuideSet, answers: dict[float, torch.Tensor]) -> None:
        self.config, self.answers = self, answers
        self.guides = guides.spaces

    def decode_guides(self, features: torch.Tensor, subject_ids: Any, guides: list[str]) -> dict[str, torch.Tensor]:
        assert guides == [GUIDE]
        return {GUIDE: self.answers[float(features[0, 0])]}


def test_measures_of_a_layer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FMRI_MODELS_CACHE", str(tmp_path / "cache"))

    def of_kind(record: dict[str, Any]) -> dict[str, Any]:
        return {**record, "category": f"kind{int(record['stimulus_id'][-1]) % 3}"}

    table = write_table(tmp_path / "table", of_kind)
    guides = GuideSet(guide_sources({"network": "scene_vgg", "layers": ["fc4"]}))
    stored = torch.from_numpy(np.array(cached_guides(table, guides)[GUIDE]))
    ids = table.stimuli.ids
    training, tested = ids[:16], [*ids[16:], ids[16]]
    rows = torch.tensor(table.stimuli.positions(tested))
    generator = torch.Generator().manual_seed(0)
    noisy = stored[rows] + stored.std() * torch.randn(stored[rows].shape, generator=generator)
    model: Any = Decoder(guides, {0.0: noisy, 1.0: noisy.roll(1, dims=0)})
    patterns = {
        "brain": (torch.zeros(9, 1), torch.zeros(9)),
        "shuffled_brain": (torch.ones(9, 1), torch.zeros(9)),
    }
    found = score_guides(model, table, guides, patterns, tested, training, "subj01", 0)
    measured = found.guides[GUIDE]
    truth, index = stored[rows[:8]], torch.tensor([*range(8), 0])
    items = np.arange(9)

    def own(metric: str) -> np.ndarray:
        return measured.scores["brain"][metric][found.truth_index, items].numpy()

    expected = pairwise_identification(truth, noisy, index, reduction="none")
    np.testing.assert_allclose(own(IDENTIFICATION), expected)
    known = torch.from_numpy(np.array(stored[table.stimuli.positions(training)]))
    std = known.std(dim=0)
    varies = std > 0
    by_pattern = pattern_correlation(
        truth[index][:, varies], noisy[:, varies], known.mean(dim=0)[varies], std[varies], reduction="none"
    )
    np.testing.assert_allclose(own(PATTERN_CORRELATION), by_pattern, atol=1e-4)
    by_unit = profile_correlation(truth[index], noisy)
    np.testing.assert_allclose(measured.profile_correlation["brain"], by_unit[by_unit.isfinite()].mean(), atol=1e-6)
    names = list(dict.fromkeys(table.stimuli.categories(tested)))
    names += sorted({f"kind{number}" for number in range(3)} - set(names))
    means = [
        known[[place for place, name in enumerate(table.stimuli.categories(training)) if name == each]].mean(dim=0)
        for each in names
    ]
    of_items = [names.index(str(name)) for name in table.stimuli.categories(tested)]
    assert measured.category_identification["brain"] == pytest.approx(
        category_identification(noisy, of_items, torch.stack(means))
    )


def drawn(seed: int, strength: float) -> GuidesOfSubject:
    """A subject of 12 pictures whose two layers are decoded more or less well."""
    rng = np.random.default_rng(seed)
    guides = {}
    for name in ("net.a", "net.b"):
        matrix = torch.from_numpy(rng.normal(size=(12, 12)) + strength * np.eye(12))
        scores = {IDENTIFICATION: _shares(matrix), PATTERN_CORRELATION: matrix}
        guides[name] = GuideOfSubject(
            5, {"brain": scores, "shuffled_brain": scores}, {"brain": 0.3, "shuffled_brain": 0}
        )
    ids = [f"p{number:02d}" for number in range(12)]
    return GuidesOfSubject(f"subj{seed:02d}", 0, ids, ids, guides)


def _shares(matrix: torch.Tensor) -> torch.Tensor:
    return torch.stack([(matrix < row[None]).double().sum(dim=0) / (len(matrix) - 1) for row in matrix])


def test_a_mean_over_layers_and_its_null() -> None:
    found = [drawn(1, 3.0), drawn(2, 3.0)]
    scores = guide_scores(found, seed=0)
    values = scores.values["brain"][IDENTIFICATION]
    assert values is not None and len(scores) == 24
    expected = np.mean([each.guides[name].scores["brain"][IDENTIFICATION].diagonal().numpy()
                        for each in found[:1] for name in ("net.a", "net.b")], axis=0)  # fmt: skip
    np.testing.assert_allclose(values[:12], expected)
    assert values.mean() > 0.9
    permuted = scores.permuted[IDENTIFICATION]
    assert permuted.shape[1] == 24 and abs(permuted.mean() - 0.5) < 0.05
    # A picture's items go to the same other picture in both subjects.
    content = guides_content(found, {"net.a": {}, "net.b": {}}, seed=0)
    assert content["net.a"]["permutation"][IDENTIFICATION]["p"] < 0.01
    assert content["net.a"]["results"]["brain"][IDENTIFICATION]["n"] == 24
    assert content["net.b"]["profile_correlation"] == {"brain": 0.3, "shuffled_brain": 0.0}
    assert "category_identification" not in content["net.b"]


def test_nothing_decoded_is_at_chance() -> None:
    scores = guide_scores([drawn(seed, 0.0) for seed in range(20)], seed=0)
    values = scores.values["brain"][IDENTIFICATION]
    assert values is not None and abs(values.mean() - 0.5) < 0.06
