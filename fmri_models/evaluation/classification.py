"""What a classifier makes of reconstructions: n-way accuracy."""

from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ..errors import FmriModelsError
from ..seeds import check_seed
from .metrics import Reduction, reduce
from .ranks import hits_from_ranks

Ties = Literal["failure", "success"]


def n_way_accuracy(
    logits: Any,
    target: Any,
    n_way: int,
    top_k: int = 1,
    trials: int | None = None,
    seed: int | np.random.Generator | np.random.RandomState = 0,
    *,
    draws: Any = None,
    ties: Ties = "failure",
    reduction: Reduction = "mean",
) -> Any:
    """Whether a classifier ranks the shown picture's class among the first k of n classes drawn at random.

    MinD-Vis (Chen et al. 2023): the target is the class that the classifier gives to the true picture, n - 1 further
    classes are drawn without replacement. Without `trials` the expectation over all draws is computed exactly: with
    H of the C - 1 other classes not below the target, the number of them among the drawn is hypergeometric, and the
    item scores P(number < k). With `trials` it is that number which is drawn, not the classes themselves: the same
    distribution, a thousand times as fast as a loop over trials.

    Args:
        logits: (N, C) float, of the reconstructions; any monotone function of them gives the same result.
        target: (N,) class indices; (N, G) where each of several classes is right (MinD-Video takes the three that the
            classifier ranks first on the true frame): the best of them counts, and none of them is drawn.
        n_way: Number of classes compared, the target's among them.
        top_k: Rank that counts as success.
        trials: Number of random draws per item; None for the exact expectation.
        seed: For the draws: a number or a NumPy generator. A `RandomState` draws the classes as the published
            procedure does, one trial after the other, and gives its numbers.
        draws: (trials, n - 1) or (N, trials, n - 1) class indices that were drawn elsewhere, instead of `trials`.
        ties: Whether a class with the target's very logit is above it. MinD-Vis' top-1 counts it as a success.
        reduction: `"mean"` or `"none"`.

    Returns:
        float, or (N,) float64.

    Raises:
        FmriModelsError: Shapes, classes, `n_way`, `top_k` or `draws` do not fit together, or logits are NaN.
    """
    logits, target = _checked(logits, target)
    classes, right = logits.shape[1], target.shape[1]
    if not 2 <= n_way <= classes - right + 1 or not 1 <= top_k < n_way:
        raise FmriModelsError(
            f"{n_way}-way top-{top_k} is not defined with {classes} classes, {right} of them right; expected "
            f"1 <= k < n <= {classes - right + 1}."
        )
    if ties not in ("failure", "success"):
        raise FmriModelsError(f"ties is {ties!r}; expected 'failure' or 'success'.")
    own = logits.gather(1, target).amax(1, keepdim=True)
    above = (logits >= own if ties == "failure" else logits > own).scatter(1, target, False)
    if draws is not None:
        drawn = _checked_draws(draws, target, n_way, classes)
        return reduce((_numbers_drawn(above, drawn) < top_k).double().mean(1), reduction)
    if trials is None:
        return reduce(hits_from_ranks(above.sum(1), classes - right, top_k, n_way), reduction)
    if trials < 1:
        raise FmriModelsError(f"trials is {trials}; expected a number from 1, or None for the exact expectation.")
    if isinstance(seed, np.random.RandomState):
        scores = [
            _drawn_one_by_one(*each, n_way, top_k, trials, seed)
            for each in zip(above.numpy(), target.numpy(), strict=True)
        ]
        return reduce(torch.tensor(scores, dtype=torch.float64), reduction)
    generator = seed if isinstance(seed, np.random.Generator) else np.random.default_rng(check_seed(seed))
    marked = above.sum(1, keepdim=True).numpy()
    numbers = generator.hypergeometric(marked, classes - right - marked, n_way - 1, size=(len(logits), trials))
    return reduce(torch.from_numpy((numbers < top_k).mean(1)), reduction)


def _checked(logits: Any, target: Any) -> tuple[Tensor, Tensor]:
    """Logits (N, C) float64 and right classes (N, G)."""
    logits, target = torch.as_tensor(logits).double().cpu(), torch.as_tensor(target).long().cpu()
    if (
        logits.ndim != 2
        or target.ndim not in (1, 2)
        or len(target) != len(logits)
        or 0 in (*logits.shape, *target.shape)
    ):
        raise FmriModelsError(
            f"logits have the shape {tuple(logits.shape)} and targets {tuple(target.shape)}; expected (N, C) and (N,) "
            "or (N, G)."
        )
    if logits.isnan().any() or target.min() < 0 or target.max() >= logits.shape[1]:
        raise FmriModelsError(f"logits contain NaN, or a target is outside 0 to {logits.shape[1] - 1}.")
    target = target[:, None] if target.ndim == 1 else target.sort(dim=1).values
    if (target.diff(dim=1) == 0).any():
        raise FmriModelsError("A picture has the same right class twice; expected different ones.")
    return logits, target


def _checked_draws(draws: Any, target: Tensor, n_way: int, classes: int) -> Tensor:
    """(N, trials, n - 1) class indices."""
    draws = torch.as_tensor(draws).long().cpu()
    if draws.ndim == 2:
        draws = draws.expand(len(target), -1, -1)
    if draws.ndim != 3 or len(draws) != len(target) or draws.shape[1] < 1 or draws.shape[2] != n_way - 1:
        raise FmriModelsError(
            f"draws have the shape {tuple(draws.shape)}; expected (trials, {n_way - 1}) or ({len(target)}, trials, "
            f"{n_way - 1})."
        )
    if draws.min() < 0 or draws.max() >= classes:
        raise FmriModelsError(f"A drawn class is outside 0 to {classes - 1}.")
    is_right = torch.zeros(len(target), classes, dtype=torch.bool).scatter(1, target, True)
    if is_right.gather(1, draws.flatten(1)).any():
        raise FmriModelsError("A picture's own class is among those drawn against it; draw from the others.")
    return draws


def _numbers_drawn(above: Tensor, draws: Tensor) -> Tensor:
    """(N, trials) how many of the drawn classes are not below the right one."""
    return above.gather(1, draws.flatten(1)).view(draws.shape).sum(2)


def _drawn_one_by_one(
    above: np.ndarray, right: np.ndarray, n_way: int, top_k: int, trials: int, generator: np.random.RandomState
) -> float:
    others = np.delete(np.arange(len(above)), right)
    hits = [above[generator.choice(others, n_way - 1, replace=False)].sum() < top_k for _ in range(trials)]
    return float(np.mean(hits))
