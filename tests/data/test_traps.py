"""What goes wrong unnoticed with published data, over all data set scripts alike.

A stimulus in two parts, statistics of tested trials, repetitions that straddle, other test sets than papers have.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fmri_models.cli.prepare import load_preparation
from fmri_models.data import TrialTable
from fmri_models.data.published import writing
from fmri_models.data.published.extraction import ExtractedSubject
from fmri_models.data.published.nsd.release_files import Design
from fmri_models.data.table_processor import fit_processor
from fmri_models.errors import FmriModelsError
from tests.data.sources import SOURCES
from tests.fabricated import god, miyawaki2008, nsd

pytest.importorskip("h5py")
pytest.importorskip("nibabel")
pytest.importorskip("nilearn")

LARGE = ("nsd-release", "nsd-release-hdf5", "nsd-mindeye2")
FORMS = [pytest.param(name, marks=pytest.mark.slow) if name in LARGE else name for name in SOURCES]
# By design all categories are in each run, and runs are left out.
BY_RUN = ("haxby-openfmri", "haxby-nilearn")


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def of(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp("sources")
            SOURCES[name].write(made[name])
        return made[name]

    return of


def prepared(name: str, folder: Path, out: Path, *options: str) -> TrialTable:
    assert SOURCES[name].prepare(folder, out, *(word for each in options for word in ("--option", each))) == 0
    return TrialTable.open(out)


def check_parts(table: TrialTable, split: str, by_run: bool) -> None:
    """Neither a stimulus nor a picture under two names is in two parts of a fold, over all subjects together."""
    contents = dict(zip(table.stimuli.ids, table.stimuli.content_hashes(), strict=True))
    for fold in range(table.num_folds(split)):
        of_part: dict[str, set[Any]] = {}
        for part in ("train", "validation", "test"):
            own = of_part.setdefault(part, set())
            for subject in table.subjects:
                trials = table.trials(subject, part, split, fold)
                if by_run:
                    own |= {
                        (subject, *pair) for pair in zip(trials.sessions.tolist(), trials.runs.tolist(), strict=True)
                    }
                else:
                    own |= {contents[name] or name for name in trials.stimulus_ids.tolist()}
        assert of_part["train"] and of_part["test"], (split, fold)
        assert not of_part["train"] & of_part["test"], (split, fold)
        assert not of_part["validation"] & (of_part["train"] | of_part["test"]), (split, fold)


@pytest.mark.parametrize("name", FORMS)
def test_no_stimulus_and_no_repetition_is_in_two_parts(name: str, sources: Callable, tmp_path: Path) -> None:
    folds = () if name == "digits69" else ("folds=2",)
    table = prepared(name, sources(name), tmp_path / "table", *folds)
    check_parts(table, "default", name in BY_RUN)
    check_parts(table, "kfold2" if folds else "kfold10", name in BY_RUN)


def _with_other_tests(tested: dict[str, np.ndarray]) -> Callable[..., list[ExtractedSubject]]:
    """Reads as always, and changes the betas of tested trials."""
    extract = writing.extract

    def changed(*args: Any) -> list[ExtractedSubject]:
        found = extract(*args)
        for each in found:
            betas = np.memmap(each.path, np.float32, "r+", shape=(each.rows, each.subject.voxels.count))
            rows = tested[each.name]
            betas[rows] = 5 * betas[rows] + 100 * np.random.default_rng(0).normal(size=betas[rows].shape)
            betas.flush()
        return found

    return changed


def _statistics(table: TrialTable, folder: Path) -> dict[str, bytes]:
    fit_processor(table, table.subjects, ["train"]).save_pretrained(folder)
    return {path.name: path.read_bytes() for path in folder.glob("fmri_statistics.*")}


@pytest.mark.parametrize("name", [p for p in FORMS if getattr(p, "values", [p])[0] != "digits69"])
@pytest.mark.parametrize("zscore", ["none", "session"])
def test_tested_trials_change_nothing_that_is_learned_from(
    name: str, zscore: str, sources: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = prepared(name, sources(name), tmp_path / "first", f"zscore={zscore}")
    tested = {subject: np.sort(first.trials(subject, "test").trials) for subject in first.subjects}
    monkeypatch.setattr(writing, "extract", _with_other_tests(tested))
    second = prepared(name, sources(name), tmp_path / "second", f"zscore={zscore}")
    for subject in first.subjects:
        for part in ("train", "validation"):
            ours, theirs = first.trials(subject, part), second.trials(subject, part)
            assert ours.trials.tolist() == theirs.trials.tolist()
            assert np.array_equal(ours.fmri(), theirs.fmri()), part
        assert not np.array_equal(first.trials(subject, "test").fmri(), second.trials(subject, "test").fmri())
        # Ceilings that a release doesn't have are of training repetitions.
        ours, theirs = first.voxels(subject).ncsnr, second.voxels(subject).ncsnr
        assert np.array_equal(ours, theirs, equal_nan=True) if ours is not None else theirs is None
    found = _statistics(first, tmp_path / "a")
    assert found and found == _statistics(second, tmp_path / "b")


@pytest.mark.parametrize("name", [p for p in FORMS if getattr(p, "values", [p])[0] != "digits69"])
def test_the_average_of_the_test_is_of_its_repetitions(name: str, sources: Callable, tmp_path: Path) -> None:
    single = prepared(name, sources(name), tmp_path / "single")
    averaged = prepared(name, sources(name), tmp_path / "averaged", "repetitions=average_test")
    for subject in single.subjects:
        all_trials, means = single.trials(subject, "test"), averaged.trials(subject, "test")
        keys = list(zip(all_trials.stimulus_ids.tolist(), all_trials.imagery.tolist(), strict=True))
        betas, once = all_trials.fmri().astype(np.float64), means.fmri()
        own = list(zip(means.stimulus_ids.tolist(), means.imagery.tolist(), strict=True))
        assert len(set(own)) == len(own) and set(own) == set(keys)
        for key, mean in zip(own, once, strict=True):
            rows = [place for place, each in enumerate(keys) if each == key]
            assert np.allclose(betas[rows].mean(axis=0), mean, rtol=1e-5, atol=1e-4)
        # What is learned from stays single.
        assert np.array_equal(single.trials(subject, "train").fmri(), averaged.trials(subject, "train").fmri())


# NSD


def test_nsd_has_982_or_1000_tested_pictures(sources: Callable) -> None:
    design = Design.read(sources("nsd-release") / "nsd")
    sets = design.test_sets()
    assert {name: len(pictures) for name, pictures in sets.items()} == {"shared1000": 1000, "shared982": 982}
    assert set(sets["shared982"]) < set(sets["shared1000"])
    # A trial of the test is one of three that showed its picture.
    for most, pictures in ((40, sets["shared1000"]), (37, sets["shared982"])):
        shown = [name for session in range(1, most + 1) for name in design.stimuli("subj01", session)]
        counts = np.unique([name for name in shown if name in set(pictures)], return_counts=True)[1]
        assert len(counts) == len(pictures) and counts.max() <= 3
    ordering, images, shared = nsd.design()
    # With another order the 982 are others, and so are all figures.
    other = Design(images[:, np.sort(ordering) - 1] - 1, frozenset((shared - 1).tolist()))
    with pytest.raises(FmriModelsError, match="1000 shared pictures in the first 37 sessions, and not 982"):
        other.test_sets()


# GOD


def test_a_category_of_the_test_that_is_learned_from_is_another_data_set(tmp_path: Path) -> None:
    folder = god.write_mindvis(tmp_path / "god")
    listing = folder / "imagenet_training_label.csv"
    text = listing.read_text()
    first = text.splitlines()[0]
    category = god.TESTED[0].partition("_")[0]
    listing.write_text(text.replace(first, f"{int(category[1:])}.000007,{category}_7.JPEG"))
    with pytest.raises(FmriModelsError, match="1 tested categories are learned from, too"):
        prepared_god = load_preparation("god")
        prepared_god(folder, tmp_path / "table", incomplete=True)
    assert not (tmp_path / "table").exists()


# Miyawaki


@pytest.mark.parametrize("seed", range(4))
def test_one_picture_under_two_ids_stays_together(seed: int, tmp_path: Path) -> None:
    path = miyawaki2008.write_npz(tmp_path / "miyawaki_figures_2_5.npz")
    arrays = dict(np.load(path))
    numbers = sorted(set(arrays["image_id"].tolist()))
    for one, other in ((numbers[0], numbers[5]), (numbers[2], numbers[9])):
        arrays["images"][arrays["image_id"] == other] = arrays["images"][arrays["image_id"] == one][0]
    np.savez(path, **arrays)
    load_preparation("miyawaki2008")(path, tmp_path / "table", incomplete=True, folds=5, seed=seed)
    table = TrialTable.open(tmp_path / "table")
    assert len(set(table.stimuli.content_hashes())) == 8 and len(table.stimuli.ids) == 10
    check_parts(table, "default", by_run=False)
    check_parts(table, "kfold5", by_run=False)


def test_figures_that_are_learned_from_as_random_patterns_are_refused(sources: Callable, tmp_path: Path) -> None:
    """The same squares in a random run and in one of figures are one picture under two names."""
    folder = shutil.copytree(sources("miyawaki-nilearn"), tmp_path / "in")
    labels = {run: folder / "m" / "label" / f"data_{run}_label.csv" for run in ("random_run01", "figure_run01")}
    lines = {run: path.read_text().splitlines() for run, path in labels.items()}
    shown = {run: next(line for line in text if not line.startswith("-1")) for run, text in lines.items()}
    changed = [shown["figure_run01"] if line == shown["random_run01"] else line for line in lines["random_run01"]]
    labels["random_run01"].write_text("\n".join(changed) + "\n")
    with pytest.raises(
        FmriModelsError, match=r"The same picture \(figure_\w+ and random_\w+\) is in test and in train"
    ):
        load_preparation("miyawaki2008")(folder / "m", tmp_path / "table", incomplete=True)
    assert not (tmp_path / "table").exists()
