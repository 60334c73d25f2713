"""Tokens as principal components, so that what varies little is learned as readily as what varies much."""

from typing import cast

import numpy as np
import torch
from torch import nn

# Components below this share of the largest variance are taken for noise and not scaled up any further.
_SMALLEST_VARIANCE = 1e-3


class TokenComponents(nn.Module):
    """An affine map from the scores of principal components to tokens, taken from training pictures and not trained.

    What an object is may be a few percent of the variance of a picture's tokens. A network that predicts tokens under
    squared error leaves that to the end; one that predicts partly whitened components does not.

    Args:
        size: Values of all tokens together.
        max_components: How many components there are, unless `size` is smaller.
    """

    def __init__(self, size: int, max_components: int) -> None:
        super().__init__()
        self.num_components = min(size, max_components)
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("directions", torch.zeros(self.num_components, size))
        self.register_buffer("scales", torch.ones(self.num_components))

    def reset_parameters(self) -> None:
        nn.init.zeros_(self._buffer("mean"))
        nn.init.zeros_(self._buffer("directions"))
        nn.init.ones_(self._buffer("scales"))

    @property
    def is_fitted(self) -> bool:
        return bool(self._buffer("directions").any())

    @torch.no_grad()
    def fit(self, tokens: np.ndarray, whitening: float) -> None:
        """Takes mean, directions and scales from tokens.

        Args:
            tokens: (N, size) float; where N is less than the number of components, those that are left over stay zero.
            whitening: From 0 (scores keep the ratios of their variances) to 1 (all have the same one); their mean
                variance is about 1.
        """
        from sklearn.decomposition import PCA

        num_found = min(self.num_components, len(tokens))
        found = PCA(num_found, random_state=0).fit(tokens.astype(np.float32))
        variances = torch.from_numpy(found.explained_variance_)
        scales = (variances + _SMALLEST_VARIANCE * variances[0]) ** (whitening / 2)
        scales = scales * (variances / scales**2).mean().sqrt()
        self._buffer("mean").copy_(torch.from_numpy(found.mean_))
        self._buffer("directions")[:num_found].copy_(torch.from_numpy(found.components_))
        self._buffer("scales")[:num_found].copy_(scales)

    def forward(self, scores: torch.Tensor) -> torch.Tensor:
        """(B, K) scores ▶ (B, size) tokens."""
        directions, mean = self._buffer("directions").to(scores.dtype), self._buffer("mean").to(scores.dtype)
        return (scores * self._buffer("scales").to(scores.dtype)) @ directions + mean

    def scores(self, tokens: torch.Tensor) -> torch.Tensor:
        """(B, …) tokens ▶ (B, K) float32 scores: of tokens that `forward` made, those that they were made of."""
        centred = tokens.float().flatten(1) - self._buffer("mean").float()
        return centred @ self._buffer("directions").float().T / self._buffer("scales").float()

    def _buffer(self, name: str) -> torch.Tensor:
        return cast(torch.Tensor, getattr(self, name))
