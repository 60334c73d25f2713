"""Which part of the split each event is in: as the events say, or drawn."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np

from ...names import listed
from .. import schema
from ..split_trials import SplitTrials, draw_validation
from ..splits import FEWEST_TEST_STIMULI, few_tested_sentence, split_by_stimulus
from .betas import SubjectBetas
from .events import DEFAULT_SUBJECT, Events


def parts_of_events(
    events: Events,
    subjects: Sequence[SubjectBetas],
    groups: Mapping[str, str],
    repeated: set[str],
    seed: int,
    test_fraction: float,
    validation_fraction: float,
    report: Callable[[str], None],
) -> np.ndarray:
    """Which part of the split each event is in."""
    unlabelled = len(events) - int(events.labelled.sum())
    if unlabelled:
        report(
            f"{unlabelled} of {len(events)} trials have no stimulus: they are of the part {schema.UNLABELLED!r}, from "
            "which masked pretraining learns and nothing else."
        )
    if unlabelled == len(events):
        return np.full(len(events), schema.UNLABELLED)
    if events.split is None:
        order = _labelled_events(events, subjects)
        drawn = split_by_stimulus(_trials(events, order, subjects, groups), seed, test_fraction, validation_fraction)
        parts = np.full(len(events), schema.UNLABELLED)
        parts[order] = drawn.table["split"].to_pylist()
        counts = Counter(parts.tolist())
        report(
            f"The events have no split: drawn by stimulus from seed {seed}, "
            + ", ".join(f"{counts[part]} trials {part}" for part in schema.SPLITS)
            + "."
        )
        for note in drawn.notes:
            report(note)
        return parts
    parts = np.array(events.split)
    tested = {groups[s] for s, part in zip(events.stimulus_id, events.split, strict=True) if part == schema.TEST}
    if 0 < len(tested) < FEWEST_TEST_STIMULI and not repeated:
        report(few_tested_sentence(len(tested)))
    if schema.TEST not in parts:
        report("No trial of the events is in the split 'test': the table can be learned from, but not evaluated on.")
    if repeated:
        report(repeats_sentence(repeated))
    if schema.VALIDATION not in parts and validation_fraction:
        parts = _draw_validation(parts, events, groups, repeated, seed, validation_fraction, report)
    return parts


def tested_again(events: Events, groups: Mapping[str, str]) -> set[str]:
    """Stimuli that the design tests in runs of their own and learns from in others.

    None where that may be a mistake: where a run is in several parts, or some tested stimuli are new and others not.
    """
    if events.split is None or events.run is None:
        return set()
    parts_of_run: dict[tuple[int, int], set[str]] = {}
    shown: dict[str, set[str]] = {part: set() for part in schema.SPLITS}
    for stimulus, run, part in zip(events.stimulus_id, _runs(events), events.split, strict=True):
        if part == schema.UNLABELLED:
            continue
        parts_of_run.setdefault(run, set()).add(part)
        shown[part].add(groups[stimulus])
    by_run = all(len(parts) == 1 for parts in parts_of_run.values())
    return shown[schema.TEST] if by_run and shown[schema.TEST] <= shown[schema.TRAIN] else set()


def repeats_sentence(repeated: Collection[str]) -> str:
    """Why some stimuli are in several parts."""
    return (
        f"The {len(repeated)} tested stimuli are learned from in other runs, as the events' split by run says: scores "
        "say how well responses generalise over runs, not to new pictures."
    )


def _draw_validation(
    parts: np.ndarray,
    events: Events,
    groups: Mapping[str, str],
    repeated: set[str],
    seed: int,
    fraction: float,
    report: Callable[[str], None],
) -> np.ndarray:
    subjects = events.subject or [DEFAULT_SUBJECT] * len(events)
    trials = SplitTrials(subjects, range(len(events)), events.stimulus_id, _runs(events), groups)
    training = np.flatnonzero(parts == schema.TRAIN)
    drawn = draw_validation(trials, training, fraction, np.random.default_rng(seed), repeated)
    if not len(drawn):
        why = "No training run can be spared" if repeated else "No training stimulus can be spared"
        report(f"{why}, so that none is left for validation.")
        return parts
    what = "runs" if repeated else "training stimuli"

    def counted(chosen: np.ndarray) -> int:
        if repeated:
            return len({trials.runs[event] for event in chosen})
        return len({trials.group_of(trials.stimulus_ids[event]) for event in chosen})

    count, total = counted(drawn), counted(training)
    report(f"No validation trials are given: {count} of {total} {what} drawn from seed {seed}.")
    return np.where(np.isin(np.arange(len(parts)), drawn), schema.VALIDATION, parts)


def _runs(events: Events) -> list[tuple[int, int]]:
    """A run is a session's run."""
    count = len(events)
    return list(zip(events.session or [1] * count, events.run or [1] * count, strict=True))


def say_unseen_sessions(
    events: Events, subjects: Sequence[SubjectBetas], parts: np.ndarray, report: Callable[[str], None]
) -> None:
    """Tells of test trials for whose session there are no statistics, which has to be said in evaluation."""
    if events.session is None:
        return
    sessions = np.array(events.session)
    for subject in subjects:
        of_part = {part: sessions[subject.in_events[parts[subject.in_events] == part]] for part in schema.SPLITS}
        unseen = np.setdiff1d(of_part[schema.TEST], of_part[schema.TRAIN])
        if len(unseen):
            count = int(np.isin(of_part[schema.TEST], unseen).sum())
            report(
                f"{subject.name}: {count} test trials are of sessions without training trials "
                f"({listed(unseen.tolist())}); evaluate with `--unseen-session pooled`, or train with "
                "`processor.statistics=pooled`."
            )


def _labelled_events(events: Events, subjects: Sequence[SubjectBetas]) -> np.ndarray:
    """Positions of the trials that have a stimulus, subject by subject."""
    order = np.concatenate([subject.in_events for subject in subjects])
    return order[events.labelled[order]]


def _trials(
    events: Events, order: np.ndarray, subjects: Sequence[SubjectBetas], groups: Mapping[str, str]
) -> SplitTrials:
    """Some events as the trials that a split is drawn over, in an order."""
    of_event = {
        event: (subject.name, trial) for subject in subjects for trial, event in enumerate(subject.in_events.tolist())
    }
    chosen = [of_event[event] for event in order.tolist()]
    names, trials = [name for name, _ in chosen], [trial for _, trial in chosen]
    return SplitTrials(names, trials, [events.stimulus_id[event] for event in order], groups=groups)
