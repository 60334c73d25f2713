"""Splits by what pictures look like to a network: whole clusters, the farthest pictures, or none near a training one.

With memory alone a decoder does well on test pictures that resemble those it has learned from (Shirakawa et al. 2024).
The three ways are those of LAION-fMRI (Method 1 `tau`, 2 `cluster`, 3 `ood`), here for any table. They are drawn over
the different pictures of all subjects together; copies of one picture, and all trials of it, stay together. A picture
that is nearly a copy of a tested one is in no part.
"""

from collections import Counter
from collections.abc import Iterable, Sequence, Set
from numbers import Real

import numpy as np

from ..errors import FmriModelsError
from ..names import one_line
from ..progress import bar, phase
from ..seeds import check_seed
from . import schema
from .embedding_distances import mean_nearest_distances, nearest_distances
from .near_copies import PictureSketches
from .split_trials import SplitTrials
from .splits import DrawnSplit, assembled_split, check_count, check_fraction, trials_of_groups
from .stimulus_embeddings import StimulusEmbeddings, embedded_ids
from .tau_separation import Separation, largest_separation, separation
from .training_checks import FEWEST_TRAINING_STIMULI

DEFAULT_NEIGHBOURS = 10
DEFAULT_KEEP = 0.9
# Clusters a test set is made of, where nobody says how many there are: one alone may be an odd one.
_CLUSTERS_A_TEST = 2
_PICTURES_A_CLUSTER = 10
_ORDERS_OF_CLUSTERS = 500
# Of the wanted size: how far from it what is tested may be before the size matters more than the order that was drawn.
_CLOSE_ENOUGH = 0.1
_CLUSTERS_NAMED = 12
_ROUNDS_OF_COPIES = 20


def split_by_cluster(
    trials: SplitTrials,
    embeddings: StimulusEmbeddings,
    seed: int = 0,
    test_fraction: float = 0.1,
    validation_fraction: float = 0.1,
    clusters: int | None = None,
    folds: int | None = None,
    sketches: PictureSketches | None = None,
) -> DrawnSplit:
    """Whole clusters of pictures (k-means) are tested, and others are validated on.

    Args:
        trials: All of the table.
        embeddings: Of the pictures that were shown.
        seed: Of k-means, and of which clusters are held out.
        test_fraction: Share of the pictures to test, which whole clusters come as near as they can.
        validation_fraction: Share of the others for validation, in whole clusters, too; 0 for none.
        clusters: How many clusters; None for two a test set, of ten pictures each at least.
        folds: Each cluster is tested in one of so many folds; None for one fold with `test_fraction`.
        sketches: Of the pictures, by which near copies are found; None leaves them where they are.

    Raises:
        FmriModelsError: There are fewer different pictures than clusters, or no clusters can be spared for the test.
    """
    seed = check_seed(seed)
    check_fraction(test_fraction, "test fraction")
    check_fraction(validation_fraction, "validation fraction", or_none=True)
    values = embeddings.at(embedded_ids(trials))
    number = _number_of_clusters(clusters, len(values), 1 / folds if folds else test_fraction, folds or 2)
    check_count(len(np.unique(values, axis=0)), number, "different embeddings", f"for {number} clusters")
    with phase(f"Sorting {len(values)} pictures into {number} clusters"):
        cluster_of = _clustered(values, number, seed)
    sizes = np.bincount(cluster_of, minlength=number)
    shown = np.array(trials.shown)
    rng = np.random.default_rng(seed)
    if folds:
        held_out = _in_folds(sizes, check_folds(folds, number), rng)
    else:
        wanted = test_fraction * len(values)
        chosen = _chosen_clusters(trials, shown, cluster_of, range(number), wanted, rng)
        if not chosen:
            raise FmriModelsError(
                f"No cluster of {number} can be tested: whichever is left out, a subject has fewer than "
                f"{FEWEST_TRAINING_STIMULI} stimuli to learn from; give more --clusters, or more stimuli."
            )
        held_out = [chosen]
    tests = [_groups(shown, cluster_of, each) for each in held_out]
    left_out = [_near_copies(trials, test, sketches) for test in tests]
    validations, validation_clusters = [], []
    for test, chosen in zip(tests, held_out, strict=True):
        others = [each for each in range(number) if each not in chosen]
        wanted = validation_fraction * (len(values) - len(test))
        of_validation = (
            _chosen_clusters(trials, shown, cluster_of, others, wanted, rng, test) if validation_fraction else []
        )
        validations.append(_groups(shown, cluster_of, of_validation))
        validation_clusters.append(of_validation)
    apart = _nearest_learned(shown, values, tests, left_out)
    made_with: dict[str, str | int | float] = {
        **embeddings.described(),
        "pictures": len(values),
        "clusters": number,
        "cluster_sizes": _numbers(sizes.tolist()),
        **_apart(apart),
    }
    if not folds:
        made_with |= {"clusters_tested": _numbers(held_out[0]), "clusters_validated": _numbers(validation_clusters[0])}
    drawn = assembled_split(
        trials,
        [trials_of_groups(trials, test) for test in tests],
        "cluster",
        seed,
        validation_fraction,
        validations=validations,
        left_out=left_out,
        made_with=made_with,
    )
    found = [
        f"{number} clusters of {len(values)} pictures (k-means on embeddings by {one_line(embeddings.embedder)}) have "
        f"{sizes.min()} to {sizes.max()} pictures each."
    ]
    if folds:
        found.append(
            f"Each is tested in one of {folds} folds, of {min(map(len, tests))} to {max(map(len, tests))} pictures."
        )
    else:
        found.append(
            f"Tested: {_named_clusters(held_out[0], sizes)}, {len(tests[0])} pictures "
            f"({len(tests[0]) / len(values):.0%})"
            + (
                f"; validation: {_named_clusters(validation_clusters[0], sizes)}, {len(validations[0])} pictures."
                if validations[0]
                else "."
            )
        )
    found.append(_apart_sentence(apart))
    if validation_fraction and (without := sum(not each for each in validations)):
        found.append(
            f"In {without} of {len(tests)} folds no cluster could be spared for validation; all others are in the "
            "training part."
        )
    drawn.notes[:0] = [*found, *_copies_notes(left_out)]
    return drawn


def split_by_distance(
    trials: SplitTrials,
    embeddings: StimulusEmbeddings,
    seed: int = 0,
    test_fraction: float = 0.1,
    validation_fraction: float = 0.1,
    neighbours: int = DEFAULT_NEIGHBOURS,
    sketches: PictureSketches | None = None,
) -> DrawnSplit:
    """The pictures farthest from all others are tested (`ood`): by the mean distance to their nearest neighbours.

    The seed draws the validation alone; what is tested, the pictures decide. A picture without which a subject would
    have fewer than two stimuli to learn from stays in the training.

    Args:
        trials: All of the table.
        embeddings: Of the pictures that were shown.
        seed: Draws the validation, by stimulus from the other pictures.
        test_fraction: Share of the pictures to test, at least one.
        validation_fraction: Share of the others for validation; 0 for none.
        neighbours: To how many nearest other pictures the mean cosine distance is taken; to all where there are fewer.
            A group of alike pictures is far from the others only if it has fewer members than that.
        sketches: Of the pictures, by which near copies are found; None leaves them where they are.

    Raises:
        FmriModelsError: All pictures are equally far from the others, or none can be spared for the test.
    """
    seed = check_seed(seed)
    check_fraction(test_fraction, "test fraction")
    values = embeddings.at(embedded_ids(trials))
    shown = np.array(trials.shown)
    check_count(len(shown), 3, "stimuli")
    if isinstance(neighbours, bool) or not isinstance(neighbours, int | np.integer) or neighbours < 1:
        raise FmriModelsError(f"{one_line(repr(neighbours), 60)} neighbours were asked for; expected at least 1.")
    neighbours = min(int(neighbours), len(shown) - 1)
    with phase(f"Measuring how far {len(shown)} pictures are from each other"):
        far = mean_nearest_distances(values, neighbours)
    if np.ptp(far) <= 1e-6:
        raise FmriModelsError(
            f"All pictures are equally far from the others (mean distance {far[0]:.4g} to their {neighbours} nearest "
            f"by {one_line(embeddings.embedder)}), so that none is out of distribution; split otherwise."
        )
    wanted = max(1, round(test_fraction * len(shown)))
    test = _spared(trials, shown[np.lexsort((shown, -far))].tolist(), wanted)
    if not test:
        raise FmriModelsError(
            f"No stimulus can be tested: training needs {FEWEST_TRAINING_STIMULI} of each subject; give more."
        )
    left_out = [_near_copies(trials, test, sketches)]
    apart = _nearest_learned(shown, values, [test], left_out)
    tested = np.isin(shown, sorted(test))
    made_with: dict[str, str | int | float] = {
        **embeddings.described(), "pictures": len(shown), "neighbours": neighbours,
        "distance_tested": float(far[tested].mean()), "distance_others": float(far[~tested].mean()),
        **_apart(apart),
    }  # fmt: skip
    drawn = assembled_split(
        trials,
        [trials_of_groups(trials, test)],
        "ood",
        seed,
        validation_fraction,
        left_out=left_out,
        made_with=made_with,
    )
    drawn.notes[:0] = [
        f"Tested: the {len(test)} of {len(shown)} pictures with the largest mean cosine distance to their {neighbours} "
        f"nearest others, in embeddings by {one_line(embeddings.embedder)}: {far[tested].min():.4f} to "
        f"{far[tested].max():.4f}, mean {far[tested].mean():.4f}; that of all others is {far[~tested].mean():.4f}.",
        _apart_sentence(apart),
        *_copies_notes(left_out),
    ]
    return drawn


def split_by_tau(
    trials: SplitTrials,
    embeddings: StimulusEmbeddings,
    seed: int = 0,
    test_fraction: float = 0.1,
    validation_fraction: float = 0.1,
    tau: float | None = None,
    keep: float = DEFAULT_KEEP,
    sketches: PictureSketches | None = None,
) -> DrawnSplit:
    """No test picture is nearer than tau to one of training or validation, and both are matched in distribution.

    Pictures that are too near are in no part, save groups of few that are near each other, which are tested together.
    See [`tau_separation`] for how it is drawn.

    Args:
        trials: All of the table.
        embeddings: Of the pictures that were shown.
        seed: Of the draw.
        test_fraction: Share of the pictures to test, at least one.
        validation_fraction: Share of what is left for validation, drawn by stimulus; 0 for none.
        tau: Least cosine distance of a tested and a learned picture; None for the largest that was found with which
            `keep` of the others is left to learn from, and both parts can be matched.
        keep: Share of the pictures that are not tested, which is to be left where tau is not given.
        sketches: Of the pictures, by which near copies are found; None leaves them where they are.

    Raises:
        FmriModelsError: With tau, or any tau, too little is left to learn from.
    """
    seed = check_seed(seed)
    check_fraction(test_fraction, "test fraction")
    check_fraction(keep, "share of the training to keep")
    if tau is not None and not _is_distance(tau):
        raise FmriModelsError(f"tau is {one_line(repr(tau), 60)}; expected a cosine distance above 0, and 2 at most.")
    values = embeddings.at(embedded_ids(trials))
    shown = np.array(trials.shown)
    check_count(len(shown), 4, "stimuli")
    wanted = max(1, round(test_fraction * len(shown)))
    with phase(f"Separating test pictures from {len(shown) - wanted} others"):
        found = (
            largest_separation(values, wanted, keep, seed)
            if tau is None
            else separation(values, wanted, float(tau), seed)
        )
    if found is None:
        raise FmriModelsError(
            f"No tau above 0 leaves {keep:.0%} of the training: pictures are too alike to "
            f"{one_line(embeddings.embedder)}; keep less (`--keep`), or give another embedder."
        )
    test = set(shown[found.tested].tolist())
    copies = _near_copies(trials, test, sketches)
    learned = set(shown[found.learned].tolist()) - copies
    left_out = set(shown.tolist()) - test - learned
    _check_left(trials, learned, found.tau, tau is None)
    discrepancy = found.discrepancies(values, np.isin(shown, sorted(learned)))
    apart = _nearest_learned(shown, values, [test], [left_out])
    kept = len(learned) / (len(shown) - len(test))
    made_with: dict[str, str | int | float] = {
        **embeddings.described(), "pictures": len(shown), "tau": found.tau, "kept": kept,
        **_apart(apart),
    }  # fmt: skip
    for name, each in discrepancy.items():
        if each is not None:
            made_with |= {f"mmd2{name}": each.mmd2, f"p{name}": each.p}
    drawn = assembled_split(
        trials,
        [trials_of_groups(trials, test)],
        "tau",
        seed,
        validation_fraction,
        left_out=[left_out],
        made_with=made_with,
    )
    asked = keep if tau is None else None
    drawn.notes[:0] = _tau_notes(found, embeddings, asked, kept, len(shown), len(left_out), apart, made_with)
    drawn.notes += _copies_notes([copies])
    return drawn


def _is_distance(tau: object) -> bool:
    return not isinstance(tau, bool) and isinstance(tau, Real) and 0 < float(tau) <= 2


def _tau_notes(
    found: Separation,
    embeddings: StimulusEmbeddings,
    keep: float | None,
    kept: float,
    pictures: int,
    unused: int,
    apart: np.ndarray,
    made_with: dict[str, str | int | float],
) -> list[str]:
    how = f", the largest found that leaves {keep:.0%} of the training" if keep is not None else ""
    how += " and lets both parts be matched" if how and float(made_with.get("p", 0.0)) >= 0.05 else ""
    notes = [
        f"tau = {found.tau:.6g}{how}: no tested picture is nearer to one of training or validation, by cosine distance "
        f"of embeddings by {one_line(embeddings.embedder)} (the nearest are {apart.min():.6g} apart, half of the "
        f"tested ones {np.median(apart):.4g} or more).",
        f"{int(found.tested.sum())} of {pictures} pictures are tested; {unused} that are too near to them are in no "
        f"part, so that {kept:.0%} of the others are left to learn from.",
    ]
    if "mmd2" in made_with:
        known = [
            f"{made_with[f'mmd2{name}']:.2e} (p = {made_with[f'p{name}']:.3f}) {label}"
            for name, label in (
                ("", "as they are"),
                ("_before_matching", "before they were matched"),
                ("_of_random", "of as many drawn at random with nothing left out"),
            )
            if f"mmd2{name}" in made_with
        ]
        notes.append(f"Squared maximum mean discrepancy of tested and learned pictures: {', '.join(known)}.")
        if float(made_with["p"]) < 0.05:
            notes.append(
                "Tested and learned pictures are not of one distribution at this tau: a gap to a split by stimulus "
                "has to do with what is tested, too, and not only with how near it is; a smaller tau matches better."
            )
    if kept < 0.5:
        notes.append(
            "Less than half of the pictures are left to learn from: a lower score may be that of less training; "
            "compare with a split by stimulus with as many (`--by fewer`)."
        )
    return notes


def _check_left(trials: SplitTrials, learned: Set[str], tau: float, chosen: bool) -> None:
    """Refuses what leaves a subject too little."""
    left = _stimuli_by_subject(trials, learned)
    for subject in sorted(set(trials.subjects)):
        if left[subject] < FEWEST_TRAINING_STIMULI:
            mend = "give more stimuli, or test fewer (`--test-fraction`)" if chosen else "take a smaller tau"
            raise FmriModelsError(
                f"With tau = {tau:.6g}, {subject} has {left[subject]} stimuli left to learn from; expected at least "
                f"{FEWEST_TRAINING_STIMULI}; {mend}."
            )


def check_folds(folds: object, clusters: int) -> int:
    """Refuses folds that clusters can't be spread over.

    Raises:
        FmriModelsError: Fewer than two, or more than there are clusters.
    """
    if (
        isinstance(folds, bool)
        or not isinstance(folds, int | np.integer)
        or not 2 <= folds <= min(clusters, schema.MAX_FOLDS)
    ):
        raise FmriModelsError(
            f"{one_line(repr(folds), 60)} folds were asked for; expected 2 to {clusters}, the number of clusters."
        )
    return int(folds)


def _number_of_clusters(given: object, pictures: int, fraction: float, least: int) -> int:
    if given is None:
        most = max(least + 1, pictures // _PICTURES_A_CLUSTER)
        number = min(max(least + 1, round(_CLUSTERS_A_TEST / fraction)), most)
    elif isinstance(given, bool) or not isinstance(given, int | np.integer) or given < 2:
        raise FmriModelsError(f"{one_line(repr(given), 60)} clusters were asked for; expected a whole number from 2.")
    else:
        number = int(given)
    check_count(pictures, number, "different pictures", f"for {number} clusters")
    return number


def _clustered(values: np.ndarray, number: int, seed: int) -> np.ndarray:
    """(N,) the cluster of each picture."""
    from sklearn.cluster import KMeans

    starts = 10 if len(values) <= 5000 else 3
    labels: np.ndarray = KMeans(number, n_init=starts, random_state=seed).fit_predict(values)
    return labels


def _in_folds(sizes: np.ndarray, folds: int, rng: np.random.Generator) -> list[list[int]]:
    """Clusters of each fold: the largest first, to the fold with the fewest pictures."""
    held_out: list[list[int]] = [[] for _ in range(folds)]
    counts = np.zeros(folds)
    order = rng.permutation(len(sizes))
    for cluster in order[np.argsort(-sizes[order], kind="stable")]:
        fold = int(counts.argmin())
        held_out[fold].append(int(cluster))
        counts[fold] += sizes[cluster]
    return [sorted(each) for each in held_out]


def _chosen_clusters(
    trials: SplitTrials,
    shown: np.ndarray,
    cluster_of: np.ndarray,
    candidates: Iterable[int],
    wanted: float,
    rng: np.random.Generator,
    tested: Set[str] = frozenset(),
) -> list[int]:
    """Clusters whose pictures are about as many as wanted, and without which each subject has enough to learn from."""
    known = list(candidates)
    sizes = np.bincount(cluster_of, minlength=cluster_of.max() + 1)
    seen = _seen_by_subject(trials, shown, cluster_of, tested)
    best: tuple[float, list[int]] | None = None
    for _ in range(_ORDERS_OF_CLUSTERS):
        chosen: list[int] = []
        count = 0
        for cluster in (known[place] for place in rng.permutation(len(known))):
            if chosen and abs(count + sizes[cluster] - wanted) > abs(count - wanted):
                break
            left = seen.sum(axis=1) - seen[:, [*chosen, cluster]].sum(axis=1)
            if len(chosen) + 1 < len(known) and (left >= FEWEST_TRAINING_STIMULI).all():
                chosen.append(cluster)
                count += int(sizes[cluster])
        if not chosen:
            continue
        off = abs(count - wanted)
        if best is None or off < best[0]:
            best = off, sorted(chosen)
        if off <= _CLOSE_ENOUGH * wanted:
            break
    return [] if best is None else best[1]


def _seen_by_subject(trials: SplitTrials, shown: np.ndarray, cluster_of: np.ndarray, tested: Set[str]) -> np.ndarray:
    """(subjects, clusters) how many pictures of a cluster each subject saw, less those that are tested."""
    of_group = dict(zip(shown.tolist(), cluster_of.tolist(), strict=True))
    names = sorted(set(trials.subjects))
    counts = np.zeros((len(names), cluster_of.max() + 1), dtype=np.int64)
    pairs = zip(trials.subjects, map(trials.group_of, trials.stimulus_ids), strict=True)
    for subject, group in set(pairs):
        if group not in tested:
            counts[names.index(subject), of_group[group]] += 1
    return counts


def _stimuli_by_subject(trials: SplitTrials, groups: Set[str]) -> Counter[str]:
    pairs = zip(trials.subjects, map(trials.group_of, trials.stimulus_ids), strict=True)
    return Counter(subject for subject, group in set(pairs) if group in groups)


def _spared(trials: SplitTrials, in_order: Sequence[str], wanted: int) -> set[str]:
    """The first so many groups without which each subject has enough to learn from."""
    subjects_of: dict[str, set[str]] = {}
    for subject, stimulus in zip(trials.subjects, trials.stimulus_ids, strict=True):
        subjects_of.setdefault(trials.group_of(stimulus), set()).add(subject)
    left = Counter(subject for subjects in subjects_of.values() for subject in subjects)
    chosen: set[str] = set()
    for group in in_order:
        if len(chosen) == wanted:
            break
        if all(left[subject] > FEWEST_TRAINING_STIMULI for subject in subjects_of[group]):
            chosen.add(group)
            left.subtract(subjects_of[group])
    return chosen


def _groups(shown: np.ndarray, cluster_of: np.ndarray, clusters: Sequence[int]) -> set[str]:
    return set(shown[np.isin(cluster_of, np.asarray(clusters, dtype=np.int64))].tolist())


def _near_copies(trials: SplitTrials, test: Set[str], sketches: PictureSketches | None) -> set[str]:
    """Groups that show nearly the picture of a tested one."""
    if sketches is None:
        return set()
    tested: set[str] = set()
    others: set[str] = set()
    for stimulus in set(trials.stimulus_ids):
        (tested if trials.group_of(stimulus) in test else others).add(stimulus)
    found: set[str] = set()
    # Of several copies of a picture, each round finds one.
    with bar(name="Looking for near copies of test pictures", unit="round", delay=1.0) as done:
        for _ in range(_ROUNDS_OF_COPIES):
            new = {trials.group_of(each.copy_of) for each in sketches.near_copies(tested, others)}
            done.update()
            if not new:
                break
            found |= new
            others = {stimulus for stimulus in others if trials.group_of(stimulus) not in found}
    return found


def _copies_notes(left_out: Sequence[Set[str]]) -> list[str]:
    count = sum(map(len, left_out))
    if not count:
        return []
    return [f"{count} pictures that are nearly copies of tested ones (r above .99) are in no part."]


def _nearest_learned(
    shown: np.ndarray, values: np.ndarray, tests: Sequence[Set[str]], left_out: Sequence[Set[str]]
) -> np.ndarray:
    """(tested,) of all folds: how far the nearest picture of training or validation is from each tested one."""
    found = []
    for test, without in zip(tests, left_out, strict=True):
        tested = np.isin(shown, sorted(test))
        learned = ~tested & ~np.isin(shown, sorted(without))
        found.append(nearest_distances(values[tested], values[learned]))
    return np.concatenate(found)


def _apart_sentence(apart: np.ndarray) -> str:
    return (
        f"From a tested picture to the nearest of training or validation, the cosine distance is "
        f"{np.median(apart):.4f} (median) and at least {apart.min():.4f}."
    )


def _apart(apart: np.ndarray) -> dict[str, float]:
    return {"nearest_learned_min": float(apart.min()), "nearest_learned_median": float(np.median(apart))}


def _named_clusters(clusters: Sequence[int], sizes: np.ndarray) -> str:
    named = ", ".join(f"{each} ({sizes[each]})" for each in clusters[:_CLUSTERS_NAMED])
    more = f" and {len(clusters) - _CLUSTERS_NAMED} more" if len(clusters) > _CLUSTERS_NAMED else ""
    return f"cluster{'s' if len(clusters) > 1 else ''} {named}{more}"


def _numbers(values: Sequence[int]) -> str:
    text = " ".join(map(str, values))
    return text if len(text) <= 900 else f"{text[:900].rpartition(' ')[0]} and more"
