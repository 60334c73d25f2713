"""The tables of a report page, and the cells of every table of scores."""

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from .attention_figure import attention_figure
from .audit import audit_tables
from .bootstrap import FEWEST_STIMULI
from .named_metrics import Metric
from .raters.notes import people_tables
from .report import Report
from .report_facts import in_words, metric_label
from .split_gap_words import gap_tables
from .table import Table

_MOST_PAIRS_SHOWN = 50
# Of subjects; report.json has all.
_MOST_SYNTHESIS_SHOWN = 12
# Metrics of an earlier look that its line names.
_MOST_OF_A_LOOK = 3
_SYNTHESIS_ROWS = {
    "synthetic": "synthetic",
    "target": "the second's own",
    "source": "the first's own",
    "untranslated": "the first's, as if the second's",
}
_SYNTHESIS_SCORES = ("top1", "two_way", "cosine", "voxel_correlation", "pattern_correlation")


def tables(report: Report) -> list[Table]:
    """All tables of a report's page, as far as it has something for them."""
    found = [scores_table(report)]
    if report.comparisons:
        found.append(_comparisons_table(report))
    if report.permutation:
        found.append(_permutation_table(report))
    if len(report.per_subject) > 1:
        found.append(_subjects_table(report))
    if report.repetition_curve.get("results"):
        found.append(_curve_table(report))
    if report.missing_rows:
        found.append(_missing_rows_table(report))
    found += _attention_tables(report)
    found += guide_tables(report)
    found += _synthesis_tables(report)
    found += gap_tables(report.split_gap)
    found += people_tables(report.people)
    found += audit_tables(report.audit)
    found += _near_copies_tables(report)
    if report.looks:
        found.append(_looks_table(report))
    return found


def scores_table(report: Report, with_interval: bool = True) -> Table:
    """Every row in every metric."""
    header = ["metric", "chance", *(report.row(row)["label"] for row in report.results)]
    lines = [
        [
            metric_cell(metric),
            chance_cell(report, metric.name),
            *(value_cell(row.get(metric.name), with_interval) for row in report.results.values()),
        ]
        for metric in report.metrics()
    ]
    return Table("All rows", scores_caption(report), header, lines, is_folded=True)


def scores_caption(report: Report) -> str:
    """What the values, intervals and signs of a report's tables are."""
    means = (
        "Mean over stimuli with its 95 % interval in brackets. The interval is exact for scores of 0 and 1 with one "
        "item a stimulus, and else the wider one of Student's t and a BCa bootstrap over the stimuli's mean scores; "
        f"fewer than {FEWEST_STIMULI} stimuli have none."
    )
    if not any(result and "stimuli" in result for row in report.results.values() for result in row.values()):
        # As versions before this one had it.
        means = "Mean over items with the 95 % interval over stimuli (percentile bootstrap) in brackets."
    return (
        f"{means} The arrow says which direction is better; chance is what guessing scores, where that is known "
        "without the pictures. A dash means that there is no such number."
    )


def chances(report: Report) -> dict[str, float]:
    """What guessing scores in the metrics where that is known."""
    metrics = report.protocol.get("metrics", [])
    return {info["name"]: info["chance"] for info in metrics if info.get("chance") is not None}


def metric_cell(metric: Metric) -> str:
    """A metric in a table, with its direction."""
    return f"{metric.label} {'↑' if metric.higher_is_better else '↓'}"


def chance_cell(report: Report, metric: str) -> str:
    """Chance of a metric in a table."""
    found = chances(report).get(metric)
    return "–" if found is None else f"{found:.3f}"


def value_cell(found: Mapping[str, Any] | None, with_interval: bool = True) -> str:
    """A row's value in a metric in a table; a dash where it has none."""
    if not found or found.get("value") is None:
        return "–"
    bounds = " [{:.3f}, {:.3f}]".format(*found["ci95"]) if with_interval and found.get("ci95") else ""
    return f"{found['value']:.3f}{bounds}"


def difference_cell(found: Mapping[str, Any] | None) -> str:
    """A paired difference in a table."""
    if not found:
        return "–"
    bounds = "" if not found.get("ci95") else " [{:+z.3f}, {:+z.3f}]".format(*found["ci95"])
    return f"{found['difference']:+z.3f}{bounds}"


def _comparisons_table(report: Report) -> Table:
    header = ["metric", *(report.row(row)["label"] for row in report.comparisons)]
    lines = [
        [metric.label, *(difference_cell(row.get(metric.name)) for row in report.comparisons.values())]
        for metric in report.metrics()
    ]
    caption = "Paired difference of the brain row and each other row on the same items; positive means brain is better."
    return Table("The brain row against the others", caption, header, lines, is_folded=True)


def _permutation_table(report: Report) -> Table:
    header = ["metric", "true pairing", "other pairings", "p", "chance by counting"]
    lines = [
        [
            metric.label,
            value_cell(report.results.get("brain", {}).get(metric.name), with_interval=False),
            f"{found['mean']:.3f} ± {found['sd']:.3f}",
            f"{found['p']:.3f}",
            chance_cell(report, metric.name),
        ]
        for metric in report.metrics()
        if (found := report.permutation.get(metric.name))
    ]
    return Table("Permutation test", _permutation_caption(report), header, lines)


def _permutation_caption(report: Report) -> str:
    tests = report.permutation.values()
    count = max(found["n"] for found in tests)
    smallest = max(found.get("smallest_p") or 1 / (1 + found["n"]) for found in tests)
    if all(found.get("exhaustive") for found in tests):
        pairings = (
            "No stimulus has another one that it could be exchanged with"
            if count == 1
            else f"The finished reconstructions of the brain row in all {count} pairings with the stimuli, the true "
            "one among them"
        )
    else:
        pairings = f"The finished reconstructions of the brain row paired with the stimuli at random, {count} times"
    if inside := report.protocol.get("exchange_within"):
        pairings += f", inside a {inside} alone"
    return (
        f"{pairings}. All items of a stimulus go to the same other one. p is the share of pairings that are as good as "
        f"the true one; with so many it can't be below {smallest:.3f}."
    )


def _subjects_table(report: Report) -> Table:
    brain_rows = [rows.get("brain", {}) for rows in report.per_subject.values()]
    over = report.over_subjects.get("brain", {})
    lines = [
        [
            metric.label,
            chance_cell(report, metric.name),
            *(value_cell(row.get(metric.name), with_interval=False) for row in brain_rows),
            _over_subjects_cell(over.get(metric.name)),
        ]
        for metric in report.metrics()
    ]
    header = ["metric", "chance", *report.per_subject, "mean of subjects"]
    caption = "The brain row of each subject, and the mean and standard deviation of the subjects' values."
    return Table("Subjects", caption, header, lines)


def _over_subjects_cell(found: Mapping[str, Any] | None) -> str:
    return "–" if not found else f"{found['value']:.3f} ± {found['sd']:.3f}"


def _curve_table(report: Report) -> Table:
    curve = report.repetition_curve
    lines = [
        [metric_cell(metric), *(value_cell(found.get(metric.name)) for found in curve["results"].values())]
        for metric in report.metrics()
        if any(found.get(metric.name) for found in curve["results"].values())
    ]
    left_out = f"; {curve['left_out']} others have fewer repetitions" if curve["left_out"] else ""
    caption = (
        "The brain row with the first so many repetitions of a stimulus averaged before the model sees them, on the "
        f"same {curve['items']} items{left_out}."
    )
    return Table("Averaged repetitions", caption, ["metric", *curve["results"]], lines)


def _missing_rows_table(report: Report) -> Table:
    labels: dict[str, list[str]] = {}
    for row, reason in report.missing_rows.items():
        labels.setdefault(reason, []).append(report.row(row)["label"])
    lines = [["; ".join(names), reason] for reason, names in labels.items()]
    return Table("Rows that are missing", "Rows that other reports have.", ["rows", "why"], lines)


def _attention_tables(report: Report) -> Iterator[Table]:
    known = {subject: each for subject, each in report.attention.items() if each.get("layers")}
    for subject, attention in known.items():
        layers = attention["layers"]
        count = f"{len(layers)} layers" if len(layers) > 1 else "the layer"
        caption = (
            "Chance is the ROI's share of a pattern's columns, which is what even attention would give it; received is "
            "its share of the attention that a pattern's tokens, each of neighbouring columns, give to each other, "
            f"mean over heads, {count} and {attention['items']} test items; the other columns are how many times "
            "chance that is. Attention is not importance: it says where the model reads, not what its reconstructions "
            "depend on, and deeper layers read tokens that are mixed of several ROIs already."
        )
        header = ["ROI", "voxels", "chance", "received", "times chance", "first layer", "last layer"]
        title = "Attention by ROI" + (f": {subject}" if len(known) > 1 else "")
        yield Table(title, caption, header, _attention_lines(attention), attention_figure(attention))


def _attention_lines(attention: Mapping[str, Any]) -> list[list[str]]:
    layers = attention["layers"]
    lines = []
    for place, (roi, voxels, chance) in enumerate(
        zip(attention["rois"], attention["voxels"], attention["chance"], strict=True)
    ):
        received = sum(layer["received"][place] for layer in layers) / len(layers)
        ratios = [sum(layer["ratio"][place] for layer in layers) / len(layers)]
        ratios += [layers[end]["ratio"][place] for end in (0, -1)]
        shares = [f"{chance:.3f}", f"{received:.3f}"]
        lines.append([roi, f"{voxels:g}", *shares, *(f"{ratio:.2f}" for ratio in ratios)])
    return lines


def guide_tables(report: Report) -> Iterator[Table]:
    """Decoded layers one by one, beside those decoded of exchanged patterns."""
    if not report.guides:
        return
    names = ("guide_identification", "guide_pattern_correlation")
    have_categories = any(found.get("category_identification") for found in report.guides.values())
    # A wide table is broken where a terminal ends, so that each control says whose it is.
    header = ["layer", "units", "identification", "identification, exchanged", "re-paired", "p"]
    for value in ("r by pattern", "r by unit", *(["category"] if have_categories else [])):
        header += [value, f"{value}, exchanged"]
    lines = []
    for guide, found in report.guides.items():
        brain, exchanged = (found["results"].get(row, {}) for row in ("brain", "shuffled_brain"))
        test = found["permutation"].get(names[0])
        by_unit, category = found.get("profile_correlation", {}), found.get("category_identification", {})
        line = [
            guide,
            f"{found['units']:,}",
            value_cell(brain.get(names[0])),
            value_cell(exchanged.get(names[0]), False),
        ]
        line += ["–", "–"] if not test else [f"{test['mean']:.3f} ± {test['sd']:.3f}", f"{test['p']:.3f}"]
        line += [value_cell(brain.get(names[1])), value_cell(exchanged.get(names[1]), False)]
        rows = ("brain", "shuffled_brain")
        line += [_figure_cell(by_unit.get(row)) for row in rows]
        line += [_figure_cell(category.get(row)) for row in rows] if have_categories else []
        lines.append(line)
    caption = (
        "Identification: share of the other tested pictures whose layer is less like the decoded one (chance 0.5), and "
        "the same of re-paired items with its p. r by pattern: over units, each standardised by training pictures; r "
        "by unit: over items, mean of units. Exchanged: decoded from patterns that belong to another picture, one "
        "draw from the seed."
    )
    if have_categories:
        caption += (
            " Category: share of the other categories whose mean layer over training pictures is not more like what "
            "was decoded on average of the category's items (chance 0.5)."
        )
    yield Table("Decoded layers", caption, header, lines)


def _synthesis_tables(report: Report) -> Iterator[Table]:
    if not report.synthesis:
        return
    shown = dict(list(report.synthesis.items())[:_MOST_SYNTHESIS_SHOWN])
    lines = [
        [pair, _SYNTHESIS_ROWS.get(row, row), *map(_figure_cell, map(scores.get, _SYNTHESIS_SCORES))]
        for pair, rows in shown.items()
        for row, scores in rows.items()
    ]
    caption = (
        "Responses of one subject to test pictures that were turned into responses of another, and what is decoded of "
        "them with the other's layers, by the embeddings of these pictures (chance of top-1 is one in their number, of "
        "two-way one half). Beside them: the other's own responses, those of the first decoded with its own layers, "
        "and, as the floor, those of the first decoded as if they were the other's. r is the mean correlation of "
        f"synthetic responses with the other's own. {len(shown)} of {len(report.synthesis)} pairs."
    )
    header = ["subjects", "responses", "top-1", "two-way", "cosine", "r by voxel", "r by pattern"]
    yield Table("Synthetic responses", caption, header, lines)


def _figure_cell(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _near_copies_tables(report: Report) -> Iterator[Table]:
    pairs = report.near_copies.get("pairs", [])
    if not pairs:
        return
    lines = [
        [
            str(pair["stimulus"]),
            str(pair["copy_of"]),
            str(pair["fold"]),
            f"{pair['correlation']:.4f}",
            ", ".join(word for word in ("mirrored", "cropped") if pair.get(word)) or "–",
        ]
        for pair in pairs[:_MOST_PAIRS_SHOWN]
    ]
    caption = (
        "Test pictures that show nearly the same as one that was learned from or chosen by (r is the correlation of "
        f"the pixels); {len(pairs)} in all."
    )
    yield Table("Near copies", caption, ["tested", "nearly", "fold", "r", "changed"], lines)
    without = report.near_copies.get("results_without")
    if without is not None:
        brain = report.results.get("brain", {})
        lines = [
            [metric.label, value_cell(brain.get(metric.name)), value_cell(without.get(metric.name))]
            for metric in report.metrics()
        ]
        header = ["metric", "all items", "without near copies"]
        yield Table("The brain row without near copies", "Only these are of unseen pictures.", header, lines)


def _looks_table(report: Report) -> Table:
    lines = [
        [
            _minute(str(look.get("time", ""))),
            str(look.get("split", "")),
            str(look.get("commit") or "–")[:12],
            _looked_with(look.get("config")),
            _looked_score(report, look.get("score") or {}),
        ]
        for look in report.looks
    ]
    number = "One evaluation" if len(report.looks) == 1 else f"{len(report.looks)} evaluations"
    caption = f"{number} of these test trials, or of some of them, before this one."
    header = ["time", "test split", "commit", "with", "score"]
    return Table("Earlier looks at the test split", caption, header, lines)


def _minute(time: str) -> str:
    """A time of the log of looks to the minute, as people write it; anything else as it is."""
    try:
        found = datetime.fromisoformat(time)
    except ValueError:
        return time
    return f"{found:%Y-%m-%d %H:%M}{' UTC' if found.utcoffset() == timedelta(0) else ''}"


def _looked_score(report: Report, score: Mapping[str, Any]) -> str:
    """A few scores of an earlier look, in the order and by the labels of other tables; report.json has all."""
    names = list(dict.fromkeys([*(metric.name for metric in report.metrics() if metric.name in score), *score]))
    shown = [f"{metric_label(name)} {_figure_cell(score[name])}" for name in names[:_MOST_OF_A_LOOK]]
    further = len(score) - len(shown)
    return ", ".join([*shown, *([f"{further} more"] if further > 0 else [])]) or "–"


def _looked_with(config: Any) -> str:
    """What an earlier look was taken with: of its recipe the method alone."""
    if not isinstance(config, Mapping) or not isinstance(config.get("recipe"), Mapping):
        return in_words(config)
    return in_words({**config, "recipe": config["recipe"].get("method")})
