"""`fmri-models convert`."""

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..command_output import load_libraries
from ..errors import FmriModelsError
from ..names import did_you_mean, one_line, shell_word
from .usage import UsageError, check_without

if TYPE_CHECKING:
    from ..pipeline_fmri import FmriToImagePipeline


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser(
        "convert",
        help="make a pipeline of a published checkpoint",
        description=(
            "Make a pipeline folder of a method's published checkpoint: sizes and options are inferred from the "
            "tensors, and nothing in the file is run. Published checkpoints come without the statistics of their "
            "betas, so the pipeline passes betas on as they are until `fmri-models fit-processor` has fitted it to a "
            "table."
        ),
        epilog=(
            "examples:\n  fmri-models convert mindeye last.pth --low-level epoch120.pth --out converted/mindeye\n"
            "  fmri-models convert mindeye last_1x768.pth use_prior=false --out converted/mindeye_retrieval"
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("method", metavar="METHOD", help="whose layout the checkpoint has")
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="the published file, .pth or .safetensors")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="fields of the configuration that tensors cannot tell"
    )
    parser.add_argument("--low-level", metavar="FILE", help="checkpoint of the low-level branch, if it is one apart")
    parser.add_argument("--out", metavar="DIR", required=True, help="folder of the pipeline")
    parser.add_argument(
        "--subject", help="whose brain the checkpoint reads (default: those that it names, subj01 where it names none)"
    )
    parser.add_argument(
        "--generator",
        metavar="NAME|DIR_OR_REPO",
        help="image generator (default: the one that the method was published with, if it fits)",
    )
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")
    parser.add_argument("--overwrite", action="store_true", help="replace an output folder that has content")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> dict[str, Any]:
    from ..hub.convert import convert_checkpoint, convertible_methods, is_convertible

    if not is_convertible(args.method):
        raise UsageError(
            f"No published checkpoints of {args.method!r} can be read; those of {', '.join(convertible_methods())} can."
            f"{did_you_mean(args.method, convertible_methods())}"
        )
    overrides = _parsed(args.overrides, args.method)
    if "subject_names" in overrides:
        check_without(args, ["subject"], "subject_names= says whose brains the checkpoint reads")
    if args.subject is not None:
        overrides["subject_names"] = [args.subject]
    load_libraries()
    pipeline = convert_checkpoint(
        args.method,
        args.checkpoint,
        args.out,
        low_level_checkpoint=args.low_level,
        image_generator=args.generator,
        dtype=args.dtype,
        overwrite=args.overwrite,
        **overrides,
    )
    return _report(pipeline, args.out)


def _parsed(overrides: Sequence[str], method: str) -> dict[str, Any]:
    """Fields of the method's configuration by their declared types; part of a name may be left out (`num_layers`)."""
    from ..configuration_fmri import SPACES
    from ..registry import get_method
    from ..typed_values import check_given_once, options_of, split_override, typed

    config = get_method(method).load("config")
    settable = {"subject_names", "num_voxels", *SPACES, *config.free_fields()}
    types = {name: declared for name, declared in options_of(config).types.items() if name in settable}
    try:
        given = dict(split_override(override) for override in overrides)
        check_given_once(overrides)
    except FmriModelsError as error:
        raise UsageError(str(error)) from error
    values = {}
    for key, text in given.items():
        name = key if key in types else next((each for each in types if each.endswith(f"_{key}")), key)
        if name not in types:
            raise FmriModelsError(
                f"The configuration of {method} has no field {one_line(repr(key), 80)}.{did_you_mean(key, types)}"
            )
        values[key] = typed(text, types[name], key)
    return values


def _report(pipeline: "FmriToImagePipeline", out: str) -> dict[str, Any]:
    model, processor = pipeline.brain_model, pipeline.processor
    voxels = ", ".join(f"{name} ({processor.subject(name).num_voxels} voxels)" for name in processor.subject_names)
    count = sum(parameter.numel() for parameter in model.parameters())
    print(f"wrote a pipeline of {count:,} parameters for {voxels} to {out}")
    print(f"input: {processor.expects}")
    fit = f"fmri-models fit-processor {shell_word(out)} --data TABLE"
    print(f"  (no statistics were published; `{fit}` fits those of your betas)")
    if pipeline.image_generator_source is not None:
        print(
            f"image generator: {pipeline.image_generator_source}, named and not copied; loaded when a picture is drawn"
        )
    elif pipeline.image_generator is not None:
        print(f"image generator: {type(pipeline.image_generator).__name__}, a part of the pipeline")
    else:
        print("image generator: none, so the pipeline retrieves and draws nothing (--generator names one)")
    return {
        "pipeline": out,
        "parameters": count,
        "voxels": {name: processor.subject(name).num_voxels for name in processor.subject_names},
        "image_generator": (
            str(pipeline.image_generator_source)
            if pipeline.image_generator_source is not None
            else None
            if pipeline.image_generator is None
            else type(pipeline.image_generator).__name__
        ),
        "next": f"{fit}",
    }
