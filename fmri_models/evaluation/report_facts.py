"""What was measured, on what and with what: names and values in words."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

from ..drawing_settings import DrawingSettings
from .extractors import KNOWN_WEIGHTS, UNKNOWN_WEIGHTS
from .report import Report
from .rows import ROWS

WARNINGS_TITLE = "Not known to be figures of new pictures"


def facts(report: Report) -> list[tuple[str, str]]:
    """Names and values, as they are listed above the scores."""
    found = [*_test_set(report), *_data_facts(report.data), *_model_facts(report.model)]
    found += _protocol_facts(report.protocol, of_files="images" in report.model)
    found += [("network that measured", _network(*each)) for each in report.extractors.items()]
    if report.timing.get("total_s") is not None:
        found.append(("time", f"{report.timing['total_s']:.0f} s"))
    return [*found, ("versions", ", ".join(f"{name} {number}" for name, number in report.versions.items()))]


def how_to_read(report: Report) -> str:
    """In which order the figures of a report say something."""
    told = ["The notes say what the figures are not."]
    if any(report.row(row)["kind"] == "control" for row in report.comparisons):
        told.append("What does not beat its controls is no reconstruction.")
    if blurry := [metric.label for metric in report.metrics() if metric.rewards_blur]:
        told.append(
            "Identification, retrieval and networks say more than pixels: a blurry average does well in "
            f"{', '.join(blurry)}."
        )
    told.append("A difference whose interval includes 0 is not beyond doubt.")
    return f"How to read it: {' '.join(told)}"


def metrics_explained(report: Report) -> list[tuple[str, str, str]]:
    """Label, name in report.json and a sentence about each metric that the report has."""
    return [(metric.label, metric.name, metric.description) for metric in report.metrics()]


def in_labels(report: Report, sentence: str) -> str:
    """A sentence of a report with the labels of rows and metrics, which tables have, in the place of their names."""
    names = {name: report.row(name)["label"] for name in (*ROWS, *report.results) if "_" in name}
    names |= {metric.name: metric.label for metric in report.metrics()}
    pattern = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
    return re.sub(rf"(?<![\w-])(?:{pattern})(?![\w-])", lambda found: names[found[0]], sentence)


def _test_set(report: Report) -> Iterator[tuple[str, str]]:
    if report.protocol.get("deviations"):
        yield "not as published", "; ".join(report.protocol["deviations"])
    if report.data.get("test_stimuli"):
        published = report.protocol.get("test_pictures")
        known = f" (published: {' or '.join(map(str, published))} a subject)" if published else ""
        yield "test set", f"{_counted(report.data['test_stimuli'], 'picture')}{known}"


def _data_facts(data: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if data:
        how = {True: "simulated", False: "measured"}.get(data.get("simulated"), "")  # type: ignore[arg-type]
        yield "data", " ".join(filter(None, [str(data.get("name", "")), f"({how})" if how else ""]))
    if data.get("split"):
        items = f"{_counted(data['test_items'], 'test item')} from {_counted(data['test_trials'], 'trial')}"
        folds = f", {len(data['folds'])} folds" if len(data["folds"]) > 1 else ""
        yield "split", f"{data['split']}{folds}: {items}"
    if how := _drawn_by(data.get("split_how") or {}):
        yield "split drawn", how
    if data.get("test_repetitions"):
        yield "repetitions of a test stimulus", "{} to {}".format(*data["test_repetitions"])
    if data.get("training"):
        yield "learned from", "; ".join(_training(*each) for each in data["training"].items())
    if data.get("mean_noise_ceiling") is not None:
        source = ", ".join(data.get("noise_ceiling_source", []))
        repetitions = ", ".join(f"{n} averaged repetitions" for n in data.get("noise_ceiling_repetitions", []))
        origin = "; ".join(filter(None, (repetitions, source)))
        of = f" ({origin})" if origin else ""
        yield "mean noise ceiling of all voxels", f"{data['mean_noise_ceiling']:.3f}{of}"
    if data.get("test_factor_combinations_seen_in_training") is not None:
        seen = data["test_factor_combinations_seen_in_training"]
        yield "test scenes whose combination of factors was seen in training", f"{seen:.0%}"


def _drawn_by(how: Mapping[str, Any]) -> str:
    """How a split was drawn that took more than a seed: by whose embeddings, how many clusters, tau, MMD."""
    if not how.keys() - {"by", "seed"}:
        return ""
    return ", ".join(
        f"{name.replace('_', ' ')} {f'{value:.4g}' if isinstance(value, float) else str(value)}"
        for name, value in how.items()
    )


def _training(subject: str, amount: Mapping[str, Any]) -> str:
    """How much of a subject was learned from, in hours where these are known."""
    hours = "" if amount.get("hours") is None else f"{amount['hours']:.1f} h, "
    trials, sessions = _counted(amount["trials"], "trial"), _counted(amount["sessions"], "session")
    return f"{subject}: {hours}{trials} of {sessions}"


def _model_facts(model: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if model:
        yield "model", in_words({name: value for name, value in model.items() if name != "settings"})
    if model.get("settings"):
        yield "drawn with", _drawn_with(model["settings"])


def _protocol_facts(protocol: Mapping[str, Any], of_files: bool) -> Iterator[tuple[str, str]]:
    if protocol.get("size"):
        yield "pictures first resized to", f"{protocol['size']}x{protocol['size']}"
    if protocol.get("size") or protocol.get("resolution"):
        how = "antialiased" if protocol.get("antialias") else "without antialiasing"
        yield "resized by", f"{protocol.get('interpolation', 'bilinear')} interpolation, {how}"
    if protocol.get("crop", "none") != "none":
        yield "cropped to", "the central square"
    if protocol.get("blend", "none") != "none":
        yield "mixed before scoring", str(protocol["blend"])
    if protocol.get("measured_trials", "all") != "all":
        yield "trials", f"those of pictures that were {protocol['measured_trials']}"
    for name, key in (("pictures resized to", "resolution"), ("distractors of two-way identification", "distractors")):
        if protocol.get(key) is not None:
            yield name, str(protocol[key])
    if protocol.get("pool_size"):
        yield "stimuli to choose from", f"{protocol['pool_size']:g}"
    if protocol.get("samples", 1) > 1 and not of_files:
        averaged = protocol.get("sample_average", "scores")
        yield "pictures of each response", f"{protocol['samples']}, whose {averaged} are averaged"
    # Of files (`--images`) nobody knows.
    if "trial_average" in protocol and not of_files:
        yield "repetitions of a stimulus", "averaged" if protocol["trial_average"] else "single trials"


def _network(name: str, about: Mapping[str, str]) -> str:
    """A network with what decides its features, as far as a report says it: earlier ones have the digest alone."""
    weights = {UNKNOWN_WEIGHTS: UNKNOWN_WEIGHTS, KNOWN_WEIGHTS: "known weights"}.get(about.get("weights", ""))
    digest = f"SHA-256 {about['sha256'][:16]}" if about.get("sha256") else None
    layer = f"layer {about['layer']}" if about.get("layer") else None
    known = [about.get("file"), layer, about.get("preprocessing"), weights, digest]
    return f"{name} ({'; '.join(filter(None, known))})" if any(known) else name


def _drawn_with(settings: Mapping[str, Any]) -> str:
    if settings.keys() & {each.name for each in fields(DrawingSettings)}:
        return in_words(settings)
    return f"no settings, because this generator draws nothing at random ({in_words(settings)})"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def in_words(values: Any) -> str:
    """Values as people write them: names and values, lists with commas; what lies deeper in parentheses."""
    if isinstance(values, Mapping):
        pairs = ((str(name).replace("_", " "), value) for name, value in values.items())
        return ", ".join(f"{name} {_within(value)}" for name, value in pairs if value not in (None, {}, []))
    if isinstance(values, list | tuple):
        return ", ".join(_within(value) for value in values)
    return _within(values)


def _within(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(value, Mapping):
        return f"({in_words(value)})"
    if isinstance(value, list | tuple):
        texts = [_within(each) for each in value]
        return texts[0] if len(texts) == 1 else f"({', '.join(texts)})"
    return str(value)
