"""N-way accuracy: the published draws, the expectation, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from fmri_models.errors import FmriModelsError
from fmri_models.evaluation import n_way_accuracy
from fmri_models.evaluation.ranks import hits_from_ranks

FIXTURES = Path(__file__).parent.parent / "fixtures" / "evaluation"


def test_the_recorded_draws_of_the_original():
    fixture = load_file(FIXTURES / "mindvis_n_way.safetensors")
    logits, target = fixture["in.logits_pred"][3:4], fixture["rec.gt"]
    found = n_way_accuracy(logits, target, 10, draws=fixture["rec.draws"])
    assert found == fixture["rec.acc"][0]
    # A class that the draws do not beat: the same by hand.
    best = logits.argmax(1)
    draws = fixture["rec.draws"].where(fixture["rec.draws"] != best, 0)
    assert n_way_accuracy(logits, best, 10, draws=draws[None]) == 1


def test_ties_as_the_original_counts_them():
    expected = load_file(FIXTURES / "mindvis_n_way.safetensors")["out.tie_top1"][0]
    logits = torch.ones(1, 1000)
    assert n_way_accuracy(logits, [0], 50, ties="success") == expected
    assert n_way_accuracy(logits, [0], 50) == 0


def test_draws_are_as_frequent_as_they_should_be():
    logits = torch.randn(20, 60, generator=torch.Generator().manual_seed(0))
    target = logits.argsort(1)[:, -4]
    for n_way, top_k in ((2, 1), (10, 1), (30, 3)):
        exact = n_way_accuracy(logits, target, n_way, top_k, reduction="none")
        drawn = n_way_accuracy(logits, target, n_way, top_k, trials=5000, seed=1, reduction="none")
        assert ((drawn - exact).abs() <= 4.5 * (exact * (1 - exact) / 5000).sqrt() + 1e-12).all()
        assert drawn.dtype == torch.float64
        assert torch.equal(drawn, n_way_accuracy(logits, target, n_way, top_k, trials=5000, seed=1, reduction="none"))


def test_several_right_classes():
    generator = np.random.RandomState(3)
    logits = torch.from_numpy(generator.randn(5, 12))
    target = torch.from_numpy(np.stack([generator.choice(12, 3, replace=False) for _ in range(5)]))
    exact = n_way_accuracy(logits, target, 4, reduction="none")
    by_hand, trials = [], 4000
    for values, right in zip(logits.numpy(), target.numpy(), strict=True):
        others = [c for c in range(12) if c not in right]
        hits = [values[right].max() > values[generator.choice(others, 3, replace=False)].max() for _ in range(trials)]
        by_hand.append(np.mean(hits))
    np.testing.assert_allclose(exact.numpy(), by_hand, atol=0.04)


def test_the_stub_classifier_of_the_original(test_data):
    fixture = load_file(test_data / "fixtures/mindvis/mindvis_image_metrics.safetensors")

    def classes(pictures):
        values = pictures.permute(0, 3, 1, 2).float() / 127.5 - 1
        return torch.nn.functional.adaptive_avg_pool2d(values, 8).flatten(1) @ fixture["in.classifier_weight"].T

    target, drawn = classes(fixture["in.gt"]).argmax(1), np.random.RandomState(11)
    found = n_way_accuracy(classes(fixture["in.pred"]), target, 50, 1, 30, drawn, reduction="none")
    torch.testing.assert_close(found, fixture["out.acc"], atol=1e-12, rtol=0)


def test_hits_from_ranks_beyond_all_others():
    ranks = torch.tensor([[0, 1], [5, 9]])
    assert hits_from_ranks(ranks, 5, 1, 2).tolist() == [[1.0, 0.8], [0.0, 0.0]]
    assert hits_from_ranks(ranks, 5, 2).tolist() == [[1.0, 1.0], [0.0, 0.0]]


@pytest.mark.parametrize(
    ("arguments", "options", "sentence"),
    [
        ((torch.rand(2, 5), [0, 1], 2), {"trials": 0}, "trials is 0"),
        ((torch.rand(2, 5), [0, 1], 2), {"ties": "none"}, "'failure' or 'success'"),
        ((torch.rand(2, 5), [[0, 1], [2, 2]], 2), {}, "same right class twice"),
        ((torch.rand(2, 5), [[0, 1], [2, 3]], 5), {}, "2 of them right"),
        ((torch.rand(2, 5), [0, 1], 3), {"draws": torch.tensor([[2, 3, 4]])}, "draws have the shape"),
        ((torch.rand(2, 5), [0, 1], 3), {"draws": torch.tensor([[2, 5]])}, "outside 0 to 4"),
        ((torch.rand(2, 5), [0, 1], 3), {"draws": torch.tensor([[2, 1]])}, "own class"),
        ((torch.rand(0, 5), [], 3), {}, "shape"),
        ((torch.full((1, 5), torch.nan), [0], 3), {}, "NaN"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, options, sentence):
    with pytest.raises(FmriModelsError, match=sentence):
        n_way_accuracy(*arguments, **options)
