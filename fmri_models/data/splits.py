"""Drawing splits: by stimulus, in folds, by run or by category. A split is a file of trial numbers, never of betas.

A picture that is there under two ids counts as one stimulus. Validation is drawn from the trials that would be learned
from otherwise: by stimulus, as pictures are new in the test, or by run, where the design tests pictures that are
learned from in other runs.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from numbers import Integral, Real

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..deprecation import moved_names, renamed_argument
from ..errors import FmriModelsError
from ..hub_repository import is_in_hub_cache
from ..names import check_name, listed, one_line
from ..plain_values import ShortRepr
from ..saving import atomic_file
from ..seeds import check_seed
from . import schema
from .split_files import check_disjoint, check_split_rows, split_table
from .split_trials import SplitTrials, draw_validation, drawn_stimuli
from .table import TrialTable
from .training_checks import FEWEST_TRAINING_STIMULI

__getattr__ = moved_names(__name__, "fmri_models.data.split_trials", {"SplitRows": "SplitTrials"}, since="0.1")

FEWEST_TEST_STIMULI = 10
DEFAULT_FOLDS = 10


@dataclass(repr=False)
class DrawnSplit(ShortRepr):
    """A split before it is written.

    Attributes:
        table: Rows of the split file.
        by: What it is split by.
        seed: The seed that drew it.
        repeats_stimuli: Why stimuli are in several parts; empty where none is.
        notes: Sentences that a person should read.
    """

    table: pa.Table
    by: str
    seed: int
    repeats_stimuli: str = ""
    notes: list[str] = field(default_factory=list)


@renamed_argument("rows", "trials", since="0.1")
def split_by_stimulus(
    trials: SplitTrials, seed: int = 0, test_fraction: float = 0.1, validation_fraction: float = 0.1
) -> DrawnSplit:
    """One fold; the test part has `test_fraction` of the stimuli, with all trials of all subjects.

    Fewer are tested, and one at least, where a subject would not be left with two stimuli to learn from.

    Raises:
        FmriModelsError: No stimulus can be spared for the test.
    """
    seed = check_seed(seed)
    check_fraction(test_fraction, "test fraction")
    check_count(len(trials.shown), 2, "stimuli")
    test = drawn_stimuli(trials, np.arange(len(trials.stimulus_ids)), test_fraction, np.random.default_rng(seed))
    if not test:
        raise FmriModelsError(
            f"No stimulus can be tested: training needs {FEWEST_TRAINING_STIMULI} of each subject, and whichever of "
            f"the {len(trials.shown)} is left out, a subject has fewer; give more, or say in the events' column "
            "'split' what is tested."
        )
    return assembled_split(trials, [trials_of_groups(trials, test)], "stimulus", seed, validation_fraction)


@renamed_argument("rows", "trials", since="0.1")
def split_kfold(
    trials: SplitTrials, seed: int = 0, folds: int = DEFAULT_FOLDS, validation_fraction: float = 0.1
) -> DrawnSplit:
    """Each stimulus is tested in exactly one fold; categories are spread evenly where they are known."""
    from sklearn.model_selection import StratifiedGroupKFold

    seed = check_seed(seed)
    folds = _checked_folds(folds)
    check_count(len(trials.shown), folds, "stimuli", f"for {folds} folds")
    category_of = _categories_of_groups(trials)
    labels = [category_of.get(group) or "" for group in trials.shown]
    splitter = StratifiedGroupKFold(n_splits=folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # It warns of categories with fewer members than folds, which are spread as far as they go.
        warnings.simplefilter("ignore", UserWarning)
        drawn = [{trials.shown[i] for i in test} for _, test in _safe_split(splitter, trials.shown, labels)]
    tests = [trials_of_groups(trials, test) for test in drawn]
    return assembled_split(trials, tests, "kfold", seed, validation_fraction)


@renamed_argument("rows", "trials", since="0.1")
def split_by_run(
    trials: SplitTrials, seed: int = 0, folds: int | None = None, validation_fraction: float = 0.1
) -> DrawnSplit:
    """Leaves one run out (or groups of runs, in `folds` folds); a run is a session's run, the same for all subjects."""
    seed = check_seed(seed)
    runs = sorted(set(trials.runs))
    folds = None if folds is None else _checked_folds(folds)
    check_count(len(runs), folds or 2, "runs", f"for {folds} folds" if folds else "")
    number = folds or len(runs)
    order = np.random.default_rng(seed).permutation(len(runs)) if folds else np.arange(len(runs))
    fold_of = {runs[run]: position % number for position, run in enumerate(order)}
    tests = [lambda trial, fold=fold: fold_of[trials.runs[trial]] == fold for fold in range(number)]
    return assembled_split(trials, tests, "run", seed, validation_fraction)


@renamed_argument("rows", "trials", since="0.1")
def split_semantic(
    trials: SplitTrials, seed: int = 0, test_fraction: float = 0.1, validation_fraction: float = 0.1
) -> DrawnSplit:
    """One fold; whole categories are held out until the test part has at least `test_fraction` of the stimuli."""
    seed = check_seed(seed)
    check_fraction(test_fraction, "test fraction")
    category_of = _categories_of_groups(trials)
    if unknown := sorted({s for s in trials.stimulus_ids if not trials.categories.get(s)}):
        raise FmriModelsError(
            f"{len(unknown)} stimuli have no category ({listed(unknown)}); a semantic split holds whole "
            "categories out, so each needs one."
        )
    names = sorted({str(category) for category in category_of.values()})
    check_count(len(names), 2, "categories")
    held_out: set[str] = set()
    wanted = test_fraction * len(trials.shown)
    for position in np.random.default_rng(seed).permutation(len(names))[:-1]:
        if sum(category_of[group] in held_out for group in trials.shown) >= wanted:
            break
        held_out.add(names[position])
    test = {group for group in trials.shown if category_of[group] in held_out}
    split = assembled_split(trials, [trials_of_groups(trials, test)], "semantic", seed, validation_fraction)
    split.notes.insert(0, f"Held out: {', '.join(sorted(held_out))}.")
    return split


def split_fewer(
    trials: SplitTrials,
    base: pa.Table,
    num_trials: int,
    seed: int = 0,
    validation_fraction: float = 0.1,
    repeats_stimuli: str = "",
    made_with: Mapping[str, str | int | float] | None = None,
) -> DrawnSplit:
    """An earlier split with fewer trials to learn from: how methods do with little scanning time.

    In each fold each subject keeps `num_trials` training trials, those of some stimuli, which are drawn; where several
    subjects saw the same ones, they are the same. Validation is drawn from them anew. The test part is the earlier
    one's.

    Args:
        trials: All of the table.
        base: Rows of the earlier split.
        num_trials: How many of a subject's trials are learned from or validated on; all, where it has no more.
        seed: Draws them.
        validation_fraction: Share of their stimuli for validation (of their runs, where the design tests stimuli that
            are learned from); 0 for none.
        repeats_stimuli: Why stimuli are in several parts of the earlier split; empty where none is.
        made_with: What decided the earlier split, for the new one's file.

    Raises:
        FmriModelsError: The number is none, or a subject would not be left with two stimuli to learn from.
    """
    seed = check_seed(seed)
    check_fraction(validation_fraction, "validation fraction", or_none=True)
    if num_trials < 1:
        raise FmriModelsError(
            f"{one_line(repr(num_trials), 60)} trials were asked for; expected a whole number from 1."
        )
    rows = base.to_pydict()
    groups = [trials.group_of(stimulus) for stimulus in rows["stimulus_id"]]
    position = {key: at for at, key in enumerate(zip(trials.subjects, trials.trials, strict=True))}
    kept: list[int] = []
    parts = list(rows["split"])
    for fold in sorted(set(rows["fold"])):
        rng = np.random.default_rng([seed, fold])
        rank = {group: place for place, group in enumerate(rng.permutation(trials.shown).tolist())}
        of_fold = [row for row, each in enumerate(rows["fold"]) if each == fold]
        kept += [row for row in of_fold if parts[row] == schema.TEST]
        for subject in sorted({rows["subject"][row] for row in of_fold}):
            own = [row for row in of_fold if rows["subject"][row] == subject and parts[row] == schema.TRAIN]
            chosen = sorted(own, key=lambda row: (rank[groups[row]], rows["trial"][row]))[:num_trials]
            if chosen:
                check_count(len({groups[row] for row in chosen}), FEWEST_TRAINING_STIMULI, f"stimuli of {subject}")
            kept += chosen
        if validation_fraction:
            learned = [row for row in kept if rows["fold"][row] == fold and parts[row] == schema.TRAIN]
            at = np.array([position[rows["subject"][row], rows["trial"][row]] for row in learned], dtype=np.int64)
            tested = {groups[row] for row in of_fold if parts[row] == schema.TEST}
            repeated = tested & {groups[row] for row in learned}
            validation = set(draw_validation(trials, at, validation_fraction, rng, repeated).tolist())
            for row, place in zip(learned, at.tolist(), strict=True):
                parts[row] = schema.VALIDATION if place in validation else schema.TRAIN
    columns = {name: [values[row] for row in sorted(kept)] for name, values in {**rows, "split": parts}.items()}
    drawn = split_table(columns, "fewer", seed, repeats_stimuli, made_with)
    return DrawnSplit(drawn, "fewer", seed, repeats_stimuli, [repeats_stimuli] if repeats_stimuli else [])


def split_by_imagery(trials: SplitTrials, seed: int = 0, validation_fraction: float = 0.1) -> DrawnSplit:
    """One fold; all imagery trials are tested, and what is learned from are trials of what was seen.

    Seen trials of a picture that is imagined, by any subject, are in no part, so that what is imagined is new.

    Raises:
        FmriModelsError: No trial is one of imagery, or nothing else would be left to learn from.
    """
    seed = check_seed(seed)
    imagined = np.array(trials.imagery, dtype=bool)
    if not imagined.any():
        raise FmriModelsError(
            "No trial of the table is one of imagery; mark those that are in the column imagery of EVENTS.csv "
            "(`fmri-models prepare arrays`)."
        )
    groups = np.array([trials.group_of(stimulus) for stimulus in trials.stimulus_ids])
    kept_trials = imagined | ~np.isin(groups, groups[imagined])
    chosen: list[int] = np.flatnonzero(kept_trials).tolist()
    if imagined[chosen].all():
        raise FmriModelsError(
            "Every picture that was seen is imagined in other trials, so that none is left to learn from; show others, "
            "too, or split by run."
        )
    runs = list(trials.runs)
    kept = SplitTrials(
        [trials.subjects[i] for i in chosen],
        [trials.trials[i] for i in chosen],
        [trials.stimulus_ids[i] for i in chosen],
        [runs[i] for i in chosen] if runs else (),
        trials.groups,
        trials.categories,
        imagined[chosen].tolist(),
    )
    drawn = assembled_split(kept, [lambda trial: bool(kept.imagery[trial])], "imagery", seed, validation_fraction)
    left_out = len(groups) - len(chosen)
    if left_out:
        drawn.notes.insert(
            0, f"{left_out} trials of pictures that are imagined in others are in no part, so that what is imagined "
            "is new to whoever learns from this split."
        )  # fmt: skip
    return drawn


def few_tested_sentence(count: int) -> str:
    """What to do where fewer than `FEWEST_TEST_STIMULI` stimuli are tested."""
    return (
        f"Only {count} {'stimulus is' if count == 1 else 'stimuli are'} tested, too few for a figure to mean much; "
        "k-folds test every stimulus once: `fmri-models data split` with `--by kfold` draws them."
    )


def untested_sentences(folds_of: Mapping[str, Sequence[int]], split: str | None = None) -> list[str]:
    """A sentence on each subject that has no test trials in some folds.

    Args:
        folds_of: Subject ▶ those folds.
        split: Name of the split; None where it is clear which one is meant.
    """
    of_split = "" if split is None else f" of the split {split!r}"
    return [
        f"{subject} has no test trials in {named_folds(folds)}{of_split}: evaluations leave the subject out there."
        for subject, folds in folds_of.items()
        if folds
    ]


def named_folds(folds: Sequence[int]) -> str:
    """Folds in words: `fold 1`, or `folds 0, 2`."""
    return f"{'fold' if len(folds) == 1 else 'folds'} {', '.join(map(str, sorted(folds)))}"


def add_split(table: TrialTable, name: str, drawn: DrawnSplit) -> None:
    """Writes a drawn split into a table's folder.

    Raises:
        FmriModelsError: There is a split of that name, a picture would be in two parts, or the table is in the Hub's
            cache.
    """
    check_name(name, "split name")
    if is_in_hub_cache(table.path):
        raise FmriModelsError(
            f"{table.path} is in the cache of the Hub, which may be removed at any time; fetch the table into a folder "
            "of your own (`hf download --repo-type dataset NAME --local-dir DIR`), and split that."
        )
    path = table.path / schema.SPLITS_FOLDER / f"{name}.parquet"
    if path.exists():
        raise FmriModelsError(f"The split {name!r} exists in {table.path}; choose another name.")
    check_split_rows(name, drawn.table, table.shown())
    if not drawn.repeats_stimuli:
        hashes = dict(zip(table.stimuli.ids, table.stimuli.content_hashes(), strict=True))
        check_disjoint(drawn.table, hashes, name)
    with atomic_file(path) as partial:
        pq.write_table(drawn.table, partial, compression="zstd")


def assembled_split(
    trials: SplitTrials,
    tests: Sequence[Callable[[int], bool]],
    by: str,
    seed: int,
    validation_fraction: float,
    *,
    validations: Sequence[Set[str]] | None = None,
    left_out: Sequence[Set[str]] | None = None,
    made_with: Mapping[str, str | int | float] | None = None,
) -> DrawnSplit:
    """The rows of all folds.

    Args:
        trials: All of the table.
        tests: Says for each fold which trials are tested.
        by: What it is split by.
        seed: Draws the validation.
        validation_fraction: Share of the training stimuli for validation; 0 for none.
        validations: Groups that are validated on in each fold, where they are not to be drawn.
        left_out: Groups that are in no part of each fold.
        made_with: What else decided the split, for its file.
    """
    check_fraction(validation_fraction, "validation fraction", or_none=True)
    if len(tests) * len(trials.trials) > schema.MAX_SPLIT_ROWS:
        raise FmriModelsError(
            f"{len(tests)} folds of {len(trials.trials)} trials are more than {schema.MAX_SPLIT_ROWS} rows; take fewer "
            "folds."
        )
    groups = np.array([trials.group_of(stimulus) for stimulus in trials.stimulus_ids])
    tested = [np.array([is_test(trial) for trial in range(len(groups))], dtype=bool) for is_test in tests]
    kept = [~_among(groups, each) for each in left_out or [frozenset()] * len(tests)]
    learned = [~test & there for test, there in zip(tested, kept, strict=True)]
    pairs = list(zip(tested, learned, strict=True))
    repeated = {group for test, other in pairs for group in set(groups[test].tolist()) & set(groups[other].tolist())}
    seen = np.array([f"{subject} {group}" for subject, group in zip(trials.subjects, groups, strict=True)])
    own = {pair.partition(" ")[2] for test, other in pairs for pair in set(seen[test]) & set(seen[other])}
    fewest = min(len(set(groups[test].tolist())) for test in tested)
    columns: dict[str, list] = {"fold": [], "subject": [], "trial": [], "stimulus_id": [], "split": []}
    without_validation = 0
    for fold, test in enumerate(tested):
        parts = np.where(test, schema.TEST, schema.TRAIN).astype(object)
        if validation_fraction and validations is None:
            rng = np.random.default_rng([seed, fold])
            validation = draw_validation(trials, np.flatnonzero(learned[fold]), validation_fraction, rng, repeated)
            parts[validation] = schema.VALIDATION
            without_validation += len(validation) == 0
        elif validations is not None:
            parts[learned[fold] & _among(groups, validations[fold])] = schema.VALIDATION
        rows = np.flatnonzero(kept[fold]).tolist()
        columns["fold"] += [fold] * len(rows)
        columns["subject"] += [trials.subjects[row] for row in rows]
        columns["trial"] += [trials.trials[row] for row in rows]
        columns["stimulus_id"] += [trials.stimulus_ids[row] for row in rows]
        columns["split"] += parts[rows].tolist()
    repeats = _repeats_sentence(by, len(repeated), len(own), len(trials.shown)) if repeated else ""
    notes = [repeats] if repeats else []
    if by != "imagery" and (imagined := sum(trials.imagery)):
        notes.append(
            f"{imagined} trials are of imagery and are split as if their pictures had been shown; --by imagery tests "
            "them, and learns from what was seen."
        )
    if repeats and without_validation:
        notes.append(
            f"In {without_validation} of {len(tests)} folds no run is set aside for validation: every run has the last "
            "training trials of a stimulus that is tested, or of a session; all of them are in the training part."
        )
    notes += _notes_on_subjects(trials, tested, learned)
    if fewest < FEWEST_TEST_STIMULI and by not in ("kfold", "run", "imagery"):
        notes.append(few_tested_sentence(fewest))
    return DrawnSplit(split_table(columns, by, seed, repeats, made_with), by, seed, repeats, notes)


def _among(groups: np.ndarray, chosen: Set[str]) -> np.ndarray:
    return np.array([group in chosen for group in groups.tolist()], dtype=bool)


def _repeats_sentence(by: str, repeated: int, own: int, shown: int) -> str:
    """Why `repeated` stimuli are in several parts, `own` of them for one and the same subject."""
    what = f"{repeated} of {shown} stimuli are tested and learned from in the same fold, because the design shows them"
    if own == 0:
        return (
            f"{what} to several subjects in different runs (split by {by}); no subject learns from its own test "
            "pictures, but a model of several subjects has learned from them: its scores do not say how well new "
            "pictures are read."
        )
    others = f"; {repeated - own} of them only to different subjects" if own < repeated else ""
    return (
        f"{what} in several runs (split by {by}{others}): scores say how well responses generalise over runs, not to "
        "new pictures."
    )


def _notes_on_subjects(trials: SplitTrials, tested: Sequence[np.ndarray], learned: Sequence[np.ndarray]) -> list[str]:
    """Sentences on subjects of which folds have nothing to test, or nothing but test trials."""
    subjects = np.array(trials.subjects)
    own = {name: subjects == name for name in sorted(set(trials.subjects))}
    untested = {name: [fold for fold, test in enumerate(tested) if not test[of].any()] for name, of in own.items()}
    notes = untested_sentences(untested)
    for name, of in own.items():
        if folds := [fold for fold, other in enumerate(learned) if not other[of].any()]:
            notes.append(f"{name} has only test trials in {named_folds(folds)}: no training takes the subject there.")
    return notes


def trials_of_groups(trials: SplitTrials, test: Set[str]) -> Callable[[int], bool]:
    """Says of the number of a trial whether its stimulus is one of these groups."""
    return lambda trial: trials.group_of(trials.stimulus_ids[trial]) in test


def _categories_of_groups(trials: SplitTrials) -> dict[str, str | None]:
    return {trials.group_of(stimulus): trials.categories.get(stimulus) for stimulus in sorted(set(trials.stimulus_ids))}


def _safe_split(splitter: object, groups: list[str], labels: list[str]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Without categories that have enough members for each fold, stimuli are only counted."""
    counts = {label: labels.count(label) for label in set(labels)}
    if max(counts.values()) < splitter.n_splits:  # type: ignore[attr-defined]
        labels = [""] * len(groups)
    return list(splitter.split(np.zeros(len(groups)), labels, groups))  # type: ignore[attr-defined]


def _checked_folds(folds: object) -> int:
    if isinstance(folds, bool) or not isinstance(folds, Integral) or not 2 <= int(folds) <= schema.MAX_FOLDS:
        raise FmriModelsError(f"{one_line(repr(folds), 60)} folds were asked for; expected 2 to {schema.MAX_FOLDS}.")
    return int(folds)


def check_fraction(fraction: object, what: str, or_none: bool = False) -> None:
    """Refuses what is no share of something.

    Args:
        fraction: What was given.
        what: Its name in the message.
        or_none: Whether 0 is one, too.

    Raises:
        FmriModelsError: It is no number between 0 and 1.
    """
    is_number = isinstance(fraction, Real) and not isinstance(fraction, bool)
    if not is_number or not (0 < float(fraction) < 1 or (or_none and fraction == 0)):  # type: ignore[arg-type]
        least = "0, or a number" if or_none else "a number"
        raise FmriModelsError(f"The {what} is {one_line(repr(fraction), 60)}; expected {least} between 0 and 1.")


def check_count(found: int, needed: int, what: str, why: str = "to split") -> None:
    """Refuses fewer things than a split needs.

    Raises:
        FmriModelsError: Says how many there are, and how many are needed.
    """
    if found < needed:
        raise FmriModelsError(f"The number of {what} is {found}; expected at least {needed} {why or 'to split'}.")
