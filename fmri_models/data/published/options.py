"""What every data set's command takes, and the function `prepare` that a script makes of the reader of its files."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, get_type_hints

from ...output_folders import TRIAL_TABLE, check_output_folder
from ...seeds import check_seed
from ..splits import check_fraction
from ..stimuli import checked_size
from .dataset import PublishedDataset


@dataclass(frozen=True)
class SharedOptions:
    """Options of all data sets: which trials and voxels, and what is done with them before they are written.

    Args:
        subjects: These alone, by the table's names; all whose files are there if None.
        rois: Voxels of these regions alone; all if None.
        size: Crops pictures to their central square and resizes it to so many pixels; as they come if 0.
        repetitions: `"single"` writes every trial; `"average_test"` the mean of each tested stimulus' trials;
            `"average"` that of every stimulus.
        zscore: Standardises each voxel by the mean and standard deviation of the training trials of the same session
            or run, before anything is averaged. Models do it themselves from raw betas, which is the default here.
        test_set: Which of the data set's test sets, where there are several customs; the first one if empty.
        folds: Adds a split `kfoldN` of so many folds; none if 0.
        fold_by: What these, and a default split that is drawn, hold out: `"stimulus"`, or `"run"` where stimuli repeat
            by design; `"auto"` as the data set has it.
        validation_fraction: Share of the training stimuli for validation, where the release has none.
        drop_bad_voxels: Leaves out voxels with NaN or infinite values in a trial, or that never change.
        incomplete: Writes what is there, where files or trials are missing that the paper counts.
        checksums: Records the SHA-256 of every source file in the table.
        seed: Draws validation and folds.
        name: The table's name; the data set's if empty.
        overwrite: Replaces a folder that has content.
    """

    subjects: list[str] | None = None
    rois: list[str] | None = None
    size: int = 0
    repetitions: Literal["single", "average_test", "average"] = "single"
    zscore: Literal["none", "session", "run"] = "none"
    test_set: str = ""
    folds: int = 0
    fold_by: Literal["auto", "stimulus", "run"] = "auto"
    validation_fraction: float = 0.1
    drop_bad_voxels: bool = False
    incomplete: bool = False
    checksums: bool = True
    seed: int = field(default=0)
    name: str = ""
    overwrite: bool = False


Reader = Callable[..., PublishedDataset]


def preparation(read: Reader, defaults: Mapping[str, Any] | None = None) -> Callable[..., None]:
    """The function `prepare(source, out, **options)` of a script, from the reader of its files.

    Its options are the reader's own and [`SharedOptions`], typed, as `fmri-models prepare` takes them. A reader that
    has a parameter `subjects` or `incomplete` is given that shared option, too, so that it looks for no other files.

    Args:
        read: `read(source: Path, **own options) -> PublishedDataset`; refuses files that are not what it expects, and
            reads nothing large. A single own parameter whose type is a dataclass stands for its fields, so that
            readers share options.
        defaults: Option ▶ what holds where nobody gives it, instead of what the reader or the shared step has.
    """
    other = dict(defaults or {})
    read = with_named_options(read)
    own, own_hints = list(inspect.signature(read).parameters.values())[1:], get_type_hints(read)
    shared = {each.name: each for each in fields(SharedOptions)}

    def prepare(source: Path, out: Path, **options: Any) -> None:
        from .writing import write_dataset

        source, out, options = Path(source), Path(out), {**other, **options}
        chosen = SharedOptions(**{name: value for name, value in options.items() if name in shared})
        check_seed(chosen.seed)
        check_fraction(chosen.validation_fraction, "validation fraction", or_none=True)
        if chosen.size:
            checked_size(chosen.size)
        check_output_folder(out, chosen.overwrite, TRIAL_TABLE, inputs=[source])
        given = {each.name: options[each.name] for each in own if each.name in options}
        write_dataset(read(source, **given), source, out, chosen, given)

    kinds = inspect.Parameter
    hints = get_type_hints(SharedOptions)
    own_hints.pop("return", None)
    parameters = [kinds("source", kinds.POSITIONAL_OR_KEYWORD), kinds("out", kinds.POSITIONAL_OR_KEYWORD)]
    parameters += [
        each.replace(kind=kinds.KEYWORD_ONLY, default=other.get(each.name, each.default))
        for each in own
        if each.name not in shared
    ]
    parameters += [_option(each, other) for each in shared.values()]
    prepare.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    prepare.__annotations__ = {"source": Path, "out": Path, **own_hints, **hints, "return": None}
    prepare.__doc__ = read.__doc__
    prepare.__module__ = read.__module__
    return prepare


def _option(each: Field, defaults: Mapping[str, Any]) -> inspect.Parameter:
    """A field of a dataclass as a parameter."""
    default = defaults.get(each.name, None if each.default is MISSING else each.default)
    return inspect.Parameter(each.name, inspect.Parameter.KEYWORD_ONLY, default=default)


def with_named_options(read: Reader) -> Reader:
    """A reader whose options are parameters of their own, where it has them in a dataclass.

    Args:
        read: `read(source: Path, options: SomeDataclass)`; others are given back as they are.
    """
    own, hints = list(inspect.signature(read).parameters.values())[1:], get_type_hints(read)
    declared = hints.get(own[0].name) if len(own) == 1 else None
    if not isinstance(declared, type) or not is_dataclass(declared):
        return read

    def reading(source: Path, **options: Any) -> PublishedDataset:
        return read(source, declared(**options))

    source = inspect.Parameter("source", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = [source, *(_option(each, {}) for each in fields(declared))]
    reading.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    reading.__annotations__ = {"source": Path, **get_type_hints(declared), "return": PublishedDataset}
    reading.__doc__, reading.__module__ = read.__doc__, read.__module__
    return reading
