"""Attention by ROI: by hand, where it is not defined, and in a report."""

import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fmri_models.data import TrialTableWriter
from fmri_models.errors import FmriModelsError
from fmri_models.evaluation import Report
from fmri_models.evaluation.attention import (
    MOST_ITEMS,
    MOST_ROIS,
    NO_ROI,
    OTHER_ROIS,
    RoiAttention,
    RoiShares,
    attention_content,
    attention_notes,
    attention_of,
    attention_to_voxels,
    mean_attentions,
)
from fmri_models.evaluation.attention_figure import attention_figure
from fmri_models.evaluation.evaluate import evaluate
from fmri_models.evaluation.report_pages import to_html, to_markdown
from fmri_models.evaluation.report_tables import tables
from fmri_models.modeling_fmri import FmriPreTrainedModel
from fmri_models.processing_fmri import FmriProcessor
from fmri_models.training.recipe import load_recipe
from fmri_models.training.trainer import train
from tests.models.mindvis.test_modeling_mindvis import PATCHES, tiny_fmri, tiny_model
from tests.training.learner import LearnerModel

# Two tokens of two columns.
WEIGHTS = np.array([[[0.9, 0.1], [0.4, 0.6]]])
HOSTILE = "<script>alert(1)</script> [a](http://b) | **c**"


def shares_of(column_rois, column_voxels=None, columns_a_token=2):
    voxels = np.arange(len(column_rois)) if column_voxels is None else np.array(column_voxels)
    return RoiShares.of(voxels, column_rois, columns_a_token)


def some_weights(layers=2, tokens=6):
    weights = np.random.default_rng(0).random((layers, tokens, tokens))
    return weights / weights.sum(-1, keepdims=True)


# ------------------------------------------------------------------------------------------------------------- by hand


def test_a_token_of_one_roi_each():
    found = shares_of(["V1", "V1", "V2", "V2"]).attention(WEIGHTS)
    assert found.rois == ["V1", "V2"] and found.voxels.tolist() == [2, 2]
    np.testing.assert_allclose(found.matrices, WEIGHTS)
    np.testing.assert_allclose(found.received, [[0.65, 0.35]])
    np.testing.assert_allclose(found.chance, [0.5, 0.5])
    np.testing.assert_allclose(found.to_dict()["layers"][0]["ratio"], [1.3, 0.7])


def test_a_token_of_two_rois_counts_for_both_by_its_share():
    found = shares_of(["V1", "V2", "V2", "V2"]).attention(WEIGHTS)
    np.testing.assert_allclose(found.chance, [0.25, 0.75])
    # Half of what the first token gives and gets is that of V1.
    np.testing.assert_allclose(found.matrices[0, 0], [0.45, 0.55])
    # V2 attends as half a token and a whole one.
    np.testing.assert_allclose(found.matrices[0, 1], [(0.5 * 0.45 + 0.2) / 1.5, (0.5 * 0.55 + 0.8) / 1.5])
    np.testing.assert_allclose(found.received, [[(0.45 + 0.2) / 2, (0.55 + 0.8) / 2]])


def test_a_repeated_voxel_counts_for_its_own_roi():
    # Three voxels, wrapped to four columns: the last one is the first voxel again.
    found = shares_of(["V1", "V2", "V2", "V1"], [0, 1, 2, 0]).attention(WEIGHTS)
    assert found.voxels.tolist() == [1, 2]
    np.testing.assert_allclose(found.chance, [0.5, 0.5])
    np.testing.assert_allclose(found.received, [[0.5, 0.5]])
    voxels = attention_to_voxels(WEIGHTS, np.array([0, 1, 2, 0]), 4)
    np.testing.assert_allclose(voxels, [[[0.5, 0.45, 0.05, 0], [0.5, 0.2, 0.3, 0]]])


def test_the_processors_wrapping_is_that_of_the_columns():
    fmri = np.random.default_rng(0).normal(size=(8, 6)).astype(np.float32)
    processor = FmriProcessor.fit({"subj01": fmri}, padding="wrap", patch_size=4)
    columns = processor.column_voxels("subj01")
    labels = ["V1", "V1", "V1", "", "V2", "V2"]
    shares = RoiShares.of(columns, [labels[voxel] for voxel in columns], 4)
    assert columns.tolist() == [0, 1, 2, 3, 4, 5, 0, 1]
    assert shares.rois == ["V1", "V2", NO_ROI] and shares.voxels.tolist() == [3, 2, 1]
    np.testing.assert_allclose(shares.shares, [[0.75, 0, 0.25], [0.5, 0.5, 0]])


def test_shares_sum_to_one_and_even_attention_is_chance():
    shares = shares_of([*"aabbbcabcdddaacd", "", ""], columns_a_token=3)
    found = shares.attention(some_weights())
    np.testing.assert_allclose(found.matrices.sum(-1), 1)
    np.testing.assert_allclose(found.received.sum(-1), 1)
    assert found.chance.sum() == pytest.approx(1)
    even = shares.attention(np.full((1, 6, 6), 1 / 6))
    np.testing.assert_allclose(even.to_dict()["layers"][0]["ratio"], np.ones(5))
    np.testing.assert_allclose(even.matrices[0], np.tile(even.chance, (5, 1)))
    np.testing.assert_allclose(attention_to_voxels(some_weights(), np.arange(18), 18).sum(-1), 1)


def test_of_many_rois_the_smallest_are_one():
    names = [f"roi{number}" for number in range(40)]
    column_rois = ["", *names, *names[5:]]
    found = shares_of(column_rois, columns_a_token=1)
    assert len(found.rois) == MOST_ROIS and found.rois[-2:] == [OTHER_ROIS, NO_ROI]
    assert not set(names[:5]) & set(found.rois) and found.voxels.sum() == len(column_rois)
    np.testing.assert_allclose(found.shares.sum(1), 1)


def test_folds_are_averaged_by_their_items():
    one = shares_of(["V1", "V1", "V2", "V2"]).attention(WEIGHTS, items=3)
    other = shares_of(["V2", "V2", "V3", "V3"]).attention(WEIGHTS[:, ::-1, ::-1], items=1)
    merged = RoiAttention.merged([one, other])
    assert merged.rois == ["V1", "V2", "V3"] and merged.items == 4
    np.testing.assert_allclose(merged.voxels, [1.5, 2, 0.5])
    np.testing.assert_allclose(merged.chance, [0.375, 0.5, 0.125])
    np.testing.assert_allclose(merged.matrices.sum(-1), 1)
    np.testing.assert_allclose(merged.received[0], 0.75 * np.array([0.65, 0.35, 0]) + 0.25 * np.array([0, 0.35, 0.65]))
    np.testing.assert_allclose(RoiAttention.merged([one]).matrices, one.matrices)
    deeper = shares_of(["V1", "V1"]).attention(np.ones((2, 1, 1)))
    content = attention_content([("s1", one), ("s1", deeper), ("s2", "no labels."), ("s3", None), ("s4", one)])
    assert "1 to 2 layers" in content["s1"]["not_defined"] and content["s2"] == {"not_defined": "no labels."}
    assert "s3" not in content and content["s4"]["rois"] == ["V1", "V2"]
    assert attention_notes(content)[1] == "Attention by ROI is not defined for s2: no labels."


def test_what_does_not_fit_is_refused():
    with pytest.raises(FmriModelsError, match="of no voxel .* in which ROI"):
        shares_of(["", "", "", ""])
    with pytest.raises(FmriModelsError, match="3 columns, no multiple of the 2 of a token"):
        shares_of(["V1", "V1", "V2"])
    with pytest.raises(FmriModelsError, match="attends to 2 tokens, and a pattern has 3"):
        shares_of(["V1"] * 6).attention(WEIGHTS)


# -------------------------------------------------------------------------------------------------------------- models


def test_the_mean_of_a_models_weights_is_that_of_all_batches():
    model, fmri, ids = tiny_model(), tiny_fmri(7), torch.zeros(7, dtype=torch.long)
    assert model.attended_columns == model.encoder.attended_columns == model.config.patch_size
    expected = torch.stack(model(fmri, output_attentions=True).attentions).double().mean(dim=(1, 2))
    for batch_size in (None, 1, 3, 7):
        found = mean_attentions(model, fmri, ids, batch_size)
        assert found.shape == (2, PATCHES, PATCHES)
        np.testing.assert_allclose(found, expected.detach().numpy(), atol=1e-6)
        np.testing.assert_allclose(found.sum(-1), 1)


class Attending:
    def __init__(self, *attentions):
        self.attentions = attentions

    def __call__(self, fmri, subject_ids, output_attentions):
        return SimpleNamespace(attentions=self.attentions)


@pytest.mark.parametrize(
    ("attentions", "message"),
    [
        ([], "returns attentions none"),
        ([torch.ones(1, 2, 3)], r"of the shapes \[\(1, 2, 3\)\]"),
        ([torch.ones(1, 2, 3, 3), torch.ones(1, 2, 4, 4)], "of the shapes"),
        ([torch.ones(1, 2, 3, 4)], "3 tokens to 4 others"),
        ([torch.full((1, 2, 3, 3), torch.nan)], "not finite"),
    ],
)
def test_weights_that_are_none_are_refused(attentions, message):
    with pytest.raises(FmriModelsError, match=message):
        mean_attentions(Attending(*attentions), torch.zeros(1, 6), torch.zeros(1, dtype=torch.long))


def test_layers_may_have_other_numbers_of_heads():
    model = Attending(torch.full((1, 2, 3, 3), 1 / 3), torch.eye(3).expand(1, 4, 3, 3))
    found = mean_attentions(model, torch.zeros(1, 6), torch.zeros(1, dtype=torch.long))
    np.testing.assert_allclose(found, np.stack([np.full((3, 3), 1 / 3), np.eye(3)]))


def test_a_model_without_such_attention_is_not_asked():
    assert FmriPreTrainedModel.attended_columns.fget(object()) is None
    assert "attended_columns" not in vars(LearnerModel)
    of = SimpleNamespace(pipeline=SimpleNamespace(brain_model=SimpleNamespace(attended_columns=None), processor=None))
    assert attention_of(of) is None


def test_at_most_so_many_items_are_read_and_pooled_columns_are_none():
    fmri = np.random.default_rng(0).normal(size=(100, 20)).astype(np.float32)
    processor = FmriProcessor.fit({"subj01": fmri})

    class Subject(SimpleNamespace):
        def __len__(self):
            return 100

        def model_inputs(self, model, features):
            return features, torch.zeros(len(features), dtype=torch.long)

    table = SimpleNamespace(voxels=lambda subject: SimpleNamespace(roi=["V1"] * 8 + ["V2"] * 12))
    pipeline = SimpleNamespace(brain_model=tiny_model(), processor=processor)
    of = Subject(pipeline=pipeline, subject="subj01", table=table, features=torch.from_numpy(fmri))
    found = attention_of(of)
    assert found.items == MOST_ITEMS and found.rois == ["V1", "V2"]
    np.testing.assert_allclose(found.chance, [0.4, 0.6])
    pipeline.processor = FmriProcessor.fit({"subj01": fmri}, pool_width=20)
    assert "pool_width=20" in attention_of(of)


# ------------------------------------------------------------------------------------------------------------- reports


def some_attention(rois=("V1", "V2", "V3"), layers=2):
    column_rois = [roi for roi in rois for _ in range(2)]
    return shares_of(column_rois).attention(some_weights(layers, len(rois)), 12).to_dict()


def test_the_figure_has_a_square_for_each_pair_of_rois_and_is_text(report):
    figure = attention_figure(some_attention())
    # Besides, nine squares of the legend.
    assert figure.count("<rect") == 2 * 9 + 9 and figure.count("layer ") == 2
    assert attention_figure(some_attention(layers=24)).count("layer ") == 6
    assert "layer 24" in attention_figure(some_attention(layers=24))
    assert "<script" not in attention_figure(some_attention((HOSTILE, "V2")))
    changed = Report(
        **{**report.__dict__, "attention": {HOSTILE: some_attention((HOSTILE, "V2")), "s": some_attention()}}
    )
    markdown, html = to_markdown(changed), to_html(changed)
    assert "<script" not in markdown + html and html.count('<svg role="img"') == 2
    assert not re.search(r"(?<!\\)\]\((?!grid)", markdown) and "**c**" not in markdown


def test_a_report_keeps_attention_and_one_without_has_no_such_key(report, tmp_path):
    assert "attention" not in report.to_dict()
    assert not any("Attention" in table.title for table in tables(report))
    content = {"subj01": some_attention(), "subj02": {"not_defined": "The table says nothing."}}
    changed = Report(**{**report.__dict__, "attention": content})
    changed.save(tmp_path / "report.json")
    assert Report.load(tmp_path).attention == content
    (table,) = [each for each in tables(changed) if each.title.startswith("Attention")]
    assert table.title == "Attention by ROI" and [line[0] for line in table.lines] == ["V1", "V2", "V3"]
    assert "not importance" in table.caption
    values = json.loads((tmp_path / "report.json").read_text())
    for bad in ({"rois": ["V1"]}, {**some_attention(), "chance": [0.5]}, {**some_attention(), "layers": []}):
        (tmp_path / "report.json").write_text(json.dumps({**values, "attention": {"subj01": bad}}))
        with pytest.raises(FmriModelsError, match="attention"):
            Report.load(tmp_path)


NUM = {"train": 12, "validation": 4, "test": 6}
GENERATOR = {
    "name": "double_conditioned",
    "options": {"block_out_channels": [8, 8], "context_dim": 8, "num_context_tokens": 2, "attention_heads": 2},
}
SIZES = {
    "patch_size": 4, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "decoder_hidden_size": 8,
    "decoder_num_hidden_layers": 1, "decoder_num_attention_heads": 2,
}  # fmt: skip


def write_table(path, rois):
    """Subjects of 10 and 14 voxels, whose patterns are wrapped to 16 columns."""
    rng = np.random.default_rng(0)
    names = [f"p{number:02d}" for number in range(sum(NUM.values()))]
    with TrialTableWriter(path, name="t", simulated=True, description="d", license="CC0", source="s") as writer:
        writer.add_stimuli(
            {"stimulus_id": name, "image": picture, "captions": [], "category": None, "factors": None}
            for name, picture in zip(names, rng.integers(0, 256, (len(names), 8, 8), dtype=np.uint8), strict=True)
        )
        for subject, labels in rois.items():
            writer.add_voxels(subject, len(labels), roi=labels)
            first = 0
            for part, count in NUM.items():
                rows = list(range(first, first + count))
                writer.add_trials(
                    subject, part, stimulus_ids=[names[row] for row in rows], sessions=[1] * count, runs=[1] * count,
                    trials=rows, repetitions=[0] * count, fmri=rng.normal(size=(count, len(labels))).astype(np.float32),
                )  # fmt: skip
                first += count
    return path


def test_a_report_on_a_transformer_of_patches(tmp_path):
    data = write_table(tmp_path / "data", {"subj01": ["V1"] * 6 + ["V2"] * 8, "subj02": [""] * 10})
    overrides = [f"data={data}", f"out={tmp_path / 'model'}", f"generator={json.dumps(GENERATOR)}"]
    overrides += [f"model.{name}={size}" for name, size in SIZES.items()]
    overrides += ["processor.patch_size=4", "processor.statistics=pooled", "drawing.num_inference_steps=2"]
    # This generator has no embeddings of its own that conditions could be aligned with.
    overrides.append("stages.1.objective.module=conditioner")
    for stage in range(3):
        training = {"steps": 1, "batch_size": 4, "learning_rate": 1e-3, "schedule": "constant", "keep_best": False}
        overrides.append(f"stages.{stage}.training={json.dumps(training)}")
    train(load_recipe("mindvis", overrides))
    report = evaluate(tmp_path / "model", data, tmp_path / "report", "small_pictures")
    found = report.attention["subj01"]
    assert found["rois"] == ["V1", "V2"] and found["voxels"] == [6, 8] and found["items"] == NUM["test"]
    # The 15th and 16th column are the first two voxels again.
    assert found["chance"] == [8 / 16, 8 / 16] and len(found["layers"]) == 2
    for layer in found["layers"]:
        np.testing.assert_allclose(np.sum(layer["matrix"], axis=1), 1, atol=1e-5)
        assert sum(layer["received"]) == pytest.approx(1, abs=1e-5)
    assert "of no voxel" in report.attention["subj02"]["not_defined"]
    assert sum("Attention by ROI is not defined for subj02" in note for note in report.notes) == 1
    assert Report.load(tmp_path / "report").to_dict() == report.to_dict()
    markdown, html = ((tmp_path / "report" / name).read_text() for name in ("report.md", "report.html"))
    assert "## Attention by ROI" in markdown and markdown.count("Attention is not importance") == 1
    assert html.count('<svg role="img"') == 1 and "V1 to V2" in html
