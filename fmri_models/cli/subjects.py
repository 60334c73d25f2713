"""`fmri-models subjects`: which subjects a model has, one of them alone in a folder, and such folders in a model."""

import argparse
from pathlib import Path
from typing import Any

from ..command_output import load_libraries
from ..errors import FmriModelsError
from ..names import one_line
from ..terminal_text import size_text, voxels_read
from .console import check_model_is_there

_DTYPES = ("float16", "bfloat16", "float32")


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser(
        "subjects",
        help="list, save and load single subjects of a pipeline",
        description=(
            "A subject's own layers, with the processor's statistics of it, are a part of a pipeline that can be saved "
            "alone and loaded into another copy of the same base. `fmri-models push` uploads such a folder."
        ),
        epilog="examples:\n  fmri-models subjects list outputs/mine\n"
        "  fmri-models subjects save outputs/mine subj05 --out outputs/subj05 --dtype float16\n"
        "  fmri-models subjects load outputs/base outputs/subj05 user/subj07 --out outputs/more\n"
        "  fmri-models push outputs/subj05 user/name --private",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    _add_list(actions)
    _add_save(actions)
    _add_load(actions)


def run_list(args: argparse.Namespace) -> dict[str, Any]:
    load_libraries()
    from ..hub_repository import is_folder, local_folder
    from ..subject_folder import SUBJECT_FILE, SubjectRecord, size_of

    check_model_is_there(args.model)
    folder = Path(args.model) if (is_here := is_folder(args.model)) else local_folder(args.model, (SUBJECT_FILE,))
    if (folder / SUBJECT_FILE).is_file():
        record = SubjectRecord.of_folder(folder)
        # Of a repository, the weights were not fetched.
        size = size_of(folder) if is_here else None
        subjects, method = {record.subject: record.num_voxels}, record.method
        has_processor = record.has_processor
    else:
        subjects, method, has_processor = _subjects_of(args.model)
        size = None
    measured = _measured_voxels(args.model) if has_processor else {}
    for name, columns in subjects.items():
        read = voxels_read(measured[name], columns) if name in measured else f"{columns:,} columns"
        print(f"{one_line(name)}  {read}{'' if size is None else f'; {size_text(size)} in all'}")
    return {"model": args.model, "method": method, "subjects": subjects, "bytes": size}


def run_save(args: argparse.Namespace) -> dict[str, Any]:
    check_model_is_there(args.model)
    load_libraries()
    from ..pipeline_fmri import FmriToImagePipeline

    pipeline = FmriToImagePipeline.from_pretrained(args.model)
    size = pipeline.save_subject(args.subject, args.out, args.dtype)
    print(f"wrote {one_line(args.subject)} to {one_line(args.out)}: {size_text(size)}")
    return {"model": args.model, "subject": args.subject, "out": args.out, "bytes": size}


def run_load(args: argparse.Namespace) -> dict[str, Any]:
    check_model_is_there(args.model)
    load_libraries()
    from ..output_folders import PIPELINE, check_output_folder
    from ..pipeline_fmri import FmriToImagePipeline

    if args.out.exists() and Path(args.model).exists() and args.out.resolve() == Path(args.model).resolve():
        raise FmriModelsError(f"{one_line(args.out)} is the base itself; write the pipeline to another folder (--out).")
    check_output_folder(args.out, overwrite=args.overwrite, folder_format=PIPELINE)
    pipeline = FmriToImagePipeline.from_pretrained(args.model)
    loaded = [pipeline.load_subject(each) for each in args.subjects]
    pipeline.save_pretrained(args.out)
    names = list(pipeline.processor.subject_names)
    print(f"wrote {one_line(args.out)} with the subjects {', '.join(map(one_line, names))}")
    return {"model": args.model, "out": args.out, "loaded": loaded, "subjects": names}


def _subjects_of(model: str) -> tuple[dict[str, int], str, bool]:
    """Subject ▶ columns that are read of it; the method; whether it is a pipeline, which has a processor."""
    from ..configuration_fmri import FmriConfig
    from ..pipeline_folder import INDEX_FILE

    folder = Path(model)
    is_whole = not folder.is_dir() or (folder / INDEX_FILE).is_file()
    config = FmriConfig.from_pretrained(model, **({"subfolder": "brain_model"} if is_whole else {}))
    return config.voxels_by_subject, config.model_type, is_whole


def _measured_voxels(model: str) -> dict[str, int]:
    """Subject ▶ voxels that were recorded, of those that the processor was fitted to."""
    from ..processing_fmri import FmriProcessor

    processor = FmriProcessor.from_pretrained(model, subfolder="processor")
    return {name: processor.subject(name).num_voxels for name in processor.subject_names} if processor.is_fitted else {}


def _add_list(actions: argparse._SubParsersAction) -> None:
    parser = actions.add_parser(
        "list",
        help="subjects of a pipeline, or the one in a subject's folder",
        description="Print the subjects of a pipeline, or the one that a subject's folder holds, with their voxels.",
        epilog="example:\n  fmri-models subjects list outputs/mine",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", metavar="MODEL", help="folder or Hub repository of a pipeline or of a subject")
    parser.set_defaults(run=run_list)


def _add_save(actions: argparse._SubParsersAction) -> None:
    parser = actions.add_parser(
        "save",
        help="write one subject's layers and statistics to a folder",
        description="Write one subject's layers and the processor's statistics of it to a folder, and print its size.",
        epilog="example:\n  fmri-models subjects save outputs/mine subj05 --out outputs/subj05 --dtype float16",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", metavar="MODEL", help="folder or Hub repository of a pipeline")
    parser.add_argument("subject", metavar="SUBJECT", help="name of the subject")
    parser.add_argument("--out", metavar="DIR", type=Path, required=True, help="folder of the subject")
    parser.add_argument("--dtype", choices=_DTYPES, help="precision of the saved weights (default: the model's)")
    parser.set_defaults(run=run_save)


def _add_load(actions: argparse._SubParsersAction) -> None:
    parser = actions.add_parser(
        "load",
        help="write a pipeline that has further subjects",
        description="Load folders of subjects into a copy of the base that they were saved from, and save that.",
        epilog="example:\n  fmri-models subjects load outputs/base outputs/subj05 --out outputs/more",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", metavar="MODEL", help="folder or Hub repository of the base")
    parser.add_argument("subjects", metavar="SUBJECT", nargs="+", help="folder or Hub repository of a subject")
    parser.add_argument("--out", metavar="DIR", type=Path, required=True, help="folder of the new pipeline")
    parser.add_argument("--overwrite", action="store_true", help="write into a folder that has content")
    parser.set_defaults(run=run_load)
