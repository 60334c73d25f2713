"""Re-identification: whose layer is it, among subjects whose voxels are as many?"""

from dataclasses import dataclass

import numpy as np

from ..data.table import TrialTable
from ..evaluation.held_out import held_out_trials
from ..pipeline_fmri import FmriToImagePipeline
from .decoded import decoded, fit_to_truth, processed, true_targets
from .roc import FEWEST, share_of

_DRAWS = 2000


@dataclass(frozen=True)
class Identification:
    """Whether a person's held-out trials tell the person's layer from those of others.

    Args:
        subject: Whose trials they are.
        others: Whose layers they were put through besides.
        area: The chance that a stimulus fits better through the own layer than through another's; None where it is not
            defined.
        ci95: Its 95 % interval over stimuli.
        p: Of the null that, for each stimulus, the own layer is one like the others. A layer that reads anybody's
            trials better than the others do is not like them either, so that all subjects have to be looked at.
        identified: Whether the own layer fits best of all in the mean.
        stimuli: How many.
        not_defined: Why not; empty where it is.
    """

    subject: str
    others: list[str]
    area: float | None = None
    ci95: tuple[float, float] | None = None
    p: float | None = None
    identified: bool | None = None
    stimuli: int = 0
    not_defined: str = ""


def identification(pipeline: FmriToImagePipeline, table: TrialTable, subject: str, seed: int) -> Identification:
    """Puts a subject's held-out trials through each layer of that width; the attacker knows what was shown.

    Args:
        pipeline: What is audited.
        table: The table that it was trained on.
        subject: Whose trials they are.
        seed: Of interval and exchanges.
    """
    processor = pipeline.processor
    width = processor.subject(subject).num_voxels
    others = [
        name for name in processor.subject_names if name != subject and processor.subject(name).num_voxels == width
    ]
    if not others:
        number = len(processor.subject_names)
        reason = "the model has one subject" if number == 1 else f"no other of the {number} subjects has {width} voxels"
        return Identification(subject, [], not_defined=reason)
    trials = held_out_trials(pipeline, table, subject, may_be_empty=True).trials
    names, position = np.unique(trials.stimulus_ids, return_inverse=True)
    if len(names) < FEWEST:
        few = f"there are {len(names)} held-out pictures; {FEWEST} are needed"
        return Identification(subject, others, stimuli=len(names), not_defined=few)
    truth = None
    columns = []
    # A layer goes with its subject's statistics, those over all sessions, since whose sessions these are is unknown.
    for layer in [subject, *others]:
        name, predicted = decoded(pipeline, processed(pipeline, trials, layer), layer)
        truth = true_targets(pipeline, trials, names.tolist(), name) if truth is None else truth
        scores = fit_to_truth(predicted, truth[position], truth.mean(axis=0))
        columns.append(np.bincount(position, weights=scores) / np.bincount(position))
    fits = np.stack(columns, axis=1)
    value, interval, p = own_against_others(fits, seed)
    means = fits.mean(axis=0)
    best = bool(means[0] > means[1:].max())
    return Identification(subject, others, value, interval, p, best, len(names))


def own_against_others(fits: np.ndarray, seed: int) -> tuple[float, tuple[float, float], float]:
    """How often the first layer is above the others, its interval over stimuli, and p.

    Args:
        fits: (stimuli, layers) scores; the first layer is the own one.
        seed: Of exchanges.
    """
    rng = np.random.default_rng(seed)
    wins = _wins(fits)
    value, interval = share_of(wins)
    exchanged = np.array([_wins(rng.permuted(fits, axis=1)).mean() for _ in range(_DRAWS)])
    as_far = np.abs(exchanged - 0.5) >= abs(value - 0.5) - 1e-12
    return value, interval, float((1 + as_far.sum()) / (1 + _DRAWS))


def _wins(fits: np.ndarray) -> np.ndarray:
    own, others = fits[:, :1], fits[:, 1:]
    return np.asarray(((own > others) + 0.5 * (own == others)).mean(axis=1))
