"""The measures of tuning find what was planted, and not in what was exchanged; the published maps are read safely."""

import json
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest

from fmri_models import scenes
from fmri_models.errors import FmriModelsError
from fmri_models.simulation import Simulator, SimulatorConfig
from scripts import voxel_tuning as script

nibabel = pytest.importorskip("nibabel")
linear_model = pytest.importorskip("sklearn.linear_model")

RNG = np.random.default_rng(0)
SHAPE = (5, 6, 4)
AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])


def masks(name: str) -> dict[str, np.ndarray]:
    """A slab of either side: 24 voxels on the left, 12 on the right, not all of them ones."""
    found = {side: np.zeros(SHAPE, np.float32) for side in ("LH", "RH")}
    found["LH"][0] = 0.125
    found["RH"][4, :3] = 1
    return {f"{side}{name}": mask for side, mask in found.items()}


def write_wheel(folder: Path, voxels: int = 36) -> Path:
    """The package's folder with a fitted map a region, in its layout."""
    (folder / "models").mkdir(parents=True)
    (folder / "derivatives" / "bool_masks").mkdir(parents=True)
    features = RNG.standard_normal((40, 8)).astype(np.float32)
    for subject in script.SUBJECTS:
        for name in script.REGIONS:
            model = linear_model.Ridge(alpha=3.0).fit(features, RNG.standard_normal((40, voxels)).astype(np.float32))
            (folder / "models" / f"subj{subject}_{name}_model.pkl").write_bytes(pickle.dumps(model))
            for mask, values in masks(name).items():
                file = f"derivatives_spm_sub-CSI{subject}_sub-CSI{subject}_mask-{mask}.nii.gz"
                nibabel.save(nibabel.Nifti1Image(values, AFFINE), folder / "derivatives" / "bool_masks" / file)
    return folder


def region(tuning: np.ndarray, coordinates: np.ndarray) -> script.Region:
    return script.Region(tuning, coordinates, coordinates[:, 0] < 0)


def test_a_map_and_its_voxels_are_in_the_order_of_the_masks(tmp_path):
    folder = write_wheel(tmp_path / "img2fmri")
    found = script.published_region(folder, 2, "OPA")
    # Written by this test itself, which is what makes unpickling it harmless.
    model = pickle.loads((folder / "models" / "subj2_OPA_model.pkl").read_bytes())
    assert np.array_equal(found.tuning, model.coef_) and found.is_left.tolist() == [True] * 24 + [False] * 12
    assert found.coordinates[[0, 1, 4, 24]].tolist() == [[0, 0, 0], [0, 0, 2], [0, 2, 0], [8, 0, 0]]


def test_other_files_are_a_sentence(tmp_path):
    folder = write_wheel(tmp_path / "img2fmri", voxels=35)
    with pytest.raises(FmriModelsError, match="subj1_LOC_model.pkl has 35 voxels and its masks have 36"):
        script.published_region(folder, 1, "LOC")
    path = folder / "models" / "subj1_LOC_model.pkl"
    path.write_bytes(pickle.dumps(_Touches(tmp_path / "run")))
    with pytest.raises(FmriModelsError, match="neither called nor imported"):
        script.published_region(folder, 1, "LOC")
    assert not (tmp_path / "run").exists()
    next((folder / "derivatives" / "bool_masks").glob("*CSI2*RHPPA*")).write_bytes(b"no image")
    with pytest.raises(FmriModelsError, match=r"RHPPA.nii.gz can't be read .*expected the folder `img2fmri`"):
        script.published_region(folder, 2, "PPA")


class _Touches:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


def test_spectra_tell_few_kinds_of_tuning_from_many():
    kinds = RNG.standard_normal((3, 64))
    few = script.spectrum(RNG.standard_normal((100, 3)) @ kinds)
    many = script.spectrum(RNG.standard_normal((100, 64)))
    assert few["dimensions"] < 3.01 and few["first_five"] > 0.999
    assert many["dimensions"] > 30 and many["first_five"] < 0.3 and many["exponent"] < 0.7
    # Gain is none of it.
    scaled = script.spectrum(RNG.lognormal(0, 2, (100, 1)) * np.tile(kinds[0], (100, 1)))
    assert scaled["dimensions"] == pytest.approx(1)


def test_smooth_tuning_is_alike_nearby_and_not_when_voxels_change_places():
    coordinates = np.concatenate([RNG.uniform([-40, 0, 0], [-10, 30, 30], (150, 3)), RNG.uniform(10, 40, (150, 3))])
    waves = RNG.standard_normal((3, 200)) / 8
    smooth = region(np.cos(coordinates @ waves + RNG.uniform(0, 2 * np.pi, 200)), coordinates)
    near, *_, far = script.by_distance(smooth)
    assert near > 0.9 and far < 0.4
    moved = script.Region(smooth.tuning, script._moved(smooth, RNG), smooth.is_left)
    assert np.ptp(script.by_distance(moved)) < 0.1
    assert script.by_distance(smooth.part(np.arange(4))) == [None] * 5


def test_similarity_is_of_kinds_of_tuning_and_not_of_voxels():
    kinds, others = np.eye(16)[:4], np.eye(16)[4:8]
    first, second = (RNG.standard_normal((200, 4)) @ kinds for _ in range(2))
    assert script.similarity(first, first) == pytest.approx(1)
    assert script.similarity(first, second) > 0.95
    assert script.similarity(first, RNG.standard_normal((200, 4)) @ others) < 1e-9
    # What two regions share may be their mean tuning alone.
    shared = 3 * np.eye(16)[9]
    found = script.similarities(first + shared, RNG.standard_normal((200, 4)) @ others + shared)
    assert found["whole"] > 0.7 and found["without_mean"] < 0.05


def test_one_topography_of_both_hemispheres_makes_them_alike():
    drawn = list(scenes.scene_records("train", 150))
    images, factors = np.stack([record["image"] for record in drawn]), [record["factors"] for record in drawn]
    simulator = Simulator(SimulatorConfig(num_voxels=400, repetitions=1, early_share=0.1))
    before, _ = script._tunings(simulator, images, factors, {})
    script._mirror(simulator)
    after, _ = script._tunings(simulator, images, factors, {})

    def alike(found: script.Subject) -> float:
        own = found["ventral"]
        return script.similarity(own.tuning[own.is_left], own.tuning[~own.is_left])

    assert alike(after) > alike(before) + 0.2
    assert np.allclose(before["V1-V3"].tuning, after["V1-V3"].tuning, atol=1e-4)


def test_the_page_has_the_figures_of_the_results():
    root = Path(script.__file__).parents[1]
    page = (root / "docs" / "voxel_tuning.md").read_text(encoding="utf-8").splitlines()
    lines = script.tables(json.loads((root / "results" / "voxel_tuning.json").read_text()))
    assert len(lines) > 40 and [line for line in lines if line and line not in page] == []


def test_a_small_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(script, "HELD_OUT", 20)
    folder = write_wheel(tmp_path / "img2fmri")
    out = tmp_path / "figures.json"
    command = ["voxel_tuning", str(folder), "--out", str(out), "--pictures", "80", "--voxels", "60"]
    monkeypatch.setattr(sys, "argv", command)
    script.main()
    figures = json.loads(out.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is no figure"))
    assert "| LOC | 36 | " in capsys.readouterr().out
    assert set(figures) == {
        "settings", "BOLD5000", "simulated, untrained features", "simulated, informed features",
        "simulated, expected responses", "mirrored, informed features", "mirrored, expected responses",
    }  # fmt: skip
    assert list(figures["BOLD5000"]["regions"]) == list(script.REGIONS)
    noise = figures["BOLD5000"]["regions"]["LOC"]
    assert noise["voxels"] == 36 and abs(noise["dimensions"] - noise["null_spectrum"]["dimensions"]) < 1
