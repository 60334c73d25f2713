"""What a trial table holds, in names and numbers: regions, noise ceilings, sessions, terms and where it comes from."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import FmriModelsError
from .ceiling_histogram import ceiling_facts
from .table import TrialTable
from .table_terms import PICTURES_OF, terms_of_pictures, terms_of_table
from .table_voxels import Voxels


def table_facts(table: TrialTable) -> dict[str, Any]:
    """What is known of a whole table.

    Returns:
        Plain values: `name`, `simulated`, `fingerprint`, `stimuli`, `pictures` (how many of them have one), `license`,
        `source`, `terms` (of a data set that is known), `pictures_of` (tables that pictures came from), `prepared`.
    """
    metadata = table.metadata
    return {
        "name": table.name,
        "simulated": table.simulated,
        "fingerprint": table.fingerprint,
        "stimuli": len(table.stimuli),
        "pictures": table.stimuli.num_pictures,
        "license": metadata.get("license", ""),
        "source": metadata.get("source", ""),
        "terms": _terms(metadata),
        PICTURES_OF: metadata.get(PICTURES_OF, []),
        "prepared": _prepared(metadata),
    }


def subject_facts(table: TrialTable, subject: str) -> dict[str, Any]:
    """What is known of a subject's trials and voxels.

    Returns:
        Plain values. `regions` has those with most voxels first; what is not known is None. Where the file of voxels
        can't be read, `voxels_unreadable` says why, and nothing is known of them.
    """
    trials = table.all_trials(subject)
    unlabelled = table.unlabelled_trials(subject)
    shown = np.unique(trials.stimulus_ids, return_counts=True)[1]
    sessions = np.concatenate([trials.sessions, unlabelled.sessions])
    runs = set(zip(sessions.tolist(), np.concatenate([trials.runs, unlabelled.runs]).tolist(), strict=True))
    voxels, unreadable = _voxels(table, subject)
    ceilings = None if voxels is None else ceiling_facts(voxels)
    wide = voxels is not None and voxels.source_width is not None
    return {
        "voxels": table.num_voxels(subject),
        "dropped_voxels": voxels.source_width - table.num_voxels(subject) if wide else 0,  # type: ignore[union-attr, operator]
        "trials": sum(table.metadata["trials"][subject].values()),
        "trials_of_parts": {part: count for part, count in table.metadata["trials"][subject].items() if count},
        "imagery_trials": int(trials.imagery.sum()),
        "sessions": len(np.unique(sessions)),
        "runs": len(runs),
        "shown_times": [int(shown.min()), int(shown.max())] if len(shown) else None,
        "stimuli_by_times_shown": {str(times): count for times, count in sorted(Counter(shown.tolist()).items())},
        "mean_noise_ceiling": ceilings and ceilings["mean"],
        "noise_ceiling_repetitions": voxels.repetitions if voxels is not None and ceilings else None,
        "noise_ceiling_source": voxels.source if voxels is not None and ceilings else None,
        "noise_ceiling": ceilings,
        "regions": None if voxels is None else _regions(voxels),
        "voxels_in_no_region": None if voxels is None else sum(not label for label in voxels.roi),
        "coordinates": None if voxels is None else _coordinates(voxels),
        "grid": None if voxels is None else _grid(voxels),
        "voxels_unreadable": unreadable,
    }


def _voxels(table: TrialTable, subject: str) -> tuple[Voxels | None, str | None]:
    try:
        return table.voxels(subject), None
    except FmriModelsError as error:
        # Trials and splits can still be told; `data validate` calls the table wrong.
        return None, str(error)


def _regions(voxels: Voxels) -> list[dict[str, Any]]:
    counts = Counter(label for label in voxels.roi if label)
    ordered = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    return [{"label": label, "voxels": count, "share": count / len(voxels.roi)} for label, count in ordered]


def _coordinates(voxels: Voxels) -> dict[str, Any] | None:
    if voxels.coordinates is None:
        return None
    known = voxels.coordinates[np.isfinite(voxels.coordinates).all(axis=1)]
    if not len(known):
        return None
    return {
        "voxels": len(known),
        "space": voxels.space,
        "lowest_mm": known.min(axis=0).tolist(),
        "highest_mm": known.max(axis=0).tolist(),
    }


def _grid(voxels: Voxels) -> dict[str, Any] | None:
    if voxels.grid is None:
        return None
    sizes = np.linalg.norm(voxels.grid.affine[:3, :3], axis=0)
    return {
        "shape": list(voxels.grid.shape),
        "voxel_size_mm": sizes.round(4).tolist(),
        "affine": voxels.grid.affine.tolist(),
        "mask_sha256": voxels.grid.sha256,
    }


def _terms(metadata: Mapping[str, Any]) -> dict[str, Any] | None:
    responses, pictures = terms_of_table(metadata), terms_of_pictures(metadata)
    if responses is None and pictures is None:
        return None
    known = {"responses": responses, "pictures": pictures}
    return {
        what: {
            "title": terms.title,
            "license": terms.license,
            "responses": terms.redistribution,
            "pictures": terms.stimuli,
            "weights": terms.weights,
            "url": terms.url,
            "checked": terms.checked,
        }
        for what, terms in known.items()
        if terms is not None
    }


def _prepared(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Which program wrote the table, and what it has recorded of the files that it read."""
    found = metadata.get("prepared")
    record: Mapping[str, Any] = found if isinstance(found, Mapping) else {}
    listed = record.get("files")
    files = [each for each in listed.values() if isinstance(each, Mapping)] if isinstance(listed, Mapping) else None
    return {
        "by": metadata.get("created_by", ""),
        "package_version": metadata.get("package_version", ""),
        "script": record.get("script"),
        "script_version": record.get("script_version"),
        "options": record.get("options"),
        "source_files": None if files is None else len(files),
        "source_bytes": None if files is None else sum(_size(each.get("bytes")) for each in files),
        "checksums": None if files is None else sum("sha256" in each for each in files),
    }


def _size(number: object) -> int:
    return number if isinstance(number, int) and number > 0 else 0
