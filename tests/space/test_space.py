"""The web page's logic, and once the page itself."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fmri_models import (
    EmbeddingSpace,
    FmriModelsError,
    FmriProcessor,
    FmriToImagePipeline,
    LinearConfig,
    LinearModel,
    LinearPipeline,
    PixelsImageGenerator,
    TrialTable,
)
from fmri_models.data import TrialTableWriter
from fmri_models.space.decoder import Decoder
from fmri_models.space.limits import checked_seed
from fmri_models.space.page import build, notice, serving
from fmri_models.space.pictures import enlarge
from fmri_models.space.shelf import choose_shelf, load_decoder
from fmri_models.training.recipe import load_recipe
from fmri_models.training.trainer import train
from tests.small_table import write_kfold, write_small_table

SIZE = 8
SUBJECTS = ["subj02", "subj01"]
NUM_TEST = 7
PICTURES = np.random.default_rng(0).integers(40, 200, (40 + NUM_TEST, SIZE, SIZE, 3), dtype=np.uint8)
IDS = [f"picture{index:02d}" for index in range(len(PICTURES))]
TEST_IDS = IDS[-NUM_TEST:]
# Sliders that this pipeline has no use for.
FIRST_SETTINGS = (1, 0, 0, 1, 0)


class RecognizingPixels(PixelsImageGenerator):
    """Embeds a picture as its own pixels, to recognise it and no more."""

    generates_from_embeddings = False

    @property
    def image_embedding_space(self) -> EmbeddingSpace:
        return EmbeddingSpace("pixels", "flat", (3 * SIZE * SIZE,))

    def embed_images(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return pixel_values.flatten(1)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> TrialTable:
    """Each voxel answers with one value of the picture; two repetitions have opposite noise, which averages to zero."""
    folder = tmp_path_factory.mktemp("space") / "data"
    voxels = PICTURES.transpose(0, 3, 1, 2).reshape(len(PICTURES), -1).astype(np.float32) / 255
    noise = np.random.default_rng(1).normal(0, 0.5, voxels.shape).astype(np.float32)
    with TrialTableWriter(
        folder, name="tiny", simulated=True, description="Pictures.", license="cc0-1.0", source="test"
    ) as writer:
        writer.add_stimuli(
            {"stimulus_id": name, "image": picture, "captions": [], "category": None, "factors": None}
            for name, picture in zip(IDS, PICTURES, strict=True)
        )
        for subject in sorted(SUBJECTS):
            writer.add_voxels(subject, voxels.shape[1])
            first_trial = 0
            for split, rows in (("train", slice(0, 40)), ("test", slice(40, None))):
                ids = np.repeat(IDS[rows], 2)
                fmri = np.stack([voxels[rows] + noise[rows], voxels[rows] - noise[rows]], axis=1)
                numbers = np.arange(len(ids), dtype=np.int32)
                writer.add_trials(
                    subject,
                    split,
                    stimulus_ids=ids.tolist(),
                    sessions=np.zeros_like(numbers),
                    runs=np.zeros_like(numbers),
                    trials=first_trial + numbers,
                    repetitions=numbers % 2,
                    fmri=fmri.reshape(len(ids), -1),
                )
                first_trial += len(ids)
    return TrialTable.open(folder)


def make_pipeline(
    table: TrialTable, generator: PixelsImageGenerator, parts: tuple[str, ...], subject_names: list[str] = SUBJECTS
) -> FmriToImagePipeline:
    """A decoder that undoes the processor's standardisation and no more."""
    training = {name: table.trials(table.subjects[0]).fmri() for name in subject_names}
    processor = FmriProcessor.fit(training, subjects=subject_names)
    spaces = {"latents": generator.latent_space, "image_embeds": generator.image_embedding_space}
    names = {"latents": "latent_space", "image_embeds": "image_embedding_space"}
    config = LinearConfig(
        subject_names=subject_names,
        num_voxels=processor.num_voxels,
        **{names[part]: spaces[part].to_dict() for part in parts},
    )
    model = LinearModel(config)
    voxels = training[subject_names[0]]
    with torch.no_grad():
        for part in parts:
            for subject in subject_names:
                (block,) = model.head(part, subject).blocks
                block.weight.copy_(torch.diag(torch.from_numpy(voxels.std(axis=0))))
                block.bias.copy_(torch.from_numpy(voxels.mean(axis=0)))
    return LinearPipeline(model, processor, generator)


@pytest.fixture(scope="module")
def pipeline(table: TrialTable) -> FmriToImagePipeline:
    return make_pipeline(table, RecognizingPixels(3, SIZE, SIZE), ("latents", "image_embeds"))


def test_offers_the_test_stimuli_of_subjects_that_model_and_table_share(
    table: TrialTable, pipeline: FmriToImagePipeline
) -> None:
    decoder = Decoder(pipeline, table)

    assert decoder.subjects == ["subj01", "subj02"]
    assert decoder.stimulus_ids("subj02") == TEST_IDS
    assert np.array_equal(np.asarray(decoder.pictures(TEST_IDS[1:2])[0]), PICTURES[41])


def test_reconstructs_from_the_mean_over_repetitions(table: TrialTable, pipeline: FmriToImagePipeline) -> None:
    result = Decoder(pipeline, table).reconstruct("subj02", TEST_IDS[2])

    truth = enlarge(Image.fromarray(PICTURES[42]))
    assert np.array_equal(np.asarray(result.shown), np.asarray(truth))
    difference = np.asarray(result.reconstructed, dtype=float) - np.asarray(truth, dtype=float)
    assert np.abs(difference).max() <= 2
    assert (
        result.summary == f"Decoded from the mean of 2 responses of subj02 (a simulated brain), who saw: {TEST_IDS[2]}."
    )


def test_names_the_most_similar_test_pictures(table: TrialTable, pipeline: FmriToImagePipeline) -> None:
    ranking = Decoder(pipeline, table).rank("subj01", TEST_IDS[4], most=5)

    assert len(ranking.best) == 5
    assert ranking.summary.startswith(f"The picture that was shown is number 1 of {NUM_TEST} test pictures of subj01.")
    assert "4 on average" in ranking.summary
    assert ranking.best[0][1] == f"1. 1.00 (was shown): {TEST_IDS[4]}"
    assert not any("was shown" in text for _, text in ranking.best[1:])
    assert np.array_equal(np.asarray(ranking.best[0][0]), np.asarray(enlarge(Image.fromarray(PICTURES[44]))))


def test_a_generator_without_embeddings_ranks_nothing(table: TrialTable) -> None:
    pipeline = make_pipeline(table, PixelsImageGenerator(3, SIZE, SIZE), ("latents",))

    ranking = Decoder(pipeline, table).rank("subj01", TEST_IDS[0])
    assert ranking.best == []
    assert "no embeddings" in ranking.summary


def test_refuses_what_it_cannot_decode(table: TrialTable, pipeline: FmriToImagePipeline) -> None:
    decoder = Decoder(pipeline, table)
    stranger = make_pipeline(table, PixelsImageGenerator(3, SIZE, SIZE), ("latents",), ["subj07"])

    with pytest.raises(FmriModelsError, match="subj01 has no test trial of stimulus picture00"):
        decoder.reconstruct("subj01", "picture00")
    with pytest.raises(FmriModelsError, match=r"trained for subj07.*its subjects are subj01, subj02"):
        Decoder(stranger, table)


def test_the_page_shows_the_trials_that_were_held_out_and_says_so(tmp_path: Path) -> None:
    data = write_small_table(tmp_path / "data", subjects=("subj07",))
    write_kfold(data, "k", 3)
    overrides = [f"data={data}", f"out={tmp_path / 'model'}", "generator=pixels", "split=k", "fold=1"]
    train(load_recipe("linear", overrides))
    decoder = load_decoder(str(tmp_path / "model"), str(data))
    tested = set(decoder.table.trials("subj07", "test", "k", 1).stimulus_ids)
    assert set(decoder.stimulus_ids("subj07")) == tested
    assert "split 'k', fold 1, of the table 'small'; the model was not fitted on them." in decoder.about
    assert "has learned" not in decoder.reconstruct("subj07", min(tested)).summary

    # Another table: what was learned from is left out, and what nobody knows of the others is said.
    decoder = load_decoder(str(tmp_path / "model"), str(write_small_table(tmp_path / "other", noise=0.4)))
    test_part = set(decoder.table.trials("subj07", "test").stimulus_ids)
    assert decoder.stimulus_ids("subj07") == sorted(test_part & tested)
    assert "not fitted" not in decoder.about
    assert f"has learned from {len(test_part - tested)} of these 12 pictures" in decoder.about
    assert "left out" in decoder.about
    assert "was trained on another table" in decoder.about
    with pytest.raises(FmriModelsError, match="no test trial of stimulus"):
        decoder.reconstruct("subj07", min(test_part - tested))

    (data / "splits" / "k.parquet").unlink()
    write_kfold(data, "k", 4)
    with pytest.raises(FmriModelsError, match="was drawn again after"):
        load_decoder(str(tmp_path / "model"), str(data))


def test_a_pipeline_without_a_record_is_not_said_to_be_new_to_the_pictures(
    table: TrialTable, pipeline: FmriToImagePipeline
) -> None:
    about = Decoder(pipeline, table).about
    assert "nobody knows whether it has seen these test pictures" in about
    assert "not fitted" not in about


def test_few_test_pictures_are_all_ranked(tmp_path: Path) -> None:
    data = write_small_table(tmp_path / "data", subjects=("subj07",))
    write_kfold(data, "k", 30)
    overrides = [f"data={data}", f"out={tmp_path / 'model'}", "generator=pixels", "split=k"]
    train(load_recipe("linear", overrides))
    decoder = load_decoder(str(tmp_path / "model"), str(data))
    ids = decoder.stimulus_ids("subj07")
    assert len(ids) < 5
    assert len(decoder.rank("subj07", ids[0]).best) == len(ids)


def test_says_that_the_demo_has_to_be_run_first(tmp_path: Path) -> None:
    with pytest.raises(FmriModelsError, match=r"no pipeline in .*missing/pipeline; run `make demo`"):
        load_decoder(str(tmp_path / "missing/pipeline"), str(tmp_path))
    with pytest.raises(FmriModelsError, match=r"no trial table in .*missing/data; run `make demo`.*FMRI_DATA"):
        load_decoder(str(tmp_path), str(tmp_path / "missing/data"))


def test_empty_variables_mean_the_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty name would be the current directory."""
    monkeypatch.chdir(tmp_path)
    # A demo that was interrupted before its table was whole.
    (tmp_path / "outputs/demo/pipeline").mkdir(parents=True)
    assert choose_shelf("", "").data_sets == ["examples of the package"]
    with pytest.raises(FmriModelsError, match=r"no pipeline in \.\./x"):
        load_decoder("../x", str(tmp_path))


def test_without_a_demo_it_shows_the_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shelf = choose_shelf(None, "")
    assert shelf.data_sets == ["examples of the package"]
    assert shelf.methods("examples of the package") == ["mindeye-scenes", "linear-scenes"]
    decoder = shelf.decoder("examples of the package", "mindeye-scenes")
    assert len(decoder.stimulus_ids(decoder.subjects[0])) == 24
    # The trials lie in a table of their own, so that pictures are compared with those of the training by their pixels.
    assert "was trained on another table" in decoder.about
    assert "has learned from" not in decoder.about.replace("whether it has learned from", "")
    with pytest.raises(FmriModelsError, match="no pipeline in outputs/demo/pipeline"):
        choose_shelf(None, str(tmp_path))


@pytest.mark.slow
def test_overlapping_calls_get_their_own_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They share a scheduler, which counts the steps of one picture."""
    monkeypatch.chdir(tmp_path)
    decoder = choose_shelf().decoder("examples of the package", "mindeye-scenes")
    subject = decoder.subjects[0]
    names = decoder.stimulus_ids(subject)[:2]
    alone = [np.asarray(decoder.reconstruct(subject, name, seed=3).reconstructed) for name in names]
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(lambda name: decoder.reconstruct(subject, name, seed=3).reconstructed, names * 2))
    for index, picture in enumerate(together):
        assert np.array_equal(np.asarray(picture), alone[index % 2])


@pytest.mark.parametrize("seed", [-1, 0.5, float("nan"), float("inf"), 2.0**32, 2.0**70])
def test_a_seed_that_is_none_is_a_sentence(seed: float) -> None:
    with pytest.raises(FmriModelsError, match="expected a whole number from 0"):
        checked_seed(seed)
    assert (checked_seed(None), checked_seed(7), checked_seed(2.0**32 - 1)) == (0, 7, 2**32 - 1)


def test_loads_folders_and_serves_the_page(table: TrialTable, tmp_path: Path) -> None:
    from gradio_client import Client

    make_pipeline(table, PixelsImageGenerator(3, SIZE, SIZE), ("latents",)).save_pretrained(tmp_path / "pipeline")
    decoder = load_decoder(str(tmp_path / "pipeline"), str(table.path))
    expected = decoder.reconstruct("subj02", TEST_IDS[3], seed=0)
    page = build(decoder)
    _, address, _ = page.launch(prevent_thread_lock=True, quiet=True, **serving(page))
    try:
        client = Client(address, verbose=False, download_files=str(tmp_path))
        shown, reconstructed, _, candidates, text = client.predict(
            "tiny", "linear", "subj02", TEST_IDS[3], 0, *FIRST_SETTINGS, api_name="/reconstruct"
        )
    finally:
        page.close()

    for path, picture in ((shown, expected.shown), (reconstructed, expected.reconstructed)):
        with Image.open(path) as served:
            assert served.format == "PNG"
            assert np.array_equal(np.asarray(served), np.asarray(picture))
    assert candidates == ""
    assert text.startswith("Decoded from the mean of 2 responses of subj02")


def test_beneath_the_pictures_stands_what_they_do_not_show() -> None:
    simulated, recorded = notice(True), notice(False)
    assert "is simulated" in simulated
    assert "simulated" not in recorded
    assert "own will" in recorded
    for text in (simulated, recorded):
        assert "no evidence" in text
        assert "docs/responsible_use.md" in text
