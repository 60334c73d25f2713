"""`evaluate --images` and `compare`."""

import os
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from fmri_models.cli.compare import compare
from fmri_models.cli.main import main
from fmri_models.errors import FmriModelsError
from fmri_models.evaluation import Report, evaluate_images, get_protocol, pixcorr, ssim
from fmri_models.evaluation.images import load_matched
from fmri_models.evaluation.protocols import Protocol
from fmri_models.names import is_name
from tests.evaluation.toy_report import TinyExtractor


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


@pytest.mark.parametrize("name", ["mindeye-982", "mindbridge"])
def test_a_protocol_that_resizes_does_so_once_with_pictures_of_their_own_size(tmp_path, name):
    """As the published code, which has reconstructions of 512 pixels and shown pictures of 425."""
    recon = write_pictures(tmp_path / "recon", count=8, noise=0.4, size=120)
    truth = write_pictures(tmp_path / "truth", count=8, size=100)
    fixed = get_protocol(name)
    options = {"size": 64 if fixed.size else None, "resolution": 90, "interpolation": fixed.interpolation}
    metrics = ("pixcorr", "ssim", "mse", "two_way_tiny")
    protocol = Protocol("mine", "", metrics, antialias=fixed.antialias, **options)
    network = {"tiny": TinyExtractor()}
    report = evaluate_images(recon, truth, tmp_path / "out", protocol, extractors=network)
    assert any("have 120x120 pixels and the true pictures 100x100; both were resized as" in n for n in report.notes)
    files = [sorted(folder.iterdir()) for folder in (truth, recon)]
    both = [
        torch.from_numpy(np.stack([np.asarray(Image.open(file)) for file in of])).permute(0, 3, 1, 2).double() / 255
        for of in files
    ]
    for side in [options["size"], 90]:
        if side is not None:
            both = [torch.nn.functional.interpolate(each, size=(side, side), mode="bilinear") for each in both]
    found = report.results["brain"]
    assert found["pixcorr"]["value"] == pytest.approx(pixcorr(*both), abs=1e-6)
    assert found["ssim"]["value"] == pytest.approx(ssim(*both), abs=1e-6)
    # What is saved is what was measured.
    images = tmp_path / "out" / "images"
    assert Image.open(images / "brain" / "picture00.png").size == (120, 120)
    again = evaluate_images(images / "brain", images / "truth", tmp_path / "again", protocol, extractors=network)
    assert again.results == report.results
    # Where proportions differ, pictures have to be made alike before.
    for file in recon.iterdir():
        with Image.open(file) as picture:
            picture.crop((0, 0, 120, 90)).save(file)
    other = load_matched(recon, truth, protocol)[3]
    assert any("resized as the protocol says" in n for n in other) == (options["size"] is not None)
    assert any("resized to the true pictures' 100x100" in n for n in other) == (options["size"] is None)


def test_grey_and_colour_turned_pictures_and_other_files_are_noted(tmp_path):
    recon, truth = write_pictures(tmp_path / "recon", mode="L"), write_pictures(tmp_path / "truth")
    for name in ("notes.txt", ".DS_Store", "._picture00.png"):
        (recon / name).write_bytes(b"?")
    notes = load_matched(recon, truth)[3]
    assert "1 entry of recon is no picture and was not read: notes.txt." in notes
    assert "0 of 12 true pictures and 12 of 12 reconstructions are grey; all were compared in colour." in notes
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(truth / "picture00.png") as picture:
        upright = picture.resize((28, 20))
    upright.transpose(Image.Transpose.ROTATE_90).save(truth / "picture00.png", exif=exif)
    pictures = load_matched(truth, truth)[1]
    np.testing.assert_array_equal(
        (pictures[0] * 255).round().byte().numpy(), np.asarray(upright.resize((28, 28), 3)).transpose(2, 0, 1)
    )


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


def flipped(content: bytes) -> bytes:
    """A picture with one wrong byte in the middle of its pixels."""
    middle = content.index(b"IDAT") + 4 + (len(content) - content.index(b"IDAT") - 20) // 2
    return content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :]


@pytest.mark.parametrize(
    "corrupt",
    [
        lambda content: b"",
        lambda content: content[:4],
        lambda content: content[:-30],
        flipped,
        lambda content: content[:8] + bytes(200),
        lambda content: b"<html><body>404</body></html>",
        lambda content: np.random.default_rng(0).bytes(len(content)),
    ],
)
@pytest.mark.parametrize("side", [0, 1])
def test_a_corrupted_picture_is_named_and_nothing_is_written(folders, tmp_path, corrupt, side):
    file = folders[side] / "picture07.png"
    file.write_bytes(corrupt(file.read_bytes()))
    with pytest.raises(FmriModelsError, match=r"The picture .*picture07\.png cannot be decoded: "):
        evaluate_images(*folders, tmp_path / "out", "small_pictures")
    assert not (tmp_path / "out").exists()


# ------------------------------------------------------------------------------------------------------------ networks


@pytest.fixture
def larger(tmp_path):
    """Pictures that a network may look at."""
    return write_pictures(tmp_path / "larger_recon", 6, noise=0.3, size=48), write_pictures(
        tmp_path / "larger_truth", 6, size=48
    )


def test_a_network_without_weights_is_a_sentence_before_anything_is_written(larger, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    protocol = Protocol("test", "", ("pixcorr", "two_way_alexnet2"))
    with pytest.raises(FmriModelsError, match=r"alexnet2 needs its weights, alexnet-owt-7be5be79\.pth: .*--weights"):
        evaluate_images(*larger, tmp_path / "out", protocol, weights=tmp_path)
    assert not (tmp_path / "out").exists()


def test_a_report_says_with_which_weights_it_was_scored(larger, tmp_path):
    protocol = Protocol("test", "", ("two_way_tiny", "two_way_efficientnet_lite0"))
    report = evaluate_images(*larger, tmp_path / "out", protocol, extractors={"tiny": TinyExtractor()})
    assert report.extractors["tiny"] == {"sha256": "0" * 64, "weights": "unknown weights"}
    known = report.extractors["efficientnet_lite0"]
    assert known["weights"] == "known" and "bicubic" in known["preprocessing"] and known["file"].endswith(".pth")
    (note,) = [note for note in report.notes if "unknown weights" in note]
    assert note.startswith("tiny: unknown weights.")
    assert Report.load(tmp_path / "out").extractors == report.extractors
    assert "tiny: unknown weights" in (tmp_path / "out" / "report.html").read_text()


def test_the_command_passes_the_folder_of_weights(larger, tmp_path, monkeypatch):
    given = {}

    def load(name, weights):
        given[name] = weights
        return TinyExtractor()

    monkeypatch.setattr("fmri_models.evaluation.scoring.load_extractor", load)
    arguments = ["--images", str(larger[0]), "--truth", str(larger[1]), "--out", str(tmp_path / "out")]
    assert main(["evaluate", *arguments, "--weights", str(tmp_path)]) == 0
    assert given == {"efficientnet_lite0": str(tmp_path)}


def test_an_output_folder_with_content_is_refused(folders, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "kept").write_text("kept")
    with pytest.raises(FmriModelsError, match="not empty"):
        evaluate_images(*folders, tmp_path / "out", "small_pictures")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["kept"]


@pytest.mark.slow
def test_pictures_that_are_read_are_not_replaced(folders, tmp_path):
    recon, truth = folders
    before = {path: path.read_bytes() for folder in folders for path in folder.iterdir()}
    evaluate_images(recon, truth, tmp_path / "out", "small_pictures")
    images = tmp_path / "out" / "images"
    for pair, out in (
        ((recon, truth), recon), ((recon, truth), truth), ((images / "brain", images / "truth"), tmp_path / "out"),
    ):  # fmt: skip
        with pytest.raises(FmriModelsError, match="would replace pictures of"):
            evaluate_images(*pair, out, "small_pictures", overwrite=True)
    evaluate_images(recon, truth, tmp_path / "out", "small_pictures", overwrite=True)
    evaluate_images(recon, truth, recon / "report", "small_pictures")
    assert {path: path.read_bytes() for path in before} == before


def test_what_is_no_file_is_no_picture(folders, tmp_path):
    recon, truth = folders
    os.mkfifo(recon / "pipe.png")
    (truth / "loop.png").symlink_to(truth / "loop.png")
    (truth / "nowhere.png").symlink_to(tmp_path / "absent")
    (truth / "folder.png").mkdir()
    assert load_matched(recon, truth)[0] == [f"picture{number:02d}" for number in range(12)]


def test_names_with_accents_are_matched_however_they_are_stored(folders, tmp_path):
    recon, truth = folders
    (recon / "picture03.png").rename(recon / "e\u0301.png")
    (truth / "picture03.png").rename(truth / "\u00e9.png")
    (truth / "dead.png").symlink_to(tmp_path / "absent")
    names, *_, notes = load_matched(recon, truth)
    assert len(names) == 12 and "\u00e9" in names
    assert any("dead.png (a link to nothing that can be read)" in note for note in notes)


def test_a_seed_of_numpy_is_one(folders, tmp_path):
    assert evaluate_images(*folders, tmp_path / "out", "small_pictures", seed=np.int64(3)).seed == 3


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size; its pixels would be zeros."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    pixels = zlib.compress(bytes(1000))
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(50_000, 50_000), (178_000_000, 1), (2**31 - 1, 2**31 - 1)])
def test_a_bomb_is_refused_by_its_header(folders, tmp_path, size):
    recon, truth = folders
    (recon / "picture04.png").write_bytes(png_header(*size))
    with pytest.raises(FmriModelsError, match=r"picture04\.png cannot be decoded.*pixels"):
        evaluate_images(recon, truth, tmp_path / "out", "small_pictures")


def test_more_pictures_than_memory_are_refused_before_they_are_decoded(tmp_path):
    for name in ("recon", "truth"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "picture0000.png").write_bytes(png_header(7000, 7000))
        for number in range(1, 800):
            (tmp_path / name / f"picture{number:04d}.png").symlink_to("picture0000.png")
    with pytest.raises(
        FmriModelsError, match="800 pictures of 7000x7000 pixels need .* GiB of memory and this machine"
    ):
        evaluate_images(tmp_path / "recon", tmp_path / "truth", tmp_path / "out", "small_pictures")


def test_pictures_may_have_any_visible_name(tmp_path):
    recon, truth = write_pictures(tmp_path / "recon", noise=0.5), write_pictures(tmp_path / "truth")
    strange = ["=HYPERLINK(1)", "<script>alert(1)</script>"[:24].replace("/", "-"), "ein Löwe (2)", "a_b", "a b"]
    for folder in (recon, truth):
        for number, name in enumerate(strange):
            (folder / f"picture{number:02d}.png").rename(folder / f"{name}.png")
    evaluate_images(recon, truth, tmp_path / "out", "small_pictures")
    names = {path.stem for path in (tmp_path / "out" / "images" / "truth").iterdir()}
    assert len(names) == 12
    assert all(is_name(name) for name in names)
    assert names == {path.stem for path in (tmp_path / "out" / "images" / "brain").iterdir()}
    items = pq.read_table(tmp_path / "out" / "items.parquet")["stimulus_id"].to_pylist()
    assert set(strange) < set(items)
    (recon / "a\nb.png").write_bytes(b"")
    with pytest.raises(FmriModelsError, match="not one line of visible characters"):
        evaluate_images(recon, truth, tmp_path / "again", "small_pictures")


def test_names_of_folders_are_text_in_a_report(tmp_path):
    hostile = "# <script>alert(1)<⧸script> [a](b) | **c**\n# own \x1b[31m"
    recon, truth = write_pictures(tmp_path / "recon", noise=0.5), write_pictures(tmp_path / hostile)
    evaluate_images(recon, truth, tmp_path / "out", "small_pictures")
    markdown = (tmp_path / "out" / "report.md").read_text()
    html = (tmp_path / "out" / "report.html").read_text()
    for text in (markdown, html):
        assert "<script>" not in text
        assert "\x1b" not in text
    assert "**c**" not in markdown
    assert not re.search(r"^# own", markdown, re.MULTILINE)
    assert Report.load(tmp_path / "out").data["name"].startswith("# <script>")


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
