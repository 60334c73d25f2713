"""Rows of a split file: building them, and the checks that no picture is learned from and tested on."""

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from ..errors import FmriModelsError
from . import schema


def split_table(
    rows: Mapping[str, Sequence] | Sequence[Mapping] | pa.Table, by: str, seed: int | None, repeats_stimuli: str
) -> pa.Table:
    """A split's rows as the Arrow table that is written."""
    kind = schema.splits_schema(by, seed, repeats_stimuli)
    if isinstance(rows, pa.Table):
        return rows.select(kind.names).cast(kind)
    if isinstance(rows, Mapping):
        return pa.table({name: rows[name] for name in kind.names}, schema=kind)
    return pa.Table.from_pylist([dict(row) for row in rows], schema=kind)


def part_fingerprints(split: pa.Table, fold: int) -> dict[str, str]:
    """Part ▶ SHA-256 over its subjects, trials and stimuli in one fold, in whatever order the file has them.

    Args:
        split: Rows with `fold, subject, trial, stimulus_id, split`.
        fold: Which fold.
    """
    columns = {name: split[name].to_numpy(zero_copy_only=False) for name in ("fold", "split")}
    fingerprints = {}
    for part in schema.SPLITS:
        rows = np.flatnonzero((columns["fold"] == fold) & (columns["split"] == part))
        chosen = (split[name].take(pa.array(rows)).to_pylist() for name in ("subject", "trial", "stimulus_id"))
        digest = hashlib.sha256()
        # Ids have no spaces, so that no two lists of rows make the same text.
        for subject, trial, stimulus in sorted(zip(*chosen, strict=True)):
            digest.update(f"{subject} {trial} {stimulus}\n".encode())
        fingerprints[part] = digest.hexdigest()
    return fingerprints


def check_disjoint(split: pa.Table, contents: Mapping[str, str | None], name: str) -> None:
    """Refuses a split in which a picture is in two parts of the same fold, over all subjects together.

    Args:
        split: Rows with `fold, stimulus_id, split`.
        contents: Stimulus id to the hash of its pixels, None where the picture is not there.
        name: The split's name, for the error.

    Raises:
        FmriModelsError: A picture is in two parts, by its id or by its content.
    """
    seen: dict[tuple[int, str], tuple[str, str]] = {}
    triples = sorted(set(zip(*(split[key].to_pylist() for key in ("fold", "stimulus_id", "split")), strict=True)))
    for fold, stimulus, part in triples:
        for key in (f"id {stimulus}", f"content {contents.get(stimulus) or stimulus}"):
            other, other_part = seen.setdefault((fold, key), (stimulus, part))
            if other_part == part:
                continue
            what = f"The stimulus {stimulus}" if other == stimulus else f"The same picture ({other} and {stimulus})"
            raise FmriModelsError(
                f"{what} is in {other_part} and in {part} of the split {name!r} (fold {fold}); split by stimulus, over "
                "all subjects together."
            )


def check_split_rows(name: str, split: pa.Table, shown: Mapping[tuple[str, int], str]) -> None:
    """Refuses a split that names trials which the table doesn't have, or one trial twice in a fold.

    Args:
        name: The split's name, for the error.
        split: Its rows.
        shown: (subject, trial) to stimulus id, for all trials of the table.

    Raises:
        FmriModelsError: A row is wrong.
    """
    seen = set()
    for row in split.to_pylist():
        trial = (row["subject"], row["trial"])
        if shown.get(trial) != row["stimulus_id"]:
            raise FmriModelsError(
                f"The split {name!r} names trial {row['trial']} of {row['subject']} with the stimulus "
                f"{row['stimulus_id']}, which the table doesn't have."
            )
        if row["split"] not in schema.SPLITS:
            raise FmriModelsError(
                f"The split {name!r} has the part {row['split']!r}; expected one of {', '.join(schema.SPLITS)}."
            )
        if (row["fold"], trial) in seen:
            raise FmriModelsError(
                f"The split {name!r} has trial {row['trial']} of {row['subject']} twice in fold {row['fold']}."
            )
        seen.add((row["fold"], trial))
