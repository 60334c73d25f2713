"""Responses that were made of another subject's, judged beside true ones."""

import json
from dataclasses import asdict, replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from fmri_models.data import TrialTable
from fmri_models.data.table_processor import fit_processor
from fmri_models.errors import FmriModelsError
from fmri_models.evaluation import Report
from fmri_models.evaluation.report_tables import tables
from fmri_models.evaluation.synthesis import SynthesisRow, synthesis_content, synthesis_of_table, synthesis_scores
from fmri_models.generation.pixels import PixelsImageGenerator
from fmri_models.models.mindbridge import MindBridgeConfig, MindBridgeModel, MindBridgePipeline
from tests.small_table import NUM_VOXELS, SIZE, write_small_table

WIDTHS = {"a": 6, "b": 8}


class Perfect:
    """Responses are a code of the picture in two bases, and what is decoded is the code."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.bases = {name: torch.linalg.qr(torch.randn(width, width, generator=generator))[0][:4]
                      for name, width in WIDTHS.items()}  # fmt: skip
        names = list(WIDTHS)
        self.config = SimpleNamespace(num_voxels=list(WIDTHS.values()), subject_index=names.index)

    def responses(self, codes: torch.Tensor, name: str) -> torch.Tensor:
        return torch.nn.functional.pad(codes @ self.bases[name], (0, 8 - WIDTHS[name]))

    def retrieval_embeds(self, fmri: torch.Tensor, subject_ids: Any = None) -> torch.Tensor:
        return fmri[:, : WIDTHS[subject_ids]] @ self.bases[subject_ids].T

    def synthesize(self, fmri: torch.Tensor, source: Any, target: Any) -> torch.Tensor:
        return self.responses(self.retrieval_embeds(fmri, source), target)


def codes(number: int = 12) -> torch.Tensor:
    return torch.randn(number, 4, generator=torch.Generator().manual_seed(1))


def test_what_is_translated_perfectly_is_as_good_as_the_targets_own():
    model = Perfect()
    found = synthesis_scores(model, model.responses(codes(), "a"), model.responses(codes(), "b"), "a", "b", codes())
    assert list(found) == ["synthetic", "target", "source", "untranslated"]
    for row in ("synthetic", "target", "source"):
        assert found[row].top1 == 1 and found[row].two_way == 1 and found[row].cosine == pytest.approx(1)
    assert found["synthetic"].voxel_correlation == pytest.approx(1)
    assert found["synthetic"].pattern_correlation == pytest.approx(1)
    assert found["target"].voxel_correlation is None
    assert found["untranslated"].top1 < 1


def test_voxels_without_variance_correlate_with_nothing():
    model = Perfect()
    own = model.responses(codes(), "b")
    own[:, 3] = 0
    found = synthesis_scores(model, model.responses(codes(), "a"), own, "a", "b", codes())
    assert found["synthetic"].voxel_correlation == pytest.approx(1)


def test_rows_that_do_not_fit_are_a_sentence():
    model = Perfect()
    fmri = model.responses(codes(), "a")
    with pytest.raises(FmriModelsError, match="12 responses of a, 3 of b and 12 embeddings"):
        synthesis_scores(model, fmri, fmri[:3], "a", "b", codes())
    with pytest.raises(FmriModelsError, match="turns no responses into those of another subject"):
        synthesis_scores(SimpleNamespace(), fmri, fmri, "a", "b", codes())


def test_pairs_of_a_table(tmp_path):
    names = list(NUM_VOXELS)
    table = TrialTable.open(write_small_table(tmp_path / "data"))
    processor = fit_processor(table, names, statistics="pooled", pool_width=7)
    generator = PixelsImageGenerator(1, SIZE, SIZE)
    config = MindBridgeConfig(
        subject_names=names,
        num_voxels=processor.num_voxels,
        hidden_size=8,
        num_hidden_layers=1,
        adapter_size=4,
        image_embedding_space=generator.image_embedding_space.to_dict(),
    )
    pipeline = MindBridgePipeline(MindBridgeModel(config).eval(), processor, generator)
    found = synthesis_of_table(pipeline, table)
    assert set(found) == {"subj07 to subj02", "subj02 to subj07"}
    assert 0 <= found["subj07 to subj02"]["synthetic"].two_way <= 1

    content, notes = synthesis_content(pipeline, table, names)
    assert not notes and set(content["subj02 to subj07"]["synthetic"]) == set(SynthesisRow.__dataclass_fields__)
    assert synthesis_content(pipeline, table, names[:1]) == ({}, [])
    without = MindBridgeModel(MindBridgeConfig(**{**config.to_dict(), "use_builders": False})).eval()
    _, notes = synthesis_content(MindBridgePipeline(without, processor, generator), table, names)
    assert len(notes) == 1 and "not measured" in notes[0] and "no builders" in notes[0]


def test_a_report_has_them_as_key_and_table(report, tmp_path):
    assert "synthesis" not in report.to_dict()
    assert not any(table.title == "Synthetic responses" for table in tables(report))
    rows = {
        "synthetic": asdict(SynthesisRow(0.5, 0.9, 0.3, voxel_correlation=0.2)),
        "target": asdict(SynthesisRow(0.7, 0.95, 0.4)),
    }
    content = {f"subj{number:02} to subj99": rows for number in range(20)}
    changed = replace(report, synthesis=content)
    changed.save(tmp_path / "report.json")
    assert Report.load(tmp_path).synthesis == content
    (table,) = [each for each in tables(changed) if each.title == "Synthetic responses"]
    assert table.lines[0] == ["subj00 to subj99", "synthetic", "0.500", "0.900", "0.300", "0.200", "–"]
    assert len(table.lines) == 24 and "12 of 20 pairs" in table.caption
    values = json.loads((tmp_path / "report.json").read_text())
    (tmp_path / "report.json").write_text(json.dumps({**values, "synthesis": {"a to b": {"synthetic": {"top1": "x"}}}}))
    with pytest.raises(FmriModelsError, match="synthesis"):
        Report.load(tmp_path)
