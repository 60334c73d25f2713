"""Responses that were made of another subject's, judged beside true ones."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from fmri_models.data import TrialTable
from fmri_models.data.table_processor import fit_processor
from fmri_models.errors import FmriModelsError
from fmri_models.evaluation.synthesis import synthesis_of_table, synthesis_scores
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
