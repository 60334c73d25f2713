"""Retrieval instead of generation: does the generator add anything to looking a picture up?

What was decoded finds the nearest picture of a library that holds no test picture; that picture is scored as if it were
the reconstruction. Beside it stand a picture of the library at random, and the one nearest to what was shown, which no
decoder could find better.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator

from ... import progress
from ...data.generator_pictures import prepare_pictures
from ...data.near_copies import PictureSketches
from ...data.pictures import encode_picture
from ..bootstrap import DRAWS
from ..further_pictures import FurtherPictures
from ..nearest_pictures import most_similar, unit_vectors
from ..plots import COLOURS
from ..report_figures import comparisons, results
from ..report_schema import Count, Line, Metric, Name, Result, Whole
from ..report_schema import Difference as DifferenceContent
from ..row_data import RowData
from ..table import Table
from ..training_pictures import NearEmbeddings, Nearness, TrainingPictures
from .figures import by_verdict, difference, error_bar, first_metric, labels, measured, value, with_direction
from .part import AuditedItems, AuditPart, Content

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..evaluated_subject import EvaluatedSubject

SIZES = (100, 1_000, 10_000, 100_000)
"""Sizes of libraries, as far as there are so many pictures; and all of them."""

_ALL, _RANDOM = "all", "library_random"
_LIBRARY, _ORACLE = "library_", "oracle_"
# Of each query so many are told, before which near copies of test pictures may stand.
_DEPTH = 4
_WITHOUT_NEARNESS = (
    "The method decodes no embeddings of pictures, and nothing embeds its reconstructions, so that no picture of a "
    "library is the nearest."
)

# ------------------------------------------------------------------------------------------------------------- measure


@dataclass(frozen=True)
class LibraryCounts:
    """What the library of a subject and fold holds.

    Args:
        subject: Name.
        fold: Fold of the split.
        pictures: How many different ones, all that were left out aside.
        training: How many of these were learned from.
        equal: Left out: those that are test pictures.
        near: Left out: those that would have been chosen and are nearly test pictures.
        repeated: Not counted: those that are there already.
    """

    subject: str
    fold: int
    pictures: int
    training: int
    equal: int
    near: int
    repeated: int


@dataclass
class SubjectLibrary:
    """The pictures that were found for one subject on one fold.

    Args:
        counts: Of the library.
        compared_by: By what pictures are near, as the end of a sentence.
        chosen: Row ▶ (N,) position of each item's picture.
        pictures: All pictures, by position.
    """

    counts: LibraryCounts
    compared_by: str
    chosen: dict[str, np.ndarray]
    pictures: "_Pictures"


def measure(of: "EvaluatedSubject") -> SubjectLibrary | str:
    """Finds the nearest pictures in libraries of every size; a sentence where there can be none."""
    if of.nearest_by is None:
        return _WITHOUT_NEARNESS
    pictures = _Pictures(of.training_pictures, of.library, of.pipeline.image_generator.image_size)
    search = _Search(of, of.nearest_by, pictures)
    if not search.count:
        return "Every picture of the library is a test picture, so that there is nothing to look up."
    chosen = search.nearest()
    if chosen is None:
        return "Every picture of the library is nearly a test picture, so that there is nothing to look up."
    return SubjectLibrary(search.counts(), _in_words(of.nearest_by), chosen, pictures)


def _in_words(by: Nearness) -> str:
    if by.of_drawn is not None:
        return f"{by.of_drawn} of the reconstruction"
    assert isinstance(by, NearEmbeddings)
    return "the decoded embedding" if by.target == "image_embeds" else "the decoded latents"


class _Pictures:
    """Training pictures and further ones, by their position in both together."""

    def __init__(
        self, training: TrainingPictures, further: FurtherPictures | None, image_size: tuple[int, int, int]
    ) -> None:
        self.training, self.further, self._image_size = training, further, image_size
        self._own = list(training.ids)
        self._others = [] if further is None else further.ids

    def __len__(self) -> int:
        return len(self._own) + len(self._others)

    @property
    def num_training(self) -> int:
        return len(self._own)

    def hashes(self) -> list[str | None]:
        own = self.training.table.stimuli.content_hashes(self._own)
        return own if self.further is None else [*own, *self.further.content_hashes(self._others)]

    def vectors(self, by: Nearness) -> Iterator[np.ndarray]:
        """(n, values) of all of them, a batch after the other."""
        yield from by.batches_of_training(self.training)
        if self.further is not None:
            yield from by.of_further(self.further, self._image_size)

    def prepared(self, positions: np.ndarray) -> torch.Tensor:
        """(n, C, H, W) in [0, 1], of the size that the generator draws."""
        return prepare_pictures(self.pixels(positions.tolist()), self._image_size)

    def pixels(self, positions: Sequence[int]) -> np.ndarray:
        """uint8 (n, H, W, C); each picture is read once."""
        different = sorted(set(positions))
        own = [self._own[each] for each in different if each < self.num_training]
        others = [self._others[each - self.num_training] for each in different if each >= self.num_training]
        found = [*self.training.table.stimuli.images(own)] if own else []
        found += [*self.further.images(others)] if self.further is not None and others else []
        where = {position: place for place, position in enumerate(different)}
        return np.stack([found[where[position]] for position in positions])

    def name(self, position: int) -> str:
        """An id that no stimulus of the table has, unless it is that stimulus."""
        if position < self.num_training:
            return self._own[position]
        own = self._others[position - self.num_training]
        return f"{own} (library)" if own in self.training.table.stimuli else own


class _Search:
    """The search for one subject on one fold.

    Args:
        of: The subject.
        by: By what pictures are near.
        pictures: The library, before anything is left out.

    Attributes:
        count: How many different pictures there are that are no test picture.
    """

    def __init__(self, of: "EvaluatedSubject", by: Nearness, pictures: _Pictures) -> None:
        self._of, self._by, self._pictures = of, by, pictures
        self._tested = list(dict.fromkeys(of.stimulus_ids))
        self._kinds = self._kinds_of_all()
        kept = np.flatnonzero(self._kinds == "kept")
        self.count = len(kept)
        # Nested: the first pictures of one random order.
        self._ranks = np.full(len(pictures), -1)
        self._ranks[np.random.default_rng(of.drawn_by.seed).permutation(kept)] = np.arange(self.count)
        self.sizes = {str(size): size for size in SIZES if size <= self.count} | {_ALL: self.count}
        self._near: set[int] = set()
        self._looked_at: set[int] = set()

    def _kinds_of_all(self) -> np.ndarray:
        """What each picture is: `kept`, `equal` to a test picture, or `repeated`."""
        stimuli = self._of.table.stimuli
        tested, seen = set(stimuli.content_hashes(self._tested)), set[str | None]()
        names = set(self._tested)
        kinds = []
        for position, digest in enumerate(self._pictures.hashes()):
            if digest in tested or self._pictures.name(position) in names:
                kinds.append("equal")
            else:
                kinds.append("repeated" if digest in seen else "kept")
            seen.add(digest)
        return np.asarray(kinds, dtype=str)

    def counts(self) -> LibraryCounts:
        kinds = Counter(self._kinds.tolist())
        kept = np.flatnonzero(self._kinds == "kept")
        left = [position for position in kept.tolist() if position not in self._near]
        training = sum(position < self._pictures.num_training for position in left)
        of = self._of
        return LibraryCounts(
            of.subject, of.record.fold, len(left), training, kinds["equal"], len(self._near), kinds["repeated"]
        )

    def nearest(self) -> dict[str, np.ndarray] | None:
        """Row ▶ (N,) positions; None where no picture is left."""
        sizes = dict(sorted(self.sizes.items(), key=lambda each: each[1]))
        found = self._found(list(sizes.values()))
        while True:
            picked = [self._first_that_is_no_copy(each) for each in found]
            if any((each < 0).any() for each in picked):
                # All that were told of an item are copies, so that farther ones are looked for.
                left = self._ranks.copy()
                left[list(self._near)] = -1
                if not (left[left >= 0] < min(sizes.values())).any():
                    return None
                found = self._found(list(sizes.values()), left)
                picked = [self._first_that_is_no_copy(each) for each in found]
            if not self._finds_copies(np.unique(np.concatenate([each.ravel() for each in picked]))):
                break
        at_random = self._at_random()
        if at_random is None:
            return None
        rows = {_RANDOM: at_random}
        for prefix, positions in zip((_LIBRARY, _ORACLE), picked, strict=True):
            rows |= {f"{prefix}{name}": of_size for name, of_size in zip(sizes, positions, strict=True)}
        return rows

    def _found(self, sizes: Sequence[int], ranks: np.ndarray | None = None) -> list[np.ndarray]:
        of = self._of
        drawn = of.rows["brain"].images if "brain" in of.rows else of.draw(of.decoding)
        assert drawn is not None
        shown = TrainingPictures(of.table, of.stimulus_ids, of.pipeline.image_generator.image_size)
        truth = np.concatenate(list(self._by.batches_of_training(shown)))
        queries = [unit_vectors(self._by.of_items(drawn).cpu()), unit_vectors(torch.from_numpy(truth))]
        ranks = self._ranks if ranks is None else ranks
        return most_similar(queries, self._pictures.vectors(self._by), ranks, sizes, _DEPTH)

    def _first_that_is_no_copy(self, found: np.ndarray) -> np.ndarray:
        """(sizes, N) the most similar of (sizes, N, depth) that is no near copy; -1 where none is."""
        allowed = (found >= 0) & ~np.isin(found, list(self._near))
        first = allowed.argmax(axis=-1)
        picked = np.take_along_axis(found, first[..., None], axis=-1)[..., 0]
        return np.where(allowed.any(axis=-1), picked, -1)

    def _finds_copies(self, positions: np.ndarray) -> bool:
        """Looks at pictures that nobody has looked at yet; whether one of them is nearly a test picture."""
        new = [position for position in positions.tolist() if position >= 0 and position not in self._looked_at]
        self._looked_at.update(new)
        if not new:
            return False
        names = {self._pictures.name(position): position for position in new}
        compared = _Compared(self._of.table.stimuli, self._pictures, names)
        sketches = PictureSketches(compared, [*names, *self._tested])
        copies = {names[copy.stimulus] for copy in sketches.near_copies(names, self._tested)}
        self._near |= copies
        return bool(copies)

    def _at_random(self) -> np.ndarray | None:
        """(N,) positions of pictures that have nothing to do with the items; None where no picture is left."""
        # Another order than that of the sizes.
        generator = np.random.default_rng([self._of.drawn_by.seed, 1])
        while True:
            left = [position for position in np.flatnonzero(self._ranks >= 0).tolist() if position not in self._near]
            if not left:
                return None
            chosen = generator.choice(np.asarray(left), size=len(self._of))
            if not self._finds_copies(np.unique(chosen)):
                return chosen


class _Compared:
    """Test pictures and some of a library's, as [`PictureSketches`] takes them."""

    def __init__(self, stimuli: Any, pictures: _Pictures, positions: Mapping[str, int]) -> None:
        self._stimuli, self._pictures, self._positions = stimuli, pictures, positions

    def encoded(self, ids: Sequence[str]) -> Iterator[tuple[str, bytes | None]]:
        yield from self._stimuli.encoded([each for each in ids if each not in self._positions])
        for each in ids:
            if each in self._positions:
                yield each, encode_picture(self._pictures.pixels([self._positions[each]])[0], each)

    def content_hashes(self, ids: Sequence[str]) -> list[str | None]:
        return [self._hash(each) for each in ids]

    def _hash(self, each: str) -> str | None:
        position = self._positions.get(each)
        if position is None or position < self._pictures.num_training:
            return self._stimuli.content_hashes([each])[0]
        assert self._pictures.further is not None
        return self._pictures.further.content_hashes(
            [self._pictures.further.ids[position - self._pictures.num_training]]
        )[0]


# ------------------------------------------------------------------------------------------------------------- content


def content(of: AuditedItems) -> dict[str, Any]:
    """Scores of looked-up pictures, and what the reconstruction has above them."""
    reasons = [each for each in of.measured if isinstance(each, str)]
    if reasons:
        return {"not_defined": reasons[0]}
    subjects: list[SubjectLibrary] = list(of.measured)
    rows = [name for name in subjects[0].chosen if all(name in each.chosen for each in subjects)]
    sizes = _sizes(subjects, rows)
    rows = [name for name in rows if name == _RANDOM or name.split("_")[1] in sizes]
    own = {name: of.scores.values[name] for name in ("brain", "ceiling") if name in of.scores.values}
    found = {name: own[name] for name in ("brain",)}
    for name in progress.bar(rows, "Scoring looked-up pictures", unit="row", delay=1):
        # One row's pictures after the other are in memory.
        images = torch.cat([each.pictures.prepared(each.chosen[name]) for each in subjects])
        scores = of.items.with_rows({name: RowData(images)}).scores(
            of.protocol, of.seed, permutations=0, weights=of.weights
        )
        found[name] = scores.values[name]
    against_oracle = {}
    if "ceiling" in own:
        oracles = {name: values for name, values in found.items() if name.startswith(_ORACLE)}
        # The ceiling is what the generator makes of the truth, and the oracle what a library makes of it.
        paired = replace(of.scores, values={"brain": own["ceiling"], **oracles})
        against_oracle = comparisons(paired, DRAWS, of.seed)
        found["ceiling"] = own["ceiling"]
    scored = replace(of.scores, values=found)
    compared = {name: each for name, each in comparisons(scored, DRAWS, of.seed).items() if name in rows}
    further = subjects[0].pictures.further
    return {
        "compared_by": subjects[0].compared_by,
        "further": None if further is None else further.name,
        "subjects": [asdict(each.counts) for each in subjects],
        "sizes": sizes,
        "results": results(scored, DRAWS, of.seed),
        "brain_above": compared,
        "ceiling_above": against_oracle,
    }


def _sizes(subjects: Sequence[SubjectLibrary], rows: Sequence[str]) -> dict[str, list[int]]:
    """Name of a size ▶ the fewest and the most pictures of a subject; all once, where that is one of the sizes."""
    names = [name.removeprefix(_LIBRARY) for name in rows if name.startswith(_LIBRARY) and name != _RANDOM]
    counts = [each.counts.pictures + each.counts.near for each in subjects]
    every = [min(counts), max(counts)]
    sizes = {name: [int(name)] * 2 for name in names if name != _ALL}
    if every not in sizes.values():
        sizes[_ALL] = every
    return sizes


# -------------------------------------------------------------------------------------------------------------- schema


class _Counts(BaseModel):
    model_config = ConfigDict(extra="allow")
    subject: Name
    fold: Whole
    pictures: Count
    training: Annotated[Whole, Field(ge=0)]
    equal: Annotated[Whole, Field(ge=0)]
    near: Annotated[Whole, Field(ge=0)]
    repeated: Annotated[Whole, Field(ge=0)]


_Results = dict[Metric, Result | None]
_Differences = dict[Metric, DifferenceContent | None]
_Row = Annotated[str, Field(pattern=r"^(library|oracle)_([1-9][0-9]{0,8}|all|random)$")]
_Size = Annotated[str, Field(pattern=r"^([1-9][0-9]{0,8}|all)$")]


class _Library(BaseModel):
    model_config = ConfigDict(extra="allow")
    compared_by: Line
    further: Line | None = None
    subjects: Annotated[list[_Counts], Field(min_length=1, max_length=100_000)]
    sizes: Annotated[
        dict[_Size, Annotated[list[Count], Field(min_length=2, max_length=2)]], Field(min_length=1, max_length=20)
    ]
    results: dict[Name, _Results]
    brain_above: dict[_Row, _Differences]
    ceiling_above: dict[_Row, _Differences] = {}

    @model_validator(mode="after")
    def _has_its_rows(self) -> "_Library":
        rows = [f"{prefix}{size}" for prefix in (_LIBRARY, _ORACLE) for size in self.sizes]
        missing = [row for row in ("brain", _RANDOM, *rows) if row not in self.results]
        missing += [row for row in rows if row not in self.brain_above]
        if missing:
            raise ValueError(f"results and differences of brain and of every size ({missing[0]} is missing)")
        return self


# --------------------------------------------------------------------------------------------------- tables and notes


def tables(content: Content) -> list[Table]:
    """What was found, what the reconstruction has above it, and the best that could be found."""
    return [_scores_table(content), _above_table(content), *_oracle_tables(content)]


def _scores_table(content: Content) -> Table:
    found = content["results"]
    # The largest first, which says most, and stands where narrow pages show it.
    looked_up = [*reversed([f"{_LIBRARY}{size}" for size in content["sizes"]]), _RANDOM]
    rows = ["brain", *looked_up]
    header = ["metric", "from brain", *(_column(content, row) for row in looked_up)]
    lines = [
        [with_direction(metric), *(value(found[row].get(metric.name)) for row in rows)]
        for metric in measured(found[_RANDOM])
    ]
    caption = (
        f"{_of_what(content)} The picture nearest to {content['compared_by']} (cosine) is scored as if it were the "
        "reconstruction, beside a picture of the library at random. Smaller libraries are the first pictures of one "
        "random order, so that each holds the smaller ones; intervals are over stimuli, and another draw of a small "
        "library would give other figures."
    )
    return Table("Library: looked up instead of drawn", caption, header, lines)


def _above_table(content: Content) -> Table:
    above = content["brain_above"]
    rows = [*reversed([f"{_LIBRARY}{size}" for size in content["sizes"]]), _RANDOM]
    rows = [row for row in rows if row in above]
    header = ["metric", *(_column(content, row) for row in rows)]
    lines = [
        [metric.label, *(difference(above[row].get(metric.name)) for row in rows)]
        for metric in measured(content["results"][_RANDOM])
    ]
    caption = (
        "What the generator adds: paired difference of the brain row and the looked-up pictures, on the same items; "
        "positive means that the reconstruction is better."
    )
    return Table("Library: the reconstruction against looked-up pictures", caption, header, lines)


def _oracle_tables(content: Content) -> Iterator[Table]:
    found, above = content["results"], content.get("ceiling_above", {})
    sizes = list(reversed(content["sizes"]))
    largest, *smaller = (f"{_ORACLE}{size}" for size in sizes)
    header = ["metric", *(f"nearest of {_size(content, size)}" for size in sizes)]
    if "ceiling" in found:
        header[2:2] = ["ceiling", "difference"]
    lines = []
    for metric in measured(found[largest]):
        line = [with_direction(metric), value(found[largest].get(metric.name))]
        if "ceiling" in found:
            line += [value(found["ceiling"].get(metric.name)), difference(above.get(largest, {}).get(metric.name))]
        lines.append([*line, *(value(found[row].get(metric.name)) for row in smaller)])
    caption = (
        "Made from the test pictures, so no result: the library's picture nearest to what was shown, by the same "
        "embedding. A perfect decoder would look this one up; that another picture would score more in a single "
        "metric is possible. The ceiling is what the generator draws of the true embedding, and "
        "the difference what it adds to that picture."
    )
    yield Table("Library: the best that could be looked up", caption, header, lines, is_folded=True)


def _column(content: Content, row: str) -> str:
    return "at random" if row == _RANDOM else f"nearest of {_size(content, row.removeprefix(_LIBRARY))}"


def _size(content: Content, name: str) -> str:
    low, high = content["sizes"][name]
    number = f"{low:,}" if low == high else f"{low:,} to {high:,}"
    return f"all {number}" if name == _ALL else number


def _of_what(content: Content) -> str:
    subjects = content["subjects"]
    training = _range([each["training"] for each in subjects])
    text = f"A library of {training} training pictures"
    if content.get("further") is not None:
        others = _range([each["pictures"] - each["training"] for each in subjects])
        text += f" and {others} of {content['further']}"
    of_each = " for each subject and fold" if len(subjects) > 1 else ""
    equal, near = (_range([each[name] for each in subjects]) for name in ("equal", "near"))
    return (
        f"{text}{of_each}, without any test picture: {equal} equal to one were left out, and {near} that are nearly "
        "one and would have been looked up."
    )


def _range(counts: Sequence[int]) -> str:
    low, high = min(counts), max(counts)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def notes(content: Content) -> list[str]:
    """Whether the generator adds anything, and what stands in the way of looking up."""
    found = content["results"]
    largest = list(content["sizes"])[-1]
    row = f"{_LIBRARY}{largest}"
    above, below, open_ = by_verdict(content["brain_above"][row])
    count = len(above) + len(below) + len(open_)
    if not count:
        return []
    size = _size(content, largest)
    sentences = [f"Against the nearest of {size} library pictures, {_verdict(above, below, open_)}"]
    metric = first_metric(found[row])
    if metric is not None:
        sentences.append(_in_figures(content, metric.name, metric.label, row, largest))
    return [f"Library: {sentence}" for sentence in sentences]


def limit(content: Content) -> str:
    """That a picture looked up does as well."""
    above, below, open_ = by_verdict(content["brain_above"][f"{_LIBRARY}{list(content['sizes'])[-1]}"])
    if not (above or below or open_) or not all(metric.rewards_blur for metric in above):
        return ""
    return "nothing shows that the generator adds anything to looking a picture up (library)"


def _verdict(above: Sequence[Any], below: Sequence[Any], open_: Sequence[Any]) -> str:
    count = len(above) + len(below) + len(open_)
    each = f"(of {count}, each looked at for itself)"
    if not above and not below:
        return (
            f"the reconstruction is neither better nor worse beyond doubt in any metric {each}: with so many stimuli, "
            "nothing shows what the generator adds to looking a picture up."
        )
    if not above:
        return (
            f"the reconstruction is better beyond doubt in no metric and worse in {labels(below)} {each}: by these "
            "metrics the generator adds nothing, and looking a picture up does as well or better."
        )
    if all(metric.rewards_blur for metric in above):
        return (
            f"the reconstruction is better beyond doubt only where blur is rewarded ({labels(above)})"
            f"{_rest(below, open_)} {each}: any smooth picture beats a real one there, so that this shows no "
            "detail that was read."
        )
    return (
        f"the reconstruction is better beyond doubt in {labels(above)}{_rest(below, open_)} {each}. That much is not "
        "had by naming a picture that exists, as far as these metrics see; pixel metrics favour smooth pictures over "
        "real ones whatever was read."
    )


def _rest(below: Sequence[Any], open_: Sequence[Any]) -> str:
    worse = f", worse in {labels(below)}" if below else ""
    undecided = f", undecided in {labels(open_)}" if open_ else ""
    return f"{worse}{undecided}"


def _in_figures(content: Content, metric: str, label: str, row: str, largest: str) -> str:
    found = content["results"]
    text = (
        f"{label} is {value(found['brain'].get(metric))} from brain, {value(found[row][metric])} looked up in "
        f"{_size(content, largest)}, {value(found[_RANDOM].get(metric))} at random"
    )
    smallest = next(iter(content["sizes"]))
    if smallest != largest:
        small = found[f"{_LIBRARY}{smallest}"].get(metric)
        text += f" and {value(small)} looked up in {_size(content, smallest)}"
    oracle = found[f"{_ORACLE}{largest}"].get(metric)
    return (
        f"{text}. The picture nearest to what was shown has {value(oracle)}: up to there a better decoder would "
        "bring looking up, and beyond only a larger library."
    )


def plot(content: Content, axes: "Axes") -> None:
    """The first metric against the size of the library."""
    found, sizes = content["results"], content["sizes"]
    metric = first_metric(found[_RANDOM])
    if metric is None or found["brain"].get(metric.name) is None:
        return
    places = [sum(each) / 2 for each in sizes.values()]
    for prefix, colour, label in (
        (_LIBRARY, COLOURS[1], "nearest to what was decoded"),
        (_ORACLE, COLOURS[2], "nearest to what was shown"),
    ):
        figures = [found[f"{prefix}{size}"].get(metric.name) for size in sizes]
        # Beside each other, where bars would hide each other.
        shift = 1.04 if prefix == _ORACLE else 1.0
        known = [(place * shift, figure) for place, figure in zip(places, figures, strict=True) if figure is not None]
        if known:
            bars = np.array([error_bar(figure) for _, figure in known]).T
            axes.errorbar(
                [place for place, _ in known], [figure["value"] for _, figure in known], yerr=bars, fmt="o-",
                color=colour, label=label, capsize=3,
            )  # fmt: skip
    for row, colour, label in (("brain", COLOURS[0], "from brain"), (_RANDOM, COLOURS[4], "at random")):
        figure = found[row].get(metric.name)
        if figure is not None:
            axes.axhline(figure["value"], color=colour, linestyle="--", label=label)
    brain = found["brain"][metric.name]
    if brain.get("ci95") is not None:
        axes.axhspan(*brain["ci95"], color=COLOURS[0], alpha=0.15, linewidth=0)
    axes.set_xscale("log")
    axes.set_xticks(places, [_size(content, size).removeprefix("all ") for size in sizes])
    axes.minorticks_off()
    axes.set_xlim(min(places) / 1.5, max(places) * 1.5)
    axes.set_xlabel("pictures in the library")
    axes.set_ylabel(with_direction(metric))
    axes.legend()


LIBRARY = AuditPart(
    name="library",
    label="library",
    question="What does the generator add to looking up the nearest picture of a library without test pictures?",
    measure=measure,
    content=content,
    tables=tables,
    notes=notes,
    schema=_Library,
    plot=plot,
    limit=limit,
)
