"""Embeddings of a table's pictures by name: networks that measure, generators, and what is taken unasked."""

from pathlib import Path

import numpy as np
import pytest

from fmri_models.data import TrialTable, TrialTableWriter
from fmri_models.data.split_by_embedding import split_by_cluster
from fmri_models.data.split_trials import SplitTrials
from fmri_models.data.stimulus_embeddings import embedded_ids
from fmri_models.errors import FmriModelsError
from fmri_models.evaluation import stimulus_features
from fmri_models.evaluation.stimulus_features import embeddings_by


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> TrialTable:
    """Twelve bright and twelve dark pictures of 40 pixels, in the order of a deck of cards."""
    rng = np.random.default_rng(0)
    path: Path = tmp_path_factory.mktemp("features") / "data"
    ids = [f"s{number:02d}" for number in rng.permutation(24)]
    shown = [rng.integers(0, 90, (40, 40, 3)) + 150 * (int(name[1:]) % 2) for name in ids]
    with TrialTableWriter(path, "two kinds", simulated=True) as writer:
        writer.add_stimuli(
            {"stimulus_id": name, "image": each.astype(np.uint8), "captions": [], "category": None, "factors": None}
            for name, each in zip(ids, shown, strict=True)
        )
        writer.add_trials("subj01", "train", stimulus_ids=ids, fmri=rng.normal(size=(24, 9)).astype(np.float32))
    return TrialTable.open(path)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FMRI_MODELS_CACHE", str(tmp_path))


@pytest.mark.parametrize("embedder", ["embedded", "efficientnet_lite0", "thumbnail"])
def test_kinds_of_pictures_are_clusters(table: TrialTable, embedder: str) -> None:
    trials = SplitTrials.of_table(table)
    embeddings = embeddings_by(table, embedded_ids(trials), embedder)
    assert embeddings.embedder == embedder and len(embeddings.ids) == 24
    np.testing.assert_allclose(np.linalg.norm(embeddings.values, axis=1), 1, atol=1e-5)
    assert bool(embeddings.digest) == (embedder != "thumbnail")
    drawn = split_by_cluster(trials, embeddings, test_fraction=0.5, validation_fraction=0, clusters=2)
    rows = drawn.table.to_pylist()
    assert len({(row["split"], int(row["stimulus_id"][1:]) % 2) for row in rows}) == 2


def test_features_of_networks_are_kept(table: TrialTable, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = table.stimuli.ids
    before = embeddings_by(table, ids, "efficientnet_lite0")
    monkeypatch.setattr(stimulus_features, "batches", None)
    after = embeddings_by(table, ids[::-1], "efficientnet_lite0")
    np.testing.assert_array_equal(before.at(ids), after.at(ids))


def test_what_is_taken_unasked(table: TrialTable, monkeypatch: pytest.MonkeyPatch) -> None:
    assert embeddings_by(table, table.stimuli.ids).embedder == "efficientnet_lite0"
    monkeypatch.setattr(stimulus_features, "_NETWORK", "vit_h14")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def missing(*_: object) -> None:
        raise FmriModelsError("It is not installed.")

    monkeypatch.setattr(type(stimulus_features.EXTRACTORS["vit_h14"]), "check", missing)
    assert embeddings_by(table, table.stimuli.ids).embedder == "embedded"


def test_what_is_no_embedder(table: TrialTable) -> None:
    with pytest.raises(FmriModelsError, match="There is no image generator 'nothing'"):
        embeddings_by(table, table.stimuli.ids, "nothing")
    with pytest.raises(FmriModelsError, match="alexnet2 has more features"):
        embeddings_by(table, table.stimuli.ids, "alexnet2")
