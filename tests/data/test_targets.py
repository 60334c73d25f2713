"""The cache of targets: what it is keyed by, and that nothing half-written or damaged is used."""

import errno
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fmri_models.conditions import CONDITION_SPACES
from fmri_models.data import TrialTable, TrialTableWriter
from fmri_models.data.closed_form import closed_form_trials
from fmri_models.data.generator_pictures import pictures_to_embed, prepare_pictures
from fmri_models.data.table_processor import fit_processor
from fmri_models.data.target_options import TargetOptions
from fmri_models.data.targets import TARGET_SPACES, cached_targets
from fmri_models.errors import FmriModelsError
from fmri_models.generation.clip_targets import ClipTargets
from fmri_models.generation.pixels import PixelsImageGenerator
from tests.data.conftest import betas, records
from tests.generation.test_stable_diffusion import make_generator as tiny_stable_diffusion
from tests.generation.tiny_clip import tiny_targets


class CountingPixels(PixelsImageGenerator):
    """Counts the pictures that it encodes, and stops where it is told to."""

    encoded = 0
    stop_at: int | None = None
    error: type[BaseException] | Exception = KeyboardInterrupt

    def encode_images(self, pixel_values: torch.Tensor) -> torch.Tensor:
        if self.stop_at is not None and self.encoded >= self.stop_at:
            raise self.error
        self.encoded += len(pixel_values)
        return super().encode_images(pixel_values)


def write_table(path: Path, change=lambda record: record, count: int = 24) -> TrialTable:
    with TrialTableWriter(path, "small", simulated=True) as writer:
        given = [change(record) for record in records(count)]
        writer.add_stimuli(given)
        writer.add_voxels("subj01", 5)
        for part, rows in (("train", given[: count - 4]), ("validation", given[-4:-2]), ("test", given[-2:])):
            ids = [record["stimulus_id"] for record in rows]
            writer.add_trials("subj01", part, stimulus_ids=ids, fmri=betas(len(ids), 5))
    return TrialTable.open(path)


@pytest.fixture
def table(tmp_path: Path) -> TrialTable:
    return write_table(tmp_path / "table")


def cached_files(cache: Path) -> list[Path]:
    return sorted((cache / "targets").glob("[!.]*.npy"))


def test_whatever_a_generator_is_told_can_be_learned() -> None:
    # What a generator learns to read is computed of no picture.
    learned = {"encoder_hidden_states", "time_embeds", "control"}
    assert {name: space for name, space in CONDITION_SPACES.items() if name not in learned} == {**TARGET_SPACES}


def test_targets_are_those_of_the_generator_and_computed_once(table: TrialTable, own_cache: Path) -> None:
    generator = CountingPixels(3, 6, 6)
    pictures = prepare_pictures(table.stimuli.images(), (3, 6, 6))
    for _ in range(2):
        latents = cached_targets(table, generator, "latents")
        np.testing.assert_allclose(latents, pictures.flatten(1).numpy())
    assert generator.encoded == len(table.stimuli)
    assert latents.dtype == np.float32
    assert len(cached_files(own_cache)) == 1
    assert not list((own_cache / "targets").glob(".partial*"))


def test_pictures_of_the_same_content_share_a_cache_and_others_do_not(tmp_path: Path, own_cache: Path) -> None:
    generator = CountingPixels(3, 6, 6)
    cached_targets(write_table(tmp_path / "one"), generator, "latents")
    renamed = write_table(tmp_path / "two", lambda record: record | {"captions": ["another"]})
    cached_targets(renamed, generator, "latents")
    assert generator.encoded == 24
    changed = write_table(tmp_path / "three", lambda record: record | {"image": 255 - record["image"]})
    inverted, original = (cached_targets(each, generator, "latents") for each in (changed, renamed))
    assert not np.array_equal(inverted, original)
    assert generator.encoded == 48


def test_weights_preprocessing_and_layer_have_a_cache_each(table: TrialTable, own_cache: Path) -> None:
    cached = [
        np.array(cached_targets(table, targets, "image_embeds")).reshape(24, -1)[:, :12]
        for targets in (
            tiny_targets(),
            tiny_targets(seed=1),
            tiny_targets(antialias=True),
            tiny_targets(normalisation="none"),
            tiny_targets(encoder_revision="another"),
        )
    ]
    assert len(cached_files(own_cache)) == 5
    for other in (1, 2, 3):
        assert not np.allclose(cached[0], cached[other], atol=1e-3)
    # A revision is a name alone.
    np.testing.assert_allclose(cached[0], cached[4], atol=1e-6)


def test_a_generator_that_resizes_gets_pictures_as_they_are(table: TrialTable) -> None:
    images = table.stimuli.images()[:, :, 2:]
    assert pictures_to_embed(images, tiny_targets()).shape == (24, 3, 8, 6)
    assert pictures_to_embed(images, PixelsImageGenerator(3, 6, 6)).shape == (24, 3, 6, 6)
    assert pictures_to_embed(images[..., :1], tiny_targets()).shape == (24, 3, 8, 6)
    assert ClipTargets.embeds_any_size


def test_captions_are_a_third_kind_of_target(table: TrialTable, own_cache: Path) -> None:
    targets = tiny_targets()
    first = [captions[0] for captions in table.stimuli.captions()]
    assert first[:2] == ["picture 0", "picture 1"]
    embeds = cached_targets(table, targets, "text_embeds")
    expected = targets.embed_texts(first)
    np.testing.assert_allclose(embeds.reshape(expected.shape), expected.numpy(), atol=1e-6)
    cached_targets(table, targets, "image_embeds")
    assert len(cached_files(own_cache)) == 2


def test_captions_have_a_cache_of_their_own(tmp_path: Path, own_cache: Path) -> None:
    targets = tiny_targets()
    one = cached_targets(write_table(tmp_path / "one"), targets, "text_embeds")
    # Only the first caption counts.
    cached_targets(
        write_table(tmp_path / "two", lambda record: record | {"captions": [*record["captions"], "a third"]}),
        targets,
        "text_embeds",
    )
    assert len(cached_files(own_cache)) == 1
    other = write_table(tmp_path / "three", lambda record: record | {"captions": ["a cat"]})
    assert not np.allclose(one, cached_targets(other, targets, "text_embeds"), atol=1e-2)
    without = write_table(
        tmp_path / "four", lambda record: record | ({"captions": []} if record["stimulus_id"] > "s20" else {})
    )
    with pytest.raises(FmriModelsError, match=r"^3 of 24 stimuli have no caption \(such as s21\)"):
        cached_targets(without, targets, "text_embeds")


def test_the_mean_over_all_captions(tmp_path: Path, own_cache: Path) -> None:
    targets, mean = tiny_targets(), TargetOptions(captions="mean")
    said = {"s00": ["a cat", "a dog", "  "], "s01": ["", "a cow"]}
    table = write_table(
        tmp_path / "table",
        lambda record: record | {"captions": said.get(record["stimulus_id"], record["captions"][:1])},
    )
    embeds = np.array(cached_targets(table, targets, "text_embeds", options=mean))
    cat, dog, cow = (targets.embed_texts([text])[0].flatten().numpy() for text in ("a cat", "a dog", "a cow"))
    np.testing.assert_allclose(embeds[0], (cat + dog) / 2, atol=1e-6)
    np.testing.assert_allclose(embeds[1], cow, atol=1e-6)
    first = cached_targets(table, targets, "text_embeds")
    np.testing.assert_allclose(first[0], cat, atol=1e-6)
    # Blank captions are none, whichever are taken.
    np.testing.assert_allclose(first[1:], embeds[1:], atol=1e-6)
    assert len(cached_files(own_cache)) == 2
    blank = write_table(tmp_path / "blank", lambda record: record | {"captions": [" "]})
    with pytest.raises(FmriModelsError, match=r"^24 of 24 stimuli have no caption"):
        cached_targets(blank, targets, "text_embeds", options=mean)


def test_latents_that_are_drawn_are_kept_by_seed(table: TrialTable, tmp_path: Path, own_cache: Path) -> None:
    generator = tiny_stable_diffusion()
    mode = cached_targets(table, generator, "latents")
    drawn = cached_targets(table, generator, "latents", options=TargetOptions(posterior="sample"))
    again = cached_targets(table, generator, "latents", ["s07", "s03"], TargetOptions(posterior="sample"))
    other = cached_targets(table, generator, "latents", options=TargetOptions(posterior="sample", seed=1))
    # A picture's draw does not depend on those beside it.
    np.testing.assert_allclose(again, drawn[[7, 3]], atol=1e-5)
    assert np.abs(drawn - mode).max() > 1e-3 and np.abs(drawn - other).max() > 1e-3
    assert len(cached_files(own_cache)) == 4
    cached_targets(table, generator, "latents", options=TargetOptions(posterior="sample", seed=1))
    assert len(cached_files(own_cache)) == 4
    with pytest.raises(FmriModelsError, match="the latents of PixelsImageGenerator have no posterior to draw from"):
        cached_targets(table, PixelsImageGenerator(3, 6, 6), "latents", options=TargetOptions(posterior="sample"))


def test_options_that_there_are_none_of() -> None:
    with pytest.raises(FmriModelsError, match="captions is 'all'; expected first or mean"):
        TargetOptions(captions="all")  # type: ignore[arg-type]
    assert TargetOptions.of_recipe({"seed": 3, "method": "linear"}) == TargetOptions(seed=3)


def test_a_missing_space_is_named(table: TrialTable) -> None:
    with pytest.raises(FmriModelsError, match="PixelsImageGenerator has no text_embeds"):
        cached_targets(table, PixelsImageGenerator(3, 6, 6), "text_embeds")
    with pytest.raises(FmriModelsError, match="ClipTargets has no latents"):
        cached_targets(table, tiny_targets(), "latents")


@pytest.mark.parametrize("damage", ["truncated", "garbage", "empty", "pickled", "other shape", "other dtype"])
def test_a_damaged_cache_is_made_again(table: TrialTable, own_cache: Path, damage: str) -> None:
    generator = CountingPixels(3, 6, 6)
    expected = np.array(cached_targets(table, generator, "latents"))
    (path,) = cached_files(own_cache)
    content = path.read_bytes()
    if damage == "truncated":
        path.write_bytes(content[:-100])
    elif damage == "garbage":
        path.write_bytes(b"no array")
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "pickled":
        np.save(path, np.array([{}]), allow_pickle=True)
    elif damage == "other shape":
        np.save(path, expected[1:])
    else:
        np.save(path, expected.astype(np.float16))
    np.testing.assert_array_equal(cached_targets(table, generator, "latents"), expected)
    assert generator.encoded == 48


@pytest.mark.parametrize("stop_at", [128, 256])
def test_an_interrupted_computation_goes_on(tmp_path: Path, own_cache: Path, stop_at: int) -> None:
    pictures = np.random.default_rng(5).integers(0, 256, (300, 8, 8, 3), dtype=np.uint8)
    ids = iter(range(300))
    table = write_table(tmp_path / "table", lambda record: record | {"image": pictures[next(ids)]}, count=300)
    generator = CountingPixels(3, 6, 6)
    generator.stop_at = stop_at
    with pytest.raises(KeyboardInterrupt):
        cached_targets(table, generator, "latents")
    assert not cached_files(own_cache)
    (partial,) = (own_cache / "targets").glob(".partial*")
    # A batch that was not finished, as a killed process leaves it.
    with partial.open("ab") as file:
        file.write(b"half a row")
    second = CountingPixels(3, 6, 6)
    latents = cached_targets(table, second, "latents")
    np.testing.assert_allclose(latents, prepare_pictures(pictures, (3, 6, 6)).flatten(1).numpy())
    # The last batch that was there is not trusted.
    assert second.encoded == 300 - (stop_at - 128)
    assert not partial.exists()


def test_a_full_disk_is_a_sentence_and_leaves_nothing(table: TrialTable, own_cache: Path) -> None:
    generator = CountingPixels(3, 6, 6)
    generator.stop_at = 0
    generator.error = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(FmriModelsError, match="disk is full while writing"):
        cached_targets(table, generator, "latents")
    assert not [path for path in (own_cache / "targets").iterdir() if path.suffix != ".lock"]
    generator.stop_at = None
    assert len(cached_targets(table, generator, "latents")) == 24


def test_embeddings_that_are_no_numbers_are_refused(table: TrialTable, own_cache: Path) -> None:
    targets = tiny_targets()
    with torch.no_grad():
        targets.image_encoder.visual_projection.weight[0] = float("nan")
    with pytest.raises(FmriModelsError, match="image_embeds that are not finite"):
        cached_targets(table, targets, "image_embeds")
    assert not cached_files(own_cache)


def test_the_key_is_the_same_in_another_process(table: TrialTable, own_cache: Path) -> None:
    targets = tiny_targets()
    cached_targets(table, targets, "text_embeds")
    (path,) = cached_files(own_cache)
    targets.save_pretrained(own_cache / "saved")
    again = ClipTargets.from_source(str(own_cache / "saved"))
    cached_targets(table, again, "text_embeds")
    assert cached_files(own_cache) == [path]
    assert json.loads((own_cache / "saved" / "model_index.json").read_text())["_class_name"] == "ClipTargets"


def test_what_is_learned_is_asked_for_by_the_old_name_too(table: TrialTable) -> None:
    generator, old = PixelsImageGenerator(3, 6, 6), {"kind": "latents"}
    with pytest.warns(FutureWarning, match="kind of cached_targets is target now"):
        latents = cached_targets(table, generator, **old)  # type: ignore[call-arg, arg-type]
    np.testing.assert_array_equal(latents, cached_targets(table, generator, "latents"))


def test_closed_forms_are_asked_for_by_the_old_name_too(table: TrialTable) -> None:
    generator = PixelsImageGenerator(3, 6, 6)
    processor = fit_processor(table, ["subj01"])
    options: Any = {"processor": processor, "generator": generator, "parts": ["train"]}
    with pytest.warns(FutureWarning, match="kinds of closed_form_trials is targets now"):
        trials = closed_form_trials(table, kinds=["latents"], **options)
    assert trials["subj01"].targets.keys() == {"latents"}
