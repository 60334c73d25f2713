"""What people's answers say in sentences and tables."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ...names import listed
from ..named_metrics import PeopleTwoWay, get_metric
from ..table import Table

# Below this people choose the same way so seldom that a share of right answers is hardly one of people.
_LITTLE_AGREEMENT = 0.2


def people_notes(people: Mapping[str, Any], brain: Mapping[str, Mapping[str, Any] | None]) -> list[str]:
    """What a reviewer has to know of the figures.

    Args:
        people: As report.json has it.
        brain: Results of the row `brain`.
    """
    return [
        *_on_raters(people),
        *_on_share(people, brain.get(PeopleTwoWay.name)),
        *_on_rows(brain),
        *_on_agreement(people),
    ]


def _on_raters(people: Mapping[str, Any]) -> Iterator[str]:
    raters: Mapping[str, Mapping[str, Any]] = people["raters"]
    out = [name for name, each in raters.items() if not each["counts"]]
    rule = (
        f"{people['catch_needed']} of {people['catch_trials']} catch trials right, which was fixed with the pack; who "
        f"guesses passes with a chance of {people['guessers_pass']:.1%}"
    )
    if out:
        named = f"{len(out)} of {len(raters)} raters ({listed(out, 10)}) are" if len(out) > 1 else (
            f"The rater {listed(out)} (of {len(raters)}) is"
        )  # fmt: skip
        yield f"{named} left out by the rule that a rater counts with {rule}."
    else:
        number = "The one rater counts" if len(raters) == 1 else f"All {len(raters)} raters count"
        yield f"{number} by the rule for raters: {rule}."
    if sum(each["counts"] for each in raters.values()) == 1:
        yield (
            "people_two_way is of one rater: its interval is for other stimuli, and says nothing of other people; no "
            "agreement is known."
        )


def _on_share(people: Mapping[str, Any], found: Mapping[str, Any] | None) -> Iterator[str]:
    if found is None:
        return
    bounds = found.get("ci95")
    if bounds is None:
        yield (
            f"people_two_way has no interval: its stimuli share pictures with each other in {people['groups']} "
            "separate groups, and so few tell nothing of how far others would scatter."
        )
    elif bounds[0] > 0.5:
        yield (
            f"People told the reconstruction of what was shown from another stimulus' in {found['value']:.1%} of the "
            f"choices (at least {bounds[0]:.1%}, chance 50 %). That is more than luck; it does not say that what they "
            "went by is more than colour or layout."
        )
    elif bounds[1] < 0.5:
        yield f"People chose the wrong reconstruction more often than luck would ({found['value']:.1%} right)."
    else:
        yield (
            f"People's choices ({found['value']:.1%} right) are compatible with guessing: to them the reconstructions "
            "do not show beyond doubt what was seen."
        )
    if people["same_pictures"]:
        yield (
            f"{people['same_pictures']} of {people['trials']} trials had twice the same picture and were not shown; "
            "they count one half in people_two_way."
        )


def _on_rows(brain: Mapping[str, Mapping[str, Any] | None]) -> Iterator[str]:
    for name, found in brain.items():
        if not name.startswith("people_over_") or not found:
            continue
        row, bounds = name.removeprefix("people_over_"), found.get("ci95")
        if bounds is None or bounds[0] <= 0.5 <= bounds[1]:
            yield (
                f"Beside {row}, people took the brain row's picture for the one more like in {found['value']:.1%} of "
                "the choices, which is not beyond doubt more or less than half."
            )
        elif bounds[1] < 0.5:
            yield (
                f"People find {row} more like what was shown than the brain row ({1 - found['value']:.1%} of the "
                "choices): by their eyes the reconstruction is not better than this row."
            )


def _on_agreement(people: Mapping[str, Any]) -> Iterator[str]:
    agreement = people.get("agreement")
    alpha = agreement["choices"]["alpha"] if agreement else None
    if alpha is not None and alpha < _LITTLE_AGREEMENT:
        yield (
            f"The raters hardly agree (Krippendorff's alpha {alpha:.2f}; 1 is full agreement, 0 what guessing gives): "
            "what one of them chooses says little of what another would."
        )


def people_tables(people: Mapping[str, Any]) -> Iterator[Table]:
    """The tables of a report's page."""
    if not people:
        return
    yield _raters_table(people)
    if people.get("agreement"):
        yield _agreement_table(people["agreement"])
    if people.get("metrics"):
        yield _metrics_table(people["metrics"])
    if people.get("scores"):
        yield _scores_table(people["scores"])


def _raters_table(people: Mapping[str, Any]) -> Table:
    lines = [
        [
            name,
            "yes" if each["counts"] else "no",
            "–" if each["right"] is None else f"{each['right']:.3f}",
            f"{each['catch_right']} of {each['catch_trials']}",
            f"{each['repeated_alike']} of {each['repeated_trials']}",
            f"{each['left_chosen']:.2f}",
            f"{each['median_seconds']:.1f}",
        ]
        for name, each in people["raters"].items()
    ]
    caption = (
        "Who answered the trials of the rater pack. Right: share of trials in which the reconstruction of what was "
        "shown was chosen, and not that of another stimulus. Catch trials have the shown picture itself among the two; "
        f"{people['catch_needed']} right ones are needed to count. Repeated trials came a second time with exchanged "
        "sides."
    )
    header = ["rater", "counts", "right", "catch trials right", "repeated alike", "left chosen", "seconds a choice"]
    return Table("People: raters", caption, header, lines)


def _agreement_table(agreement: Mapping[str, Any]) -> Table:
    lines = [["two raters choose the same picture", f"{agreement['same_choice']:.3f}", "0.500"]]
    for name, label in (
        ("choices", "alpha of choices"),
        ("which_are_right", "alpha of which trials are chosen right"),
    ):
        alpha, bounds = agreement[name]["alpha"], agreement[name].get("ci95")
        shown = (
            "–" if alpha is None else f"{alpha:.3f}" + ("" if bounds is None else " [{:.3f}, {:.3f}]".format(*bounds))
        )
        lines.append([label, shown, "0.000"])
    caption = (
        f"Of {agreement['raters']} raters in {agreement['trials']} trials. Alpha is Krippendorff's: 1 for full "
        "agreement, 0 for guessing. The first is of which picture was chosen; the second is low, too, where nearly all "
        "choices are right, for there is little left to agree about. Intervals are for other stimuli."
    )
    return Table("People: agreement between raters", caption, ["", "value", "by guessing"], lines)


def _metrics_table(metrics: Mapping[str, Any]) -> Table:
    lines = [
        [
            get_metric(name).label,
            f"{each['right']:.3f}",
            _cell(each["same_choice"]["value"], each["same_choice"].get("ci95")),
            _cell(each["correlation"], each.get("correlation_ci95")),
        ]
        for name, each in metrics.items()
    ]
    caption = (
        "Each metric chooses in the very trials that people were shown: the picture that it finds nearer to the shown "
        "one. Right: share of trials in which that is the own one. As people: share of people's choices that are the "
        "metric's, too; a metric that is always right has people's own share of right choices there, and two raters "
        "have no more than the table above says. Rank correlation over trials of the share of people who were right "
        "with whether the metric was; a dash where one of them is always right or always wrong."
    )
    return Table("People beside metrics", caption, ["metric", "right", "as people", "rank correlation"], lines)


def _scores_table(scores: Mapping[str, Any]) -> Table:
    lines = [
        [get_metric(name).label, _cell(each["correlation"], each.get("correlation_ci95")), str(each["stimuli"])]
        for name, each in scores.items()
    ]
    caption = (
        "Are people right about those pictures whose scores are good? Rank correlation over the trials' stimuli of the "
        "share of people who chose the own reconstruction with its score in each metric (turned so that more is "
        "better). Where nearly everybody is right, or nobody, it is near 0 whatever the metric is worth."
    )
    return Table("People beside scores", caption, ["metric", "rank correlation", "stimuli"], lines)


def _cell(value: float | None, bounds: Sequence[float] | None) -> str:
    if value is None:
        return "–"
    return f"{value:.3f}" + ("" if bounds is None else " [{:.3f}, {:.3f}]".format(*bounds))
