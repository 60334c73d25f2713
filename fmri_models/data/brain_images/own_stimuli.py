"""Stimuli of a person's own runs: their ids, pictures and categories, by what tables of events say."""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import Any

from ...errors import FmriModelsError
from ...names import check_line, is_name, listed, one_line
from ...reading import read_text
from ..stimuli import StimulusSource, read_stimuli
from .own_options import OwnOptions
from .own_runs import Run

_FILM_ENDINGS = (".mp4", ".m4v", ".mkv", ".mov", ".avi", ".webm", ".mpg", ".mpeg", ".ogv")


def stimulus_ids(runs: Sequence[Run], same_name: bool = False) -> dict[str, str]:
    """What events say ▶ id of the stimulus: the name of a file without its ending, with characters that ids have.

    Args:
        runs: What was shown.
        same_name: Whether files of one name in several folders are one stimulus.

    Raises:
        FmriModelsError: Two would have one id.
    """
    shown = sorted({text for run in runs for text in run.shown})
    stems = Counter(_stem(text) for text in shown)
    ids = {text: _name(_stem(text) if same_name or stems[_stem(text)] == 1 else _path(text)) for text in shown}
    others: dict[str, str] = {}
    for text, name in ids.items():
        if name in others and not (same_name and _stem(text) == _stem(others[name])):
            raise FmriModelsError(
                f"The stimuli {one_line(others[name], 80)!r} and {one_line(text, 80)!r} would both have the id "
                f"{name!r}; rename one."
            )
        others[name] = text
    return ids


def _path(text: str) -> str:
    path = PurePosixPath(text.replace("\\", "/"))
    return (
        path.with_suffix("").as_posix()
        if path.suffix.lower() in (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".gif", ".webp")
        else path.as_posix()
    )


def _stem(text: str) -> str:
    return _path(text).rpartition("/")[2]


def _name(text: str) -> str:
    name = re.sub(r"[^A-Za-z0-9_.-]", "_", text)[:128]
    return name if is_name(name) else f"s{name}"[:128]


def stimulus_records(
    runs: Sequence[Run], ids: Mapping[str, str], options: OwnOptions, shown: Collection[str]
) -> Iterator[Mapping[str, Any]]:
    """Records of the stimuli that were shown, with pictures where a folder has them."""
    categories = _categories(runs)
    wanted_ids = set(shown)
    texts = {name: text for text, name in ids.items() if name in wanted_ids}
    clips = _clips(runs, texts.values())
    if options.stimuli is None:
        for name, text in texts.items():
            yield {"stimulus_id": name, "image": None, "category": categories.get(text), **_clip_of(clips, text)}
        return
    source = read_stimuli(options.stimuli, options.size or None)
    wanted = _pictures(source, list(texts.values()))
    names = {picture: ids[text] for text, picture in wanted.items()}
    for record in source:
        if record["stimulus_id"] in names:
            text = texts[names[record["stimulus_id"]]]
            category = record["category"] or categories.get(text)
            yield {**record, "stimulus_id": ids[text], "category": category, **_clip_of(clips, text)}


def _clips(runs: Sequence[Run], texts: Iterable[str]) -> dict[str, dict[str, Any]]:
    """What events say ▶ the clip that it is: a part of a film, or a file of one."""
    cut = {text: clip for run in runs for text, clip in run.clips.items()}
    return {**{text: {"file": text} for text in texts if text.lower().endswith(_FILM_ENDINGS)}, **cut}


def _clip_of(clips: Mapping[str, dict[str, Any]], text: str) -> dict[str, Any]:
    return {"clip": clips.get(text)} if clips else {}


def _pictures(source: StimulusSource, texts: Sequence[str]) -> dict[str, str]:
    """What events say ▶ id of the picture in its source.

    Raises:
        FmriModelsError: One has no picture, or several.
    """
    by_name: dict[str, list[str]] = {}
    for name, file in zip(source.ids, source.files or [""] * len(source), strict=True):
        path = PurePosixPath(file)
        for key in {name, file, path.name, path.stem, path.with_suffix("").as_posix()} - {""}:
            by_name.setdefault(key, []).append(name)
    found, missing = {}, []
    for text in texts:
        written = text.replace("\\", "/")
        keys = (written, *(written.split("/", number)[-1] for number in range(1, written.count("/") + 1)), _stem(text))
        fitting = next((by_name[key] for key in keys if key in by_name), [])
        if len(set(fitting)) == 1:
            found[text] = fitting[0]
        else:
            missing.append(text)
    if missing:
        raise FmriModelsError(
            f"{len(missing)} of {len(texts)} stimuli have no picture in {one_line(source.path)}, or several "
            f"({listed(missing)}); expected <stimulus>.png or .jpg, by what the events say."
        )
    if len(set(found.values())) < len(found):
        raise FmriModelsError(
            f"Two stimuli of the events have the same picture in {one_line(source.path)}; rename one."
        )
    return found


def _categories(runs: Sequence[Run]) -> dict[str, str]:
    """What events say ▶ its category: the condition itself, or the `trial_type` that it always has."""
    types: dict[str, set[str]] = {}
    for run in runs:
        kinds = run.shown if run.column == "trial_type" else run.categories
        for text, kind in zip(run.shown, kinds, strict=True):
            types.setdefault(text, set()).add(kind)
    return {
        text: check_line(next(iter(kinds)), "category", 200)
        for text, kinds in types.items()
        if len(kinds) == 1 and kinds != {""}
    }


def test_sets_of(options: OwnOptions, runs: Sequence[Run], ids: Mapping[str, str]) -> dict[str, Collection[str]]:
    """The stimuli that are tested, where somebody says so: by kind, by name, or in a file."""
    if options.test_types:
        return {"by_type": _shown_as(options.test_types, runs, ids)}
    if options.test_names:
        tested = {ids[text] for text in ids if any(fnmatchcase(_stem(text), each) for each in options.test_names)}
        if not tested:
            raise FmriModelsError(
                f"No stimulus has a name like {listed(options.test_names)}, which is tested; there are "
                f"{listed(sorted(ids.values()), 5)}."
            )
        return {"by_name": tested}
    if options.test_stimuli is None:
        return {}
    file = options.test_stimuli
    lines = read_text(file, "list of tested stimuli", "give a text file with a line a stimulus").splitlines()
    names = {ids.get(line.strip(), line.strip()) for line in lines if line.strip()}
    if unknown := sorted(names - set(ids.values())):
        raise FmriModelsError(
            f"{one_line(file)} names {len(unknown)} stimuli that no event shows ({listed(unknown)}); correct them."
        )
    return {"listed": names}


def _shown_as(types: Sequence[str], runs: Sequence[Run], ids: Mapping[str, str]) -> set[str]:
    """Ids of the stimuli of events of some `trial_type`."""
    kinds = [(run.shown if run.column == "trial_type" else run.categories) for run in runs]
    found = {
        ids[text]
        for run, own in zip(runs, kinds, strict=True)
        for text, kind in zip(run.shown, own, strict=True)
        if kind in types
    }
    if not found:
        there = sorted({kind for own in kinds for kind in own} - {""})
        raise FmriModelsError(
            f"No event has the trial_type {listed(types)}, which is tested; there are {listed(there, 10) or 'none'}."
        )
    return found
