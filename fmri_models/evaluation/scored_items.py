"""The items that are scored: the subject, seed and fold of each, and which of them show the very same picture."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
from torch import Tensor

from ..errors import FmriModelsError


@dataclass
class ScoredItems:
    """What is known of each of N items.

    Args:
        ids: (N,) stimuli.
        truth: (N, C, H, W) pictures of the stimuli.
        subjects: (N,) names.
        seeds: (N,) of the reconstructions.
        folds: (N,) numbers.
        gallery: (N, ...) true embeddings of the pictures.
        backgrounds: N labels.
        factors: N dictionaries with the factors of scenes.
        responses: (N,) names of the response that each is a picture of, where correlations are averaged over the
            pictures of a response; None where nothing is averaged before it is compared.
        categories: N names of what the stimuli are of, None of one that is none; None where nobody knows of any.

    Raises:
        FmriModelsError: One of them has another length than the pictures.
    """

    ids: np.ndarray
    truth: Tensor
    subjects: np.ndarray
    seeds: np.ndarray
    folds: np.ndarray
    gallery: Tensor | None
    backgrounds: Sequence[str] | None
    factors: Sequence[Mapping[str, str]] | None
    responses: np.ndarray | None = None
    categories: Sequence[str | None] | None = None

    def __post_init__(self) -> None:
        names = {"ids": "stimulus ids", "gallery": "gallery embeddings"}
        for attribute, values in [(each.name, getattr(self, each.name)) for each in fields(self)]:
            if values is not None and len(values) != len(self.truth):
                what = names.get(attribute, attribute)
                raise FmriModelsError(
                    f"There are {len(values)} {what} for {len(self.truth)} true pictures; expected one for each."
                )

    @cached_property
    def pictures(self) -> np.ndarray:
        """(N,) see [`picture_ids`]."""
        return picture_ids(self.ids.tolist(), self.truth)

    @cached_property
    def stimuli(self) -> np.ndarray:
        """(N,) number of what each item shows, in the order of names."""
        return np.unique(self.pictures, return_inverse=True)[1]

    def strata(self) -> list[np.ndarray]:
        """Positions of the items of each subject, seed and fold; of all seeds together where `responses` are given."""
        positions: dict[tuple[Any, ...], list[int]] = {}
        seeds = self.seeds if self.responses is None else np.zeros_like(self.seeds)
        labels = zip(self.subjects.tolist(), seeds.tolist(), self.folds.tolist(), strict=True)
        for position, label in enumerate(labels):
            positions.setdefault(label, []).append(position)
        return [np.asarray(stratum) for stratum in positions.values()]


def as_saved(pictures: Tensor) -> Tensor:
    """Pictures on the CPU with the 256 levels that a PNG keeps."""
    return (pictures.cpu().float().clamp(0, 1) * 255).round() / 255


def picture_ids(stimulus_ids: Sequence[str], truth: Tensor) -> np.ndarray:
    """(N,) for each item the first, by its name, of the stimuli that show the very same picture as its own.

    Args:
        stimulus_ids: N ids; the picture of a stimulus is that of its first item.
        truth: (N, C, H, W) float in [0, 1]; compared with the 256 levels that are saved.
    """
    content_of: dict[str, bytes] = {}
    for name, picture in zip(map(str, stimulus_ids), truth, strict=True):
        if name not in content_of:
            content_of[name] = hashlib.sha256(as_saved(picture).contiguous().numpy().tobytes()).digest()
    first: dict[bytes, str] = {}
    for name in sorted(content_of):
        first.setdefault(content_of[name], name)
    return np.asarray([first[content_of[str(name)]] for name in stimulus_ids], dtype=str)


def same_pictures(stimulus_ids: Sequence[str], pictures: Sequence[str]) -> list[list[str]]:
    """Groups of stimuli that show the very same picture, each of two or more ids, all in the order of names.

    Args:
        stimulus_ids: N ids.
        pictures: Those of [`picture_ids`].
    """
    groups: dict[str, list[str]] = {}
    for name, picture in sorted(set(zip(map(str, stimulus_ids), map(str, pictures), strict=True))):
        groups.setdefault(picture, []).append(name)
    return sorted(group for group in groups.values() if len(group) > 1)
