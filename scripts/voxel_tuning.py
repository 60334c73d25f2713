"""How voxels are tuned in three real brains and in the simulated one: the covariance of tuning, area by area.

    pip download --no-deps img2fmri==1.0 && unzip img2fmri-1.0-*.whl -d img2fmri_wheel
    python scripts/voxel_tuning.py img2fmri_wheel/img2fmri --out results/voxel_tuning.json

The package `img2fmri` (M. Bennett, MIT) has ridge maps of BOLD5000's subjects CSI1 to CSI3 (voxels x
512 features of ResNet-18) and masks of five regions. The maps are pickles; their arrays are read without unpickling.
Beside them stand maps of simulated subjects, fitted in the same way (one showing a picture, one penalty a region) from
two sets of 512 features, and the simulator's expected responses themselves. `mirrored` is the simulator with one
topography for both hemispheres, which it does not have. Nothing is downloaded.

Each row of a map is one voxel's tuning. What is measured is told in `measured`; what can not be told from these files,
on the page of the simulator.
"""

import argparse
import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from transformers import ResNetConfig, ResNetModel

from fmri_models import scenes
from fmri_models.data.published.pickled_arrays import PickledArrays
from fmri_models.encoders.ridge import RidgeSolver
from fmri_models.errors import FmriModelsError
from fmri_models.simulation import Simulator, SimulatorConfig
from fmri_models.simulation.constants import EARLY_AREAS
from fmri_models.simulation.early import EarlyVision
from fmri_models.simulation.higher import HigherVision
from fmri_models.simulation.streams import Stream, stream

REGIONS = ("EarlyVis", "LOC", "OPA", "PPA", "RSC")
SUBJECTS = (1, 2, 3)
_RIDGE = ("sklearn.linear_model._ridge", "Ridge")
WHERE = "expected the folder `img2fmri` of the package's wheel, version 1.0, unpacked"
# Real subjects have 1,685 to 3,104 voxels and saw some 4,900 pictures.
VOXELS, PICTURES, FEATURES = 1300, 3000, 512
HELD_OUT = 500
PENALTIES = np.logspace(0, 6, 13)
# Voxels that spectra are measured of, so that small regions compare with large ones.
VOXELS_OF_A_SPECTRUM, DRAWS = 100, 20
DISTANCES = (0.0, 3.0, 6.0, 10.0, 15.0, 25.0)


@dataclass(frozen=True)
class Region:
    """Voxels of one area of one subject.

    Args:
        tuning: (V, F) a row a voxel.
        coordinates: (V, 3) millimetres.
        is_left: (V,) whether they are in the left hemisphere.
    """

    tuning: np.ndarray
    coordinates: np.ndarray
    is_left: np.ndarray

    def part(self, chosen: np.ndarray) -> "Region":
        """Some of the voxels."""
        return Region(self.tuning[chosen], self.coordinates[chosen], self.is_left[chosen])


Subject = dict[str, Region]


def published_region(folder: Path, subject: int, name: str) -> Region:
    """A region of a BOLD5000 subject: the left hemisphere's voxels, then the right's, each in C order of its mask.

    Raises:
        FmriModelsError: The map is none of ridge regression, or has another number of rows than the masks have voxels.
    """
    path = folder / "models" / f"subj{subject}_{name}_model.pkl"
    weights = PickledArrays(path, WHERE, record=_RIDGE).read("coef_")
    if weights.ndim != 2:
        raise FmriModelsError(f"{path.name} has a map `coef_` of {weights.ndim} axes and not of two; {WHERE}.")
    places = [_mask_places(folder, subject, f"{side}{name}") for side in ("LH", "RH")]
    coordinates = np.concatenate(places)
    if len(coordinates) != weights.shape[0]:
        raise FmriModelsError(
            f"{path.name} has {weights.shape[0]} voxels and its masks have {len(coordinates)}; {WHERE}."
        )
    return Region(weights.astype(np.float64), coordinates, np.arange(len(coordinates)) < len(places[0]))


def _mask_places(folder: Path, subject: int, name: str) -> np.ndarray:
    path = (
        folder / "derivatives" / "bool_masks" / f"derivatives_spm_sub-CSI{subject}_sub-CSI{subject}_mask-{name}.nii.gz"
    )
    try:
        image = nibabel.nifti1.load(path)
        mask = np.asanyarray(image.dataobj) > 0
    except Exception as error:
        raise FmriModelsError(f"The mask {path.name} can't be read ({str(error)[:80]}); {WHERE}.") from error
    return nibabel.affines.apply_affine(image.affine, np.argwhere(mask))


def simulated(num_pictures: int, num_voxels: int) -> dict[str, list[Subject]]:
    """Three simulated subjects: maps fitted from either set of features, and expected responses."""
    drawn = list(scenes.scene_records("train", num_pictures))
    images = np.stack([record["image"] for record in drawn])
    factors = [record["factors"] for record in drawn]
    features = {"untrained": untrained_features(images), "informed": informed_features(images, factors)}
    found: dict[str, list[Subject]] = {f"simulated, {name} features": [] for name in features}
    found |= {
        "simulated, expected responses": [],
        "mirrored, informed features": [],
        "mirrored, expected responses": [],
    }
    for subject in range(len(SUBJECTS)):
        simulator = Simulator(SimulatorConfig(num_voxels=num_voxels, repetitions=1), subject)
        expected, maps = _tunings(simulator, images, factors, features)
        found["simulated, expected responses"].append(expected)
        for name, fitted in maps.items():
            found[f"simulated, {name} features"].append(fitted)
        _mirror(simulator)
        expected, maps = _tunings(simulator, images, factors, {"informed": features["informed"]})
        found["mirrored, expected responses"].append(expected)
        found["mirrored, informed features"].append(maps["informed"])
    return found


def _tunings(
    simulator: Simulator, images: np.ndarray, factors: list[dict[str, Any]], features: dict[str, np.ndarray]
) -> tuple[Subject, dict[str, Subject]]:
    """The expected responses by area, and the maps that are fitted from each set of features."""
    experiment = simulator.experiment(images, ["train"] * len(images), factors)
    betas = experiment.fmri()
    betas -= betas.mean(axis=0)
    truth = experiment.noise_free(np.arange(len(images))).T
    truth -= truth.mean(axis=1, keepdims=True)
    shown = experiment.design.stimulus
    maps = {name: _by_area(simulator, _fitted(values[shown], betas)) for name, values in features.items()}
    return _by_area(simulator, lambda rows: truth[rows]), maps


def _mirror(simulator: Simulator) -> None:
    """Gives the higher areas of both hemispheres one topography: what the simulator does not do, and might."""
    anatomy, config = simulator.anatomy, simulator.config
    rng = stream(config.seed, Stream.TUNING, simulator.subject)
    EarlyVision(anatomy, rng)
    folded = anatomy.coordinates.copy()
    folded[:, 0] = np.abs(folded[:, 0])
    simulator.higher = HigherVision(replace(anatomy, coordinates=folded), rng)


def _by_area(simulator: Simulator, tuning: Callable[[np.ndarray], np.ndarray]) -> Subject:
    """V1 to V3 as one region, as BOLD5000's EarlyVis is one; V4 and the higher areas."""
    early = [area.name for area in EARLY_AREAS][:3]
    areas = np.where(np.isin(simulator.anatomy.roi, early), "V1-V3", simulator.anatomy.roi)
    left = simulator.anatomy.coordinates[:, 0] < 0
    found = {}
    for name in dict.fromkeys(areas.tolist()):
        rows = np.flatnonzero(areas == name)
        found[name] = Region(tuning(rows), simulator.anatomy.coordinates[rows].astype(np.float64), left[rows])
    return found


def _fitted(features: np.ndarray, betas: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Ridge maps of some voxels with the one penalty that predicts the last trials best."""
    first = len(features) - HELD_OUT
    solver, whole = RidgeSolver(features[:first]), RidgeSolver(features)

    def fit(rows: np.ndarray) -> np.ndarray:
        targets = torch.from_numpy(np.ascontiguousarray(betas[:, rows]))
        errors = solver.held_out_errors(features[first:], targets[:first], targets[first:], PENALTIES.tolist())
        return whole.weights(targets, float(PENALTIES[np.argmin(errors)]))[0].numpy()

    return fit


def untrained_features(images: np.ndarray) -> np.ndarray:
    """(N, 512) averages over the last layer of a ResNet-18 with random weights: theirs without what it has learned."""
    torch.manual_seed(0)
    config = ResNetConfig(embedding_size=64, hidden_sizes=[64, 128, 256, 512], depths=[2, 2, 2, 2], layer_type="basic")
    model = ResNetModel(config).eval()
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2)
    with torch.inference_mode():
        rows = [model(chunk.float() / 127.5 - 1).pooler_output.flatten(1) for chunk in pixels.split(100)]
    return _scaled(torch.cat(rows).numpy())


def informed_features(images: np.ndarray, factors: list[dict[str, Any]]) -> np.ndarray:
    """(N, 512) rectified random mixtures of small pixels and of what is in the picture, in equal parts."""
    pixels = images.reshape(len(images), 16, 4, 16, 4, 3).mean(axis=(2, 4)).reshape(len(images), -1)
    words = [sorted(f"{key}={value}" for key, value in entry.items()) for entry in factors]
    vocabulary = {word: place for place, word in enumerate(sorted({word for row in words for word in row}))}
    known = np.zeros((len(images), len(vocabulary)))
    for row, entry in enumerate(words):
        known[row, [vocabulary[word] for word in entry]] = 1
    both = []
    for values in (pixels, known):
        centred = values - values.mean(axis=0)
        both.append(centred / np.sqrt((centred**2).sum(axis=1).mean()))
    stacked = np.concatenate(both, axis=1)
    weights = np.random.default_rng(0).standard_normal((stacked.shape[1], FEATURES))
    return _scaled(np.maximum(stacked @ weights, 0))


def _scaled(features: np.ndarray) -> np.ndarray:
    """Centred, and of mean variance 1; which features vary more is left as it is."""
    centred = features - features.mean(axis=0)
    return (centred / np.sqrt(centred.var(axis=0).mean())).astype(np.float32)


def unit_rows(tuning: np.ndarray) -> np.ndarray:
    """Rows of length 1; voxels without tuning stay zero."""
    lengths = np.linalg.norm(tuning, axis=1, keepdims=True)
    return tuning / np.where(lengths > 0, lengths, 1)


def spectrum(tuning: np.ndarray) -> dict[str, float]:
    """How many kinds of tuning there are among voxels whose gain is taken out: (V, F) to shares of their variance.

    `dimensions` is the participation ratio of the squared singular values; `exponent` how steeply these fall with their
    rank, from the second to the thirtieth.
    """
    power = np.linalg.svd(unit_rows(tuning), compute_uv=False) ** 2
    power /= power.sum()
    ranks = np.arange(2, min(30, len(power)) + 1)
    slope = np.polyfit(np.log(ranks), np.log(np.maximum(power[ranks - 1], 1e-12)), 1)[0]
    return {
        "dimensions": float(1 / (power**2).sum()),
        "first": float(power[0]),
        "first_five": float(power[:5].sum()),
        "exponent": float(-slope),
    }


def by_distance(region: Region) -> list[float | None]:
    """Mean cosine of the tuning of pairs of voxels of a hemisphere, by how far apart they are; None where none are."""
    sums, counts = np.zeros(len(DISTANCES) - 1), np.zeros(len(DISTANCES) - 1)
    for side in (region.is_left, ~region.is_left):
        rows, places = unit_rows(region.tuning[side]), region.coordinates[side]
        pairs = np.triu_indices(len(rows), 1)
        apart = np.linalg.norm(places[:, None] - places[None], axis=2)[pairs]
        bins = np.digitize(apart, DISTANCES) - 1
        inside = bins < len(sums)
        sums += np.bincount(bins[inside], (rows @ rows.T)[pairs][inside], len(sums))
        counts += np.bincount(bins[inside], minlength=len(sums))
    return [float(total / count) if count >= 20 else None for total, count in zip(sums, counts, strict=True)]


def similarity(first: np.ndarray, second: np.ndarray) -> float:
    """Cosine between the covariances of two sets of voxels in the space of features, from 0 to 1.

    That is linear CKA (Kornblith et al. 2019) without centring: 1 where both have the same kinds of tuning in the same
    shares; 0 where one of them has no tuning at all.
    """
    first, second = unit_rows(first), unit_rows(second)
    between = (np.square(first @ second.T)).sum()
    within = [np.sqrt(np.square(rows @ rows.T).sum()) for rows in (first, second)]
    return float(between / (within[0] * within[1])) if all(within) else 0.0


def similarities(first: np.ndarray, second: np.ndarray) -> dict[str, float]:
    """[`similarity`] of two sets of voxels, and the same of what is left when each set's mean tuning is taken out."""
    rows = [unit_rows(tuning) for tuning in (first, second)]
    centred = [tuning - tuning.mean(axis=0) for tuning in rows]
    return {"whole": similarity(first, second), "without_mean": similarity(*centred)}


def measured(subjects: list[Subject], seed: int = 0) -> dict[str, Any]:
    """All figures of some subjects with the same regions, means over subjects.

    `null_spectrum` belongs to columns exchanged over voxels, `null_by_distance` to voxels exchanged over places.
    `halves` is the similarity of random halves of a region, `hemispheres` that of left and right, `subjects` that of
    the same region in two subjects, `between_regions` that of two regions of a subject. `gain_spread` is the standard
    deviation of the rows' lengths over their mean.
    """
    rng = np.random.default_rng(seed)
    names = list(subjects[0])
    by_region = {name: _mean([_of_region(subject[name], rng) for subject in subjects]) for name in names}
    pairs = [(a, b) for a in range(len(subjects)) for b in range(a)]
    for name in names:
        own = [similarities(subjects[a][name].tuning, subjects[b][name].tuning) for a, b in pairs]
        by_region[name]["subjects"] = _mean(own)
    between = {
        f"{first} {second}": _mean([similarities(own[first].tuning, own[second].tuning) for own in subjects])
        for place, first in enumerate(names)
        for second in names[:place]
    }
    return {"regions": by_region, "between_regions": between}


def _of_region(region: Region, rng: np.random.Generator) -> dict[str, Any]:
    shuffled = np.stack([rng.permutation(column) for column in unit_rows(region.tuning).T], axis=1)
    moved = Region(region.tuning, _moved(region, rng), region.is_left)
    mixed = rng.permutation(len(region.tuning))
    half = len(mixed) // 2
    lengths = np.linalg.norm(region.tuning, axis=1)
    return {
        "voxels": len(lengths),
        **_mean([spectrum(rows) for rows in _draws(region.tuning, rng)]),
        "null_spectrum": _mean([spectrum(rows) for rows in _draws(shuffled, rng)]),
        "by_distance": by_distance(region),
        "null_by_distance": by_distance(moved),
        "halves": similarities(region.tuning[mixed[:half]], region.tuning[mixed[half:]]),
        "hemispheres": similarities(region.tuning[region.is_left], region.tuning[~region.is_left]),
        "gain_spread": float(lengths.std() / lengths.mean()),
    }


def _moved(region: Region, rng: np.random.Generator) -> np.ndarray:
    """Places exchanged within each hemisphere."""
    moved = region.coordinates.copy()
    for side in (region.is_left, ~region.is_left):
        moved[side] = rng.permutation(moved[side])
    return moved


def _draws(tuning: np.ndarray, rng: np.random.Generator) -> Iterator[np.ndarray]:
    for _ in range(DRAWS):
        yield tuning[rng.choice(len(tuning), min(VOXELS_OF_A_SPECTRUM, len(tuning)), replace=False)]


def _mean(entries: list[dict[str, Any]]) -> dict[str, Any]:
    """Means of figures, of lists of them (without those that are missing) and of dictionaries."""
    found: dict[str, Any] = {}
    for name, value in entries[0].items():
        values = [entry[name] for entry in entries]
        if isinstance(value, dict):
            found[name] = _mean(values)
        elif isinstance(value, list):
            columns = [[entry for entry in column if entry is not None] for column in zip(*values, strict=True)]
            found[name] = [round(float(np.mean(column)), 4) if column else None for column in columns]
        else:
            found[name] = round(float(np.mean(values)), 4)
    return found


def tables(figures: dict[str, Any]) -> list[str]:
    """The figures as lines of Markdown: a table of regions, and one of distances."""
    lines = ["| | voxels | dimensions | first, first five | exponent | gain | halves | left, right | subjects |"]
    lines += ["|" + "---|" * 9]
    edges = figures["settings"]["distances_mm"]
    far = ["| | " + " | ".join(f"{low:g}–{high:g} mm" for low, high in itertools.pairwise(edges)) + " | anywhere |"]
    far += ["|" + "---|" * (len(edges) + 1)]
    for source, found in figures.items():
        if source == "settings":
            continue
        for heading in (lines, far):
            heading.append(f"| **{source}** |" + " |" * (heading[0].count("|") - 2))
        for name, region in found["regions"].items():
            exchanged = region["null_spectrum"]
            cells = [
                f"{region['voxels']:.0f}",
                f"{region['dimensions']:.1f} ({exchanged['dimensions']:.1f})",
                f"{_short(region['first'])}, {_short(region['first_five'])}",
                f"{_short(region['exponent'])} ({_short(exchanged['exponent'])})",
                _short(region["gain_spread"]),
                *(_pair(region[key]) for key in ("halves", "hemispheres", "subjects")),
            ]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
            near = [_short(value) for value in [*region["by_distance"], _anywhere(region["null_by_distance"])]]
            far.append(f"| {name} | " + " | ".join(near) + " |")
    return [*lines, "", *far]


def _pair(found: dict[str, float]) -> str:
    return f"{_short(found['whole'])} ({_short(found['without_mean'])})"


def _anywhere(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _short(value: float | None) -> str:
    if value is None:
        return "–"
    text = f"{value:.2f}"
    return text.replace("0.", ".", 1) if text.lstrip("-").startswith("0.") else text


def main() -> None:
    """Measures, writes the figures, and prints them as tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="the folder img2fmri of the unpacked wheel")
    parser.add_argument("--out", type=Path, required=True, help="a JSON file")
    parser.add_argument("--pictures", type=int, default=PICTURES, help="scenes that simulated subjects see")
    parser.add_argument("--voxels", type=int, default=VOXELS, help="voxels of the first simulated subject")
    arguments = parser.parse_args()
    real = [{name: published_region(arguments.folder, subject, name) for name in REGIONS} for subject in SUBJECTS]
    sources = {"BOLD5000": real, **simulated(arguments.pictures, arguments.voxels)}
    figures: dict[str, Any] = {name: measured(subjects) for name, subjects in sources.items()}
    settings = {"pictures": arguments.pictures, "voxels": arguments.voxels, "distances_mm": list(DISTANCES)}
    figures = {"settings": settings, **figures}
    arguments.out.write_text(json.dumps(figures, indent=1) + "\n")
    print("\n".join(tables(figures)))


if __name__ == "__main__":
    try:
        main()
    except FmriModelsError as error:
        raise SystemExit(str(error)) from error
