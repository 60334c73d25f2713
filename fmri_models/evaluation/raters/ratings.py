"""What the answers of raters say of a report: a metric of its own, with the agreement between raters."""

import csv
import io
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import FmriModelsError
from ...names import csv_cell, one_line
from ...saving import merged_folder, write_text
from ...swapping import RATER_ANSWERS_FILE
from ..bootstrap import WIDENING_OF_FOLDS
from ..items_file import brain_items_of
from ..named_metrics import PeopleOver, PeopleTwoWay, get_metric
from ..report import REPORT_FILE, Report
from ..report_folder import ANSWERS_HEADER
from ..report_pages import of_items, to_html, to_markdown
from .answers import RaterAnswers, read_all_answers
from .key import Key, KeyTrial
from .notes import people_notes
from .statistics import chance_to_pass, crossed_interval, krippendorff_alpha, over_stimuli, rank_correlation

# Metric ▶ subject and stimulus ▶ scores of the row `brain`.
Items = Mapping[str, Mapping[tuple[str, str], Sequence[float]]]


def add_ratings(
    out: str | PathLike, key_file: str | PathLike, answers: Sequence[str | PathLike], overwrite: bool = False
) -> Report:
    """Adds what people have answered to the report that their pack was made with.

    Args:
        out: Folder of the report.
        key_file: The key of the pack.
        answers: Files of the raters, or folders with them.
        overwrite: Take the place of answers that the report has already.

    Returns:
        The report, in which the row `brain` has `people_two_way`, and `people` says the rest. `rater_answers.csv`
        beside it has every answer.

    Raises:
        FmriModelsError: The key is of another report, a file of answers can't be taken (see [`read_all_answers`]), or
            no rater has passed the catch trials.
    """
    key, report = Key.load(key_file), Report.load(out)
    if report.items_sha256 != key.items_sha256:
        raise FmriModelsError(
            f"The report in {one_line(out)} is not the one that the pack of {one_line(key_file)} was made with (its "
            "items.parquet is another); give the folder of that report as --out."
        )
    if report.people and not overwrite:
        raise FmriModelsError(
            f"The report in {one_line(out)} has answers of people already; give all files at once and add --overwrite."
        )
    raters = read_all_answers(answers, key)
    if not raters:
        raise FmriModelsError("There are no answers; give the files that raters have downloaded from the page.")
    folds = len(report.data.get("folds") or [])
    rated = RatedTrials(key, raters, WIDENING_OF_FOLDS if folds > 1 else 1.0)
    if not rated.counting:
        raise FmriModelsError(
            f"None of {len(raters)} raters was right in {key.catch_needed} catch trials or more, so that no answers "
            "count. Were the pictures to be seen at all?"
        )
    _add(report, rated, brain_items_of(report) or {})
    folder = Path(out) if Path(out).is_dir() else Path(out).parent
    grid = folder / "grid.png"
    page = folder / "report.html"
    earlier = page.read_text(encoding="utf-8", errors="replace") if page.is_file() else ""
    with merged_folder(folder) as partial:
        write_text(partial / RATER_ANSWERS_FILE, rated.to_csv())
        (partial / "report.md").write_text(to_markdown(report, grid.is_file()), encoding="utf-8")
        (partial / "report.html").write_text(to_html(report, kept=of_items(earlier)), encoding="utf-8")
        report.save(partial / REPORT_FILE)
    return report


class RatedTrials:
    """The trials of a pack with the answers of its raters.

    Args:
        key: Of the pack.
        raters: Their answers, all of them complete.
        widening: How much farther than for independent stimuli the bounds of intervals are from the means.
    """

    def __init__(self, key: Key, raters: Sequence[RaterAnswers], widening: float = 1.0) -> None:
        self.key = key
        self.widening = widening
        self.raters = list(raters)
        self.about = {each.rater: self._about(each) for each in raters}
        self.counting = [each for each in raters if self.about[each.rater]["counts"]]

    def trials(self, kind: str, row: str | None = None) -> list[KeyTrial]:
        """Those of a kind, with those that nobody was shown."""
        return [each for each in self.key.trials if each.kind == kind and row in (None, each.row)]

    def own_chosen(self, trials: Sequence[KeyTrial]) -> np.ndarray:
        """(raters that count, trials) 1 where the own picture was chosen, 0 where not, .5 where both are the same."""
        return np.array([[_own_chosen(rater, each) for each in trials] for rater in self.counting])

    def share(self, trials: Sequence[KeyTrial]) -> dict[str, Any]:
        """Mean, interval and numbers, as a report has them."""
        values = self.own_chosen(trials)
        bounds = crossed_interval(values, [each.group for each in trials], widening=self.widening)
        return {
            "value": float(values.mean()),
            "ci95": None if bounds is None else list(bounds),
            "n": values.size,
            "stimuli": len({each.stimulus for each in trials}),
        }

    def agreement(self, trials: Sequence[KeyTrial]) -> dict[str, Any] | None:
        """How far raters choose the same picture; None for one of them.

        A picture's name is whether it is the first or the second of its trial, which was drawn: so both are equally
        frequent, and alpha is 0 for who guesses, however often people are right.
        """
        shown = [each for each in trials if each.id is not None]
        if len(self.counting) < 2 or not shown:
            return None
        own = self.own_chosen(shown)
        first = np.where([each.own_first for each in shown], own, 1 - own)
        groups = [each.group for each in shown]
        found: dict[str, Any] = {"raters": len(own), "trials": len(shown)}
        counts = own.sum(0)
        pairs = len(own) * (len(own) - 1)
        found["same_choice"] = float(
            ((counts * (counts - 1) + (len(own) - counts) * (len(own) - counts - 1)) / pairs).mean()
        )
        for name, values in (("choices", first), ("which_are_right", own)):
            alpha = krippendorff_alpha(values)
            bounds = over_stimuli(lambda at, values=values: krippendorff_alpha(values[:, at]), groups)  # type: ignore[misc]
            found[name] = {"alpha": alpha, "ci95": None if bounds is None or alpha is None else list(bounds)}
        return found

    def beside_metrics(self, trials: Sequence[KeyTrial]) -> dict[str, Any]:
        """Metric ▶ how far its choices in the same trials are people's."""
        shown = [each for each in trials if each.id is not None]
        found = {}
        for metric in dict.fromkeys(name for each in shown for name in each.chosen_by):
            known = [each for each in shown if metric in each.chosen_by]
            theirs = np.array([each.chosen_by[metric] for each in known])
            own = self.own_chosen(known)
            same = 1 - np.abs(own - theirs)
            groups = [each.group for each in known]
            bounds = crossed_interval(same, groups, widening=self.widening)
            share = own.mean(0)
            ranked = over_stimuli(lambda at, a=share, b=theirs: rank_correlation(a[at], b[at]), groups)  # type: ignore[misc]
            correlation = rank_correlation(share, theirs)
            found[metric] = {
                "right": float(theirs.mean()),
                "same_choice": {
                    "value": float(same.mean()),
                    "ci95": None if bounds is None else list(bounds),
                    "n": same.size,
                    "stimuli": len({each.stimulus for each in known}),
                },
                "correlation": correlation,
                "correlation_ci95": None if ranked is None or correlation is None else list(ranked),
            }
        return found

    def beside_scores(self, trials: Sequence[KeyTrial], items: Items) -> dict[str, Any]:
        """Metric ▶ whether people are right where the scores of the same reconstructions are good."""
        shown = [each for each in trials if each.id is not None]
        found = {}
        for metric, scores in items.items():
            described = get_metric(metric)
            known = [each for each in shown if (each.subject, each.stimulus) in scores]
            if described.of_whole_set or not known:
                continue
            means = np.array([np.mean(scores[each.subject, each.stimulus]) for each in known])
            good = means if described.higher_is_better else -means
            share = self.own_chosen(known).mean(0)
            correlation = rank_correlation(share, good)
            ranked = over_stimuli(
                lambda at, a=share, b=good: rank_correlation(a[at], b[at]),  # type: ignore[misc]
                [each.group for each in known],
            )
            found[metric] = {
                "correlation": correlation,
                "correlation_ci95": None if ranked is None or correlation is None else list(ranked),
                "stimuli": len({each.stimulus for each in known}),
            }
        return found

    def to_csv(self) -> str:
        """Every answer in a line."""
        file = io.StringIO()
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(ANSWERS_HEADER)
        shown = self.key.shown
        for rater in self.raters:
            counts = "yes" if self.about[rater.rater]["counts"] else "no"
            for place, answer in enumerate(rater.answers, start=1):
                trial = shown[answer.trial]
                texts = [csv_cell(text) for text in (trial.subject, trial.stimulus, trial.other, trial.row)]
                own = int(answer.chosen == trial.own)
                about = [csv_cell(rater.rater), counts, place, trial.kind]
                writer.writerow([*about, *texts, own, answer.side, answer.milliseconds])
        return file.getvalue()

    def _about(self, rater: RaterAnswers) -> dict[str, Any]:
        catch = self.trials("catch")
        right = int(sum(_own_chosen(rater, each) for each in catch))
        repeated = self.trials("repeat")
        shown = self.key.shown
        same = sum(_own_chosen(rater, each) == _own_chosen(rater, shown[str(each.again)]) for each in repeated)
        asked = [each for each in self.trials("own_or_other") if each.id is not None]
        return {
            "counts": right >= self.key.catch_needed,
            "right": float(np.mean([_own_chosen(rater, each) for each in asked])) if asked else None,
            "catch_right": right,
            "catch_trials": len(catch),
            "repeated_alike": int(same),
            "repeated_trials": len(repeated),
            "left_chosen": float(np.mean([each.side == "left" for each in rater.answers])),
            "median_seconds": float(np.median([each.milliseconds for each in rater.answers])) / 1000,
        }


def _own_chosen(rater: RaterAnswers, trial: KeyTrial) -> float:
    return 0.5 if trial.id is None else float(rater.choices[trial.id].chosen == trial.own)


def _add(report: Report, rated: RatedTrials, items: Items) -> None:
    """Writes the figures into a report, in the place of those of earlier answers."""
    _remove_earlier(report)
    key = rated.key
    identified = rated.trials("own_or_other")
    brain = report.results.setdefault("brain", {})
    metrics: list[Any] = []
    if identified:
        metrics.append(PeopleTwoWay())
        brain[PeopleTwoWay.name] = rated.share(identified)
        _add_subjects(report, rated, identified)
    for row in dict.fromkeys(each.row for each in rated.trials("own_or_row")):
        metrics.append(PeopleOver(row))
        brain[metrics[-1].name] = rated.share(rated.trials("own_or_row", row))
    described = report.protocol.setdefault("metrics", [])
    # First, since people are who reconstructions are for.
    report.protocol["metrics"] = [*(each.described() for each in metrics), *described]
    catch = len(rated.trials("catch"))
    people: dict[str, Any] = {
        "pack": key.pack,
        "catch_trials": catch,
        "catch_needed": key.catch_needed,
        "guessers_pass": chance_to_pass(catch, key.catch_needed),
        "trials": len(identified),
        "same_pictures": sum(each.id is None for each in identified),
        "groups": len({each.group for each in identified}),
        "raters": rated.about,
        "agreement": rated.agreement(identified),
        "metrics": rated.beside_metrics(identified),
        "scores": rated.beside_scores(identified, items),
    }
    people["notes"] = people_notes(people, brain)
    report.people = people
    report.notes = [*people["notes"], *report.notes]


def _remove_earlier(report: Report) -> None:
    earlier = report.people or {}
    report.notes = [note for note in report.notes if note not in earlier.get("notes", [])]
    known = [metric.name for metric in report.metrics() if isinstance(metric, PeopleTwoWay | PeopleOver)]
    for of_subject in ({"brain": report.results.get("brain", {})}, *report.per_subject.values()):
        for name in known:
            of_subject.get("brain", {}).pop(name, None)
    metrics: Sequence[Mapping[str, Any]] = report.protocol.get("metrics", [])
    report.protocol["metrics"] = [each for each in metrics if each["name"] not in known]


def _add_subjects(report: Report, rated: RatedTrials, trials: Sequence[KeyTrial]) -> None:
    for subject, rows in report.per_subject.items():
        own = [each for each in trials if each.subject == subject]
        if own and "brain" in rows:
            values = rated.own_chosen(own)
            rows["brain"][PeopleTwoWay.name] = {"value": float(values.mean()), "n": values.size}
