"""The noise ceiling in picture space: do repetitions give the same reconstruction, and what would more of them give?

Each repetition is decoded and drawn for itself. Two reconstructions can agree for three reasons: what was shown, noise
that the generator started from, and pictures that it draws of anything. So agreement is compared with that of
reconstructions of *different* stimuli which were drawn from the very same noise; only what is above it was in the
responses. Drawn from other noise, what the generator adds to the scatter shows as well.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator

from ... import progress
from ...data.processed import ProcessedTrials
from ...seeds import LARGEST_SEED
from ..bootstrap import DRAWS, stimulus_means
from ..controls import exchange_stimuli
from ..drawn_items import DrawnItems
from ..extrapolation import Limit, fitted_score, limit
from ..named_metrics import Metric as MetricOfScores
from ..named_metrics import get_metric
from ..plots import COLOURS
from ..repetition_curve import EVERY_NUMBER_UP_TO, CurveScores, SubjectCurve, curve_scores, draw_curve
from ..report_figures import comparisons, results
from ..report_schema import Bounds, Count, Line, Metric, Number, Result, Whole
from ..report_schema import Difference as DifferenceContent
from ..row_data import RowData
from ..scores import Scores
from ..seeded_drawing import SAMPLE_STRIDE
from ..table import Table
from .figures import by_verdict, difference, error_bar, first_metric, labels, measured, value, with_direction
from .part import AuditedItems, AuditPart, Content

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..evaluated_subject import EvaluatedSubject

MOST_DRAWN_ALONE = EVERY_NUMBER_UP_TO
"""Repetitions that are drawn for themselves, the first ones; the second is compared with each of the others."""
# With how many other stimuli each is compared, where that takes no further pictures.
_EXCHANGES = 8

SAME, SAME_FLOOR = "same_noise", "same_noise_other_stimuli"
OTHER, OTHER_FLOOR = "other_noise", "other_noise_other_stimuli"
AGAIN = "one_repetition_again"
_AGREEMENTS = (SAME, SAME_FLOOR, OTHER, OTHER_FLOOR, AGAIN)
_FLOOR_OF = {SAME: SAME_FLOOR, OTHER: OTHER_FLOOR}

_ONCE = "Test stimuli were shown once, or most were, so that nothing tells how far a reconstruction depends on noise."
_SEEDS = (
    "Item i was drawn from the same noise, seed + i, in every repetition, as the rows of a report are: two "
    "repetitions differ by their responses alone, which is the question here. The second repetition was also drawn "
    f"from seed + {SAMPLE_STRIDE:,} + i, which adds what the generator scatters."
)
_NOTHING_RANDOM = (
    "This pipeline draws nothing at random, so that a reconstruction depends on its response alone, and one seed says "
    "all."
)

# ------------------------------------------------------------------------------------------------------------- measure


@dataclass
class SubjectRepetitions:
    """Reconstructions of single repetitions of one subject on one fold; pictures uint8 (N, C, H, W).

    Args:
        subject: Name.
        fold: Fold of the split.
        stimulus_ids: N stimuli, each one item.
        truth: (N, C, H, W) what was shown.
        gallery_embeds: (N, …) embeddings of it; None without retrieval.
        curve: The row `brain` of averaged repetitions.
        alone: Of the first, second … repetition of each; of a stimulus with fewer, that of its last one.
        exchanged: Of the second repetition of another stimulus, from the item's own noise; None where nothing is
            random, and with one picture alone.
        partners: (exchanges, N) which other stimuli items are compared with, and first of all whose `exchanged` is;
            none with one picture alone.
        other_noise: Of the second repetition from other noise; None where nothing is random.
        noise_free: The row of responses without noise; None where there is none.
    """

    subject: str
    fold: int
    stimulus_ids: list[str]
    truth: torch.Tensor
    gallery_embeds: torch.Tensor | None
    curve: SubjectCurve
    alone: list[torch.Tensor]
    exchanged: torch.Tensor | None
    partners: np.ndarray
    other_noise: torch.Tensor | None
    noise_free: torch.Tensor | None


def measure(of: "EvaluatedSubject") -> SubjectRepetitions | None:
    """Draws single and averaged repetitions; None where no stimulus was shown twice."""
    of = _of_stimuli(of)
    counts = of.repetitions_of_items
    if counts.max() < 2:
        return None
    if "brain" not in of.rows:
        of.doing = f"Drawing {of.subject}"
        of.rows["brain"] = of.row(of.decoding)
    curve = draw_curve(of)
    features = _features_by_repetition(of, min(int(counts.max()), MOST_DRAWN_ALONE))
    alone = []
    for number, each in enumerate(features, start=1):
        of.doing = f"Drawing repetition {number} of {of.subject}"
        alone.append(_drawn(of, each))
    partners = np.zeros((0, len(of)), dtype=np.int64)
    if of.different_pictures > 1:
        seeds = range(of.drawn_by.seed, of.drawn_by.seed + _EXCHANGES)
        partners = np.stack([exchange_stimuli(of.pictures, seed) for seed in seeds])
    exchanged = other_noise = None
    if is_random(of):
        if len(partners):
            of.doing = f"Drawing repetitions of other stimuli of {of.subject}"
            exchanged = _drawn(of, features[1][torch.from_numpy(partners[0])])
        seed = (of.drawn_by.seed + SAMPLE_STRIDE) % (LARGEST_SEED + 1)
        other = replace(of, drawn_by=replace(of.drawn_by, seed=seed), rows={}, rows_of_fewer={})
        other.held_out = of.held_out
        other.doing = f"Drawing repetition 2 of {of.subject} from other noise"
        other_noise = _drawn(other, features[1])
    noise_free = None
    if of.noise_free_features is not None:
        known = of.rows.get("noise_free")
        pictures = None if known is None else known.images
        of.doing = f"Drawing {of.subject} without noise"
        noise_free = _drawn(of, of.noise_free_features) if pictures is None else _levels(pictures)
    return SubjectRepetitions(
        of.subject, of.record.fold, of.stimulus_ids, of.truth, of.gallery_embeds, curve, alone, exchanged, partners,
        other_noise, noise_free,
    )  # fmt: skip


def is_random(of: "EvaluatedSubject") -> bool:
    """Whether anything is drawn at random, so that candidates of one response differ."""
    return "num_candidates" in of.pipeline.settings_used(of.drawn_by.settings)


def _of_stimuli(of: "EvaluatedSubject") -> "EvaluatedSubject":
    """The same subject with an item, and one picture, a stimulus."""
    if of.repetitions == "average" and of.samples == 1:
        return of
    other = replace(of, repetitions="average", samples=1, rows={}, rows_of_fewer={})
    other.held_out = of.held_out
    return other


def _features_by_repetition(of: "EvaluatedSubject", count: int) -> list[torch.Tensor]:
    """For each of the first repetitions (N, width) processed voxels of every stimulus."""
    trials: dict[str, list[int]] = {}
    for trial, stimulus in enumerate(of.test.stimulus_ids.tolist()):
        trials.setdefault(stimulus, []).append(trial)
    processed = ProcessedTrials(of.test, of.pipeline.processor, "single")
    found = []
    for number in range(count):
        chosen = [trials[stimulus][min(number, len(trials[stimulus]) - 1)] for stimulus in of.stimulus_ids]
        found.append(torch.from_numpy(processed[np.asarray(chosen)]))
    return found


def _drawn(of: "EvaluatedSubject", features: torch.Tensor) -> torch.Tensor:
    with progress.named(of.pipeline, of.doing, of.pipeline.image_generator):
        pictures = of.row(of.decode(of.pipeline.brain_model, features)).images
    assert pictures is not None
    return _levels(pictures)


def _levels(pictures: torch.Tensor) -> torch.Tensor:
    """The 256 levels in which pictures are scored, in a quarter of the memory."""
    return (pictures.cpu().float().clamp(0, 1) * 255).round().to(torch.uint8)


# ------------------------------------------------------------------------------------------------------------- content


def content(of: AuditedItems) -> dict[str, Any]:
    """Agreement, its floors, scores of single and of averaged repetitions, and where the curve ends."""
    subjects: list[SubjectRepetitions] = [each for each in of.measured if each is not None]
    if not subjects or len(subjects) < len(of.measured):
        return {"not_defined": _ONCE}
    protocol = of.protocol.drawing_samples(1).with_trial_average(True)
    items = _items_of(subjects, of.items)
    with progress.phase("Scoring repetitions"):
        curve = curve_scores([each.curve for each in subjects], items, protocol, of.seed, of.weights)
        if curve is None:
            return {"not_defined": _ONCE}
        scored = _Scored(subjects, items, curve, replace(of, protocol=protocol))
        agreements = scored.agreements()
        truth = scored.against_truth()
    counts = np.concatenate([each.curve.repetitions for each in subjects])[curve.kept]
    return {
        "items": len(curve.kept),
        "left_out": len(counts_of(subjects)) - len(curve.kept),
        "repetitions": [int(counts.min()), int(counts.max())],
        "drawn_alone": scored.alone,
        "random": any(each.other_noise is not None for each in subjects),
        "agreement": {name: results(each, DRAWS, of.seed)["brain"] for name, each in agreements.items()},
        "above_floor": scored.above_floors(agreements),
        "single": results(truth["single"], DRAWS, of.seed)["brain"],
        "noise_free": None if "noise_free" not in truth else results(truth["noise_free"], DRAWS, of.seed)["brain"],
        "curve": {str(number): results(each, DRAWS, of.seed)["brain"] for number, each in curve.scores.items()},
        "limits": _limits(curve, of.seed),
    }


def counts_of(subjects: Sequence[SubjectRepetitions]) -> np.ndarray:
    """How many trials each item of all subjects has."""
    return np.concatenate([each.curve.repetitions for each in subjects])


def _items_of(subjects: Sequence[SubjectRepetitions], every: DrawnItems) -> DrawnItems:
    """An item a stimulus, whatever the items of the report are."""
    ids = [stimulus for each in subjects for stimulus in each.stimulus_ids]
    place = {stimulus: position for position, stimulus in reversed(list(enumerate(every.stimulus_ids)))}
    gallery = [each.gallery_embeds for each in subjects]
    return DrawnItems(
        {},
        torch.cat([each.truth for each in subjects]),
        ids,
        [each.subject for each in subjects for _ in each.stimulus_ids],
        [each.fold for each in subjects for _ in each.stimulus_ids],
        None if any(each is None for each in gallery) else torch.cat([each for each in gallery if each is not None]),
        None if every.backgrounds is None else [every.backgrounds[place[stimulus]] for stimulus in ids],
        None if every.factors is None else [every.factors[place[stimulus]] for stimulus in ids],
        None,
        [0] * len(ids),
        [f"{number}" for number in range(len(ids))],
    )


class _Scored:
    """Scores of the kept items, each as a row `brain`."""

    def __init__(
        self, subjects: Sequence[SubjectRepetitions], items: DrawnItems, curve: CurveScores, of: AuditedItems
    ) -> None:
        self._subjects, self._items, self._curve, self._of = subjects, items, curve, of
        # Single repetitions are those that every kept item has.
        self.alone = min(*(len(each.alone) for each in subjects), max(curve.scores))
        self._units = next(iter(curve.scores.values())).pictures

    def agreements(self) -> dict[str, Scores]:
        """How alike reconstructions are: the one takes the place of the true picture, the other is scored.

        The second repetition is scored beside the others, however it was drawn, so that all these figures are of the
        same pairs of repetitions.
        """
        same, again = self._alone(1), self._pictures([each.other_noise for each in self._subjects])
        is_random = again is not None
        others = self._of_partners(is_random)
        rows = {SAME: same, SAME_FLOOR: self._pictures([each.exchanged for each in self._subjects]), OTHER: again}
        compared = [self._compared(self._alone(number), rows | others) for number in range(self.alone) if number != 1]
        found = {name: _mean([each[name] for each in compared]) for name in rows if name in compared[0]}
        if others:
            several = [each[name] for each in compared for name in others]
            found[OTHER_FLOOR if is_random else SAME_FLOOR] = _mean(several)
        if is_random:
            found |= self._compared(same, {AGAIN: again})
        return {name: found[name] for name in _AGREEMENTS if name in found}

    def above_floors(self, agreements: Mapping[str, Scores]) -> dict[str, Any]:
        """By how much repetitions agree more than different stimuli that were drawn alike."""
        found = {}
        for name, floor in _FLOOR_OF.items():
            if name in agreements and floor in agreements:
                values = {"brain": agreements[name].values["brain"], floor: agreements[floor].values["brain"]}
                paired = replace(agreements[name], values=values)
                found[name] = comparisons(paired, DRAWS, self._of.seed)[floor]
        return found

    def against_truth(self) -> dict[str, Scores]:
        """Single repetitions, mean of all of them, and responses without noise, beside what was shown."""
        rows = {str(number): self._alone(number) for number in range(self.alone)}
        noise_free = self._pictures([each.noise_free for each in self._subjects])
        kept = self._kept()
        found = self._each_as_brain(kept, rows | {"noise_free": noise_free})
        scores = {"single": _mean([found[name] for name in rows])}
        return scores | ({"noise_free": found["noise_free"]} if "noise_free" in found else {})

    def _kept(self) -> DrawnItems:
        return self._items.at(self._curve.kept, rows=[])

    def _alone(self, number: int) -> torch.Tensor:
        found = self._pictures([each.alone[number] for each in self._subjects])
        assert found is not None
        return found

    def _pictures(self, of_subjects: Sequence[torch.Tensor | None]) -> torch.Tensor | None:
        """(kept, C, H, W) pictures; None where a subject has none."""
        known = [each for each in of_subjects if each is not None]
        if len(known) < len(of_subjects):
            return None
        return torch.cat(known)[self._curve.kept].float() / 255

    def _of_partners(self, is_random: bool) -> dict[str, torch.Tensor | None]:
        """The second repetition of other stimuli, from noise of their own where there is any."""
        subjects = self._subjects
        drawn = [each.other_noise if is_random else each.alone[1] for each in subjects]
        return {
            f"other {number}": self._pictures(
                [None if pictures is None else pictures[each.partners[number]]
                 for pictures, each in zip(drawn, subjects, strict=True)]
            )
            for number in range(min(len(each.partners) for each in subjects))
        }  # fmt: skip

    def _compared(self, first: torch.Tensor, rows: Mapping[str, torch.Tensor | None]) -> dict[str, Scores]:
        # What is known of the stimuli is not known of reconstructions.
        items = replace(self._kept(), truth=first, gallery_embeds=None, backgrounds=None, factors=None)
        return self._each_as_brain(items, rows)

    def _each_as_brain(self, items: DrawnItems, rows: Mapping[str, torch.Tensor | None]) -> dict[str, Scores]:
        there = {name: RowData(pictures) for name, pictures in rows.items() if pictures is not None}
        of = self._of
        scores = items.with_rows(there).scores(of.protocol, of.seed, permutations=0, weights=of.weights)
        # Two stimuli are two, even where their reconstructions are equal.
        return {
            name: replace(scores, values={"brain": values}, pictures=self._units)
            for name, values in scores.values.items()
        }


def _mean(several: Sequence[Scores]) -> Scores:
    """Each item's mean score."""
    first = several[0]
    values: dict[str, np.ndarray | None] = {}
    for metric in first.values["brain"]:
        found = [each.values["brain"].get(metric) for each in several]
        known = [each for each in found if each is not None]
        values[metric] = np.mean(known, axis=0) if len(known) == len(found) else None
    return replace(first, values={"brain": values})


def _limits(curve: CurveScores, seed: int) -> dict[str, Any]:
    """Metric ▶ the limit of its curve, or why there is none; metrics without scores are left out."""
    found: dict[str, Any] = {}
    numbers = list(curve.scores)
    first = curve.scores[numbers[0]]
    for metric in first.values["brain"]:
        values = [each.values["brain"].get(metric) for each in curve.scores.values()]
        known = [each for each in values if each is not None]
        described = get_metric(metric)
        if len(known) < len(values) or described.of_whole_set:
            continue
        complete = np.isfinite(known).all(axis=0)
        if not complete.any():
            continue
        means = np.stack([stimulus_means(each[complete], first.units[complete]) for each in known])
        chance = first.chances.get(metric, described.chance)
        limited = limit(numbers, means, described, chance, first.widening, seed)
        found[metric] = (
            {"refused": limited}
            if isinstance(limited, str)
            else {**asdict(limited), "ci95": list(limited.ci95), "chance": chance}
        )
    return found


# -------------------------------------------------------------------------------------------------------------- schema


class _Limit(BaseModel):
    model_config = ConfigDict(extra="allow")
    refused: Line | None = None
    value: Number | None = None
    ci95: Bounds | None = None
    form: Literal["attenuation", "noise"] | None = None
    noise: Annotated[Number, Field(ge=0)] | None = None
    residual: Annotated[Number, Field(ge=0)] | None = None
    stimuli: Count | None = None
    chance: Number | None = None

    @model_validator(mode="after")
    def _either(self) -> "_Limit":
        limited = (self.value, self.ci95, self.form, self.noise, self.residual, self.stimuli)
        if (self.refused is None) == any(each is None for each in limited):
            raise ValueError("refused, or value, ci95, form, noise, residual and stimuli")
        return self


_Results = dict[Metric, Result | None]


class _Repetitions(BaseModel):
    model_config = ConfigDict(extra="allow")
    items: Count
    left_out: Annotated[Whole, Field(ge=0)]
    repetitions: Annotated[list[Count], Field(min_length=2, max_length=2)]
    drawn_alone: Annotated[int, Field(ge=2, le=MOST_DRAWN_ALONE)]
    random: bool
    agreement: dict[Literal[_AGREEMENTS], _Results]  # type: ignore[valid-type]
    above_floor: dict[Literal["same_noise", "other_noise"], dict[Metric, DifferenceContent | None]]
    single: _Results
    noise_free: _Results | None = None
    curve: Annotated[
        dict[Annotated[str, Field(pattern=r"^[1-9][0-9]{0,5}$")], _Results], Field(min_length=2, max_length=100)
    ]
    limits: dict[Metric, _Limit]

    @model_validator(mode="after")
    def _has_what_is_shown(self) -> "_Repetitions":
        if SAME not in self.agreement or list(map(int, self.curve)) != sorted(map(int, self.curve)):
            raise ValueError(f"an agreement {SAME!r}, and a curve in ascending order")
        compared = {each for name in self.above_floor for each in (name, _FLOOR_OF[name])}
        if missing := compared - set(self.agreement):
            raise ValueError(f"the agreement {min(missing)!r} of a difference")
        return self


# --------------------------------------------------------------------------------------------------- tables and notes


def tables(content: Content) -> list[Table]:
    """The curve with its end, and the agreement of repetitions."""
    return [_curve_table(content), _agreement_table(content)]


def _curve_table(content: Content) -> Table:
    curve, limits, noise_free = content["curve"], content["limits"], content.get("noise_free")
    *fewer, most = curve
    header = ["metric", "one trial", f"mean of {most}", "infinitely many (fitted)"]
    header += [] if noise_free is None else ["without noise (simulated)"]
    header += [f"mean of {number}" if number != "1" else "the first" for number in fewer]
    lines = []
    for metric in measured(content["single"]):
        line = [with_direction(metric), value(content["single"][metric.name]), value(curve[most].get(metric.name))]
        line.append(_limit_cell(limits.get(metric.name)))
        line += [] if noise_free is None else [value(noise_free.get(metric.name))]
        lines.append([*line, *(value(curve[number].get(metric.name)) for number in fewer)])
    left_out = f" {content['left_out']} others have fewer repetitions." if content["left_out"] else ""
    caption = (
        f"What the brain row scores with so many repetitions of a stimulus averaged before the model sees them, the "
        f"first ones, on the same {content['items']} items.{left_out} One trial: the first {content['drawn_alone']} "
        "repetitions, each drawn for itself, mean of their scores. What is marked ≈ is not measured: it is where a "
        "curve through the measured points ends, s∞ √(n / (n + k)) above chance for correlations and shares, s∞ + a / "
        "n for errors, with an interval over stimuli. For a correlation or a mean squared error of a linear decoder "
        "these curves are what noise does; for all else they describe the points, and the end is a guess. A dash: no "
        "curve is told by the points."
    )
    if noise_free is not None:
        caption += " Without noise: measured on the simulator's responses that have none, which checks the fit."
    return Table("Repetitions: scores against averaged repetitions", caption, header, lines)


def _limit_cell(found: Mapping[str, Any] | None) -> str:
    return "–" if found is None or found.get("value") is None else f"≈ {value(found)}"


def _agreement_table(content: Content) -> Table:
    agreement, above = content["agreement"], content["above_floor"]
    noise = ", same noise" if content["random"] else ""
    columns = {
        SAME: f"two repetitions{noise}",
        SAME_FLOOR: f"two stimuli{noise}",
        OTHER: "two repetitions, other noise",
        OTHER_FLOOR: "two stimuli, other noise",
        AGAIN: "one repetition drawn twice",
    }
    there = [name for name in columns if name in agreement]
    header = ["metric"]
    for name in there:
        header.append(columns[name])
        if name in _FLOOR_OF.values() and _agreement_of(name) in above:
            header.append("difference")
    lines = []
    for metric in measured(agreement[SAME]):
        line = [with_direction(metric)]
        for name in there:
            line.append(value(agreement[name].get(metric.name)))
            if name in _FLOOR_OF.values() and _agreement_of(name) in above:
                line.append(difference(above[_agreement_of(name)].get(metric.name)))
        lines.append(line)
    pairs = "the second with the first" + (" and with the third" if content["drawn_alone"] > 2 else "")
    caption = (
        "How alike reconstructions are: the one takes the place of the shown picture, the other is scored as ever. Two "
        f"repetitions of one stimulus ({pairs}), each decoded for itself, beside a repetition of one stimulus and "
        f"one of another, drawn alike; positive differences mean that repetitions are more alike. {_on_noise(content)}"
    )
    return Table("Repetitions: do their reconstructions agree?", caption, header, lines)


def _agreement_of(floor: str) -> str:
    return next(name for name, each in _FLOOR_OF.items() if each == floor)


def _on_noise(content: Content) -> str:
    return _SEEDS if content["random"] else _NOTHING_RANDOM


def notes(content: Content) -> list[str]:
    """Whether repetitions agree, what the generator scatters, and where the curve ends."""
    found = [_on_agreement(content)]
    if content["random"] and OTHER in content["above_floor"]:
        found.append(_on_generator(content))
    found.append(_on_limits(content))
    return [f"Repetitions: {sentence}" for sentence in found if sentence]


def _on_agreement(content: Content) -> str:
    above = content["above_floor"].get(SAME)
    if above is None:
        return "there is one test picture alone, so that nothing tells agreement from pictures that are all alike."
    metric = first_metric(above)
    if metric is None:
        return ""
    alike, unlike, open_ = by_verdict(above)
    agreement = content["agreement"]
    figures = (
        f"reconstructions of two repetitions score {value(agreement[SAME].get(metric.name))} in {metric.label} against "
        f"each other, those of two different stimuli{' from the same noise' if content['random'] else ''} "
        f"{value(agreement[SAME_FLOOR].get(metric.name))} ({content['items']} items)"
    )
    count = len(alike) + len(unlike) + len(open_)
    if not alike:
        return (
            f"{figures}. In none of {count} metrics do repetitions agree beyond doubt more than different stimuli do: "
            "with so many stimuli, nothing shows that the pictures follow what is repeatable in the responses."
        )
    return (
        f"{figures}. They agree beyond doubt more than different stimuli in {len(alike)} of {count} metrics, each of "
        f"them by itself ({labels(alike)}): what was shown moves the pictures reproducibly, which is not yet right."
    )


def _limit(content: Content) -> str:
    """That repetitions of a stimulus do not give like pictures."""
    alike, unlike, open_ = by_verdict(content["above_floor"].get(SAME) or {})
    if alike or not (unlike or open_):
        return ""
    return "nothing shows that repetitions of a picture are reconstructed alike (repetitions)"


def _on_generator(content: Content) -> str:
    metric = first_metric(content["above_floor"][OTHER])
    if metric is None or AGAIN not in content["agreement"]:
        return ""
    again = value(content["agreement"][AGAIN].get(metric.name))
    other, same = (value(content["agreement"][name].get(metric.name)) for name in (OTHER, SAME))
    return (
        f"the very same response drawn twice from different noise scores {again} in {metric.label} against itself; two "
        f"repetitions score {same} from the same and {other} from different noise. How far the first of these is "
        "from equal pictures is the generator's scatter, which no better response removes."
    )


def _on_limits(content: Content) -> str:
    curve, limits = content["curve"], content["limits"]
    metric = first_metric({name: {} for name in limits})
    if metric is None:
        return ""
    most = list(curve)[-1]
    last, found = curve[most].get(metric.name), limits[metric.name]
    if found.get("value") is None:
        text = f"no limit is stated for {metric.label}: {found['refused']}."
    else:
        text = (
            f"{metric.label} is {value(last)} with {most} averaged repetitions; the fitted curve ends at about "
            f"{value(found)}, which is not measured. What is missing beyond that is the decoder's and the generator's, "
            "and no further repetition of the test stimuli would bring it."
        )
        truth = (content.get("noise_free") or {}).get(metric.name)
        if truth is not None:
            text += f" Simulated responses without noise score {value(truth)}."
    refused = [each for each in measured({name: {} for name in limits}) if limits[each.name].get("value") is None]
    others = [each for each in refused if each.name != metric.name]
    return text + (f" No limit could be told of {len(others)} of {len(limits) - 1} other metrics." if others else "")


def plot(content: Content, axes: "Axes") -> None:
    """The first metric against the number of averaged repetitions, and where its curve ends."""
    metric = first_metric(content["single"])
    if metric is None:
        return
    numbers = np.array([int(number) for number in content["curve"]])
    figures = [each.get(metric.name) for each in content["curve"].values()]
    if any(figure is None for figure in figures):
        return
    places = np.log2(numbers)
    bars = np.array([error_bar(each) for each in figures]).T
    axes.errorbar(places, [each["value"] for each in figures], yerr=bars, fmt="o-", color=COLOURS[0], label="measured")
    ticks = dict(zip(places.tolist(), map(str, numbers), strict=True))
    found = content["limits"].get(metric.name, {})
    if found.get("value") is not None:
        end = float(places[-1]) + 1.2
        _plot_limit(found, metric, numbers, end, axes)
        ticks[end] = "∞"
    noise_free = (content.get("noise_free") or {}).get(metric.name)
    if noise_free is not None:
        axes.axhline(noise_free["value"], color=COLOURS[2], linestyle=":", label="without noise (simulated)")
    axes.set_xticks(list(ticks), list(ticks.values()))
    axes.set_xlabel("averaged repetitions")
    axes.set_ylabel(with_direction(metric))
    axes.legend(loc="lower right" if metric.higher_is_better else "upper right")


def _plot_limit(
    found: Mapping[str, Any], metric: MetricOfScores, numbers: np.ndarray, end: float, axes: "Axes"
) -> None:
    """The fitted curve, and at `end` where it ends."""
    limited = Limit(
        found["value"], tuple(found["ci95"]), found["form"], found["noise"], found["residual"], found["stimuli"]
    )
    fine = np.geomspace(numbers[0], numbers[-1] * 2, 60)
    curve = fitted_score(fine, limited, metric, found.get("chance"))
    axes.plot(np.log2(fine), curve, "--", color=COLOURS[4], label="fitted curve")
    low, high = error_bar(found)
    bars = [[low], [high]]
    axes.errorbar(end, found["value"], yerr=bars, fmt="o", mfc="none", color=COLOURS[4], label="its end, not measured")


REPETITIONS = AuditPart(
    name="repetitions",
    label="repetitions",
    question="How far do reconstructions of repetitions of a stimulus agree, and what would more repetitions bring?",
    measure=measure,
    content=content,
    tables=tables,
    notes=notes,
    schema=_Repetitions,
    plot=plot,
    limit=_limit,
)
