"""Targets that are computed anew in each step, from pictures that are changed at random."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
import torch

from ..batch import Batch
from ..data.augmentation import TEACHER_VIEW, PictureAugmentation
from ..data.mapped_rows import MappedRows
from ..data.picture_cache import cached_pictures
from ..data.table import TrialTable

if TYPE_CHECKING:
    from ..alignment.feature_map_teacher import FeatureMapTeacher
    from ..generation.image_generator import ImageGenerator


@dataclass
class OnlineTargets:
    """Adds to a training batch what depends on pictures as they are changed in this very step.

    With an augmentation, `image_embeds` (B, …) are those of changed pictures, as in MindEye's published training; with
    a teacher, there are `feature_maps` and `augmented_feature_maps` (B, positions, F), of the pictures as they are and
    of a changed view. `latents` stay those of the pictures as they are. What is drawn comes from the step's generator
    alone, so that a resumed run sees the same changes.

    Args:
        table: The trial table.
        image_generator: Embeds the pictures; is moved to where the batch is.
        augmentation: How pictures are changed before they are embedded; None leaves `image_embeds` to the cache.
        teacher: Gives the feature maps; None gives none.
        teacher_view: How pictures are changed for the teacher's second view.

    Raises:
        FmriModelsError: A picture is missing or does not fit the generator, or the disk is full.
    """

    table: TrialTable
    image_generator: "ImageGenerator"
    augmentation: PictureAugmentation | None = None
    teacher: "FeatureMapTeacher | None" = None
    teacher_view: PictureAugmentation = TEACHER_VIEW

    def __post_init__(self) -> None:
        self._all_pictures = MappedRows(cached_pictures(self.table, self.image_generator))

    @property
    def targets(self) -> tuple[str, ...]:
        """Targets that need no cache, because each step computes them."""
        return () if self.augmentation is None else ("image_embeds",)

    @torch.no_grad()
    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        """The batch with its targets.

        Args:
            batch: `stimulus_ids`, and `fmri` on the device where targets are computed.
            generator: The step's source of random numbers; on the CPU.
        """
        device = batch["fmri"].device
        pictures = self._pictures(batch["stimulus_ids"]).to(device)
        targets: dict[str, torch.Tensor] = {}
        # The cached targets beside these are in single precision, too.
        with torch.autocast(device.type, enabled=False):
            if self.augmentation is not None:
                if self.image_generator.device != device:
                    self.image_generator.to(device)
                targets["image_embeds"] = self.image_generator.embed_images(self.augmentation(pictures, generator))
            if self.teacher is not None:
                teacher = self.teacher.to(device).eval()
                targets["feature_maps"] = teacher(pictures)
                targets["augmented_feature_maps"] = teacher(self.teacher_view(pictures, generator))
        return cast(Batch, {**batch, **targets})

    def _pictures(self, stimulus_ids: list[str]) -> torch.Tensor:
        """(B, C, H, W) float32 in [0, 1]."""
        positions = np.array(self.table.stimuli.positions(stimulus_ids), dtype=np.int64)
        return torch.from_numpy(self._all_pictures.fractions(positions, 255))
