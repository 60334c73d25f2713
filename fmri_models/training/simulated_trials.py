"""Trials that were never measured: changed training pictures, and what an encoding model says the brain answers.

Few trials teach a decoder little about pictures. An encoding model (Naselaris et al., 2011) that is fitted to the same
trials gives a pattern to any picture; a decoder that learns from such pairs, too, has seen more pictures and more noise
(after Beliy et al., 2019, who trained on pictures without fMRI).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from ..data.generator_pictures import prepare_pictures
from ..data.loading import TrialDataset
from ..data.table import TrialTable
from ..data.targets import Target
from ..errors import FmriModelsError
from ..generation.image_generator import ImageGenerator

_KIND_METHODS: dict[Target, str] = {"image_embeds": "embed_images", "latents": "encode_images"}


@dataclass(frozen=True)
class TrialSimulation:
    """How trials are simulated.

    Args:
        share: Share of each batch's rows that simulated trials take the place of.
        shift: Standard deviation of how far a picture is moved in either direction, as a share of its side.
        rotation: Standard deviation of how far it is turned, in degrees.
        scale: Standard deviation of the logarithm of how much it is stretched, in either direction for itself.
        shear: Standard deviation of how much it is slanted.
        blur: Standard deviation, in pixels, of the blur with which the encoding model sees pictures.
        ridge: Penalty of the encoding model, as a share of the pictures' mean squared length.
        min_predictability: Voxels of whose variance the encoding model predicts less than this share, with each trial
            left out once, answer with noise alone.
        noise_shrinkage: How much the covariance of the noise is shrunk to its diagonal, from 0 to 1.
        noise: What the standard deviation of the noise is multiplied by; more than 1 makes up for what the encoding
            model does not know.

    Raises:
        FmriModelsError: A number is out of range.
    """

    share: float = 0.8
    shift: float = 0.035
    rotation: float = 8.0
    scale: float = 0.08
    shear: float = 0.12
    blur: float = 1.0
    ridge: float = 0.3
    min_predictability: float = 0.05
    noise_shrinkage: float = 0.8
    noise: float = 3.0

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            highest = 1.0 if item.name in ("share", "min_predictability", "noise_shrinkage") else math.inf
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= highest:
                raise FmriModelsError(
                    f"simulation.{item.name} is {value!r}; expected a number from 0"
                    + (" to 1." if highest == 1 else ".")
                )
        if self.ridge == 0:
            raise FmriModelsError("simulation.ridge is 0; expected a positive number.")


def trial_simulation(value: dict[str, Any] | None) -> TrialSimulation | None:
    """What a recipe means by its `simulation`.

    Args:
        value: A mapping of what differs from the defaults; None simulates nothing.

    Raises:
        FmriModelsError: It has a key or a value that there is not.
    """
    if value is None:
        return None
    known = [item.name for item in fields(TrialSimulation)]
    if not isinstance(value, dict) or not set(value) <= set(known):
        raise FmriModelsError(f"simulation is {value!r}; expected a mapping with some of {', '.join(known)}.")
    return TrialSimulation(**value)


class EncodingModel:
    """Ridge regression from blurred pictures to voxels, and the noise that it leaves.

    Args:
        pictures: (n, C, H, W) float in [0, 1].
        fmri: (n, voxels) processed voxels.
        options: Blur, penalty, threshold and noise.

    Attributes:
        predictability: (voxels,) share of each voxel's variance that is predicted, with each row left out once.
    """

    def __init__(self, pictures: torch.Tensor, fmri: torch.Tensor, options: TrialSimulation) -> None:
        self._options = options
        seen = _blurred(pictures, options.blur)
        self._mean_picture, self._mean_fmri = seen.mean(0), fmri.mean(0)
        centred, responses = seen - self._mean_picture, fmri - self._mean_fmri
        self._length = centred.square().sum(1).mean().clamp_min(1e-12).sqrt()
        self._centred = centred / self._length
        kernel = self._centred @ self._centred.T
        inverse = torch.linalg.inv(kernel + options.ridge * torch.eye(len(kernel)))
        hat = kernel @ inverse
        # The error of a row that was left out, without fitting anew (Allen, 1974).
        self._errors = (responses - hat @ responses) / (1 - hat.diagonal())[:, None]
        variance = responses.square().mean(0).clamp_min(1e-12)
        self.predictability = 1 - self._errors.square().mean(0) / variance
        predicted = self.predictability >= options.min_predictability
        self._coefficients = inverse @ responses * predicted
        # A voxel that nothing predicts varies as it varied.
        self._errors = torch.where(predicted, self._errors, responses)
        self._deviation = self._errors.square().mean(0).sqrt()

    def respond(self, pictures: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Patterns of single trials.

        Args:
            pictures: (N, C, H, W) float in [0, 1].
            generator: Source of the noise.

        Returns:
            (N, voxels) float32.
        """
        options, rows = self._options, len(self._errors)
        seen = (_blurred(pictures, options.blur) - self._mean_picture) / self._length
        expected = seen @ self._centred.T @ self._coefficients + self._mean_fmri
        together = torch.randn(len(pictures), rows, generator=generator) @ self._errors / rows**0.5
        alone = torch.randn(expected.shape, generator=generator) * self._deviation
        shrinkage = options.noise_shrinkage
        return expected + options.noise * ((1 - shrinkage) ** 0.5 * together + shrinkage**0.5 * alone)


class SimulatedTrials:
    """Puts simulated trials in the place of some rows of a training batch.

    Such a row keeps its subject; its picture is changed, and voxels and targets are those of the changed picture. All
    is fitted to the trials that the stage learns from, and drawn from the step's generator.

    Args:
        options: How trials are simulated.
        data: The rows that the stage learns from.
        table: Has their pictures.
        image_generator: Gives the targets; is moved to where the batch is.
        kinds: Groups of targets.

    Raises:
        FmriModelsError: Rows have several repetitions, targets are no function of a small picture, or a subject has too
            few rows.
    """

    def __init__(
        self,
        options: TrialSimulation,
        data: TrialDataset,
        table: TrialTable,
        image_generator: ImageGenerator,
        kinds: Sequence[Target],
    ) -> None:
        if unknown := [kind for kind in kinds if kind not in _KIND_METHODS]:
            raise FmriModelsError(f"Trials can't be simulated with {unknown[0]}; leave simulation or that target out.")
        if image_generator.embeds_any_size:
            raise FmriModelsError(
                f"{type(image_generator).__name__} resizes pictures itself, so that embedding and latent of a changed "
                "picture would differ in size; leave simulation out."
            )
        self.options = options
        self.image_generator = image_generator
        self.targets = list(kinds)
        ids = sorted({str(stimulus) for rows in data.subjects for stimulus in rows.stimulus_ids})
        self._row_of = {stimulus: row for row, stimulus in enumerate(ids)}
        self._pictures = prepare_pictures(table.stimuli.images(ids), image_generator.image_size)
        self._models: dict[int, EncodingModel] = {}
        for rows in data.subjects:
            if len(rows.shape) > 1 or len(rows) < 2:
                raise FmriModelsError(
                    f"{rows.trials.subject} has {len(rows)} rows of shape {rows.shape}; trials are simulated from two "
                    "or more rows of one pattern each (repetitions average or single)."
                )
            fmri = torch.from_numpy(rows[np.arange(len(rows))])
            index = rows.processor.subject_names.index(rows.trials.subject)
            self._models[index] = EncodingModel(self._of(rows.stimulus_ids.tolist()), fmri, options)

    def __call__(self, batch: dict[str, Any], generator: torch.Generator) -> dict[str, Any]:
        """The batch, its first rows simulated; rows are in random order already.

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
            for kind in self.targets:
                values = getattr(self.image_generator, _KIND_METHODS[kind])(pictures.to(device))
                simulated[kind] = values.reshape(count, *batch[kind].shape[1:])
        return {
            **batch,
            **{name: torch.cat([new.to(batch[name]), batch[name][count:]]) for name, new in simulated.items()},
        }

    def _respond(self, pictures: torch.Tensor, batch: dict[str, Any], generator: torch.Generator) -> torch.Tensor:
        """(N, V) patterns, zero-padded as the batch is."""
        fmri = torch.zeros(len(pictures), batch["fmri"].shape[1])
        subject_ids = batch["subject_ids"][: len(pictures)].cpu()
        for index in subject_ids.unique().tolist():
            rows = subject_ids == index
            answers = self._models[index].respond(pictures[rows], generator)
            fmri[rows, : answers.shape[1]] = answers
        return fmri

    def _of(self, stimulus_ids: Sequence[str]) -> torch.Tensor:
        """(N, C, H, W) pictures of stimuli, float32 in [0, 1]."""
        return self._pictures[[self._row_of[str(stimulus)] for stimulus in stimulus_ids]]


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


def _blurred(pictures: torch.Tensor, sigma: float) -> torch.Tensor:
    """(N, C, H, W) ▶ (N, values); three standard deviations of the normal distribution on either side."""
    if sigma > 0:
        from torchvision.transforms.v2 import functional

        # Reflection needs a picture that is larger than the margin.
        reach = min(math.ceil(3 * sigma), *(side - 1 for side in pictures.shape[-2:]))
        pictures = functional.gaussian_blur(pictures, [2 * reach + 1] * 2, [sigma, sigma])
    return pictures.flatten(1)
