"""What a report says of the directions of predictions: tables, sentences, a plot."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..rows import get_row
from ..table import Table
from .figures import difference, value
from .part import Content
from .span_schema import REFERENCES

if TYPE_CHECKING:
    from matplotlib.axes import Axes


_NAMES = {
    "predictions": "predictions",
    "truth": "true targets of the same test stimuli",
    "training": "training targets, as many",
}
_WORDS = {
    "image_embeds": "decoded embeddings",
    "latents": "decoded latents",
    "reconstructions": "features of the reconstructions",
}
# What is less than this share is rounding.
_NOTHING = 1e-6


def _name(of_set: str) -> str:
    return _NAMES.get(of_set) or f"predictions of {get_row(of_set).label}"


def _ranks_table(of: Content) -> Table:
    lines = []
    for name in ("predictions", "truth", "training", *REFERENCES):
        if name not in of["ranks"]:
            continue
        rank, ratio = of["ranks"][name], of["ratios"].get(name)
        figures = ["–", "–"] if rank is None else [f"{rank['participation']:.1f}", f"{rank['entropy']:.1f}"]
        lines.append([_name(name), *figures, _ratio(ratio)])
    caption = (
        f"In how many directions vectors of {_span(of['pictures'])} test stimuli vary: by the participation ratio "
        "(Σλ)²/Σλ² and by exp of the entropy of λ/Σλ, where λ are the eigenvalues of their covariance. Both depend on "
        "how many vectors there are, so that all lines have as many, and noise raises them: predictions of ridge on "
        "exchanged pairs are noise alone. The last column is how many times as many directions the predictions have by "
        "the participation ratio, with the 95 % interval of a jackknife over groups of stimuli."
    )
    return Table("Span: effective rank", caption, ["", "participation", "entropy", "predictions over it"], lines)


def _ratio(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "–"
    bounds = "" if found["ci95"] is None else " [{:.2f}, {:.2f}]".format(*found["ci95"])
    return f"{found['ratio']:.2f}{bounds}"


def _span(numbers: Sequence[int]) -> str:
    least, most = numbers
    return f"{least:,}" if least == most else f"{least:,} to {most:,}"


def _outside_table(of: Content) -> Table:
    lines = []
    for level in of["outside"]:
        lines.append(
            [
                _level(level["variance"]),
                _span(level["dimensions"]),
                value(level["truth"]),
                f"{level['without_direction']:.3f}",
                value(level["predictions"]),
            ]
        )
    caption = (
        "Share of variance, about the mean of the training targets, that lies outside of their principal directions: "
        "of as many as hold 95 % and 99 % of the training targets' variance, and of all that there are. Training "
        "stimuli that are fewer than values leave directions out by their number alone: the column beside the test "
        "targets is what a vector without preferred direction would have outside. Predictions of a linear decoder lie "
        "in the space of its training targets by construction, unless its values are scaled one by one afterwards."
    )
    header = [
        "training variance held",
        "directions",
        "test targets outside",
        "without direction",
        "predictions outside",
    ]
    return Table("Span: what lies outside the training targets", caption, header, lines)


def _level(share: float) -> str:
    return "all" if share == 1 else f"{100 * share:g} %"


def _held_out_tables(of: Content) -> list[Table]:
    control = of["held_out"]
    if control is None:
        return []
    lines = [
        [_level(each["variance"]), value(each["truth"]), value(each["held_out"]), difference(each["difference"])]
        for each in control["levels"]
    ]
    caption = (
        f"The same of the space of {_span(control['spanning'])} training stimuli alone, from which "
        f"{_span(control['stimuli'])} others were held out: what training stimuli have outside that did not span it. "
        "Test targets that have more than these are of another kind; as much says that their number leaves it out."
    )
    header = ["variance held", "test targets", "held-out training targets", "test less held-out"]
    return [Table("Span: beside held-out training stimuli", caption, header, lines)]


def tables(of: Content) -> list[Table]:
    """Of a report's page; the first one has the plot."""
    return [_outside_table(of), *_held_out_tables(of), _ranks_table(of)]


def notes(of: Content) -> list[str]:
    """What a reviewer would conclude."""
    return [*_on_ranks(of), _on_outside(of), *_on_held_out(of)]


def _on_ranks(of: Content) -> list[str]:
    ranks, words = of["ranks"], _WORDS[of["what"]]
    if of["what"] == "reconstructions":
        words += " (the method decodes nothing that pictures have targets of)"
    if ranks["predictions"] is None or ranks["truth"] is None:
        which = "predictions" if ranks["predictions"] is None else "true targets"
        return [
            f"Span: the {which} are the same for all test stimuli, so that they have no rank: nothing was told apart."
        ]
    own, true = ranks["predictions"]["participation"], ranks["truth"]["participation"]
    sentence = (
        f"Span: the {words} of {_span(of['pictures'])} test stimuli vary in {own:.1f} directions (participation ratio) "
        f"and the true ones in {true:.1f}"
    )
    ratio = of["ratios"].get("truth")
    if ratio is not None and ratio["ci95"] is not None:
        sentence += f"; a ratio of {_ratio(ratio)}"
        if ratio["ci95"][1] < 1:
            sentence += (
                ", so that predictions differ in fewer ways than pictures do: what tells pictures apart along the rest "
                "is not in them, and is the generator's where a reconstruction shows it"
            )
        elif ratio["ci95"][0] > 1:
            sentence += ", so that predictions scatter in more ways than pictures do, as noise does"
        else:
            sentence += ", which may be 1"
    found = [f"{sentence}."]
    noise = ranks.get("permuted_training")
    if noise is not None:
        found.append(
            "Span: ridge that was fitted to exchanged pairs, which knows nothing, predicts in "
            f"{noise['participation']:.1f} directions: a rank says how predictions scatter, and not that they are "
            "right."
        )
    return found


def _on_outside(of: Content) -> str:
    everything = of["outside"][-1]
    truth, predictions = everything["truth"], everything["predictions"]
    used = _span(of["spanning"])
    if of["spanning"] != of["training"]:
        used += f" of {_span(of['training'])}"
    space = f"{used} training stimuli span {_span(of['dimensions'])} of {of['values']:,} directions"
    if of["dimensions"][0] >= of["values"]:
        held = of["outside"][0]
        rest = (
            ""
            if held["truth"] is None
            else (
                f"; outside of the {_span(held['dimensions'])} that hold 95 % of their variance lie "
                f"{value(held['truth'])} of that of the test targets"
            )
        )
        return f"Span: {space}, all there are, so that nothing can lie outside{rest}."
    if truth is None:
        return f"Span: {space}; the test targets do not vary."
    if truth["value"] < _NOTHING:
        return f"Span: {space}, and no variance of the test targets lies outside."
    sentence = (
        f"Span: {space}. Of the test targets' variance a share of {value(truth)} lies outside (of a vector without "
        f"preferred direction {everything['without_direction']:.3f}): no decoder whose predictions are sums of "
        "training targets can tell it"
    )
    if predictions is None:
        return f"{sentence}."
    if predictions["value"] < _NOTHING:
        return f"{sentence}, and none of the predictions' variance does, as that of linear decoders by construction."
    return (
        f"{sentence}. Of the predictions' variance {value(predictions)} does, as of a decoder that is not linear, or "
        "scales values one by one."
    )


def _on_held_out(of: Content) -> list[str]:
    control = of["held_out"]
    if control is None:
        return ["Span: there are too few training stimuli to hold some out beside the test stimuli (25 at least)."]
    # The widest space that leaves anything out.
    known = [
        each for each in control["levels"] if each["held_out"] is not None and each["held_out"]["value"] > _NOTHING
    ]
    if not known:
        return []
    level = known[-1]
    bounds = (level["difference"] or {}).get("ci95")
    figures = (
        f"outside of {'the space' if level['variance'] == 1 else _level(level['variance']) + ' of the variance'} of "
        f"{_span(control['spanning'])} training stimuli lie {value(level['truth'])} of test targets and "
        f"{value(level['held_out'])} of {_span(control['stimuli'])} held-out training targets"
    )
    if bounds is None:
        return [f"Span: {figures}, without an interval of the difference."]
    if bounds[0] > 0:
        verdict = "test stimuli differ in ways in which training stimuli do not"
    elif bounds[1] < 0:
        verdict = "test stimuli differ in fewer ways than training stimuli do among themselves"
    else:
        verdict = (
            "as far as these tell, test stimuli lie outside as new stimuli of the training's own kind do, and are of "
            "no other kind"
        )
    return [f"Span: {figures} (difference {difference(level['difference'])}): {verdict}."]


def plot(of: Content, axes: "Axes") -> None:
    """Share of variance that the first so many directions of the training targets leave out."""
    from ..plots import COLOURS

    curves = of["curves"]
    for name, colour, style in (
        ("training", COLOURS[4], "--"),
        ("truth", COLOURS[2], "-"),
        ("predictions", COLOURS[0], "-"),
    ):
        label = {"training": "training targets", "truth": "test targets"}.get(name, name)
        axes.plot(curves["dimensions"], curves[name], color=colour, linestyle=style, label=label)
    level = of["outside"][-1]["variance"]
    control = of["held_out"]
    if control is not None and control["levels"][-1]["held_out"] is not None and level == 1:
        axes.axhline(
            control["levels"][-1]["held_out"]["value"],
            color=COLOURS[1],
            linestyle=":",
            label="held-out training, all",
        )
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_ylim(-0.02, 1.02)
    axes.set_xlabel("principal directions of the training targets")
    axes.set_ylabel("variance outside of them")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
