"""Ridge regression from pictures to voxels, with the noise that it leaves: patterns that were never measured."""

import math

import torch

from .trial_simulation import TrialSimulation


class EncodingModel:
    """Ridge regression from blurred pictures to voxels, and the noise that it leaves.

    Args:
        pictures: (n, C, H, W) float in [0, 1].
        fmri: (n, voxels) processed voxels.
        options: Blur, penalty, threshold and noise.

    Attributes:
        predictability: (voxels,) share of each voxel's variance that is predicted, with each trial left out once.
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
        # The error of a trial that was left out, without fitting anew (Allen, 1974).
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
        options, count = self._options, len(self._errors)
        seen = (_blurred(pictures, options.blur) - self._mean_picture) / self._length
        expected = seen @ self._centred.T @ self._coefficients + self._mean_fmri
        together = torch.randn(len(pictures), count, generator=generator) @ self._errors / count**0.5
        alone = torch.randn(expected.shape, generator=generator) * self._deviation
        shrinkage = options.noise_shrinkage
        return expected + options.noise * ((1 - shrinkage) ** 0.5 * together + shrinkage**0.5 * alone)


def _blurred(pictures: torch.Tensor, sigma: float) -> torch.Tensor:
    """(N, C, H, W) ▶ (N, values); three standard deviations of the normal distribution on either side."""
    if sigma > 0:
        from torchvision.transforms.v2 import functional

        # Reflection needs a picture that is larger than the margin.
        reach = min(math.ceil(3 * sigma), *(side - 1 for side in pictures.shape[-2:]))
        pictures = functional.gaussian_blur(pictures, [2 * reach + 1] * 2, [sigma, sigma])
    return pictures.flatten(1)
