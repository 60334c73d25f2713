"""Whether reconstructions tell a picture from others of its own kind, or its kind alone."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field

from ..bootstrap import DRAWS, interval, paired_difference
from ..picture_clusters import FEWEST_PICTURES, STRUCTURELESS, Clusters, cluster_pictures, radius_without_itself
from ..report_schema import Count, Difference, Name, Number, Result, Whole
from ..rows import get_row
from ..scored_items import picture_ids
from ..similarities import TIE_MARGIN, correlated
from ..stimulus_vectors import StimulusVectors, in_words, spaces_agree
from ..table import Table
from .figures import difference, error_bar, value
from .overlap_schema import Space
from .part import AuditedItems, AuditPart, Content

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..evaluated_subject import EvaluatedSubject

_ROWS = ("brain", "ridge", "nearest_train", "ceiling")
_CHANCE = 0.5
_SHARE = (0.0, 1.0)
_BLOCK = 2048
_MOST_EXAMPLES, _MOST_CLUSTERS = 3, 200
_MOST_SHOWN = 40
# Of so many that are expected there are none once in 150 times.
_EXPECTED_INSIDE = 5


@dataclass
class SubjectClusters:
    """Identification of one subject's items on a fold inside clusters of the test pictures, and across them.

    Args:
        subject: Name.
        fold: Fold of the split.
        space: What compares, see [`StimulusVectors.described`].
        pictures: How many test pictures there are.
        training: How many training pictures there are.
        members: The pictures of each cluster, the largest first and the most central picture first.
        inside: How many training pictures lie in each; None for a cluster of a single picture.
        silhouette: As of [`Clusters`].
        structureless: As of [`Clusters`].
        within: Row ▶ (N,) share of the other pictures of its own cluster that each item is told from.
        across: Row ▶ (N,) share of the pictures of other clusters.
    """

    subject: str
    fold: int
    space: dict[str, Any]
    pictures: int
    training: int
    members: list[list[str]]
    inside: list[int | None]
    silhouette: float
    structureless: list[float]
    within: dict[str, np.ndarray]
    across: dict[str, np.ndarray]


def measure(of: "EvaluatedSubject") -> SubjectClusters | str:
    """Clusters of a subject's test pictures, and who is told from whom; a sentence where there are none."""
    vectors = of.stimulus_vectors
    names, first, shown = np.unique(picture_ids(of.stimulus_ids, of.truth), return_index=True, return_inverse=True)
    if len(names) < FEWEST_PICTURES:
        return f"{of.subject} has {len(names)} test pictures, and clusters of them need {FEWEST_PICTURES} or more."
    # Not less the mean of the training, so that subjects who saw the same test pictures have the same clusters.
    mean = vectors.test[first].mean(axis=0)
    directions = np.nan_to_num(vectors.directions(vectors.test[first], mean))
    found = cluster_pictures(directions, of.drawn_by.seed)
    if found is None:
        return f"The test pictures of {of.subject} do not differ in what compares them, so that there are no clusters."
    truth = torch.from_numpy(vectors.test[first])
    within, across = {}, {}
    for row in _ROWS:
        data = of.rows.get(row)
        # The evaluated method may be ridge itself.
        if data is None or data.images is None or (row != "brain" and data is of.rows.get("brain")):
            continue
        drawn = torch.from_numpy(vectors.of_pictures(data.images))
        within[row], across[row] = told_apart(truth, drawn, shown, found.labels)
    return SubjectClusters(
        of.subject,
        of.record.fold,
        vectors.described(),
        len(names),
        len(vectors.training),
        *_members(found, directions, mean, vectors, names),
        found.silhouette,
        found.structureless.tolist(),
        within,
        across,
    )


def told_apart(
    truth: torch.Tensor, drawn: torch.Tensor, shown: np.ndarray, clusters: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Two-way identification against the other pictures of an item's own cluster, and against all of other clusters.

    Args:
        truth: (T, F) vectors of the pictures.
        drawn: (N, F) vectors of the reconstructions.
        shown: (N,) which of the T each item shows.
        clusters: (T,) labels.

    Returns:
        Two (N,) shares of pictures that correlate less with the reconstruction than the own one; ties are failures, a
        constant picture is compared with nothing. NaN where there is no other picture.
    """
    found = correlated(truth, drawn)
    values, compared = found.values.numpy(), ~found.constant.numpy()
    own = values[shown, np.arange(len(shown))]
    beaten = np.nan_to_num(values, nan=np.inf) < own - TIE_MARGIN
    same = clusters[:, None] == clusters[shown]
    other = np.arange(len(truth))[:, None] != shown
    shares = []
    for rivals in (same & other, ~same):
        rivals = rivals & compared[:, None]
        with np.errstate(invalid="ignore"):
            share = (beaten & rivals).sum(axis=0) / rivals.sum(axis=0)
        share[~compared[shown]] = np.nan
        shares.append(share)
    return shares[0], shares[1]


def _members(
    found: Clusters, directions: np.ndarray, mean: np.ndarray, vectors: StimulusVectors, names: np.ndarray
) -> tuple[list[list[str]], list[int | None]]:
    """The pictures of each cluster, the most central first, and how many training pictures lie in it."""
    members = [np.flatnonzero(found.labels == label) for label in range(found.count)]
    centres = np.stack([directions[each].mean(axis=0) for each in members])
    radii = [radius_without_itself(directions[each]) for each in members]
    inside = np.zeros(len(members), dtype=np.int64)
    reach = np.asarray([-1.0 if radius is None else radius for radius in radii])
    for start in range(0, len(vectors.training), _BLOCK):
        block = np.nan_to_num(vectors.directions(vectors.training[start : start + _BLOCK], mean))
        squares = (block**2).sum(1)[:, None] - 2 * block @ centres.T + (centres**2).sum(1)
        distances = np.sqrt(np.maximum(squares, 0))
        nearest = distances.argmin(axis=1)
        # A distance as large as the radius is rounded either way.
        near = distances[np.arange(len(block)), nearest] <= reach[nearest] * (1 + 1e-6)
        inside += np.bincount(nearest[near], minlength=len(members))
    central = [
        at[np.argsort(np.linalg.norm(directions[at] - centre, axis=1), kind="stable")]
        for at, centre in zip(members, centres, strict=True)
    ]
    counts = [None if radius is None else int(count) for radius, count in zip(radii, inside, strict=True)]
    return [names[at].tolist() for at in central], counts


def content(of: AuditedItems) -> dict[str, Any]:
    """What goes into report.json."""
    reasons = [each for each in of.measured if isinstance(each, str)]
    if reasons:
        return {"not_defined": reasons[0]}
    subjects: Sequence[SubjectClusters] = of.measured
    if not spaces_agree([each.space for each in subjects]):
        return {"not_defined": "The folds have image generators of different weights, whose clusters are not alike."}
    rows = [row for row in _ROWS if all(row in each.within for each in subjects)]
    units, widening = of.scores.units.tolist(), of.scores.widening
    identification = {}
    for row in rows:
        within = np.concatenate([each.within[row] for each in subjects])
        across = np.concatenate([each.across[row] for each in subjects])
        compared = paired_difference(across, within, units, True, DRAWS, of.seed, _SHARE, widening)
        identification[row] = {
            "within": _result(within, units, of.seed, widening),
            "across": _result(across, units, of.seed, widening),
            "difference": None if compared is None else compared.to_dict(),
        }
    clusterings: dict[tuple[tuple[str, ...], ...], list[SubjectClusters]] = {}
    for each in subjects:
        # Subjects with the same test pictures have the same clusters.
        clusterings.setdefault(tuple(tuple(sorted(names)) for names in each.members), []).append(each)
    return {
        "space": subjects[0].space,
        "clusterings": [_clustering(alike, _one_fold(subjects)) for alike in clusterings.values()],
        "identification": identification,
    }


def _clustering(alike: Sequence[SubjectClusters], one_fold: bool) -> dict[str, Any]:
    """What is said of the clusters of subjects and folds that have the same ones."""
    first = alike[0]
    described = []
    for number, names in enumerate(first.members[:_MOST_CLUSTERS]):
        counts = [count for each in alike if (count := each.inside[number]) is not None]
        inside = [min(counts), max(counts)] if counts else None
        described.append({"test": len(names), "training": inside, "examples": names[:_MOST_EXAMPLES]})
    return {
        "subjects": [each.subject if one_fold else f"{each.subject}, fold {each.fold}" for each in alike],
        "pictures": first.pictures,
        "training": [min(each.training for each in alike), max(each.training for each in alike)],
        "silhouette": first.silhouette,
        "structureless": [min(first.structureless), max(first.structureless)],
        "clusters": described,
    }


def _one_fold(subjects: Sequence[SubjectClusters]) -> bool:
    return len({each.fold for each in subjects}) == 1


def _result(values: np.ndarray, units: Sequence[str], seed: int, widening: float) -> dict[str, Any] | None:
    found = interval(values, units, DRAWS, seed, _SHARE, widening=widening)
    if found is None:
        return None
    return {**asdict(found), "ci95": None if found.ci95 is None else list(found.ci95)}


# ------------------------------------------------------------------------------------------------------------- reading


def _identification_table(of: Content) -> Table:
    lines = [
        [
            get_row(row).label,
            value(found["across"]),
            value(found["within"]),
            difference(found["difference"]),
            "–" if found["within"] is None else str(found["within"].get("stimuli") or "–"),
        ]
        for row, found in of["identification"].items()
    ]
    caption = (
        "Two-way identification, chance .5, against test pictures of other clusters and against those of the same "
        "cluster: the share of them whose vectors correlate less with the reconstruction's than the own picture's do. "
        "High across and at chance within means that a picture's kind was read and nothing else of it. The last column "
        "has the stimuli that are not alone in their cluster."
    )
    header = ["row", "across clusters", "within clusters", "across less within", "stimuli within"]
    return Table("Clusters: identification within and across", caption, header, lines)


def _clusters_table(of: Content) -> Table:
    several = len(of["clusterings"]) > 1
    lines = []
    for clustering in of["clusterings"]:
        for number, cluster in enumerate(clustering["clusters"], start=1):
            whose = [", ".join(clustering["subjects"])] if several else []
            training = "–" if cluster["training"] is None else _span(cluster["training"])
            examples = ", ".join(cluster["examples"])
            lines.append([*whose, str(number), str(cluster["test"]), training, examples])
    caption = (
        "k-means clusters of the test pictures (the number of clusters with the largest mean silhouette). A training "
        "picture is counted in a cluster if it is nearest to that one and no farther from its centre than the "
        "cluster's own farthest picture is from the centre of the others. Named are the most central test pictures."
    )
    if len(lines) > _MOST_SHOWN:
        caption += f" The first {_MOST_SHOWN} of {len(lines)}; report.json has all."
    header = [*(["subject"] if several else []), "cluster", "test pictures", "training pictures inside", "such as"]
    return Table("Clusters of the test pictures", caption, header, lines[:_MOST_SHOWN])


def _span(numbers: Sequence[int]) -> str:
    least, most = numbers
    return f"{least:,}" if least == most else f"{least:,} to {most:,}"


def tables(of: Content) -> list[Table]:
    """Of a report's page; the first one has the plot."""
    return [_identification_table(of), _clusters_table(of)]


def notes(of: Content) -> list[str]:
    """What a reviewer would conclude."""
    return [
        f"Clusters: {in_words(of['space'], 'test pictures')}",
        *_on_what_is_read(of["identification"]),
        _on_distinctness(of["clusterings"]),
        _on_the_training(of["clusterings"]),
    ]


def _bounds(found: Mapping[str, Any] | None) -> tuple[float, float] | None:
    if found is None or found.get("ci95") is None:
        return None
    return found["ci95"][0], found["ci95"][1]


def _on_what_is_read(identification: Mapping[str, Any]) -> list[str]:
    brain = identification.get("brain")
    if brain is None or brain["across"] is None or brain["within"] is None:
        return [
            "Clusters: no test picture has others in its own cluster and in other ones, so that nothing is compared."
        ]
    across, within = _bounds(brain["across"]), _bounds(brain["within"])
    figures = f"{value(brain['across'])} across and {value(brain['within'])} within clusters (chance .5 in either)"
    if across is None or within is None:
        return [f"Clusters: the brain row has {figures}, of too few stimuli for an interval of both."]
    if within[0] > _CHANCE:
        more = " than the kind of a picture" if across[0] > _CHANCE else ", if not of kinds beyond doubt"
        return [
            f"Clusters: the brain row has {figures}: pictures are told from others of their own cluster, too, so that "
            f"more was read{more}; clusters may still hold finer kinds."
        ]
    if across[0] <= _CHANCE:
        return [
            f"Clusters: the brain row has {figures}: neither kinds nor single pictures are told apart beyond doubt."
        ]
    found = [
        f"Clusters: the brain row has {figures}: the kind of a picture was read, and nothing shows that anything else "
        f"of it was (within clusters, more than {within[1]:.3f} is ruled out)."
    ]
    ceiling = _bounds((identification.get("ceiling") or {}).get("within"))
    if ceiling is not None and ceiling[0] <= _CHANCE:
        found.append(
            "Clusters: not even the ceiling is told from pictures of its own cluster, so that here the generator, or "
            "what compares, hides what else may have been read."
        )
    return found


def limit(of: Content) -> str:
    """That kinds were read and nothing else was seen to be."""
    brain = of["identification"].get("brain") or {}
    across, within = _bounds(brain.get("across")), _bounds(brain.get("within"))
    if across is None or within is None or across[0] <= _CHANCE or within[0] > _CHANCE:
        return ""
    return "nothing shows that more than the kind of a picture was read (Clusters)"


def _on_distinctness(clusterings: Sequence[Mapping[str, Any]]) -> str:
    distinct = [each for each in clusterings if each["silhouette"] > each["structureless"][1]]
    first = clusterings[0]
    figures = (
        f"mean silhouette {first['silhouette']:.3f}, beside {first['structureless'][0]:.3f} to "
        f"{first['structureless'][1]:.3f} in {STRUCTURELESS} draws of structureless data of the same covariance"
    )
    count = len(first["clusters"])
    if len(distinct) == len(clusterings):
        return f"Clusters: {count} clusters of {first['pictures']} test pictures stand apart ({figures})."
    return (
        f"Clusters: the {count} clusters of {first['pictures']} test pictures do not stand apart more than those of "
        f"structureless data ({figures}): within and across are then no more than near and far neighbours."
    )


def _on_the_training(clusterings: Sequence[Mapping[str, Any]]) -> str:
    every = [(cluster, each) for each in clusterings for cluster in each["clusters"]]
    known = [cluster for cluster, each in every if _would_be_seen(cluster, each)]
    absent = [cluster for cluster in known if cluster["training"][1] == 0]
    tested, new = sum(cluster["test"] for cluster, _ in every), sum(cluster["test"] for cluster in absent)
    unknown = len(every) - len(known)
    small = f"; {unknown} more are too small for none to mean anything" if unknown else ""
    if not known:
        return (
            "Clusters: all are so small that training pictures might be missing from them by chance; whether kinds of "
            "pictures were tested that were not learned from is not known."
        )
    if not absent:
        each = f"each of the {len(known)} clusters" if len(known) > 1 else "the one cluster that is large enough"
        return (
            f"Clusters: {each} of test pictures has training pictures in it{small}: no kind of picture is known to "
            "have been tested that was not learned from, and how the model does on new kinds is open."
        )
    return (
        f"Clusters: {len(absent)} of {len(known)} clusters of test pictures ({new} of {tested} pictures) have no "
        f"training picture in them{small}: these are new kinds of pictures."
    )


def _would_be_seen(cluster: Mapping[str, Any], clustering: Mapping[str, Any]) -> bool:
    """Whether the training, were it of the same kinds in the same shares, would be seen to have a cluster.

    The radius is that of the farthest of m pictures, beyond which a further one lies once in m + 1 times.
    """
    if cluster["training"] is None:
        return False
    expected = clustering["training"][0] * cluster["test"] / clustering["pictures"]
    return bool(expected * cluster["test"] / (cluster["test"] + 1) >= _EXPECTED_INSIDE)


def plot(of: Content, axes: "Axes") -> None:
    """Identification across and within clusters, a pair of bars a row."""
    from matplotlib import rcParams

    from ..plots import COLOURS

    rows = {row: found for row, found in of["identification"].items() if found["across"] and found["within"]}
    for place, (side, colour) in enumerate((("across", COLOURS[0]), ("within", COLOURS[1]))):
        heights = [found[side]["value"] for found in rows.values()]
        bars = np.array([error_bar(found[side]) for found in rows.values()]).T.reshape(2, len(rows))
        places = np.arange(len(rows)) + 0.38 * (place - 0.5)
        label, text = f"{side} clusters", rcParams["text.color"]
        axes.bar(places, heights, 0.36, yerr=bars, color=colour, capsize=3, ecolor=text, label=label)
    axes.axhline(_CHANCE, color=COLOURS[4], linestyle=":", label="chance")
    axes.set_xticks(range(len(rows)), [get_row(row).label for row in rows])
    axes.set_ylim(0, 1)
    axes.set_ylabel("two-way identification")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))


# ------------------------------------------------------------------------------------------------------------- schema


class _Content(BaseModel):
    model_config = ConfigDict(extra="allow")


class _Cluster(_Content):
    test: Count
    training: Annotated[list[Annotated[Whole, Field(ge=0)]], Field(min_length=2, max_length=2)] | None
    examples: Annotated[list[Name], Field(max_length=_MOST_EXAMPLES)]


class _Clustering(_Content):
    subjects: Annotated[list[Name], Field(max_length=10_000)]
    pictures: Count
    training: Annotated[list[Count], Field(min_length=2, max_length=2)]
    silhouette: Annotated[Number, Field(ge=-1, le=1)]
    structureless: Annotated[list[Annotated[Number, Field(ge=-1, le=1)]], Field(min_length=2, max_length=2)]
    clusters: Annotated[list[_Cluster], Field(min_length=1, max_length=_MOST_CLUSTERS)]


class _Identification(_Content):
    within: Result | None
    across: Result | None
    difference: Difference | None


class ClustersContent(_Content):
    """What the part has found."""

    space: Space
    clusterings: Annotated[list[_Clustering], Field(min_length=1, max_length=10_000)]
    identification: dict[Name, _Identification]


CLUSTERS = AuditPart(
    name="clusters",
    label="Clusters",
    question="Is a picture told from others of its own kind, or was its kind alone read?",
    measure=measure,
    content=content,
    tables=tables,
    notes=notes,
    schema=ClustersContent,
    plot=plot,
    limit=limit,
)
