"""`fmri-models prepare`: published files, or a person's own betas, become a trial table."""

import argparse
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, cast, get_args, get_origin

from ..entry_points import OWN_PACKAGE
from ..errors import FmriModelsError
from ..names import check_line, did_you_mean, listed, one_line, shell_word
from ..output_folders import TRIAL_TABLE, check_output_folder
from ..records import import_path
from ..registry import DATASETS
from .console import SeedOption

ARRAYS = "arrays"
_SETTINGS = (".yaml", ".yml")
_OWN_FILES = (".py", *_SETTINGS)
# Options of the command that are passed on to scripts, too.
_OWN_OPTIONS = ("seed", "name", "overwrite")
_EXAMPLES = """examples:
  fmri-models prepare digits69 --source digit69_28x28.mat --out data/digits69
  fmri-models prepare my_script.py --source my_files --out data/mine
  fmri-models prepare my_settings.yaml --source my_bids --out data/mine
  fmri-models prepare arrays --fmri X.npy --events EVENTS.csv --stimuli PICTURES --out data/mine
  fmri-models prepare arrays --fmri REST.npy --events EVENTS.csv --out data/rest
  fmri-models prepare arrays --fmri subj01=A.npy subj02=B.npy --events EVENTS.csv --stimuli PICTURES \\
      --voxels subj01=VA.csv subj02=VB.csv --drop-bad-voxels --out data/ours

A script is a Python file with a function `prepare(source: Path, out: Path, **options) -> None` that writes a trial
table with fmri_models.data.TrialTableWriter. `--option key=value` is passed on to it, as what the function's annotation
says of `key`. Settings are a YAML file: which data set it `reads` (such as nifti), its `options`, `title`, `license`.

arrays: X.npy is (trials, voxels); EVENTS.csv has a row a trial in the same order with `stimulus_id` and, where known,
`subject, session, run, repetition, split`; VOXELS.csv has a row a voxel with any of `roi, x, y, z, ncsnr`; PICTURES has
`<stimulus_id>.png` or `.jpg`, all of one size, or of any with --size. Ids have only the characters A-Z a-z 0-9 _ . -
Rows without a stimulus_id are trials without a stimulus (the split `unlabelled`); --stimuli is left out if all are."""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser(
        "prepare",
        help="published files, or your own betas, to a trial table",
        description="Write a trial table from published files or from your own arrays.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "dataset",
        metavar="NAME|SCRIPT.py|SETTINGS.yaml|arrays",
        help=f"one of {', '.join(dataset_names())}, or a script, or settings of one",
    )
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="the folder to be written")
    parser.add_argument("--overwrite", action="store_true", help="replace a folder that has content")
    parser.add_argument(
        "--seed",
        type=int,
        action=SeedOption,
        default=None,
        metavar="N",
        help="draws what the data leave open (default: 0)",
    )
    published = parser.add_argument_group("published files")
    published.add_argument("--source", type=Path, metavar="PATH", help="where the published files are")
    published.add_argument("--option", action="append", default=[], metavar="KEY=VALUE", help="passed on to the script")
    own = parser.add_argument_group("arrays")
    own.add_argument(
        "--fmri", nargs="+", action="extend", metavar="X.npy|SUBJECT=X.npy", help="betas, one file or one a subject"
    )
    own.add_argument("--events", type=Path, metavar="EVENTS.csv", help="what each trial showed")
    own.add_argument("--stimuli", type=Path, metavar="DIR", help="folder or zip file with the pictures")
    own.add_argument(
        "--voxels",
        nargs="+",
        action="extend",
        metavar="VOXELS.csv|SUBJECT=VOXELS.csv",
        help="what is known of the voxels",
    )
    own.add_argument("--drop-bad-voxels", action="store_true", help="leave out voxels with NaN, or that never change")
    own.add_argument("--size", type=int, metavar="PIXELS", help="crop pictures to their central square and resize it")
    own.add_argument("--name", default="", help="the table's name (default: that of the folder)")
    parser.set_defaults(run=run, usage_error=parser.error)


def run(args: argparse.Namespace) -> dict[str, Any]:
    from ..data.table import TrialTable

    if args.dataset == ARRAYS:
        _prepare_arrays(args)
    else:
        _prepare_published(args)
    table = TrialTable.open(args.out)
    problems = len(table.findings)
    shown = shell_word(args.out)
    commands = [f"fmri-models data validate {shown}"]
    if problems:
        what = "a problem" if problems == 1 else f"{problems} problems"
        _say(f"Wrote {args.out}, with {what} (above) that training refuses or learns wrong from; it is said again by")
    else:
        # What has no pictures is for pretraining.
        recipe = "linear" if any(table.stimuli.content_hashes()) else "mindvis_pretraining"
        train = f"fmri-models train {recipe} {shell_word(f'data={args.out}')} {shell_word(f'out={args.out}-{recipe}')}"
        commands = [f"fmri-models data info {shown}", *commands, train]
        _say(f"Wrote {args.out}.")
        print("\nnext:")
    for command in commands:
        _say(f"  {command}")
    recipes = _recipes_for(args.dataset)
    if recipes and not problems:
        _say(f"recipes for these data, in the place of {recipe}: {', '.join(recipes)}")
    return {
        "table": args.out,
        "fingerprint": table.fingerprint,
        "findings": table.findings,
        "next": commands,
        "recipes": recipes,
    }


def _recipes_for(dataset: str) -> list[str]:
    """The recipes that say that they are for a data set of this name."""
    from ..training.recipe_files import list_recipes

    named = re.compile(rf"\b{re.escape(dataset)}\b", re.IGNORECASE)
    return [each.name for each in list_recipes() if named.search(each.data)]


def _say(sentence: str) -> None:
    print(one_line(sentence, most=5000))


def dataset_names() -> list[str]:
    """What stands for a data set, besides the path of a script."""
    return [*DATASETS.names(), ARRAYS]


def load_preparation(dataset: str) -> Callable[..., None]:
    """The function `prepare` of a data set, by its name or by the path of anybody's script.

    Raises:
        FmriModelsError: There is no such data set or script, it can't be run, or has no such function.
    """
    if dataset.endswith(_OWN_FILES):
        return _of_file(Path(dataset))
    if dataset not in DATASETS:
        raise FmriModelsError(
            f"There is no data set script {one_line(repr(dataset), 80)}; expected {', '.join(dataset_names())}, or the "
            f"path of a Python file or of settings (.yaml).{did_you_mean(dataset, dataset_names())}"
        )
    place = DATASETS.get(dataset).prepare
    if place.endswith(_OWN_FILES):
        return _of_file(Path(place))
    prepare: Callable[..., None] = import_path(place)
    if not callable(prepare):
        raise FmriModelsError(f"The data set {dataset!r} names {place}, which is no function; update its package.")
    return prepare


def _of_file(path: Path) -> Callable[..., None]:
    return _of_settings(path) if path.suffix in _SETTINGS else _of_script(path)


def _of_settings(path: Path) -> Callable[..., None]:
    """What prepares a data set by a script of this package with other options."""
    from ..data.published.settings import preparation_of_settings, read_settings

    settings = read_settings(path)
    place = DATASETS.get(settings.reads).prepare if settings.reads in DATASETS else ""
    read = getattr(_module_of(Path(place)), "read", None) if place.endswith(".py") else None
    if read is None:
        raise FmriModelsError(
            f"The settings {one_line(path)} are of {one_line(repr(settings.reads), 60)}; expected a data set that a "
            f"script reads, such as nifti or surfaces.{did_you_mean(settings.reads, DATASETS.names())}"
        )
    return preparation_of_settings(settings, read)


def _of_script(path: Path) -> Callable[..., None]:
    prepare: Any = getattr(_module_of(path), "prepare", None)
    if not callable(prepare):
        raise FmriModelsError(
            f"The data set script {path} has no function `prepare(source: Path, out: Path, **options)`; add one that "
            "writes a trial table with fmri_models.data.TrialTableWriter."
        )
    return cast(Callable[..., None], prepare)


def _module_of(path: Path) -> ModuleType:
    if not path.is_file():
        raise FmriModelsError(f"The data set script {path} does not exist.")
    module_name = f"fmri_models_dataset_script_{path.stem}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise FmriModelsError(f"The data set script {path} can't be imported as Python.")
    module = importlib.util.module_from_spec(spec)
    # Dataclasses and pickling look their module up by its name.
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except FmriModelsError:
        raise
    # It is somebody's program: whatever it raises, the script is what the user can mend.
    except Exception as error:
        raise FmriModelsError(
            f"The data set script {path} can't be run ({one_line(f'{type(error).__name__}: {error}')})."
        ) from error
    return module


def _prepare_published(args: argparse.Namespace) -> None:
    from ..data.table import TrialTable

    if args.source is None:
        args.usage_error(f"--source is needed for {args.dataset}")
    if args.fmri or args.events or args.stimuli or args.voxels or args.drop_bad_voxels or args.size is not None:
        args.usage_error("--fmri, --events, --stimuli, --voxels, --drop-bad-voxels, --size belong to `prepare arrays`")
    texts, own = _options(args), _own_options(args)
    prepare = load_preparation(args.dataset)
    options = {**_as_declared(prepare, texts, own, args.dataset), **own}
    try:
        inspect.signature(prepare).bind(args.source, args.out, **options)
    except TypeError as error:
        raise FmriModelsError(
            f"The data set script {args.dataset} doesn't take these options ({error}); it has the form "
            f"prepare{inspect.signature(prepare)}."
        ) from error
    if args.name:
        check_line(args.name, "table's name", most=200)
    if not args.source.exists():
        raise FmriModelsError(f"The source {args.source} does not exist; give the published files.")
    script = [Path(args.dataset)] if args.dataset.endswith(_OWN_FILES) else []
    is_ours = not script and DATASETS.package(args.dataset) == OWN_PACKAGE
    check_output_folder(args.out, args.overwrite, TRIAL_TABLE, inputs=[args.source, *script])
    try:
        prepare(args.source, args.out, **options)
    except (FmriModelsError, OSError, MemoryError):
        raise
    # As above: what somebody's script raises, they can mend; ours raise sentences.
    except Exception as error:
        if is_ours:
            raise
        reason = one_line(f"{type(error).__name__}: {error}")
        raise FmriModelsError(f"The data set script {args.dataset} failed ({reason}); --debug shows where.") from error
    for finding in TrialTable.open(args.out).findings:
        _say(finding)


def _options(args: argparse.Namespace) -> dict[str, str]:
    """What `--option` says, as it was typed."""
    options: dict[str, str] = {}
    for text in args.option:
        key, equals, value = text.partition("=")
        if not equals or not key.isidentifier():
            args.usage_error(f"--option takes KEY=VALUE, not {text!r}")
        if key in options:
            args.usage_error(f"--option gives {key} twice; give it once")
        options[key] = value
    return options


def _own_options(args: argparse.Namespace) -> dict[str, object]:
    """What the script is told by options of the command's own: only those that the user typed."""
    given = {"seed": args.seed, "name": args.name or None, "overwrite": args.overwrite or None}
    return {name: value for name, value in given.items() if value is not None}


def _as_declared(
    prepare: Callable[..., None], texts: Mapping[str, str], own: Collection[str], dataset: str
) -> dict[str, object]:
    """The texts of `--option` as the function's annotations say, as in a recipe; texts where it has none.

    Raises:
        FmriModelsError: The function has no such option, of these or of the command's own, or takes another value.
    """
    from ..typed_values import Options, options_of

    declared = options_of(prepare, without=list(inspect.signature(prepare).parameters)[:2])
    if not isinstance(declared, Options):
        return dict(texts)
    unknown = [name for name in (*texts, *own) if name not in declared.types]
    if declared.closed and unknown:
        known = [f"--{name}" if name in _OWN_OPTIONS else f"--option {name}=VALUE" for name in declared.types]
        raise FmriModelsError(
            f"The data set script {dataset} doesn't take these options ({listed(unknown)}); those that it takes: "
            f"{', '.join(known) or 'none'}.{did_you_mean(unknown[0], declared.types)}"
        )
    return {name: _read_option(name, text, declared.types.get(name, Any)) for name, text in texts.items()}


def _read_option(name: str, text: str, declared: Any) -> object:
    from ..typed_values import Argument, OneOf, expectation, typed

    kinds = get_args(declared) or (declared,)
    if (
        "," in text
        and not text.lstrip().startswith("[")
        and any(get_origin(kind) is list for kind in (*kinds, declared))
    ):
        text = f"[{text}]"
    if Path in kinds:
        as_text = _read_option(name, text, OneOf(tuple(str if kind is Path else kind for kind in kinds)))
        return Path(as_text) if isinstance(as_text, str) else as_text
    # What is no option's type is left to the function.
    return typed(Argument(text), declared, f"--option {name}") if expectation(declared) != "something else" else text


def _prepare_arrays(args: argparse.Namespace) -> None:
    from ..data.arrays import prepare_arrays

    for needed in ("fmri", "events"):
        if getattr(args, needed) is None:
            args.usage_error(f"--{needed} is needed for arrays")
    if args.source is not None or args.option:
        args.usage_error("--source and --option belong to data set scripts")
    prepare_arrays(
        _one_or_by_subject(args, "fmri", args.fmri),
        args.events,
        args.stimuli,
        args.out,
        voxels=None if args.voxels is None else _one_or_by_subject(args, "voxels", args.voxels),
        drop_bad_voxels=args.drop_bad_voxels,
        seed=args.seed or 0,
        name=args.name,
        overwrite=args.overwrite,
        size=args.size,
        report=_say,
    )


def _one_or_by_subject(args: argparse.Namespace, what: str, values: Sequence[str]) -> str | dict[str, str]:
    if len(values) == 1 and "=" not in values[0]:
        return values[0]
    pairs = [value.partition("=") for value in values]
    if not all(equals and subject and path for subject, equals, path in pairs):
        args.usage_error(f"--{what} takes one file, or SUBJECT=FILE for each subject")
    by_subject = {subject: path for subject, _, path in pairs}
    if len(by_subject) != len(pairs):
        args.usage_error(f"--{what} names a subject twice")
    return by_subject
