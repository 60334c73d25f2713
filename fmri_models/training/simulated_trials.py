"""Trials that were never measured: changed training pictures, and what an encoding model says the brain answers.

Few trials teach a decoder little about pictures. An encoding model (Naselaris et al., 2011) that is fitted to the same
trials gives a pattern to any picture; a decoder that learns from such pairs, too, has seen more pictures and more noise
(after Beliy et al., 2019, who trained on pictures without fMRI).
"""

import math
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from torch.nn import functional as F

from ..batch import Batch
from ..data.generator_pictures import prepare_pictures
from ..data.loading import TrialDataset
from ..data.table import TrialTable
from ..data.targets import Target
from ..errors import FmriModelsError
from ..generation.image_generator import ImageGenerator
from .encoding_model import EncodingModel
from .trial_simulation import TrialSimulation

# Targets that are functions of a small picture ▶ the generator's method that gives them.
_METHODS: dict[Target, str] = {"image_embeds": "embed_images", "latents": "encode_images"}


class SimulatedTrials:
    """Puts simulated trials in the place of some examples of a training batch.

    Such an example keeps its subject; its picture is changed, and voxels and targets are those of the changed picture.
    All is fitted to the trials that the stage learns from, and drawn from the step's generator.

    Args:
        options: How trials are simulated.
        data: The examples that the stage learns from.
        table: Has their pictures.
        image_generator: Gives the targets; is moved to where the batch is.
        targets: What is learned.

    Raises:
        FmriModelsError: Examples have several repetitions, targets are no function of a small picture, or a subject has
            too few examples.
    """

    def __init__(
        self,
        options: TrialSimulation,
        data: TrialDataset,
        table: TrialTable,
        image_generator: ImageGenerator,
        targets: Sequence[Target],
    ) -> None:
        if unknown := [target for target in targets if target not in _METHODS]:
            raise FmriModelsError(f"Trials can't be simulated with {unknown[0]}; leave simulation or that target out.")
        if image_generator.embeds_any_size:
            raise FmriModelsError(
                f"{type(image_generator).__name__} resizes pictures itself, so that embedding and latent of a changed "
                "picture would differ in size; leave simulation out."
            )
        self.options = options
        self.image_generator = image_generator
        self.targets = list(targets)
        ids = sorted({str(stimulus) for trials in data.subjects for stimulus in trials.stimulus_ids})
        self._position_of = {stimulus: position for position, stimulus in enumerate(ids)}
        self._pictures = prepare_pictures(table.stimuli.images(ids), image_generator.image_size)
        self._models: dict[int, EncodingModel] = {}
        for trials in data.subjects:
            subject = trials.trials.subject
            if len(trials.shape) > 1 or len(trials) < 2:
                raise FmriModelsError(
                    f"{subject} has {len(trials)} rows of shape {trials.shape}; trials are simulated from two "
                    "or more rows of one pattern each (repetitions average or single)."
                )
            fmri = torch.from_numpy(trials[np.arange(len(trials))])
            index = trials.processor.subject_names.index(subject)
            self._models[index] = EncodingModel(self._of(trials.stimulus_ids.tolist()), fmri, options)

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        """The batch, its first examples simulated; they are in random order already.

        Args:
            batch: `fmri` (B, V), `subject_ids` (B,), `stimulus_ids`, and the targets.
            generator: The step's source of random numbers; on the CPU.
        """
        device, count = batch["fmri"].device, round(self.options.share * len(batch["fmri"]))
        if count == 0:
            return batch
        pictures = _changed(self._of(batch["stimulus_ids"][:count]), self.options, generator)
        simulated = {"fmri": self._respond(pictures, batch, generator)}
        if self.image_generator.device != device:
            self.image_generator.to(device)
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            for target in self.targets:
                values = getattr(self.image_generator, _METHODS[target])(pictures.to(device))
                simulated[target] = values.reshape(count, *batch[target].shape[1:])
        measured = cast(dict[str, Any], batch)
        joined = {name: torch.cat([new.to(measured[name]), measured[name][count:]]) for name, new in simulated.items()}
        return cast(Batch, {**batch, **joined})

    def _respond(self, pictures: torch.Tensor, batch: Batch, generator: torch.Generator) -> torch.Tensor:
        """(N, V) patterns, zero-padded as the batch is."""
        fmri = torch.zeros(len(pictures), batch["fmri"].shape[1])
        subject_ids = batch["subject_ids"][: len(pictures)].cpu()
        for index in subject_ids.unique().tolist():
            chosen = subject_ids == index
            answers = self._models[index].respond(pictures[chosen], generator)
            fmri[chosen, : answers.shape[1]] = answers
        return fmri

    def _of(self, stimulus_ids: Sequence[str]) -> torch.Tensor:
        """(N, C, H, W) pictures of stimuli, float32 in [0, 1]."""
        return self._pictures[[self._position_of[str(stimulus)] for stimulus in stimulus_ids]]


def _changed(pictures: torch.Tensor, options: TrialSimulation, generator: torch.Generator) -> torch.Tensor:
    """Moves, turns, stretches and slants each picture in its own way; what comes in from outside is like the edge."""
    draws = torch.randn(len(pictures), 6, generator=generator)
    angle = draws[:, 0] * math.radians(options.rotation)
    stretch = torch.exp(draws[:, 1:3] * options.scale)
    turned = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], dim=1).reshape(-1, 2, 2)
    slanted = torch.diag_embed(stretch)
    slanted[:, 0, 1] = draws[:, 3] * options.shear
    # Coordinates reach from -1 to 1, so that a side is 2 long.
    moved = 2 * options.shift * draws[:, 4:, None]
    grid = F.affine_grid(torch.cat([turned @ slanted, moved], dim=2), list(pictures.shape), align_corners=False)
    return F.grid_sample(pictures, grid, padding_mode="border", align_corners=False).clamp(0, 1)
