"""In what an evaluation differs from the published one whose protocol it bears the name of."""

from collections.abc import Mapping
from typing import Any

from ..names import listed
from .protocols import PROTOCOLS, Protocol
from .scores import Scores


def on_test_set(protocol: Protocol, scores: Scores) -> list[str]:
    """Whether each subject was tested on as many pictures as in the published evaluation."""
    if not protocol.test_pictures:
        return []
    counts = {
        subject: len(set(scores.units[scores.subjects == subject].tolist()))
        for subject in dict.fromkeys(scores.subjects.tolist())
    }
    found = sorted(set(counts.values()))
    if set(found) <= set(protocol.test_pictures):
        return []
    published = " or ".join(map(str, protocol.test_pictures))
    tested = str(found[0]) if len(found) == 1 else f"{found[0]} to {found[-1]}"
    return [
        f"{tested} test pictures a subject, and not {published}, so that no figure here stands beside published ones"
    ]


def on_metrics(protocol: Protocol) -> list[str]:
    """Whether somebody left metrics out."""
    return [f"without {listed(protocol.left_out, 40, 2000)}"] if protocol.left_out else []


def on_drawing(
    protocol: Protocol, used: Mapping[str, Any], trial_average: bool, has_low_level: bool, imagery_learned: int
) -> list[str]:
    """In what a model was tested otherwise than the protocol says.

    Args:
        protocol: The protocol.
        used: Drawing settings that change what the model draws.
        trial_average: Whether repetitions were averaged.
        has_low_level: Whether the model decodes a low-level picture.
        imagery_learned: How many imagery trials were learned from.
    """
    found = [
        f"{name.replace('_', ' ')} {used[name]}, and not {value}"
        for name, value in protocol.drawing.items()
        if name in used and used[name] != value
    ]
    if protocol.trial_average and protocol.test_pictures and not trial_average:
        found.append("single trials, and not the mean of a picture's repetitions")
    if protocol.low_level_share and not has_low_level:
        found.append("no low-level picture mixed in, because the model decodes none")
    if protocol.measured_trials == "imagined" and imagery_learned:
        found.append(f"{imagery_learned} imagery trials learned from, and not only trials of what was seen")
    return found


def on_samples(protocol: Protocol, samples: int) -> list[str]:
    """Whether the published scores are a mean over another number of pictures of a response.

    Args:
        protocol: The protocol.
        samples: How many were drawn.
    """
    published = PROTOCOLS.get(protocol.name, protocol).samples
    if samples == published:
        return []
    drawn = "1 picture of each response" if samples == 1 else f"{samples} pictures of each response"
    return [f"{drawn}, and not {'one' if published == 1 else f'the mean score of {published}'}"]


def deviations_note(name: str, deviations: list[str]) -> list[str]:
    """A sentence for a report's notes; none without any."""
    if not deviations:
        return []
    return [f"This is not {name} as published: {'; '.join(deviations)}."]
