"""Settings: a YAML file that says with which options a script reads a data set, and what that data set is.

A folder in BIDS' layout is read by `nifti` or `surfaces`; what differs from one to the next (task, column, which trials
are tested, lag, masks) fits into a file:

    title: Faces of two kinds (Nobody 2026)
    reads: nifti
    license: CC0 1.0
    origin: https://openneuro.org/datasets/ds000000
    citation: N. Nobody (2026).
    layout_read_in: its README and tables of events
    options:
      task: faces
      skip: [fixation]
      stimuli: "{source}/stimuli"
    expected_trials: {sub-01: 960}

In the texts of options, `{source}` stands for the folder that `--source` names.
"""

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

from ... import progress
from ...errors import FmriModelsError
from ...names import check_line, did_you_mean, listed, one_line
from ...plain_values import ShortRepr
from ...reading import checked, parse_yaml, read_text
from ...typed_values import OneOf, typed
from .dataset import PublishedDataset
from .options import Reader, SharedOptions, preparation, with_named_options

_MEND = "correct the settings"
_SOURCE = "{source}"
# Who asks for them says these each time.
_NO_SETTINGS = ("name", "overwrite", "seed")


@dataclass(frozen=True, repr=False)
class Settings(ShortRepr):
    """What a file of settings says.

    Args:
        path: The file.
        title: Of the data set, in a line.
        reads: Name of the data set whose script reads the files.
        license: Of the data.
        origin: Where they are published.
        citation: Of their paper.
        description: For the card; the title if empty.
        layout_read_in: By what their layout is known.
        options: Of the script and of all data sets, as they are written.
        paper: Fields of `Paper`.
        expected_trials: Subject ▶ how many trials its paper or release counts.
        expected_voxels: Likewise of voxels.
        repeats_stimuli: As of `PublishedDataset`.
        notes: Sentences for the card.
    """

    path: Path
    title: str
    reads: str
    license: str
    origin: str
    citation: str
    description: str = ""
    layout_read_in: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    paper: dict[str, Any] | None = None
    expected_trials: dict[str, int] = field(default_factory=dict)
    expected_voxels: dict[str, int] = field(default_factory=dict)
    repeats_stimuli: str = ""
    notes: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Of the data set: that of the file."""
        return self.path.stem

    def of(self, dataset: PublishedDataset) -> PublishedDataset:
        """What a script has read, with what is known of this data set."""
        subjects = [
            replace(
                each,
                expected_trials=self.expected_trials.get(each.name, each.expected_trials),
                expected_voxels=self.expected_voxels.get(each.name, each.expected_voxels),
            )
            for each in dataset.subjects
        ]
        return replace(
            dataset,
            name=self.name,
            description="\n".join([self.description or self.title, dataset.description]),
            license=self.license,
            citation=f"{self.citation} {self.origin}".strip(),
            subjects=subjects,
            repeats_stimuli=self.repeats_stimuli or dataset.repeats_stimuli,
            notes=[*dataset.notes, *self.notes],
            extra={**dataset.extra, "settings": self.path.name},
        )


def read_settings(path: Path) -> Settings:
    """Reads a file of settings; what its options are is checked when it is known whose they are.

    Raises:
        FmriModelsError: It is no YAML file, misses something, or says what settings have not.
    """
    what = f"The settings {one_line(path)}"
    text = read_text(path, "file of settings", _MEND)
    said, written = parse_yaml(text, what, _MEND), parse_yaml(text, what, _MEND, as_written=True)
    if not isinstance(said, dict):
        raise FmriModelsError(f"{what} hold no mapping of names; expected title, reads, license, origin and options.")
    known = [each.name for each in fields(Settings) if each.name != "path"]
    for name in said:
        if name not in known:
            raise FmriModelsError(
                f"{what} say {one_line(repr(name), 60)}; they have {listed(known, 20)}.{did_you_mean(name, known)}"
            )
    options = written.get("options")
    values = {**said, "options": options if isinstance(options, dict) else said.get("options", {}), "path": path}
    settings = checked(values, Settings, what, _MEND)
    for name in ("title", "reads", "license", "origin", "citation"):
        check_line(getattr(settings, name), f"{name} in {path.name}", 1000)
    return settings


def preparation_of_settings(settings: Settings, read: Reader) -> Callable[..., None]:
    """The function `prepare(source, out, **options)` of a data set that a script reads by settings.

    Args:
        settings: Which options hold where nobody gives another.
        read: The script's reader.

    Raises:
        FmriModelsError: The settings name an option that the script has not, or one of another type.
    """
    read = with_named_options(read)

    @functools.wraps(read)
    def reading(source: Path, **options: Any) -> PublishedDataset:
        own = {name: _placed(value, source) for name, value in options.items()}
        # Settings may come from anybody, and what files hold becomes names of regions, pictures, betas of the table.
        outside = [
            f"{name}={own[name]}"
            for name, value in defaults.items()
            if options.get(name) == value and _is_elsewhere(own.get(name), source)
        ]
        if outside:
            progress.say(
                f"The settings {one_line(settings.path)} name files that do not lie in {one_line(source)}, and are "
                f"read: {listed(outside, 5, 300)}."
            )
        return settings.of(read(source, **own))

    hints = {**get_type_hints(read), **get_type_hints(SharedOptions)}
    own = [name for name in inspect.signature(read).parameters if name != "source"]
    known = [*dict.fromkeys([*own, *(each.name for each in fields(SharedOptions))])]
    defaults: dict[str, Any] = {}
    for name, value in settings.options.items():
        if name not in known or name in _NO_SETTINGS:
            raise FmriModelsError(
                f"The settings {one_line(settings.path)} have the option {one_line(repr(name), 60)}; {settings.reads} "
                f"has {listed([each for each in known if each not in _NO_SETTINGS], 50)}."
                f"{did_you_mean(name, known)}"
            )
        defaults[name] = _as_declared(value, hints.get(name, Any), f"{name} in {settings.path.name}")
    return preparation(reading, defaults)


def _as_declared(value: Any, declared: Any, key: str) -> Any:
    kinds = get_args(declared) or (declared,)
    if Path not in kinds:
        return typed(value, declared, key)
    found = typed(value, OneOf(tuple(str if kind is Path else kind for kind in kinds)), key)
    return Path(found) if isinstance(found, str) else found


def _placed(value: Any, source: Path) -> Any:
    """A value of an option, with the folder of the files where it says `{source}`."""
    if isinstance(value, Path):
        return Path(str(value).replace(_SOURCE, str(source)))
    return value.replace(_SOURCE, str(source)) if isinstance(value, str) else value


def _is_elsewhere(value: Any, source: Path) -> bool:
    """Whether an option is the path of something that is not below the folder of the files."""
    text = str(value) if isinstance(value, str | Path) else ""
    return "/" in text and not Path(text).resolve().is_relative_to(source.resolve())
