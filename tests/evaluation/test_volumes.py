"""From a person's own volumes to a table, a model, a report, and pictures of further volumes of the same mask."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from fmri_models.cli.main import main
from fmri_models.data import TrialTable
from fmri_models.data.table_processor import check_voxels
from fmri_models.errors import FmriModelsError
from fmri_models.evaluation.patterns import load_patterns
from fmri_models.pipeline_fmri import FmriToImagePipeline
from fmri_models.processing.image_grid import ImageGrid, grid_difference, positions_sha256
from fmri_models.processing_fmri import FmriProcessor
from fmri_models.space.uploads import read_upload
from fmri_models.training.recipe import load_recipe
from fmri_models.training.trainer import train
from tests.fabricated import nifti as made

nibabel = pytest.importorskip("nibabel")

SUBJECT = "sub-01"
COUNT, RUNS, SIZE = 24, 2, 8


def pictures() -> np.ndarray:
    coarse = np.random.default_rng(3).uniform(0, 255, (COUNT, 4, 4))
    return coarse.repeat(2, axis=1).repeat(2, axis=2).astype(np.uint8)


def responses() -> np.ndarray:
    """(stimuli, x, y, z): linear in the pictures."""
    weights = np.random.default_rng(4).normal(size=(SIZE * SIZE, *made.SHAPE)) / SIZE
    return np.tensordot(pictures().reshape(COUNT, -1) / 255 - 0.5, weights, 1)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from PIL import Image

    root = tmp_path_factory.mktemp("volumes")
    (root / "stimuli").mkdir()
    for number, picture in enumerate(pictures()):
        Image.fromarray(picture).save(root / "stimuli" / f"p{number:02d}.png")
    func = root / "in" / SUBJECT / "func"
    rng = np.random.default_rng(5)
    for run in range(1, RUNS + 1):
        values = responses() + 0.2 * rng.normal(size=(COUNT, *made.SHAPE))
        made.save(func / f"{SUBJECT}_task-see_run-{run}_betas.nii.gz", np.moveaxis(values, 0, -1))
        rows = [[f"p{number:02d}.png"] for number in range(COUNT)]
        made.write_events(func / f"{SUBJECT}_task-see_run-{run}_events.tsv", rows, "stim_file")
    mask = made.save(root / "mask.nii.gz", made.chosen(), dtype=np.uint8)
    options = [f"mask={mask}", f"stimuli={root / 'stimuli'}", "drop_bad_voxels=yes"]
    given = [word for option in options for word in ("--option", option)]
    assert main(["prepare", "nifti", "--source", str(root / "in"), "--out", str(root / "data"), *given]) == 0
    overrides = [f"data={root / 'data'}", f"out={root / 'model'}", "generator=pixels", "targets=[latents]"]
    train(load_recipe("linear", [*overrides, "processor.statistics=pooled"]))
    made.save(root / "new.nii.gz", np.moveaxis(responses()[:3], 0, -1))
    made.save(root / "one.nii", responses()[1])
    np.save(root / "new.npy", responses()[:3][:, made.chosen()].astype(np.float32))
    return root


@pytest.fixture(scope="module")
def pipeline(work: Path) -> FmriToImagePipeline:
    return FmriToImagePipeline.from_pretrained(work / "model")


def test_a_report(work: Path) -> None:
    command = ["evaluate", "--model", work / "model", "--data", work / "data", "--out", work / "report"]
    assert main([*map(str, command), "--protocol", "small_pictures"]) == 0
    report = json.loads((work / "report" / "report.json").read_text())
    assert report["results"]["brain"]["pixcorr"]["value"] > 0.3


def test_the_processor_keeps_the_grid(work: Path, pipeline: FmriToImagePipeline, tmp_path: Path) -> None:
    grid = pipeline.processor.subject(SUBJECT).grid
    assert grid is not None and grid.shape == made.SHAPE and np.allclose(grid.affine, made.AFFINE, atol=1e-4)
    assert grid.sha256 == positions_sha256(np.flatnonzero(made.chosen()))
    pipeline.processor.save_pretrained(tmp_path / "saved")
    again = FmriProcessor.from_pretrained(tmp_path / "saved").subject(SUBJECT).grid
    assert again is not None and again.same_as(grid)
    assert pipeline.processor.subset([SUBJECT]).subject(SUBJECT).grid is grid


def test_volumes_are_decoded_as_their_arrays_are(work: Path, pipeline: FmriToImagePipeline) -> None:
    array = load_patterns(pipeline, work / "new.npy", SUBJECT)
    volumes = load_patterns(pipeline, work / "new.nii.gz", SUBJECT, mask=work / "mask.nii.gz")
    assert np.allclose(volumes.features, array.features, atol=1e-4)
    one = load_patterns(pipeline, work / "one.nii", SUBJECT, mask=work / "mask.nii.gz")
    assert one.names == ["trial00000"] and np.allclose(one.features[0], array.features[1], atol=1e-4)


def test_the_command(work: Path) -> None:
    for name, fmri in (("a", ["new.npy"]), ("b", ["new.nii.gz", "--mask", str(work / "mask.nii.gz")])):
        command = ["reconstruct", "--model", str(work / "model"), "--subject", SUBJECT, "--out", str(work / name)]
        assert main([*command, "--fmri", str(work / fmri[0]), *fmri[1:]]) == 0
    found = [sorted(path.name for path in (work / name).rglob("*.png")) for name in "ab"]
    assert found[0] == found[1] and len(found[0]) == 3


def moved(work: Path, folder: Path) -> dict:
    affine = made.AFFINE.copy()
    affine[1, 3] += 3
    return {"fmri": made.save(folder / "x.nii.gz", np.moveaxis(responses()[:3], 0, -1), affine)}


def smaller(work: Path, folder: Path) -> dict:
    return {"fmri": made.save(folder / "x.nii.gz", np.moveaxis(responses()[:3], 0, -1)[:4])}


def other_mask(work: Path, folder: Path) -> dict:
    return {"mask": made.save(folder / "m.nii.gz", ~made.chosen(), dtype=np.uint8)}


def mask_elsewhere(work: Path, folder: Path) -> dict:
    return {"mask": made.save(folder / "m.nii.gz", made.chosen(), np.diag([2, 2, 2, 1.0]), np.uint8)}


def cut(work: Path, folder: Path) -> dict:
    path = folder / "x.nii.gz"
    path.write_bytes((work / "new.nii.gz").read_bytes()[:-200])
    return {"fmri": path}


def with_nan(work: Path, folder: Path) -> dict:
    values = np.moveaxis(responses()[:3], 0, -1).copy()
    values[tuple(np.argwhere(made.chosen())[0])] = np.nan
    return {"fmri": made.save(folder / "x.nii.gz", values)}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (moved, r"other positions \(affines up to 3 mm apart\). Nothing is resampled here"),
        (smaller, "4 x 4 x 3 voxels, and not 5 x 4 x 3"),
        (other_mask, "has other voxels than the mask that the model's table was made with"),
        (mask_elsewhere, "has another grid than the images that the model was trained on"),
        (cut, "is damaged, cut short"),
        (with_nan, "NaN"),
        (lambda work, folder: {"mask": None}, "give the mask that the model's table was made with"),
        (lambda work, folder: {"mask": folder / "gone.nii.gz"}, "There is no NIfTI image"),
        (lambda work, folder: {"fmri": work / "new.npy"}, "is no NIfTI file, so that no mask"),
    ],
)
def test_another_grid_is_a_sentence(work, pipeline, tmp_path, change, sentence: str) -> None:
    given = {"fmri": work / "new.nii.gz", "mask": work / "mask.nii.gz", **change(work, tmp_path)}
    with pytest.raises(FmriModelsError, match=sentence):
        load_patterns(pipeline, given["fmri"], SUBJECT, mask=given["mask"])


def test_rounding_of_an_affine_is_no_other_grid() -> None:
    rounded = made.AFFINE.astype(np.float32).astype(float) + 1e-5
    assert grid_difference(made.SHAPE, made.AFFINE, made.SHAPE, rounded) == ""
    turned = made.AFFINE.copy()
    turned[:3, :3] = made.AFFINE[:3, [1, 0, 2]]
    assert grid_difference(made.SHAPE, made.AFFINE, made.SHAPE, turned)
    grid = ImageGrid(made.SHAPE, made.AFFINE, "0" * 64)
    assert not grid.same_as(ImageGrid(made.SHAPE, made.AFFINE, "1" * 64))


def test_a_model_that_was_made_of_no_images(work: Path) -> None:
    pipeline = FmriToImagePipeline.from_pretrained(work / "model")
    pipeline.processor.subject(SUBJECT).grid = None
    with pytest.raises(FmriModelsError, match="was not trained on images of sub-01"):
        load_patterns(pipeline, work / "new.nii.gz", SUBJECT, mask=work / "mask.nii.gz")


def test_a_table_of_another_mask_is_refused(work: Path, pipeline: FmriToImagePipeline, tmp_path: Path) -> None:
    shutil.copytree(work / "data", tmp_path / "data")
    file = tmp_path / "data" / "table.json"
    metadata = json.loads(file.read_text())
    metadata["grids"][SUBJECT]["sha256"] = "0" * 64
    file.write_text(json.dumps(metadata))
    check_voxels(TrialTable.open(work / "data"), SUBJECT, pipeline.processor)
    with pytest.raises(FmriModelsError, match="came from other voxels of a volume than the model's"):
        check_voxels(TrialTable.open(tmp_path / "data"), SUBJECT, pipeline.processor)
    metadata["grids"][SUBJECT]["affine"] = [[1, 2], [3, 4]]
    file.write_text(json.dumps(metadata))
    with pytest.raises(FmriModelsError, match="four rows of four numbers"):
        TrialTable.open(tmp_path / "data")


# The page


def test_an_upload_of_volumes(work: Path, pipeline: FmriToImagePipeline) -> None:
    grid = pipeline.processor.subject(SUBJECT).grid
    betas = read_upload(str(work / "new.nii.gz"), str(work / "mask.nii.gz"), grid, SUBJECT)
    assert np.allclose(betas, np.load(work / "new.npy"), atol=1e-4)


def many(work: Path, folder: Path) -> dict:
    return {"fmri": made.save(folder / "x.nii.gz", np.zeros((*made.SHAPE, 9)))}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (moved, "other positions"),
        (other_mask, "has other voxels"),
        (cut, "is damaged, cut short"),
        (many, "has 9 volumes; 8 at most"),
        (lambda work, folder: {"mask": None}, "upload the mask that the model's table was made with"),
        (lambda work, folder: {"fmri": folder / "gone.nii.gz"}, "is not here any more"),
    ],
)
def test_another_upload_is_a_sentence_without_its_place(work, pipeline, tmp_path, change, sentence: str) -> None:
    given = {"fmri": work / "new.nii.gz", "mask": work / "mask.nii.gz", **change(work, tmp_path)}
    mask = None if given["mask"] is None else str(given["mask"])
    with pytest.raises(FmriModelsError, match=sentence) as caught:
        read_upload(str(given["fmri"]), mask, pipeline.processor.subject(SUBJECT).grid, SUBJECT)
    assert str(tmp_path) not in str(caught.value) and str(work) not in str(caught.value)
