"""`evaluate --images` and `compare`."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fmri_models.cli.compare import compare
from fmri_models.errors import FmriModelsError
from fmri_models.evaluation import Report, evaluate_images


def write_pictures(folder: Path, count=12, noise=0.0, size=28, suffix=".png", mode="RGB", seed=0):
    folder.mkdir()
    for number in range(count):
        generator = np.random.default_rng([number, 7])
        picture = np.kron(generator.random((7, 7, 3)), np.ones((4, 4, 1)))
        picture = (1 - noise) * picture + noise * np.random.default_rng([number, seed]).random(picture.shape)
        image = Image.fromarray((picture * 255).astype(np.uint8)).convert(mode)
        image.resize((size, size)).save(folder / f"picture{number:02d}{suffix}")
    return folder


@pytest.fixture
def folders(tmp_path):
    return write_pictures(tmp_path / "recon", noise=0.5), write_pictures(tmp_path / "truth")


def test_report_of_files(folders, tmp_path):
    report = evaluate_images(*folders, tmp_path / "out", "small_pictures")
    assert list(report.results) == ["brain", "mean_image"]
    assert report.results["brain"]["pairwise_pixcorr"]["value"] > 0.9
    assert report.results["mean_image"]["pairwise_pixcorr"]["value"] == pytest.approx(0.5)
    assert report.permutation["pairwise_pixcorr"]["mean"] == pytest.approx(0.5, abs=0.05)
    assert report.rows["mean_image"]["uses_test_images"] is True
    assert any("uses_test_images" in note and "without the model" in note for note in report.notes)
    assert Report.load(tmp_path / "out").results == report.to_dict()["results"]
    assert (tmp_path / "out" / "images" / "brain" / "picture00.png").is_file()


def test_scoring_the_saved_pictures_again_gives_the_same_numbers(folders, tmp_path):
    first = evaluate_images(*folders, tmp_path / "out", "small_pictures")
    images = tmp_path / "out" / "images"
    second = evaluate_images(images / "brain", images / "truth", tmp_path / "again", "small_pictures")
    assert second.results == first.results


def test_grey_files_stay_grey(tmp_path):
    recon = write_pictures(tmp_path / "recon", mode="L", noise=0.2)
    truth = write_pictures(tmp_path / "truth", mode="L")
    evaluate_images(recon, truth, tmp_path / "out", "small_pictures")
    assert Image.open(tmp_path / "out" / "images" / "truth" / "picture00.png").mode == "L"


def test_other_sizes_and_suffixes_are_matched_and_noted(tmp_path):
    recon = write_pictures(tmp_path / "recon", size=56, suffix=".jpg")
    truth = write_pictures(tmp_path / "truth")
    report = evaluate_images(recon, truth, tmp_path / "out", "small_pictures")
    assert any("12 of 12 reconstructions were resized" in note for note in report.notes)


def test_names_missing_on_one_side_are_listed(folders, tmp_path):
    recon, truth = folders
    (recon / "picture03.png").unlink()
    (truth / "picture05.png").unlink()
    with pytest.raises(FmriModelsError, match=r"recon lacks 1: picture03; .*truth lacks 1: picture05"):
        evaluate_images(recon, truth, tmp_path / "out", "small_pictures")
    assert not (tmp_path / "out").exists()


def test_bad_folders_and_files_are_sentences(folders, tmp_path):
    recon, truth = folders
    other = write_pictures(tmp_path / "other", count=1)
    (other / "picture00.png").rename(other / "stranger.png")
    with pytest.raises(FmriModelsError, match=r"No name in .*stranger"):
        evaluate_images(other, truth, tmp_path / "out")
    with pytest.raises(FmriModelsError, match="no folder"):
        evaluate_images(tmp_path / "nowhere", truth, tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FmriModelsError, match="has no pictures"):
        evaluate_images(tmp_path / "empty", truth, tmp_path / "out")
    (recon / "picture02.jpg").write_bytes(b"x")
    with pytest.raises(FmriModelsError, match="two pictures with the name picture02"):
        evaluate_images(recon, truth, tmp_path / "out")
    (recon / "picture02.jpg").unlink()
    content = (recon / "picture04.png").read_bytes()
    (recon / "picture04.png").write_bytes(content[: len(content) // 2])
    with pytest.raises(FmriModelsError, match=r"picture04\.png cannot be decoded"):
        evaluate_images(recon, truth, tmp_path / "out")
    Image.fromarray(np.zeros((28, 28), np.uint16)).save(recon / "picture04.png")
    with pytest.raises(FmriModelsError, match="8 bits a channel"):
        evaluate_images(recon, truth, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_output_folder_with_content_is_refused(folders, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "kept").write_text("kept")
    with pytest.raises(FmriModelsError, match="not empty"):
        evaluate_images(*folders, tmp_path / "out", "small_pictures")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["kept"]


# ------------------------------------------------------------------------------------------------------------- compare


@pytest.fixture
def reports(folders, tmp_path):
    recon, truth = folders
    worse = write_pictures(tmp_path / "worse", noise=0.8, seed=1)
    paths = [tmp_path / "good_report", tmp_path / "bad_report"]
    for source, path in zip((recon, worse), paths, strict=True):
        evaluate_images(source, truth, path, "small_pictures")
    return [(path, Report.load(path)) for path in paths]


def test_paired_difference_has_the_sign_of_better(reports):
    text = compare(reports)
    assert "good_report" in text
    assert "bad_report against good_report on the same stimuli" in text
    paired = text.split("against")[1]
    for label in ("PixCorr", "MSE"):
        line = next(line for line in paired.splitlines() if line.startswith(label))
        assert line.split()[1].startswith("-")


def test_missing_items_are_said(reports):
    (reports[1][0] / "items.parquet").unlink()
    assert "items.parquet is missing" in compare(reports)


def test_other_protocols_and_data_are_refused_or_marked(reports):
    reports[1][1].protocol["name"] = "standard"
    reports[1][1].data["fingerprint"] = "other"
    with pytest.raises(FmriModelsError, match=r"protocol's name 'small_pictures'.*--force"):
        compare(reports)
    text = compare(reports, force=True)
    assert text.count("Not comparable") == 2
    assert "against" not in text
    with pytest.raises(FmriModelsError, match="at least two"):
        compare(reports[:1])
