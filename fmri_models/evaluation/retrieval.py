"""Retrieval: which picture belongs to a brain response, and the other way round."""

from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ..errors import FmriModelsError
from ..seeds import check_seed
from .metrics import Reduction, checked_features, checked_pools, reduce
from .ranks import hits_from_ranks
from .similarities import TIE_MARGIN, cosine_matrix, losses_in_columns


def retrieval_accuracy(
    brain: Tensor,
    image: Tensor,
    query: Literal["brain", "image"] = "brain",
    top_k: int = 1,
    pool_size: int | None = None,
    repeats: int = 1,
    seed: int = 0,
    pools: Tensor | np.ndarray | None = None,
    reduction: Reduction = "mean",
) -> Any:
    """How often the partner of a query is among the k most similar (cosine) of a pool.

    The direction is named by its query because the field's names disagree with themselves. `query="brain"`: a brain
    response is given and its picture is searched; MindEye's code calls it "bwd" and the papers print it in the column
    "Brain". `query="image"`: a picture is given and its brain response is searched; "fwd" in the code, the column
    "Image" in the papers. A tie counts as failure.

    Args:
        brain: (N, ...) embeddings predicted from brain responses; row i belongs to row i of `image`.
        image: (N, ...) embeddings of the pictures.
        query: Which side asks.
        top_k: Rank that counts as success.
        pool_size: Number of items in a random pool, drawn without replacement (300 in the papers); None for all N.
        repeats: Number of random pools (30 in the papers).
        seed: For the random pools.
        pools: (repeats, size) item indices instead of random pools.
        reduction: `"mean"` or `"none"`.

    Returns:
        float; per item (N,) float64 for the full pool, (repeats, size) for pools.

    Raises:
        FmriModelsError: Shapes differ, NaN, a pool larger than the set, or an unknown `query`.
    """
    brain, image = checked_features(brain, image)
    if len(brain) < 2:
        raise FmriModelsError("Retrieval needs at least two pictures, but one was given.")
    if query not in ("brain", "image"):
        raise FmriModelsError(f"query is {query!r}; expected 'brain' or 'image'.")
    if top_k < 1:
        raise FmriModelsError(f"top_k is {top_k}; expected a number from 1.")
    # Columns are queries.
    similarity = cosine_matrix(image, brain) if query == "brain" else cosine_matrix(brain, image)
    if pools is None and pool_size is None:
        return reduce(retrieval_hits(similarity, top_k).diagonal(), reduction)
    drawn = _random_pools(len(brain), pool_size, repeats, seed) if pools is None else checked_pools(pools, len(brain))
    hits = [_partner_hits(similarity[pool][:, pool], top_k) for pool in drawn]
    return reduce(torch.stack(hits), reduction)


def retrieval_hits(similarity: Tensor, top_k: int) -> Tensor:
    """Whether each row is among the k most similar of a column.

    Args:
        similarity: (candidates, queries).
        top_k: Rank that counts as success.

    Returns:
        (candidates, queries) float64 of 0 and 1; 0 where the similarity is NaN.
    """
    return hits_from_ranks(losses_in_columns(similarity), len(similarity) - 1, top_k)


def _partner_hits(similarity: Tensor, top_k: int) -> Tensor:
    """The diagonal of [`retrieval_hits`] without the rest of it."""
    own = similarity.diagonal()
    # What is undefined (a vector of zeros) is not more similar than anything.
    not_beaten = (~similarity.isnan()).sum(dim=0) - 1 - (similarity < own - TIE_MARGIN).sum(dim=0)
    return hits_from_ranks(not_beaten.masked_fill(own.isnan(), len(similarity)), len(similarity) - 1, top_k)


def _random_pools(count: int, pool_size: int | None, repeats: int, seed: int) -> Tensor:
    size = count if pool_size is None else pool_size
    if not 1 <= size <= count:
        raise FmriModelsError(f"A pool of {size} was asked for, but there are {count} items; choose at most {count}.")
    generator = torch.Generator().manual_seed(check_seed(seed))
    return torch.stack([torch.randperm(count, generator=generator)[:size] for _ in range(repeats)])
