"""In how many directions predictions vary, and what lies outside the training targets: planted cases, and nulls."""

import copy

import numpy as np
import pytest

from fmri_models.evaluation import target_span
from fmri_models.evaluation.audit import PARTS, audit_tables, checked_audit, span
from fmri_models.evaluation.effective_rank import effective_rank, gram, participation_ratio, rank_ratio
from fmri_models.evaluation.evaluate import evaluate
from fmri_models.evaluation.rank_correlation import difference_of_samples
from fmri_models.evaluation.report import Report
from fmri_models.evaluation.target_span import Targets, span_of
from fmri_models.training.recipe import load_recipe
from fmri_models.training.trainer import train
from tests.small_table import write_small_table


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("span")
    data = write_small_table(folder / "data")
    overrides = [f"data={data}", f"out={folder / 'model'}", "generator=pixels", "targets=[latents]"]
    train(load_recipe("linear", overrides))
    return folder


@pytest.fixture(scope="module")
def report(workplace):
    return evaluate(workplace / "model", workplace / "data", workplace / "report", "small_pictures", audit=["span"])


def as_targets(vectors):
    return Targets(vectors, np.arange(len(vectors)))


# ------------------------------------------------------------------------------------------------ the whole evaluation


def test_predictions_of_a_linear_decoder_lie_in_the_span_of_its_targets(report):
    found = report.audit["span"]
    assert found["what"] == "latents" and found["values"] == 144 and found["pictures"] == [12, 12]
    # Pictures of 4 x 4 squares have sixteen values, however many pixels.
    assert found["dimensions"] == [16, 16] and found["training"] == [70, 70]
    everything = found["outside"][-1]
    assert everything["variance"] == 1 and everything["without_direction"] == pytest.approx(1 - 16 / 144)
    assert everything["truth"]["value"] < 1e-6 and everything["predictions"]["value"] < 1e-6
    assert found["outside"][0]["dimensions"][1] < 16 and found["outside"][0]["truth"]["value"] > 0.01
    bounds = found["held_out"]["levels"][0]["difference"]["ci95"]
    assert bounds[0] < 0 < bounds[1] and found["held_out"]["stimuli"] == [14, 14]


def test_ranks_are_those_of_as_many_vectors(report):
    found = report.audit["span"]
    assert set(found["ranks"]) == {"predictions", "truth", "training", "permuted_training"}
    for rank in found["ranks"].values():
        assert 1 < rank["participation"] <= rank["entropy"] <= 11
    low, high = found["ratios"]["truth"]["ci95"]
    assert low < found["ratios"]["truth"]["ratio"] < high and found["ratios"]["truth"]["stimuli"] == 12


def test_what_was_found_is_read_again_and_shown(report, workplace):
    assert Report.load(workplace / "report").audit == report.to_dict()["audit"]
    text = (workplace / "report" / "report.md").read_text()
    for title in ("Span: effective rank", "Span: what lies outside", "Span: beside held-out"):
        assert title in text
    (note,) = [each for each in report.notes if "span 16 of 144 directions" in each]
    assert "no variance of the test targets lies outside" in note
    assert "<svg" in (workplace / "report" / "report.html").read_text()


def test_of_a_method_that_decodes_no_embedding_the_reconstructions_are_looked_at(workplace, tmp_path, monkeypatch):
    monkeypatch.setattr(span, "_decoded", lambda of, first: None)
    report = evaluate(
        workplace / "model", workplace / "data", tmp_path / "r", "small_pictures", audit=["span"],
        repetitions="single", rows=["floor"],
    )  # fmt: skip
    found = report.audit["span"]
    assert found["what"] == "reconstructions" and found["pictures"] == [12, 12]
    assert set(found["ranks"]) == {"predictions", "truth", "training"}
    assert any("decodes nothing that pictures have targets of" in note for note in report.notes)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("what",), "dreams"),
        (("ranks", "predictions", "participation"), 0),
        (("curves", "truth"), [0.5]),
        (("outside", 0, "without_direction"), 1.5),
        (("outside",), []),
        (("held_out", "levels", 0, "truth", "value"), "much"),
        (("dimensions",), [3]),
        (("ratios", "truth", "ratio"), -1),
    ],
)
def test_contents_of_others_are_checked(report, place, value):
    audit = copy.deepcopy(report.to_dict()["audit"])
    *above, last = place
    inner = audit["span"]
    for step in above:
        inner = inner[step]
    inner[last] = value
    with pytest.raises(ValueError, match="what an audit says of span"):
        checked_audit(audit)


def test_what_may_be_missing_is_no_error_on_a_page(report):
    content = copy.deepcopy(report.to_dict()["audit"]["span"])
    content["held_out"] = None
    content["ranks"] |= {"predictions": None, "training": None}
    content["ratios"] = {}
    for level in content["outside"]:
        level["truth"] = level["predictions"] = None
    PARTS["span"].schema.model_validate(content)
    assert len(list(audit_tables({"span": content}))) == 2
    text = " ".join(PARTS["span"].notes(content))
    assert "the predictions are the same for all test stimuli" in text and "too few training stimuli" in text


# -------------------------------------------------------------------------------------------------------------- ranks


@pytest.mark.parametrize("directions", [1, 3, 10])
def test_equal_directions_are_counted(directions):
    # Each value on both sides of a mean that is far away.
    vectors = np.concatenate([np.eye(directions, 30), -np.eye(directions, 30)]) + 5
    found = effective_rank(gram(vectors))
    assert found.participation == pytest.approx(directions) and found.entropy == pytest.approx(directions)
    assert participation_ratio(gram(vectors)) == pytest.approx(directions)


def test_uneven_directions_count_for_less():
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((600, 3)) * [1, 1, 0.1]
    found = effective_rank(gram(vectors))
    assert found.participation == pytest.approx(2.01**2 / 2.0001, rel=0.03)
    assert 2 < found.participation < found.entropy < 3
    assert effective_rank(gram(np.ones((5, 3)))) is None and effective_rank(gram(np.ones((1, 3)))) is None


def test_the_interval_of_a_ratio_holds_the_ratio_of_other_stimuli():
    rng = np.random.default_rng(0)
    scales, mixed = 1 / np.arange(1, 41) ** 0.5, rng.standard_normal((40, 40)) / 40**0.5

    def drawn():
        truth = rng.standard_normal((50, 40)) * scales
        predicted = truth * (np.arange(40) < 8) + 0.1 * rng.standard_normal((50, 40)) @ mixed
        return gram(predicted), gram(truth)

    pairs = [drawn() for _ in range(120)]
    logs = [np.log(participation_ratio(one) / participation_ratio(other)) for one, other in pairs]
    expected, units = np.exp(np.mean(logs)), np.arange(50).astype(str)
    found = [rank_ratio([one], [other], [units], seed) for seed, (one, other) in enumerate(pairs)]
    held = np.mean([each.ci95[0] <= expected <= each.ci95[1] for each in found])
    assert held > 0.88 and expected < 0.9


def test_a_ratio_of_few_or_equal_vectors():
    rng = np.random.default_rng(0)
    products = gram(rng.standard_normal((4, 9)))
    found = rank_ratio([products], [products], [np.arange(4).astype(str)])
    assert (found.ratio, found.ci95) == (1, None)
    assert rank_ratio([np.zeros((6, 6))], [np.eye(6)], [np.arange(6).astype(str)]) is None
    other = gram(rng.standard_normal((30, 9)))
    found = rank_ratio([other, other], [other, other], [np.arange(30).astype(str)] * 2)
    assert found.ratio == 1 and found.ci95 == (1, 1) and found.stimuli == 30


# -------------------------------------------------------------------------------------------------------------- spaces


def residuals(training, vectors):
    """(n,) squared distances from the affine space of the training vectors."""
    mean = training.mean(axis=0)
    basis = np.linalg.svd(training - mean, full_matrices=False)[2][: len(training) - 1]
    centred = vectors - mean
    return ((centred - centred @ basis.T @ basis) ** 2).sum(axis=1)


@pytest.mark.parametrize("most", [10, 2048])
def test_covariance_and_scalar_products_find_the_same_space(monkeypatch, most):
    rng = np.random.default_rng(0)
    training, vectors = rng.standard_normal((12, 40)) + 3, rng.standard_normal((7, 40))
    mixed = rng.dirichlet(np.ones(12), 5) @ training
    monkeypatch.setattr(target_span, "MOST_DIMENSIONS", most)
    monkeypatch.setattr(target_span, "_COLUMNS", 9)
    monkeypatch.setattr(target_span, "_ROWS", 5)
    found = span_of(as_targets(training), [as_targets(vectors), as_targets(mixed)])
    assert found.dimensions == 11 and found.expected_outside == pytest.approx(1 - 11 / 40)
    assert found.vectors[0].outside(11) == pytest.approx(residuals(training, vectors))
    assert (found.vectors[1].outside(11) == 0).all()
    assert found.variances.sum() == pytest.approx(((training - training.mean(axis=0)) ** 2).sum())
    assert found.dimensions_of(1e-6) == 1 and found.dimensions_of(1.0) == 11


def test_without_direction_as_much_lies_outside_as_expected():
    rng = np.random.default_rng(0)
    training, vectors = rng.standard_normal((30, 60)), rng.standard_normal((400, 60))
    found = span_of(as_targets(training), [as_targets(vectors)])
    share = found.vectors[0].outside(found.dimensions).sum() / found.vectors[0].energy.sum()
    # The mean of the training, from which it is seen, is farther away for a vector that had no part in it.
    assert share == pytest.approx(found.expected_outside, abs=0.03)
    many = span_of(as_targets(rng.standard_normal((200, 60))), [as_targets(vectors)])
    assert many.dimensions == 60 and (many.vectors[0].outside(60) == 0).all() and many.expected_outside == 0
    assert span_of(as_targets(np.ones((5, 3))), []) is None


def test_rounding_of_half_precision_is_no_direction():
    rng = np.random.default_rng(0)
    vectors = (rng.standard_normal((50, 3)) @ rng.standard_normal((3, 30))).astype(np.float16)
    assert span_of(as_targets(vectors), []).dimensions == 3


@pytest.mark.parametrize(("further", "least", "most"), [(0.0, 0.0, 0.12), (1.0, 0.9, 1.0)])
def test_beside_held_out_training_stimuli_only_other_stimuli_lie_farther_outside(further, least, most):
    rng = np.random.default_rng(0)
    scales, found = 1 / np.arange(1, 61), []
    for _ in range(60):
        every = rng.standard_normal((80, 60)) * scales
        tested = rng.standard_normal((20, 60)) * scales
        tested[:, -1] += further * rng.standard_normal(20)
        spanned = span_of(as_targets(every[:60]), [as_targets(tested), as_targets(every[60:])])
        shares = [
            span._share_of_each(each.outside(40), each.energy, np.arange(20).astype(str)) for each in spanned.vectors
        ]
        found.append(difference_of_samples(*shares[0], *shares[1]).ci95[0] > 0)
    assert least <= np.mean(found) <= most


def test_shares_of_variance_are_of_sums_and_scatter_as_these():
    rng = np.random.default_rng(0)
    energy = rng.uniform(1, 3, 40)
    outside = energy * rng.uniform(0.1, 0.3, 40)
    values, names = span._share_of_each(outside, energy, np.arange(40).astype(str))
    assert values.mean() == pytest.approx(outside.sum() / energy.sum()) and len(names) == 40
    draws = [rng.integers(40, size=40) for _ in range(3000)]
    spread = np.std([outside[each].sum() / energy[each].sum() for each in draws])
    assert values.std(ddof=1) / 40**0.5 == pytest.approx(spread, rel=0.1)
