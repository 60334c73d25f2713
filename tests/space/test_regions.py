"""Regions of processors that select, pool, repeat or drop voxels, or keep no mean of each."""

from pathlib import Path

import numpy as np
import pytest

from fmri_models import FmriModelsError, FmriProcessor, FmriToImagePipeline, TrialTable
from fmri_models.data import TrialTableWriter
from fmri_models.data.processed import ProcessedTrials
from fmri_models.evaluation.silenced_regions import reference_response, scaled_region
from fmri_models.processing.subject_statistics import SubjectStatistics
from fmri_models.space.decoder import Decoder
from fmri_models.space.tabs.brain import contribution_caption
from fmri_models.training.recipe import load_recipe
from fmri_models.training.trainer import train

SUBJECT = "subj01"
ROI = ["V1"] * 8 + ["V2"] * 4 + [""] * 2
SIZE = 8
TESTED = [f"picture{index:02d}" for index in range(24, 28)]


def write_table(folder: Path) -> Path:
    """Three repetitions in as many sessions; test trials have a further session, in which nothing is learned."""
    rng = np.random.default_rng(0)
    names = [f"picture{index:02d}" for index in range(28)]
    with TrialTableWriter(
        folder, name="regions", simulated=True, description="For tests.", license="CC0", source="drawn"
    ) as writer:
        writer.add_stimuli(
            {
                "stimulus_id": name,
                "image": rng.integers(0, 255, (SIZE, SIZE, 3), dtype=np.uint8),
                "captions": [],
                "category": None,
                "factors": None,
            }
            for name in names
        )
        writer.add_voxels(SUBJECT, len(ROI), roi=ROI)
        first = 0
        for part, ids in (("train", names[:24]), ("test", TESTED)):
            shown = [name for name in ids for _ in range(3)]
            numbers = np.arange(first, first + len(shown), dtype=np.int32)
            writer.add_trials(
                SUBJECT,
                part,
                stimulus_ids=shown,
                sessions=numbers % 3 + (7 if part == "test" else 0),
                runs=np.zeros_like(numbers),
                trials=numbers,
                repetitions=numbers % 3,
                fmri=rng.normal(1, 1, size=(len(shown), len(ROI))).astype(np.float32),
            )
            first += len(shown)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_table(tmp_path_factory.mktemp("regions") / "data")


def decoder_of(data: Path, folder: Path, *options: str, unseen_session: str | None = None) -> Decoder:
    train(load_recipe("linear", [f"data={data}", f"out={folder / 'model'}", "generator=pixels", *options]))
    pipeline = FmriToImagePipeline.from_pretrained(folder / "model", unseen_session=unseen_session)
    return Decoder(pipeline, TrialTable.open(data))


def test_only_regions_that_the_pipeline_reads_are_offered(data: Path, tmp_path: Path) -> None:
    decoder = decoder_of(data, tmp_path, "processor.statistics=pooled", "processor.rois=[V2]")
    assert decoder.regions(SUBJECT) == ["V2"]
    assert list(decoder.contributions(SUBJECT, TESTED[0]).by_region) == ["V2"]
    summary = decoder.change_region(SUBJECT, TESTED[0], "V2", 0.0).summary
    assert summary.startswith("V2 (4 of 4 voxels that the pipeline reads of subj01, a simulated brain): silenced")
    with pytest.raises(FmriModelsError, match="no region V1; its regions: V2"):
        decoder.change_region(SUBJECT, TESTED[0], "V1", 0.0)


def test_what_is_said_of_contributions_is_what_was_measured(data: Path, tmp_path: Path) -> None:
    """The generator has embeddings, and the method decodes none."""
    decoder = decoder_of(data, tmp_path, "processor.statistics=pooled", "targets=[latents]")
    generator = decoder.pipeline.image_generator
    assert generator is not None and generator.image_embedding_space is not None
    found = decoder.contributions(SUBJECT, TESTED[0])
    assert not found.compares_embeddings
    assert contribution_caption(found).startswith("The share by which what is decoded changes")


def test_voxels_that_were_dropped_in_preparation_shift_no_region() -> None:
    """Patterns of all recorded voxels; the third and fourth were dropped."""
    statistics = SubjectStatistics(
        num_voxels=4,
        selected=np.array([1, 2, 3]),
        mean=np.array([[1.0, 2.0, 3.0]], np.float32),
        std=np.ones((1, 3), np.float32),
        source_width=6,
        source_columns=np.array([0, 1, 4, 5]),
    )
    betas = np.full((1, 6), 10, np.float32)
    silenced = scaled_region(statistics, betas, [0], np.array([False, True, False, False, True, False]), 0.0)
    assert silenced.tolist() == [[10, 1, 2, 10]]


@pytest.mark.parametrize("by_roi", [False, True])
def test_a_silenced_region_changes_the_columns_that_it_is_pooled_into(by_roi: bool) -> None:
    rng = np.random.default_rng(0)
    betas = rng.normal(1, 1, (30, 12)).astype(np.float32)

    class Labels:
        roi = ROI[:12]
        coordinates = noise_ceiling = None

    processor = FmriProcessor.fit(
        {SUBJECT: betas}, statistics="pooled", pool_width=6, pool_by_roi=by_roi, voxels={SUBJECT: Labels()}
    )
    silenced = scaled_region(processor.subject(SUBJECT), betas, [0] * 30, np.array(ROI[:12]) == "V2", 0.0)
    changed = (processor(silenced)["fmri"] != processor(betas)["fmri"]).any(dim=0).tolist()
    # Two voxels a column, the last four of the twelve are V2.
    assert changed == [False] * 4 + [True] * 2
    assert not processor(silenced)["fmri"][:, 4:].any()


def test_of_trials_statistics_pictures_are_those_of_an_evaluation_and_regions_a_sentence(
    data: Path, tmp_path: Path
) -> None:
    decoder = decoder_of(data, tmp_path, "processor.min_session_trials=2", unseen_session="from_batch")
    decoder.reconstruct(SUBJECT, TESTED[1])
    positions = decoder._positions(SUBJECT, TESTED[1])
    found, _ = decoder._mean_features(SUBJECT, positions)
    expected = ProcessedTrials(decoder.table.trials(SUBJECT, "test"), decoder.pipeline.processor)
    assert np.array_equal(found.numpy()[0], expected[np.array([expected.stimulus_ids.tolist().index(TESTED[1])])][0])
    for ask in (
        lambda: decoder.change_region(SUBJECT, TESTED[1], "V1", 2.0),
        lambda: decoder.contributions(SUBJECT, TESTED[1]),
    ):
        with pytest.raises(FmriModelsError, match="has no mean response of training"):
            ask()


def test_where_no_mean_of_each_voxel_is_kept_that_is_said(data: Path, tmp_path: Path) -> None:
    assert reference_response(FmriProcessor(statistics="session")) == "the mean response of training"
    assert "keeps no mean response" in reference_response(FmriProcessor(statistics="identity"))
    decoder = decoder_of(data, tmp_path, "processor.statistics=scalar")
    assert "the mean of all voxels" in decoder.change_region(SUBJECT, TESTED[0], "V1", 0.0).summary
