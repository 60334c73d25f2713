"""Which metrics of a protocol say something about the pictures at hand, and sentences about those that don't."""

from collections.abc import Sequence

from .guessing import Guessing
from .named_metrics import METRICS, Metric, Obstacle, ShownPictures, get_metric

# Being among the first k says little where guessing has it more often than not.
HIGHEST_CHANCE = 0.5


def usable_metrics(
    metrics: Sequence[Metric], shown: ShownPictures, guessing: Guessing
) -> tuple[list[Metric], dict[str, float], list[str]]:
    """What can be measured.

    Args:
        metrics: Those of the protocol.
        shown: The true pictures.
        guessing: Among how many each item is searched.

    Returns:
        The metrics that say something, and those that take the place of others; what guessing scores in each, by its
        name, where that does not depend on the pictures; and sentences about what is left out, and why.
    """
    possible, notes = _possible(metrics, shown)
    rivalled, without_rivals = _with_rivals(possible, guessing)
    telling, chances, easy = _not_guessed(rivalled, guessing)
    return telling, chances, [*notes, *without_rivals, *easy]


def _possible(metrics: Sequence[Metric], shown: ShownPictures) -> tuple[list[Metric], list[str]]:
    """The metrics that these pictures allow."""
    notes: list[str] = []
    instead: list[str] = []
    hindered: dict[Metric, Obstacle] = {}
    for metric in metrics:
        obstacle = metric.obstacle(shown)
        if obstacle is not None:
            hindered[metric] = obstacle
            instead += obstacle.instead
    if shown.channels == 1 and not shown.are_small and any(metric.needs.extractors for metric in metrics):
        notes.append("Grey pictures were given to the evaluation networks with the one channel repeated three times.")
    said: dict[tuple[str, Metric | None], None] = {}
    for metric in sorted(hindered, key=lambda metric: METRICS.index(type(metric))):
        said[hindered[metric].reason, metric if hindered[metric].of_one else None] = None
    for reason, one in said:
        alike = [metric.name for metric, each in hindered.items() if each.reason == reason and one in (None, metric)]
        notes.append(f"{', '.join(alike)}: left out, because {reason}.")
    left = [metric for metric in metrics if metric not in hindered]
    return list(dict.fromkeys([*left, *map(get_metric, instead)])), notes


def _with_rivals(metrics: Sequence[Metric], guessing: Guessing) -> tuple[list[Metric], list[str]]:
    """The metrics in which there is something to tell an item from."""
    alone = [metric.name for metric in metrics if not metric.has_rivals(guessing)]
    if not alone:
        return list(metrics), []
    varied = " whose picture is not constant" if guessing.stimuli.max() > 1 else ""
    return [metric for metric in metrics if metric.name not in alone], [
        f"{', '.join(alone)}: left out, because no test stimulus has another one of its subject and fold{varied} to be "
        "told from."
    ]


def _not_guessed(metrics: Sequence[Metric], guessing: Guessing) -> tuple[list[Metric], dict[str, float], list[str]]:
    """The metrics that say something with so few stimuli, and what guessing scores in them."""
    chances = {metric.name: chance for metric in metrics if (chance := metric.chance_among(guessing)) is not None}
    easy = [metric.name for metric in metrics if metric.is_search and chances.get(metric.name, 0) > HIGHEST_CHANCE]
    telling = [metric for metric in metrics if metric.name not in easy]
    known = {name: chance for name, chance in chances.items() if name not in easy}
    if not easy:
        return telling, known, []
    shown = ", ".join(f"{name} ({chances[name]:.2f})" for name in easy)
    return (
        telling,
        known,
        [f"{shown}: left out, because with so few stimuli guessing (in brackets) succeeds more often than not."],
    )
