"""What was measured, on what and with what: names and values in words."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from typing import Any

from ..drawing_settings import DrawingSettings
from ..errors import FmriModelsError
from .extractors import KNOWN_WEIGHTS, UNKNOWN_WEIGHTS
from .named_metrics import get_metric
from .network_labels import network_label
from .report import Report
from .rows import ROWS

_MODEL_FACTS = (
    "path", "images", "method", "subjects", "image_generator", "repetitions_trained_on", "training_seconds", "settings",
    "transductive", "image_generator_was_trained",
)  # fmt: skip
_NAME_OF_PARTS = re.compile(r"(?<![\w-])[a-z][a-z0-9]*(?:_[a-z0-9]+)+(?![\w-])")
_SETTINGS = {
    "num_inference_steps": "steps",
    "guidance_scale": "guidance",
    "num_candidates": "candidates",
    "selection": "chosen by",
    "text_to_image_ratio": "weight of the text",
}
WARNINGS_TITLE = "Not known to be figures of new pictures"


def facts(report: Report) -> list[tuple[str, str]]:
    """Names and values, as they are listed above the scores."""
    found = [*_test_set(report), *_data_facts(report.data), *_model_facts(report.model)]
    found += [("network that measured", _network(*each)) for each in report.extractors.items()]
    if report.timing.get("total_s") is not None:
        found.append(("evaluation took", _duration(report.timing["total_s"])))
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
    # Those that were left out, too.
    words = dict.fromkeys(_NAME_OF_PARTS.findall(sentence))
    names |= {word: metric_label(word) for word in words if word not in names}
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
        low, high = data["test_repetitions"]
        yield "repetitions of a test stimulus", str(low) if low == high else f"{low} to {high}"
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
    texts = {
        name: f"{value:.4g}" if isinstance(value, float) else str(value)[: 16 if name.endswith("sha256") else None]
        for name, value in how.items()
    }
    return ", ".join(f"{name.replace('_', ' ').replace('sha256', 'SHA-256')} {text}" for name, text in texts.items())


def _training(subject: str, amount: Mapping[str, Any]) -> str:
    """How much of a subject was learned from, in hours where these are known."""
    hours = "" if amount.get("hours") is None else f"{amount['hours']:.1f} h, "
    trials, sessions = _counted(amount["trials"], "trial"), _counted(amount["sessions"], "session")
    return f"{subject}: {hours}{trials} of {sessions}"


def _model_facts(model: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if model.get("images"):
        yield "files", str(model["images"])
    if model.get("path") or model.get("method"):
        path, method = model.get("path"), model.get("method")
        yield "model", " ".join(filter(None, [path and str(path), f"(method {method})" if method else ""]))
    if model.get("subjects"):
        yield "subjects of the model", in_words(model["subjects"])
    if model.get("image_generator"):
        trained = ", trained with the model" if model.get("image_generator_was_trained") else ""
        yield "image generator", f"{_class_in_words(str(model['image_generator']))}{trained}"
    if model.get("repetitions_trained_on"):
        which = {"average": "their average", "single": "single ones", "all": "all of them, one by one"}
        repetitions = str(model["repetitions_trained_on"])
        yield "repetitions that were learned from", which.get(repetitions, repetitions)
    if model.get("training_seconds") is not None:
        yield "training took", _duration(model["training_seconds"])
    if model.get("transductive") is not None:
        yield "uses statistics of the test trials", "yes" if model["transductive"] else "no"
    further = {name: value for name, value in model.items() if name not in _MODEL_FACTS}
    if further:
        yield "of the model", in_words(further)
    if model.get("settings"):
        yield "drawn with", _drawn_with(model["settings"])


def protocol_fields(report: Report) -> list[tuple[str, str]]:
    """Everything that the protocol fixes, each with a name that can be read; of earlier reports what they say."""
    protocol = report.protocol
    found = [(label, told(protocol[name])) for name, (label, told) in _PROTOCOL_FIELDS.items() if name in protocol]
    if protocol.get("size") is None and protocol.get("resolution") is None:
        # Nothing is resized, so that nobody has to know how.
        found = [each for each in found if each[0] not in (_INTERPOLATION, _ANTIALIAS)]
    if "images" in report.model:
        # Of files nobody knows which trials they are of.
        found = [each for each in found if each[0] not in (_TRIALS, _REPETITIONS)]
    further = [name for name in protocol if name not in _PROTOCOL_FIELDS]
    return [*found, *((name.replace("_", " "), in_words(protocol[name]) or "none") for name in further)]


def _square(side: Any) -> str:
    return "their own size" if side is None else f"{side}x{side} pixels"


def _side(side: Any) -> str:
    return "their own size" if side is None else f"{side} pixels on the shorter side"


def _or(otherwise: str) -> Callable[[Any], str]:
    return lambda value: otherwise if value in (None, [], (), "") else in_words(value)


def _choice(**words: str) -> Callable[[Any], str]:
    return lambda value: words.get(str(value), str(value))


_INTERPOLATION, _ANTIALIAS = "interpolation", "smoothed before they become smaller"
_TRIALS, _REPETITIONS = "measured trials", "repetitions of a stimulus"
_PROTOCOL_FIELDS: dict[str, tuple[str, Callable[[Any], str]]] = {
    "name": ("name", str),
    "description": ("what it measures", str),
    "metrics": ("metrics", lambda metrics: ", ".join(str(each.get("label", each.get("name"))) for each in metrics)),
    "left_out": ("metrics left out", lambda names: ", ".join(map(metric_label, names)) or "none"),
    "deviations": ("not as published", lambda found: "; ".join(found) or "nothing"),
    "size": ("all pictures first resized to", _square),
    "crop": ("cropped to", _choice(none="nothing is cut off", centre="the central square")),
    "resolution": ("pictures resized for pixel metrics to", _side),
    "interpolation": (_INTERPOLATION, str),
    "antialias": (_ANTIALIAS, _choice(**{"True": "yes", "False": "no"})),
    "distractors": (
        "distractors of two-way identification",
        _choice(truth="the other shown pictures", reconstruction="the other reconstructions"),
    ),
    "pool_size": (
        "stimuli to choose from in searches",
        lambda size: "a subject's whole test set" if size is None else f"{size:g}",
    ),
    "blend": ("mixed into reconstructions before scoring", _choice(none="nothing")),
    "low_level_share": ("share of the low-level picture in that", lambda share: f"{100 * share:g} %"),
    "candidates": ("candidates of each picture", _or("as the pipeline has it")),
    "selection": (
        "taken of these",
        lambda value: _or("as the pipeline has it")(_choice(brain="the one most like what was decoded")(value or "")),
    ),
    "samples": ("pictures of each response", str),
    "sample_average": (
        "averaged over these",
        _choice(scores="scores", correlations="correlations, before they are compared"),
    ),
    "test_pictures": (
        "published number of test pictures",
        lambda counts: " or ".join(map(str, counts)) if counts else "none is fixed",
    ),
    "measured_trials": (
        _TRIALS,
        _choice(all="all", seen="those of pictures that were seen", imagined="those of pictures that were imagined"),
    ),
    "trial_average": (_REPETITIONS, _choice(**{"True": "averaged", "False": "single trials"})),
    "exchange_within": ("the permutation test exchanges stimuli inside", _or("a subject's whole test set")),
}


def metric_label(name: str) -> str:
    """What tables call a metric; the name itself of one that this version does not know."""
    try:
        return get_metric(name).label
    except FmriModelsError:
        return name


def _network(name: str, about: Mapping[str, str]) -> str:
    """A network with what decides its features, as far as a report says it: earlier ones have the digest alone."""
    weights = {UNKNOWN_WEIGHTS: UNKNOWN_WEIGHTS, KNOWN_WEIGHTS: "known weights"}.get(about.get("weights", ""))
    digest = f"SHA-256 {about['sha256'][:16]}" if about.get("sha256") else None
    layer = f"layer {about['layer']}" if about.get("layer") else None
    label = network_label(name)
    own = name if label != name else None
    known = [own, about.get("file"), layer, about.get("preprocessing"), weights, digest]
    return f"{label} ({'; '.join(filter(None, known))})" if any(known) else label


def _class_in_words(name: str) -> str:
    """`VersatileDiffusionImageGenerator` as people call it."""
    short = name.removesuffix("ImageGenerator") or name
    return re.sub(r"(?<=[a-z])(?=[A-Z][a-z])", " ", short)


def _duration(seconds: float) -> str:
    """Seconds, minutes or hours."""
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 1 else "less than a second"


def _drawn_with(settings: Mapping[str, Any]) -> str:
    if settings.keys() & {each.name for each in fields(DrawingSettings)}:
        return in_words({_SETTINGS.get(name, name): value for name, value in settings.items()})
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
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return f"({in_words(value)})"
    if isinstance(value, list | tuple):
        texts = [_within(each) for each in value]
        return texts[0] if len(texts) == 1 else f"({', '.join(texts)})"
    return str(value)
