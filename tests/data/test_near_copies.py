"""Near copies: what is found among other pictures, what is none, and that it takes little memory and time."""

import io
import resource
import time

import numpy as np
import pytest
from PIL import Image, ImageFilter

from fmri_models.cli.main import main
from fmri_models.data import TrialTable, TrialTableWriter, near_copies
from fmri_models.data.near_copies import PictureSketches
from fmri_models.data.picture_correlation import THRESHOLD, correlations
from fmri_models.data.pictures import content_sha256
from fmri_models.data.split_files import parts_by_fold, split_table
from fmri_models.data.split_trials import SplitTrials
from fmri_models.data.splits import add_split, split_kfold
from fmri_models.data.validation import validate_table
from fmri_models.scenes import SEED_RANGES, scene, stimulus_id
from tests.small_table import write_small_table


class Pictures:
    """Pictures by id, as a table has them."""

    def __init__(self, pictures):
        self.pictures = pictures

    def encoded(self, ids):
        for name in sorted(ids):
            data = self.pictures[name]
            yield name, data if data is None or isinstance(data, bytes) else encoded(data)

    def content_hashes(self, ids):
        return [content_sha256(np.atleast_3d(self.pictures[name])) for name in ids]


def encoded(picture, kind="PNG", **options):
    file = io.BytesIO()
    Image.fromarray(picture).save(file, kind, **options)
    return file.getvalue()


def blurry(seed, size=64):
    """A picture with structure at all scales."""
    rng = np.random.default_rng(seed)
    layers = [
        np.asarray(
            Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8)).resize((size, size)), np.float32
        )
        for side in (3, 6, 12, 24)
    ]
    mixed = sum(layer * weight for layer, weight in zip(layers, (0.4, 0.3, 0.2, 0.1), strict=True))
    low, high = mixed.min(), mixed.max()
    return ((mixed - low) / (high - low) * 255).astype(np.uint8)


def image(picture):
    return Image.fromarray(picture)


def without_margin(picture, margin):
    side = len(picture)
    box = (side * margin, side * margin, side * (1 - margin), side * (1 - margin))
    return np.asarray(image(picture).resize((side, side), Image.Resampling.BICUBIC, box=box))


def framed(picture, margin):
    inner = len(picture) - 2 * margin
    found = np.zeros_like(picture)
    found[margin:-margin, margin:-margin] = np.asarray(image(picture).resize((inner, inner)))
    return found


def one_pixel(picture):
    changed = picture.copy()
    changed[5, 9] = 255 - changed[5, 9]
    return changed


CHANGES = {
    "the same": lambda picture: picture,
    "one bit": lambda picture: picture ^ np.eye(len(picture), dtype=np.uint8)[..., None],
    "one pixel": one_pixel,
    "jpeg 95": lambda picture: encoded(picture, "JPEG", quality=95),
    "jpeg 60": lambda picture: encoded(picture, "JPEG", quality=60),
    "webp": lambda picture: encoded(picture, "WEBP", quality=80),
    "grey": lambda picture: np.asarray(image(picture).convert("L")),
    "half the size": lambda picture: np.asarray(image(picture).resize((32, 32))),
    "twice the size": lambda picture: np.asarray(image(picture).resize((128, 128))),
    "blurred": lambda picture: np.asarray(image(picture).filter(ImageFilter.GaussianBlur(0.5))),
    "brighter": lambda picture: (picture * 0.8 + 50).astype(np.uint8),
    "darker": lambda picture: (picture * 0.5).astype(np.uint8),
    "mirrored": lambda picture: np.ascontiguousarray(picture[:, ::-1]),
    "mirrored jpeg": lambda picture: encoded(np.ascontiguousarray(picture[:, ::-1]), "JPEG", quality=80),
    "cropped": lambda picture: without_margin(picture, 0.03),
    "with a frame": lambda picture: framed(picture, 2),
}


@pytest.fixture(scope="module")
def known():
    return {f"known{number:03d}": blurry(number) for number in range(120)}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_picture_is_found_among_others(change, known):
    tested = {f"tested{number}": CHANGES[change](known[f"known{number:03d}"]) for number in range(0, 120, 15)}
    tested |= {f"other{number}": blurry(1000 + number) for number in range(10)}
    found = PictureSketches(Pictures({**known, **tested}), [*known, *tested]).near_copies(tested, known)
    expected = {f"tested{number}": f"known{number:03d}" for number in range(0, 120, 15)}
    assert {copy.stimulus: copy.copy_of for copy in found} == expected
    assert all(THRESHOLD < copy.correlation <= 1 for copy in found)
    assert {copy.mirrored for copy in found} == {"mirrored" in change}
    if change in ("the same", "one pixel", "grey", "brighter", "mirrored"):
        assert not any(copy.cropped for copy in found)


def test_it_does_not_matter_which_of_two_is_tested(known):
    for change in CHANGES.values():
        pictures = Pictures({"a": known["known000"], "b": change(known["known000"])})
        sketches = PictureSketches(pictures, ["a", "b"])
        assert len(sketches.near_copies(["a"], ["b"])) == len(sketches.near_copies(["b"], ["a"])) == 1


def test_different_pictures_are_none(known):
    sketches = PictureSketches(Pictures(known), known)
    names = list(known)
    assert sketches.near_copies(names[:60], names[60:]) == []
    noise = {
        f"n{number}": np.random.default_rng(number).integers(0, 256, (16, 16, 3), np.uint8) for number in range(40)
    }
    names = list(noise)
    assert PictureSketches(Pictures(noise), noise).near_copies(names[:20], names[20:]) == []


def test_the_pair_that_correlates_most_is_named(known):
    picture = known["known003"]
    pictures = {**known, "near": one_pixel(picture), "nearer": picture ^ 1, "tested": picture}
    (found,) = PictureSketches(Pictures(pictures), pictures).near_copies(["tested"], ["near", "nearer", "known001"])
    assert found.copy_of == "nearer"


def test_flat_pictures_are_copies_where_they_are_equal():
    flat = {f"flat{value}": np.full((16, 16, 3), value, np.uint8) for value in (0, 100, 101, 255)}
    flat |= {"same": np.full((16, 16), 100, np.uint8), "red": np.full((16, 16, 3), (100, 0, 0), np.uint8)}
    flat |= {"spot": one_pixel(flat["flat100"]), "picture": blurry(0, 16)}
    sketches = PictureSketches(Pictures(flat), flat)
    (found,) = sketches.near_copies(["flat100"], set(flat) - {"flat100"})
    assert (found.copy_of, found.correlation) == ("same", 1.0)
    for name in ("flat0", "flat101", "flat255", "red", "picture", "spot"):
        assert sketches.near_copies([name], set(flat) - {name}) == []


def test_pictures_that_are_missing_are_left_out(known):
    pictures = {"a": known["known000"], "b": None, "c": None, "d": known["known000"]}
    sketches = PictureSketches(Pictures(pictures), pictures)
    assert [copy.copy_of for copy in sketches.near_copies(["a", "b"], ["c", "d"])] == ["d"]
    assert PictureSketches(Pictures(pictures), ["b", "c"]).near_copies(["b"], ["c"]) == []
    assert PictureSketches(Pictures({}), []).near_copies([], []) == []


@pytest.mark.parametrize("seed", range(5))
def test_correlations_are_numpys(seed):
    rng = np.random.default_rng(seed)
    ones, others = (rng.integers(0, 256, (6, 25, 22, 3), dtype=np.uint8) for _ in range(2))
    others[:3] = others[:3] // 4 + ones[:3] // 2
    # A grey picture of a coloured one, brighter; one of half the contrast; two grey ones of other contrasts.
    weights = [0.299, 0.587, 0.114]
    light = (ones @ weights)[..., None]
    others[3], others[4], others[5] = light[3] * 0.95 + 9, light[4] * 0.5, light[5] * 0.3
    ones[5] = light[5]
    for number, (found, one, other) in enumerate(zip(correlations(ones, others), ones, others, strict=True)):
        colour = np.corrcoef(one.ravel(), other.ravel())[0, 1]
        grey = np.corrcoef((one @ weights).ravel(), (other @ weights).ravel())[0, 1]
        assert found == pytest.approx(grey if number in (3, 5) else colour, abs=1e-5)
        assert (found > THRESHOLD) == (number in (3, 5))


SHAPES = {
    "circle": lambda y, x: y**2 + x**2 < 200,
    "square": lambda y, x: (abs(y) < 13) & (abs(x) < 13),
    "bar": lambda y, x: abs(x) < 6,
    "cross": lambda y, x: (abs(x) < 5) | (abs(y) < 5),
}
COLOURS = {
    "red": (220, 30, 30), "green": (30, 200, 40), "blue": (40, 40, 230), "yellow": (230, 220, 30),
    "cyan": (20, 210, 220), "white": (255, 255, 255), "purple": (150, 30, 170),
    "orange": (240, 140, 20), "maroon": (110, 20, 50),
}  # fmt: skip


def shape(name, colour, ground=0):
    y, x = np.mgrid[:48, :48] - 24
    return np.where(SHAPES[name](y, x)[..., None], np.array(colour), ground).astype(np.uint8)


@pytest.mark.slow
@pytest.mark.parametrize("ground", [0, 128])
def test_shapes_of_other_colours_are_other_pictures(ground):
    pictures = {f"{name}_{key}": shape(name, colour, ground) for name in SHAPES for key, colour in COLOURS.items()}
    for key in COLOURS:
        tested = [name for name in pictures if name.endswith(key)]
        assert PictureSketches(Pictures(pictures), pictures).near_copies(tested, pictures) == []
    # Among so many of its luminance the copy of the same colour is found, and the coloured one of a grey one.
    pictures = {name: picture for name, picture in pictures.items() if "white" not in name}
    for copied in (
        encoded(pictures["bar_maroon"], "JPEG", quality=90),
        one_pixel(pictures["bar_maroon"]),
        np.asarray(image(pictures["bar_maroon"]).convert("L")),
    ):
        (found,) = PictureSketches(Pictures({**pictures, "copy": copied}), [*pictures, "copy"]).near_copies(
            ["copy"], pictures
        )
        assert found.copy_of == "bar_maroon"


def test_pictures_that_differ_in_contrast_alone_are_near_copies():
    x = np.arange(48)[None] * np.ones((48, 1))
    pictures = {f"c{level}": ((np.sin(x * 0.6) * level / 200 + 0.5) * 255).astype(np.uint8) for level in (20, 50, 100)}
    assert len(PictureSketches(Pictures(pictures), pictures).near_copies(["c20"], pictures)) == 1
    assert len(PictureSketches(Pictures(pictures), pictures).near_copies(["c100"], pictures)) == 1


def test_figures_of_few_black_and_white_squares_are_no_copies_of_each_other():
    rng = np.random.default_rng(0)
    squares = {f"m{each:03d}": np.kron(rng.integers(0, 2, (10, 10)), np.ones((4, 4))) * 255 for each in range(100)}
    pictures = {name: picture.astype(np.uint8) for name, picture in squares.items()}
    names = list(pictures)
    assert PictureSketches(Pictures(pictures), pictures).near_copies(names[:30], names[30:]) == []


def test_built_in_scenes_are_no_copies_of_each_other_but_a_copied_one_is():
    """Two that look alike: among thousands there are some that correlate above the threshold."""
    seeds = [SEED_RANGES["test"].start + 200, SEED_RANGES["train"].start + 2085]
    scenes = {stimulus_id(seed): scene(seed).image for seed in seeds}
    one, other = scenes
    assert correlations(scenes[one][None], scenes[other][None])[0] > THRESHOLD
    assert PictureSketches(Pictures(scenes), scenes).near_copies([one], [other]) == []
    # Under a name that is none of a scene's, and as a file of another quality, it is one.
    for copied in (scenes[other], one_pixel(scenes[other])):
        pictures = {one: scenes[one], "copy": scenes[one], other: copied}
        found = PictureSketches(Pictures(pictures), pictures).near_copies([one], ["copy", other])
        assert [copy.copy_of for copy in found] == ["copy"]


def test_scenes_of_a_larger_table_raise_no_alarm():
    starts = {"test": 60, "train": 400}
    scenes = {
        stimulus_id(seed): scene(seed).image
        for part, count in starts.items()
        for seed in range(SEED_RANGES[part].start, SEED_RANGES[part].start + count)
    }
    names = list(scenes)
    assert PictureSketches(Pictures(scenes), names).near_copies(names[:60], names[60:]) == []


def test_handwritten_digits_are_no_copies_of_each_other(test_data):
    pictures = np.load(test_data / "data" / "digit69" / "digit69.npz")["images"]
    digits = {f"d{number:03d}": picture[..., None][..., 0] for number, picture in enumerate(pictures)}
    sketches = PictureSketches(Pictures(digits), digits)
    for name in digits:
        assert sketches.near_copies([name], set(digits) - {name}) == []


def test_thousands_of_pictures_take_seconds_and_bounded_memory(monkeypatch):
    """The sketches of 8,000 pictures; all but a few share one, because drawing them would take longer."""
    few = {f"a{number:05d}": encoded(blurry(number, 32)) for number in range(40)}
    sketches = PictureSketches(Pictures(few), few)
    count = 4_000
    rng = np.random.default_rng(0)
    names = [f"b{number:05d}" for number in range(2 * count)]
    sketches._position_of |= {name: len(few) + number for number, name in enumerate(names)}
    for attribute in ("_straight", "_mirrored"):
        grown = []
        for sketch in getattr(sketches, attribute):
            more = rng.standard_normal((2 * count, sketch.shape[1]), dtype=np.float32)
            more /= np.linalg.norm(more, axis=1, keepdims=True)
            grown.append(np.concatenate([sketch, more.astype(np.float16)]))
        setattr(sketches, attribute, tuple(grown))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    assert sketches.near_copies(["a00000", *names[:count]], ["a00001", *names[count:]]) == []
    assert time.perf_counter() - started < 60
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**10 < 300


def split_rows(rows):
    columns = ("fold", "subject", "trial", "stimulus_id", "split")
    return split_table(dict(zip(columns, zip(*rows, strict=True), strict=True)), "given", None, "")


def test_what_is_in_both_parts_by_its_id_is_not_said_again():
    rows = [
        (0, "subj01", 0, "a", "train"), (0, "subj01", 1, "b", "test"), (0, "subj02", 0, "b", "validation"),
        (0, "subj02", 1, "c", "test"), (1, "subj01", 0, "a", "test"), (1, "subj01", 1, "b", "train"),
    ]  # fmt: skip
    assert list(parts_by_fold(split_rows(rows))) == [(0, {"c"}, {"a", "b"}), (1, {"a"}, {"b"})]


def write_table(path, pictures, parts):
    """Each picture is shown once; betas are noise."""
    rng = np.random.default_rng(0)
    with TrialTableWriter(
        path, name="t", simulated=True, description="For tests.", license="CC0", source="d"
    ) as writer:
        writer.add_stimuli(
            {"stimulus_id": name, "image": picture, "captions": [], "category": None, "factors": None}
            for name, picture in pictures.items()
        )
        writer.add_voxels("subj01", 4)
        trial = 0
        for part in ("train", "validation", "test"):
            ids = [name for name in pictures if parts[name] == part]
            writer.add_trials(
                "subj01", part, stimulus_ids=ids, sessions=[1] * len(ids), runs=[1] * len(ids),
                trials=list(range(trial, trial + len(ids))), repetitions=[0] * len(ids),
                fmri=rng.standard_normal((len(ids), 4)).astype(np.float32),
            )  # fmt: skip
            trial += len(ids)
    return path


@pytest.mark.parametrize("part", ["train", "validation"])
def test_validate_names_the_pair_in_every_split(part, tmp_path):
    pictures = {f"p{number:02d}": blurry(number) for number in range(30)}
    pictures["copy"] = encoded(pictures["p29"], "JPEG", quality=70)
    parts = {name: "test" if name > "p24" else "validation" if name > "p20" else "train" for name in pictures}
    path = write_table(tmp_path / "t", pictures, {**parts, "copy": part})
    (finding,) = validate_table(path)
    assert "The split 'default' (fold 0) tests nearly the same picture as it learns from: p29 and copy (r = " in finding
    table = TrialTable.open(path)
    add_split(table, "kfold", split_kfold(SplitTrials.of_table(table), 0, 5, 0.1))
    findings = validate_table(path)
    assert findings[0] == finding and all("split 'kfold'" in each for each in findings[1:])


def test_validate_lists_so_many_and_counts_the_rest(tmp_path):
    pictures = {f"p{number:02d}": blurry(number, 32) for number in range(30)}
    pictures |= {f"c{number:02d}": one_pixel(pictures[f"p{number:02d}"]) for number in range(25)}
    parts = {name: "test" if name[0] == "c" else "train" for name in pictures}
    parts["p29"] = "validation"
    findings = validate_table(write_table(tmp_path / "t", pictures, parts))
    assert len(findings) == 21 and findings[-1] == "The split 'default' has 5 more such pairs."


def test_validate_names_tested_stimuli_of_the_very_same_picture_and_finds_nothing_wrong(tmp_path, capsys):
    pictures = {f"p{number:02d}": blurry(number, 32) for number in range(30)}
    pictures["same"] = pictures["p29"]
    parts = {name: "train" if name < "p20" else "validation" if name < "p25" else "test" for name in pictures}
    path = write_table(tmp_path / "t", pictures, parts)
    notes = []
    assert validate_table(path, note=notes.append) == []
    assert notes == [
        "The split 'default' tests the very same picture under different ids (p29 = same): an evaluation takes those "
        "of one picture for one stimulus."
    ]
    assert main(["data", "validate", str(path)]) == 0
    assert "p29 = same" in capsys.readouterr().out


def test_validate_has_nothing_to_say_of_other_tables(tmp_path):
    assert validate_table(write_small_table(tmp_path / "small")) == []


def test_long_comparisons_say_how_far_they_are(monkeypatch, capsys):
    pictures = {f"p{number}": blurry(number) for number in range(4)} | {"copy": blurry(0)}
    real = near_copies.bar
    monkeypatch.setattr(near_copies, "bar", lambda **options: real(**{**options, "delay": 0.0}))
    sketches = PictureSketches(Pictures(pictures), pictures, "Comparing")
    assert len(sketches.near_copies(["copy"], pictures)) == 1
    told = capsys.readouterr().err
    assert "Comparing: 5/5 pictures in" in told
    assert "Comparing: 1/1 pair in" in told
    PictureSketches(Pictures(pictures), pictures).near_copies(["copy"], pictures)
    assert capsys.readouterr().err == ""
