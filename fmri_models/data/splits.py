"""Drawing splits: by stimulus, in folds, by run or by category. A split is a file of trial numbers, never of betas.

A picture that is there under two ids counts as one stimulus. Validation is drawn from the rows that would otherwise be
learned from: by stimulus, as pictures are new in the test, or by run, where the design tests pictures that are learned
from in other runs.
"""

import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import FmriModelsError
from ..names import check_name
from ..saving import atomic_file
from ..seeds import check_seed
from . import schema
from .split_files import check_disjoint, check_split_rows, split_table
from .table import TrialTable

FEWEST_TEST_STIMULI = 10
DEFAULT_FOLDS = 10


@dataclass
class SplitRows:
    """All trials that a split is drawn over, of all subjects together.

    Attributes:
        subjects: (n,) str.
        trials: (n,) trial numbers, unique within a subject.
        stimulus_ids: (n,) str.
        runs: (n,) what counts as one run, such as (session, run).
        groups: Stimulus id to what may not be torn apart: the hash of its picture, or its id.
        categories: Stimulus id to category, None where it is unknown.
    """

    subjects: Sequence[str]
    trials: Sequence[int]
    stimulus_ids: Sequence[str]
    runs: Sequence[tuple[int, int]] = ()
    groups: Mapping[str, str] = field(default_factory=dict)
    categories: Mapping[str, str | None] = field(default_factory=dict)

    @classmethod
    def of_table(cls, table: TrialTable) -> "SplitRows":
        """All trials of a table."""
        subjects: list[str] = []
        trials: list[int] = []
        stimulus_ids: list[str] = []
        runs: list[tuple[int, int]] = []
        for subject in table.subjects:
            rows = table.all_trials(subject)
            subjects += [subject] * len(rows)
            trials += rows.trials.tolist()
            stimulus_ids += rows.stimulus_ids.tolist()
            runs += zip(rows.sessions.tolist(), rows.runs.tolist(), strict=True)
        hashes = zip(table.stimuli.ids, table.stimuli.content_hashes(), strict=True)
        categories = zip(table.stimuli.ids, table.stimuli.categories(), strict=True)
        groups = {stimulus: digest or stimulus for stimulus, digest in hashes}
        return cls(subjects, trials, stimulus_ids, runs, groups, dict(categories))

    def group_of(self, stimulus_id: str) -> str:
        """What the stimulus may not be torn apart from."""
        return self.groups.get(stimulus_id, stimulus_id)

    @property
    def shown(self) -> list[str]:
        """Groups that were shown at all, sorted, so that a draw depends on nothing but the seed."""
        return sorted({self.group_of(stimulus) for stimulus in self.stimulus_ids})


@dataclass
class DrawnSplit:
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


def split_by_stimulus(
    rows: SplitRows, seed: int = 0, test_fraction: float = 0.1, validation_fraction: float = 0.1
) -> DrawnSplit:
    """One fold; the test part has `test_fraction` of the stimuli, with all trials of all subjects."""
    check_seed(seed)
    _check_fraction(test_fraction, "test fraction")
    _check_count(len(rows.shown), 2, "stimuli")
    test = _drawn(rows.shown, test_fraction, np.random.default_rng(seed))
    return _assembled(rows, [_group_in(rows, test)], "stimulus", seed, validation_fraction)


def split_kfold(
    rows: SplitRows, seed: int = 0, folds: int = DEFAULT_FOLDS, validation_fraction: float = 0.1
) -> DrawnSplit:
    """Each stimulus is tested in exactly one fold; categories are spread evenly where they are known."""
    from sklearn.model_selection import StratifiedGroupKFold

    check_seed(seed)
    _check_count(len(rows.shown), _checked_folds(folds), "stimuli", f"for {folds} folds")
    category_of = _categories_of_groups(rows)
    labels = [category_of.get(group) or "" for group in rows.shown]
    splitter = StratifiedGroupKFold(n_splits=folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # It warns of categories with fewer members than folds, which are spread as far as they go.
        warnings.simplefilter("ignore", UserWarning)
        drawn = [{rows.shown[i] for i in test} for _, test in _safe_split(splitter, rows.shown, labels)]
    tests = [_group_in(rows, test) for test in drawn]
    return _assembled(rows, tests, "kfold", seed, validation_fraction)


def split_by_run(
    rows: SplitRows, seed: int = 0, folds: int | None = None, validation_fraction: float = 0.1
) -> DrawnSplit:
    """Leaves one run out (or groups of runs, in `folds` folds); a run is a session's run, the same for all subjects."""
    check_seed(seed)
    runs = sorted(set(rows.runs))
    _check_count(len(runs), max(2, folds or 2), "runs", f"for {folds} folds" if folds else "")
    number = len(runs) if folds is None else _checked_folds(folds)
    order = np.random.default_rng(seed).permutation(len(runs)) if folds else np.arange(len(runs))
    fold_of = {runs[run]: position % number for position, run in enumerate(order)}
    tests = [lambda row, fold=fold: fold_of[rows.runs[row]] == fold for fold in range(number)]
    return _assembled(rows, tests, "run", seed, validation_fraction)


def split_semantic(
    rows: SplitRows, seed: int = 0, test_fraction: float = 0.1, validation_fraction: float = 0.1
) -> DrawnSplit:
    """One fold; whole categories are held out until the test part has at least `test_fraction` of the stimuli."""
    check_seed(seed)
    _check_fraction(test_fraction, "test fraction")
    category_of = _categories_of_groups(rows)
    if unknown := sorted({s for s in rows.stimulus_ids if not rows.categories.get(s)}):
        raise FmriModelsError(
            f"{len(unknown)} stimuli have no category ({schema.listed(unknown)}); a semantic split holds whole "
            "categories out, so each needs one."
        )
    names = sorted({str(category) for category in category_of.values()})
    _check_count(len(names), 2, "categories")
    held_out: set[str] = set()
    wanted = test_fraction * len(rows.shown)
    for position in np.random.default_rng(seed).permutation(len(names))[:-1]:
        if sum(category_of[group] in held_out for group in rows.shown) >= wanted:
            break
        held_out.add(names[position])
    test = {group for group in rows.shown if category_of[group] in held_out}
    split = _assembled(rows, [_group_in(rows, test)], "semantic", seed, validation_fraction)
    split.notes.insert(0, f"Held out: {', '.join(sorted(held_out))}.")
    return split


def few_tested_sentence(count: int) -> str:
    """What to do where fewer than `FEWEST_TEST_STIMULI` stimuli are tested."""
    return (
        f"Only {count} {'stimulus is' if count == 1 else 'stimuli are'} tested, too few for a figure to mean much; "
        "k-folds test every stimulus once: `fmri-models data split DIR --name kfold --by kfold`."
    )


def add_split(table: TrialTable, name: str, drawn: DrawnSplit) -> None:
    """Writes a drawn split into a table's folder.

    Raises:
        FmriModelsError: There is a split of that name, or a picture would be in two parts.
    """
    check_name(name, "split name")
    path = table.path / schema.SPLITS_FOLDER / f"{name}.parquet"
    if path.exists():
        raise FmriModelsError(f"The split {name!r} exists in {table.path}; choose another name.")
    check_split_rows(name, drawn.table, table.shown())
    if not drawn.repeats_stimuli:
        hashes = dict(zip(table.stimuli.ids, table.stimuli.content_hashes(), strict=True))
        check_disjoint(drawn.table, hashes, name)
    with atomic_file(path) as partial:
        pq.write_table(drawn.table, partial, compression="zstd")


def _assembled(
    rows: SplitRows,
    tests: Sequence[Callable[[int], bool]],
    by: str,
    seed: int,
    validation_fraction: float,
) -> DrawnSplit:
    """The rows of all folds; `tests` says for each fold which rows are tested."""
    if validation_fraction:
        _check_fraction(validation_fraction, "validation fraction")
    if len(tests) * len(rows.trials) > schema.MAX_SPLIT_ROWS:
        raise FmriModelsError(
            f"{len(tests)} folds of {len(rows.trials)} trials are more than {schema.MAX_SPLIT_ROWS} rows; take fewer "
            "folds."
        )
    groups = np.array([rows.group_of(stimulus) for stimulus in rows.stimulus_ids])
    tested = [np.array([is_test(row) for row in range(len(groups))], dtype=bool) for is_test in tests]
    repeated = {group for test in tested for group in set(groups[test].tolist()) & set(groups[~test].tolist())}
    fewest = min(len(set(groups[test].tolist())) for test in tested)
    columns: dict[str, list] = {"fold": [], "subject": [], "trial": [], "stimulus_id": [], "split": []}
    without_validation = 0
    for fold, test in enumerate(tested):
        parts = np.where(test, schema.TEST, schema.TRAIN).astype(object)
        if validation_fraction:
            rng = np.random.default_rng([seed, fold])
            validation = draw_validation(rows, np.flatnonzero(~test), validation_fraction, rng, repeated)
            parts[validation] = schema.VALIDATION
            without_validation += len(validation) == 0
        columns["fold"] += [fold] * len(groups)
        columns["subject"] += rows.subjects
        columns["trial"] += rows.trials
        columns["stimulus_id"] += rows.stimulus_ids
        columns["split"] += parts.tolist()
    repeats = _repeats_sentence(by, len(repeated), len(rows.shown)) if repeated else ""
    notes = [repeats] if repeats else []
    if repeats and without_validation:
        notes.append(
            f"In {without_validation} of {len(tests)} folds no run is set aside for validation: every run has the last "
            "training trials of a stimulus that is tested, or of a session; all of them are in the training part."
        )
    if fewest < FEWEST_TEST_STIMULI and by in ("stimulus", "semantic"):
        notes.append(few_tested_sentence(fewest))
    return DrawnSplit(split_table(columns, by, seed, repeats), by, seed, repeats, notes)


def draw_validation(
    rows: SplitRows, training: np.ndarray, fraction: float, rng: np.random.Generator, repeated: Set[str] = frozenset()
) -> np.ndarray:
    """Which training rows become validation rows.

    Args:
        rows: All trials.
        training: Those that would be learned from.
        fraction: Share of their stimuli, or of their runs; at least one and not all.
        rng: Draws them.
        repeated: Stimuli that the design tests and learns from in other runs. If there are any, whole runs are drawn; a
            run stays in training where one of them or a session would have no training trials left without it.

    Returns:
        Some of `training`; none where that leaves nothing to learn from.
    """
    if repeated:
        runs = _drawn_runs(rows, training, fraction, rng, repeated)
        return np.array([row for row in training if rows.runs[row] in runs], dtype=np.int64)
    groups = [rows.group_of(rows.stimulus_ids[row]) for row in training]
    shown = sorted(set(groups))
    drawn = _drawn(shown, fraction, rng) if len(shown) > 1 else set()
    return training[np.array([group in drawn for group in groups], dtype=bool)]


def _drawn_runs(
    rows: SplitRows, training: np.ndarray, fraction: float, rng: np.random.Generator, repeated: Set[str]
) -> set[tuple[int, int]]:
    """A share of the runs, without which each subject has training trials of the same sessions and repeated stimuli."""
    holds: dict[tuple[int, int], set[tuple[str, str | int]]] = {}
    for row in training:
        run, subject, group = rows.runs[row], rows.subjects[row], rows.group_of(rows.stimulus_ids[row])
        held = holds.setdefault(run, set())
        held.add((subject, run[0]))
        if group in repeated:
            held.add((subject, group))
    left = Counter(what for held in holds.values() for what in held)
    runs = sorted(holds)
    count = min(max(1, round(fraction * len(runs))), len(runs) - 1)
    drawn: set[tuple[int, int]] = set()
    for run in (runs[i] for i in rng.permutation(len(runs))):
        if len(drawn) < count and all(left[what] > 1 for what in holds[run]):
            drawn.add(run)
            left.subtract(holds[run])
    return drawn


def _repeats_sentence(by: str, repeated: int, shown: int) -> str:
    return (
        f"{repeated} of {shown} stimuli are tested and learned from in the same fold, because the design shows them in "
        f"several runs (split by {by}): scores say how well responses generalise over runs, not to new pictures."
    )


def _group_in(rows: SplitRows, test: set[str]) -> Callable[[int], bool]:
    return lambda row: rows.group_of(rows.stimulus_ids[row]) in test


def _drawn(groups: Sequence[str], fraction: float, rng: np.random.Generator) -> set[str]:
    """A share of some groups, at least one and not all."""
    count = min(max(1, round(fraction * len(groups))), len(groups) - 1)
    return {groups[i] for i in rng.permutation(len(groups))[:count]}


def _categories_of_groups(rows: SplitRows) -> dict[str, str | None]:
    return {rows.group_of(stimulus): rows.categories.get(stimulus) for stimulus in sorted(set(rows.stimulus_ids))}


def _safe_split(splitter: object, groups: list[str], labels: list[str]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Without categories that have enough members for each fold, stimuli are only counted."""
    counts = {label: labels.count(label) for label in set(labels)}
    if max(counts.values()) < splitter.n_splits:  # type: ignore[attr-defined]
        labels = [""] * len(groups)
    return list(splitter.split(np.zeros(len(groups)), labels, groups))  # type: ignore[attr-defined]


def _checked_folds(folds: int) -> int:
    if not 2 <= folds <= schema.MAX_FOLDS:
        raise FmriModelsError(f"{folds} folds were asked for; expected 2 to {schema.MAX_FOLDS}.")
    return folds


def _check_fraction(fraction: float, what: str) -> None:
    if not 0 < fraction < 1:
        raise FmriModelsError(f"The {what} is {fraction}; expected a number between 0 and 1.")


def _check_count(found: int, needed: int, what: str, why: str = "to split") -> None:
    if found < needed:
        raise FmriModelsError(f"The number of {what} is {found}; expected at least {needed} {why or 'to split'}.")
