"""NSD-Imagery and NSD-Synthetic as test parts of `fmri-models prepare nsd`, on small files in the published layout."""

from pathlib import Path

import numpy as np
import pytest

from fmri_models.cli.prepare import load_preparation
from fmri_models.data import TrialTable
from fmri_models.data_terms import terms_of
from fmri_models.errors import FmriModelsError
from tests.fabricated import nsd

INDICES = np.flatnonzero(nsd.region() > 0)


def prepared(source: Path, out: Path, **options) -> TrialTable:
    load_preparation("nsd")(source, out, **{"incomplete": True, "overwrite": True, **options})
    return TrialTable.open(out)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = nsd.write_release(tmp_path_factory.mktemp("nsd") / "release", sessions=1)
    return nsd.write_synthetic(nsd.write_imagery(source))


def betas(trials: int) -> np.ndarray:
    return nsd.other_stored(trials).reshape(-1, trials)[INDICES].T / 300


def in_order(trials) -> np.ndarray:
    return np.argsort(trials.trials)


def rows_of(kind: str) -> tuple[list[int], list[str], list[int]]:
    """Rows of the 720 betas, pictures and runs of the trials of a kind, of the sets A and B."""
    rows, shown, runs, start = [], [], [], 0
    for number, run in enumerate(nsd.IMAGERY_RUNS, 1):
        count = 96 if run.startswith("att") else 48
        if run.startswith(kind) and run[3] != "C":
            rows += range(start, start + count)
            shown += [nsd.TARGETS[cue] for cue in nsd.cues(run)]
            runs += [number] * count
        start += count
    assert start == 720
    return rows, shown, runs


@pytest.mark.parametrize(("test_set", "kind"), [("imagery", "img"), ("imagery_vision", "vis")])
def test_imagery_is_where_it_belongs(folder: Path, tmp_path: Path, test_set: str, kind: str) -> None:
    table = prepared(folder, tmp_path / "table", test_set=test_set)
    test = table.trials("subj01", "test")
    order = in_order(test)
    rows, shown, runs = rows_of(kind)
    assert test.stimulus_ids[order].tolist() == shown and test.runs[order].tolist() == runs
    assert np.allclose(test.fmri()[order], betas(720)[rows], atol=1e-6)
    assert set(test.sessions.tolist()) == {41} and set(test.imagery.tolist()) == {kind == "img"}
    # No shared picture is learned from, as five of them are tested.
    learned = table.trials("subj01", ["train", "validation"])
    _, _, shared = nsd.design()
    own = [f"nsd{index:05d}" for index in nsd.shown(1)[:750] if index + 1 not in set(shared.tolist())]
    assert learned.stimulus_ids[in_order(learned)].tolist() == own
    name = nsd.TARGETS["W"]
    assert np.array_equal(table.stimuli.images([name])[0], nsd.target(name))
    terms = terms_of(table.name, table.metadata["license"], table.metadata["source"])
    assert terms is not None and terms.redistribution == "forbidden"


def test_synthetic_is_where_it_belongs(folder: Path, tmp_path: Path) -> None:
    table = prepared(folder, tmp_path / "table", test_set="synthetic", size=8)
    test = table.trials("subj01", "test")
    order = in_order(test)
    numbers = nsd.synthetic_order() - 1
    shown = [f"synthetic{n:03d}" if n < 220 else f"synthetic_color{n - 220:02d}_subj01" for n in numbers]
    assert test.stimulus_ids[order].tolist() == shown
    assert np.allclose(test.fmri()[order], betas(744), atol=1e-6)
    assert test.runs[order].tolist() == [1 + place // 93 for place in range(744)]
    pictures = table.stimuli.images(["synthetic007", "synthetic_color63_subj01"])
    # The central square.
    expected = [nsd.synthetic_pictures(220)[7][:, 2:-2], nsd.synthetic_pictures(64)[63][:, 2:-2]]
    assert np.array_equal(pictures, np.stack(expected))


def test_volumes_are_read_as_hdf5_is(tmp_path: Path) -> None:
    source = nsd.write_imagery(nsd.write_release(tmp_path / "release", sessions=1), as_hdf5=False)
    test = prepared(source, tmp_path / "table", test_set="imagery", repetitions="average_test").trials("subj01", "test")
    rows, shown, _ = rows_of("img")
    first = test.stimulus_ids[0]
    mean = betas(720)[[row for row, name in zip(rows, shown, strict=True) if name == first]].mean(axis=0)
    assert len(test) == 12 and np.allclose(test.fmri()[0], mean, atol=1e-5)


def table_of(folder: Path) -> Path:
    return folder / "nsddata/bdata/nsdimagery/nsdimagery_subj01_imgA_1.tsv"


@pytest.mark.parametrize(
    ("change", "test_set", "message"),
    [
        (lambda folder: table_of(folder).unlink(), "imagery", "imgA_1.tsv is missing, what was shown in the"),
        (lambda folder: table_of(folder).write_text(table_of(folder).read_text().replace("\tH\t", "\tQ\t")), "imagery",
         "has 48 trials and the cue 'Q'"),
        (lambda folder: table_of(folder).write_text(table_of(folder).read_text().replace("1\t1\t3\t", "1\t1\t2\t")),
         "imagery", "is of the run 2, and not of 3"),
        (lambda folder: table_of(folder).write_bytes(b"\xff\xfe\x00"), "imagery", "imgA_1.tsv"),
        (lambda folder: next(folder.rglob("crs_045*.png")).unlink(), "imagery", "has no picture crs_045"),
        (lambda folder: next(folder.rglob("betas_nsdsynthetic*")).unlink(), "synthetic", "the betas of subj01 in nsds"),
        (lambda folder: next(folder.rglob("nsdsynthetic_expdesign.mat")).unlink(), "synthetic", "the design of NSD-S"),
        (lambda folder: next(folder.rglob("*colorstimuli*")).unlink(), "synthetic", "pictures of NSD-Synthetic"),
    ],
)  # fmt: skip
def test_other_files_are_a_sentence(tmp_path: Path, change, test_set: str, message: str) -> None:
    source = nsd.write_synthetic(nsd.write_imagery(nsd.write_release(tmp_path / "release", sessions=1)))
    change(source)
    with pytest.raises(FmriModelsError, match=message):
        prepared(source, tmp_path / "table", test_set=test_set)
    assert not (tmp_path / "table").exists()


def test_other_forms_have_no_such_test(tmp_path: Path) -> None:
    with pytest.raises(FmriModelsError, match="imagery is in the release alone; this is the form mindeye2"):
        prepared(nsd.write_mindeye2(tmp_path / "mindeye2"), tmp_path / "table", test_set="imagery")


def test_to_a_report(folder: Path, tmp_path: Path) -> None:
    from fmri_models.evaluation.evaluate import evaluate
    from fmri_models.training.recipe import load_recipe
    from fmri_models.training.trainer import train

    prepared(folder, tmp_path / "table", test_set="imagery", repetitions="average_test")
    overrides = ["generator=pixels", "processor.statistics=pooled"]
    train(load_recipe("linear", [f"data={tmp_path / 'table'}", f"out={tmp_path / 'model'}", *overrides]))
    report = evaluate(tmp_path / "model", tmp_path / "table", tmp_path / "report", "small_pictures")
    assert report.data["test_items"] == len(nsd.TARGETS)
