"""Files of the official release: the design of the experiment, betas of a session, pictures."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ....errors import FmriModelsError
from ....names import one_line
from ...brain_images.opening import image_values, open_image, opened_hdf5
from ...matlab import read_mat
from .captions import captions_of
from .experiment import (
    FIRST_SESSIONS,
    MEND,
    PICTURES,
    SCALE,
    SESSIONS,
    SHARED,
    SHARED_982,
    SHARED_1000,
    SHARED_OF_FIRST,
    SUBJECTS,
    TRIALS_OF_SESSION,
    WHERE,
    need,
    stimulus_id,
    stimulus_index,
    subject_number,
)

_TRIALS_A_BLOCK = 25


@dataclass(frozen=True)
class Design:
    """`nsd_expdesign.mat`, with all numbers from 0.

    Args:
        pictures: (subjects, 30000) the picture of each trial, of the 73,000.
        shared: The thousand that all subjects saw.
    """

    pictures: np.ndarray
    shared: frozenset[int]

    @classmethod
    def read(cls, source: Path) -> "Design":
        path = source / "nsddata" / "experiments" / "nsd" / "nsd_expdesign.mat"
        need(path, "the design of the experiment")
        found = read_mat(path, ["masterordering", "subjectim", "sharedix"], f"copy it again ({WHERE})")
        ordering, images = (np.asarray(found[name]).astype(np.int64) for name in ("masterordering", "subjectim"))
        shared = np.asarray(found["sharedix"]).astype(np.int64).ravel()
        trials = TRIALS_OF_SESSION * max(SESSIONS)
        if ordering.size != trials or images.ndim != 2 or images.shape[0] != SUBJECTS or shared.size != SHARED:
            raise FmriModelsError(
                f"{one_line(path)} has masterordering of {ordering.size}, subjectim of {images.shape} and sharedix of "
                f"{shared.size} numbers; expected {trials}, ({SUBJECTS}, 10000) and {SHARED}: copy it again."
            )
        return cls(images[:, ordering.ravel() - 1] - 1, frozenset((shared - 1).tolist()))

    def stimuli(self, subject: str, session: int) -> list[str]:
        """Those of a session's trials."""
        start = TRIALS_OF_SESSION * (session - 1)
        shown = self.pictures[subject_number(subject) - 1, start : start + TRIALS_OF_SESSION]
        return [stimulus_id(index) for index in shown.tolist()]

    def test_sets(self) -> dict[str, list[str]]:
        """The two customs."""
        first = self.shared & set(self.pictures[0, : TRIALS_OF_SESSION * FIRST_SESSIONS].tolist())
        if len(first) != SHARED_OF_FIRST:
            raise FmriModelsError(
                f"nsd_expdesign.mat has {len(first)} shared pictures in the first {FIRST_SESSIONS} sessions, and not "
                f"{SHARED_OF_FIRST}, so that it is another design; {MEND}."
            )
        return {
            SHARED_1000: [stimulus_id(index) for index in sorted(self.shared)],
            SHARED_982: [stimulus_id(index) for index in sorted(first)],
        }


def blocks_of_trials(
    path: Path, shape: tuple[int, ...], indices: np.ndarray, count: int = TRIALS_OF_SESSION
) -> Iterator[np.ndarray]:
    """Percent signal change (n, voxels) of some trials of a session at a time."""
    if path.suffix == ".hdf5":
        with opened_hdf5(path, MEND) as file:
            betas = file.get("betas")
            # MATLAB's order of axes is turned round in HDF5.
            expected = (count, *reversed(shape))
            check_shape(path, None if betas is None else betas.shape, expected, count)
            for start in range(0, count, _TRIALS_A_BLOCK):
                block = np.asarray(betas[start : start + _TRIALS_A_BLOCK])
                yield block.transpose(0, 3, 2, 1).reshape(len(block), -1)[:, indices] / np.float32(SCALE)
        return
    image = open_image(path, mend=MEND)
    check_shape(path, image.shape, (*shape, count), count)
    for start in range(0, count, _TRIALS_A_BLOCK):
        block = image_values(image, path, slice(start, start + _TRIALS_A_BLOCK), MEND)
        yield block.reshape(-1, block.shape[-1])[indices].T / np.float32(SCALE)


def check_shape(
    path: Path, found: tuple[int, ...] | None, expected: tuple[int, ...], count: int = TRIALS_OF_SESSION
) -> None:
    """Refuses betas, a region or an atlas of another shape than the region `nsdgeneral` has.

    Raises:
        FmriModelsError: Names the file and both shapes.
    """
    if found != expected:
        raise FmriModelsError(
            f"{one_line(path)} has the shape {found}; expected {expected}, of the region nsdgeneral (and {count} "
            "trials)."
        )


def pictures_of_release(source: Path, path: Path, ids: Collection[str]) -> Iterator[dict[str, Any]]:
    """The pictures with their captions, in the order of their ids."""
    captions = captions_of(source, ids)
    with opened_hdf5(path, MEND) as file:
        pictures = bricks(file, path, (PICTURES, 425, 425, 3))
        for stimulus in sorted(ids):
            index = stimulus_index(stimulus)
            yield {
                "stimulus_id": stimulus,
                "image": np.asarray(pictures[index]),
                "captions": captions.get(stimulus, []),
                "category": None,
            }


def bricks(file: Any, path: Path, published: tuple[int, int, int, int]) -> Any:
    """The pictures of an HDF5 file, as many as were published and in colours; their size is what the file has."""
    pictures = file.get("imgBrick")
    if pictures is None or pictures.ndim != 4 or (pictures.shape[0], pictures.shape[3]) != (published[0], published[3]):
        raise FmriModelsError(f"{one_line(path)} has no imgBrick of {published}; copy it again.")
    return pictures
