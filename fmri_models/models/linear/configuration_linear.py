"""Configuration of the linear method."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict

from ...conditions import CONDITION_SPACES, GUIDES
from ...configuration_fmri import SIZE, FmriConfig
from ...embedding_space import EmbeddingSpace
from ...encoders.selected_linear import check_num_selected
from ...errors import FmriModelsError
from ...names import listed, one_line

_MAX_BLOCKS = 2**16


@strict
class LinearConfig(FmriConfig):
    """Configuration of a [`LinearModel`].

    Args:
        targets_a_block: Targets whose weights are kept in one tensor; bounds the memory of fitting and saving.
        voxels_per_target: How many voxels each unit of a target reads, those that correlate most with it: a number for
            all targets, or target ▶ number (`{"image_embeds": 500}`; `guides` stands for all guides that are not named
            themselves). Positions and weights are stored then. None
            reads all voxels, and so does a target that the mapping leaves out.
        standardises_patterns: Whether the voxels that a unit reads are standardised in each pattern; needs
            `voxels_per_target`.
        restores_variance: Whether predictions were scaled to spread as the targets do.
        penalties: Subject ▶ target ▶ the penalty that was chosen, the median of those of all units where each has its
            own; None before fitting.
        parts: Target ▶ the options that it was fitted with, where they were its own; see [`LinearObjective`].
        alignment: Whose decoder reads the other subjects (`to`), by which `method`, and from how many `stimuli` that
            all saw in training; None where each subject has a decoder of its own.

    Example:
        >>> from fmri_models import LinearConfig, LinearModel
        >>> space = {"encoder": "pixels", "layer": "latent", "shape": [1, 28, 28]}
        >>> model = LinearModel(LinearConfig(subject_names=["subj01"], num_voxels=[3092], latent_space=space))
    """

    model_type = "fmri-linear"
    decodes_guides: ClassVar = True
    ranges: ClassVar = {"targets_a_block": SIZE}
    set_by_training: ClassVar = ("restores_variance", "penalties", "parts", "alignment")

    targets_a_block: int = 4096
    voxels_per_target: int | dict[str, int] | None = None
    standardises_patterns: bool = False
    restores_variance: bool = False
    penalties: dict[str, Any] | None = None
    parts: dict[str, Any] | None = None
    alignment: dict[str, Any] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        self._check_blocks()
        self._check_selection()
        self._check_parts()
        self._check_alignment()
        for subject, of_groups in (self.penalties or {}).items():
            numbers = of_groups.values() if isinstance(of_groups, dict) else [of_groups]
            if any(isinstance(n, bool) or not isinstance(n, int | float) or not 0 <= n < math.inf for n in numbers):
                raise FmriModelsError(
                    f"The configuration has {one_line(repr(of_groups), 80)} as penalties of {one_line(subject, 80)}; "
                    "expected a number from 0 for each group of targets."
                )

    def num_selected(self, target: str) -> int | None:
        """How many voxels each unit of a target reads; None where it reads all."""
        chosen = self.voxels_per_target
        return chosen.get(self._stated(target, chosen)) if isinstance(chosen, dict) else chosen

    def restandardises(self, target: str) -> str:
        """How the spread of a target's predictions was or will be restored: `"none"`, `"train"` or `"test"`."""
        part = (self.parts or {}).get(self._stated(target, self.parts or {}), {})
        return part.get("restandardise") or ("train" if self.restores_variance else "none")

    @property
    def targets(self) -> dict[str, EmbeddingSpace]:
        """Target ▶ space of all that is decoded: conditions of a generator, and guides by their own names."""
        conditions = {name: space for name, of in CONDITION_SPACES.items() if (space := self.space(of)) is not None}
        return {**conditions, **self.guides}

    def _stated(self, target: str, options: Mapping[str, Any]) -> str:
        """The name under which options have what is said of a target."""
        return GUIDES if target not in options and target in self.guides else target

    def _check_selection(self) -> None:
        chosen = self.voxels_per_target
        numbers = chosen if isinstance(chosen, dict) else {} if chosen is None else {"": chosen}
        known = [*self.targets, *([GUIDES] if self.guides else [])]
        for target, number in numbers.items():
            if target and target not in known:
                raise FmriModelsError(
                    f"voxels_per_target names {one_line(repr(target), 80)}, and the model decodes "
                    f"{', '.join(known) or 'nothing'}; name one of these, or give one number for all."
                )
            for subject, voxels in self.voxels_by_subject.items():
                check_num_selected(number, voxels, f" of {subject}")
        if self.standardises_patterns and not numbers:
            raise FmriModelsError(
                "standardises_patterns standardises the voxels that a unit reads, and voxels_per_target is not set; "
                "set it, or leave standardises_patterns out."
            )

    def _check_parts(self) -> None:
        for target, options in (self.parts or {}).items():
            if not isinstance(options, dict) or options.get("restandardise") not in (None, "none", "train", "test"):
                raise FmriModelsError(
                    f"The configuration has {one_line(repr(options), 80)} as options of {one_line(target, 80)}; "
                    "expected a mapping, as training writes it."
                )

    @property
    def notes_on_training(self) -> list[str]:
        """Whose decoder reads subjects that have none of their own."""
        if self.alignment is None:
            return []
        others = [name for name in self.subject_names if name != self.alignment["to"]]
        return [
            f"{listed(others, 8)} {'is' if len(others) == 1 else 'are'} read by the decoder of "
            f"{one_line(self.alignment['to'], 60)}, through a map of voxels (alignment: "
            f"{one_line(self.alignment['method'], 60)}) that was learned from {self.alignment['stimuli']} training "
            "stimuli that all of them saw; no test stimulus is among these."
        ]

    def _check_alignment(self) -> None:
        known = self.alignment
        if known is not None and (
            set(known) != {"to", "method", "stimuli"}
            or known["to"] not in self.subject_names
            or not isinstance(known["method"], str)
            or isinstance(known["stimuli"], bool)
            or not isinstance(known["stimuli"], int)
        ):
            raise FmriModelsError(
                f"The configuration has {one_line(repr(known), 120)} as alignment; expected to (one of its subjects), "
                "method (text) and stimuli (a number)."
            )

    def _check_blocks(self) -> None:
        for name, space in self.targets.items():
            if space.size > _MAX_BLOCKS * self.targets_a_block:
                raise FmriModelsError(
                    f"The configuration has {space.size} targets in its {name} and targets_a_block "
                    f"{self.targets_a_block}; expected {_MAX_BLOCKS} blocks at most: give larger ones."
                )
