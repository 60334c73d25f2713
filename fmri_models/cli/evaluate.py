"""`fmri-models evaluate`."""

import argparse
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..command_output import load_libraries
from ..names import one_line, shell_word
from .console import (
    SeedOption,
    add_generation_arguments,
    add_guide_weights,
    add_table_argument,
    add_unseen_session,
    check_model_is_there,
    given_settings,
    places_of_weights,
)
from .usage import check_without

if TYPE_CHECKING:
    from ..evaluation.raters.pack import PackRequest
    from ..evaluation.report import Report

_OF_MODELS = (
    "repetitions",
    "permute_within",
    "samples",
    "reference",
    "refit_permuted",
    "audit",
    "split_gap",
    "library",
    "guide_weights",
    "rows",
    "unseen_session",
    "steps",
    "guidance_scale",
    "strength",
    "candidates",
    "selection",
    "text_to_image_ratio",
    "precision",
)

_OF_PACKS = ("rater_trials", "rater_against")
# What adding answers to a report knows.
_OF_RATINGS = ("ratings", "rater_key", "out", "overwrite")

# Named here because the parts themselves load PyTorch, which nobody should wait for who asks for help.
_AUDIT_PARTS = ("overlap", "clusters", "span", "library", "repetitions", "bottleneck", "regions")
_EXAMPLES = """examples:
  fmri-models evaluate --images my_reconstructions --truth shown --out outputs/report
  fmri-models evaluate --images my_reconstructions --truth shown --protocol mindeye-982 --out outputs/as_published
  fmri-models evaluate --model outputs/linear --data outputs/demo/data --out outputs/report
  fmri-models evaluate --images my_reconstructions --truth shown --rater-pack outputs/raters --out outputs/report
  fmri-models evaluate --ratings outputs/answers --rater-key outputs/raters-key.json --out outputs/report
"""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser(
        "evaluate",
        help="measure a model, or a folder of reconstructions",
        description=(
            "Measure a model on the test trials of a table, with controls and references, or measure anybody's "
            "reconstructions, whatever made them, against the true pictures: two folders with files of equal names. A "
            "folder of folds is merged into one report."
        ),
        epilog=_epilog(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", metavar="DIR_OR_REPO", help="a pipeline, or a folder of folds")
    parser.add_argument("--data", metavar="DIR", help="the trial table")
    parser.add_argument("--images", metavar="DIR", help="reconstructions, named as their true pictures")
    parser.add_argument("--embeddings", metavar="FILE.npy", help="decoded embeddings of a model that only retrieves")
    parser.add_argument("--labels", metavar="FILE.csv", help="stimulus_id and label, of a model that only classifies")
    parser.add_argument(
        "--truth", metavar="DIR", help="true pictures, a folder; or a file as that of --embeddings or --labels"
    )
    parser.add_argument(
        "--protocol",
        metavar="NAME",
        help="which metrics, and how pictures are prepared; one of those below (default: standard)",
    )
    parser.add_argument(
        "--weights",
        metavar="DIR",
        help="folder with weights of the networks that measure, under their published names, for machines without a "
        "network (default: they are fetched once and kept)",
    )
    add_guide_weights(
        parser,
        "weights of networks whose layers the model decodes, such as vgg19=FILE (not needed where it was trained)",
    )
    parser.add_argument("--out", metavar="DIR", required=True, help="where the report is written")
    parser.add_argument(
        "--repetitions",
        choices=("average", "single", "curve"),
        default="average",
        help="average test repetitions (default), score single trials, or average and draw 1, 2, 3, 4, 8 ... averaged, "
        "too",
    )
    parser.add_argument(
        "--permute-within",
        choices=("session", "run", "block"),
        help="let the permutation test exchange stimuli inside sessions, runs or blocks alone (default: among all)",
    )
    parser.add_argument(
        "--without",
        metavar="NAME,...",
        help="leave out these metrics, or all metrics of these networks; unavailable: of networks that can't be had",
    )
    parser.add_argument(
        "--samples",
        type=int,
        metavar="N",
        help="draw so many pictures of each response, over which scores are a mean (default: the protocol's)",
    )
    parser.add_argument("--reference", metavar="DIR_OR_REPO", help="a second pipeline (or its folds) to stand beside")
    parser.add_argument(
        "--refit-permuted",
        action="store_true",
        help="also train the method itself on exchanged pairs, which takes as long as its training did "
        "(permuted_training is ridge for every method)",
    )
    parser.add_argument(
        "--rows",
        metavar="NAME,...",
        help="draw these rows alone beside the brain's, such as shuffled_brain,floor (default: all that there are)",
    )
    parser.add_argument(
        "--audit",
        nargs="?",
        const="all",
        metavar="NAME,...",
        help="also ask where the score comes from, the brain, memory or the generator: all questions of an audit, or "
        f"these of {', '.join(_AUDIT_PARTS)}",
    )
    parser.add_argument(
        "--split-gap",
        metavar="REPORT",
        help="report.json (or its folder) of the same method trained on another split: how much better it is there",
    )
    parser.add_argument(
        "--library",
        metavar="DIR|TABLE|builtin:scenes",
        help="pictures among which the audit's part library looks for the nearest, beside the training pictures: a "
        "folder, a zip file, a trial table, or builtin:scenes[:NUMBER]",
    )
    parser.add_argument(
        "--rater-pack",
        metavar="DIR",
        help="also write a folder to be handed out, with a page on which people choose between pictures without "
        "knowing what made them; its key is written beside it, as DIR-key.json",
    )
    parser.add_argument(
        "--rater-trials", type=int, metavar="N", default=60, help="at most so many trials of each kind (default: 60)"
    )
    parser.add_argument(
        "--rater-against",
        metavar="NAME,...",
        help="rows that people are to see reconstructions beside, such as nearest_train, as well as another stimulus'",
    )
    parser.add_argument(
        "--ratings",
        nargs="+",
        metavar="FILE_OR_DIR",
        help="files that raters have downloaded from the page of a pack: adds people's choices to the report in --out",
    )
    parser.add_argument("--rater-key", metavar="FILE.json", help="with --ratings: the key of the pack")
    parser.add_argument("--seed", type=int, action=SeedOption, default=0)
    parser.add_argument("--overwrite", action="store_true", help="write into a folder that has content")
    add_table_argument(parser)
    add_unseen_session(parser)
    add_generation_arguments(parser)
    parser.set_defaults(run=run, parser=parser)


def _epilog() -> str:
    from ..evaluation.protocols import PROTOCOLS

    protocols = textwrap.fill(f"protocols: {', '.join(PROTOCOLS)}", 80, subsequent_indent="  ", break_on_hyphens=False)
    return f"{_EXAMPLES}\n{protocols}\n"


def run(args: argparse.Namespace) -> dict[str, Any]:
    if args.ratings is not None or args.rater_key is not None:
        return _add_ratings(args)
    given = [name for name in ("model", "data", "images", "embeddings", "labels", "truth") if getattr(args, name)]
    if given not in (["model", "data"], ["images", "truth"], ["embeddings", "truth"], ["labels", "truth"]):
        args.parser.error(
            "give --model and --data, --images and --truth, --embeddings and --truth, or --labels and --truth; or "
            "--ratings and --rater-key"
        )
    if args.rater_pack is None:
        check_without(args, _OF_PACKS, "they are of the folder that --rater-pack writes")
    if given[0] != "model":
        reason = f"with --{given[0]} nothing is decoded or drawn; they go with --model and --data"
        check_without(args, _OF_MODELS, reason)
    if given[0] in ("embeddings", "labels"):
        check_without(args, ("protocol", "without", "rater_pack"), f"with --{given[0]} there is one way of measuring")
    from ..data.table import TrialTable
    from ..evaluation.protocols import get_protocol

    get_protocol(args.protocol)
    pack = _pack(args)
    without = _names(args.without)
    settings = given_settings(args)
    if args.model is not None:
        check_model_is_there(args.model)
        TrialTable.open(args.data)
    load_libraries()
    if given[0] in ("embeddings", "labels"):
        from ..evaluation.decoded_files import evaluate_embeddings, evaluate_labels

        measure = evaluate_embeddings if given[0] == "embeddings" else evaluate_labels
        report = measure(getattr(args, given[0]), args.truth, args.out, args.seed, args.overwrite)
    elif given == ["images", "truth"]:
        from ..evaluation.images import evaluate_images

        report = evaluate_images(
            args.images, args.truth, args.out, args.protocol, args.seed, args.overwrite, args.weights, without=without,
            rater_pack=pack,
        )  # fmt: skip
    else:
        from ..evaluation.evaluate import evaluate
        from ..training.exchanged_pairs import refit_on_exchanged_pairs

        report = evaluate(
            args.model,
            args.data,
            args.out,
            args.protocol,
            args.repetitions,
            settings,
            args.reference,
            args.overwrite,
            args.seed,
            args.precision,
            args.unseen_session,
            refit_on_exchanged_pairs if args.refit_permuted else None,
            None if args.rows is None else _names(args.rows),
            args.weights,
            without,
            args.permute_within,
            _names(args.audit),
            args.samples,
            args.split_gap,
            args.library,
            pack,
            places_of_weights(args.guide_weights),
        )
    _print(report, args.all_rows)
    pictures = ", grid.png, images/" if (Path(args.out) / "grid.png").is_file() else ""
    print(f"\nwrote {one_line(args.out)}/report.json, report.md, report.html, items.parquet{pictures}")
    if pack is not None:
        print(_how_to_hand_out(args.rater_pack, pack.key_file, args.out))
    return {"out": args.out, "report": report.to_dict()}


def _print(report: "Report", all_rows: bool) -> None:
    from ..evaluation.report_terminal import guides_text, notes_text, results_table, verdict_text, warnings_text

    if report.warnings:
        print(f"{warnings_text(report)}\n")
    print(f"{verdict_text(report)}\n")
    print(results_table(report, all_rows=all_rows))
    print()
    if report.guides:
        print(f"{guides_text(report)}\n")
    if report.further_notes:
        print(notes_text(report))


def _pack(args: argparse.Namespace) -> "PackRequest | None":
    if args.rater_pack is None:
        return None
    from ..evaluation.raters.pack import PackRequest

    pack = PackRequest(args.rater_pack, args.rater_trials, _names(args.rater_against))
    pack.check_free(args.out)
    return pack


def _how_to_hand_out(folder: str, key: Path, out: str) -> str:
    command = f"--ratings ANSWERS... --rater-key {shell_word(key)} --out {shell_word(out)}"
    return (
        f"wrote {one_line(folder)}/ to be handed out as a whole: raters open index.html in it, and send the file back "
        f"that they download at the end\nwrote {one_line(key)}, which raters must not see\n\nnext:\n"
        f"  fmri-models evaluate {command}"
    )


def _add_ratings(args: argparse.Namespace) -> dict[str, Any]:
    if args.ratings is None or args.rater_key is None:
        args.parser.error("give --ratings and --rater-key together")
    others = [action.dest for action in args.parser._actions if action.dest not in (*_OF_RATINGS, "help")]
    given = vars(args).get("_given", ())
    reason = "with --ratings nothing is measured anew; answers are added to the report in --out"
    check_without(args, [name for name in others if name in given or getattr(args, name, None) is True], reason)
    load_libraries()
    from ..evaluation.raters.ratings import add_ratings

    report = add_ratings(args.out, args.rater_key, args.ratings, args.overwrite)
    _print(report, all_rows=False)
    print(f"\nwrote {one_line(args.out)}/report.json, report.md, report.html, rater_answers.csv")
    return {"out": args.out, "report": report.to_dict()}


def _names(text: str | None) -> list[str]:
    return [name for name in (text or "").split(",") if name]
