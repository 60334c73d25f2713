"""`fmri-models data`: looking at a trial table, checking it, splitting it, uploading it."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import FmriModelsError
from ..names import check_name, one_line
from ..progress import bar
from .console import SeedOption
from .data_info import about_split, add_info, counted, split_line
from .results import FailedWithResultError

if TYPE_CHECKING:
    from ..data.split_trials import SplitTrials
    from ..data.splits import DrawnSplit
    from ..data.table import TrialTable

_WAYS = ("stimulus", "kfold", "run", "semantic", "cluster", "ood", "tau", "fewer", "imagery")
_BY_EMBEDDING = ("cluster", "ood", "tau")
# Option ▶ the ways of splitting that it means something for.
_OPTIONS_OF = {
    "folds": ("kfold", "run", "cluster"),
    "test_fraction": ("stimulus", "semantic", *_BY_EMBEDDING),
    "embedder": _BY_EMBEDDING,
    "embeddings": _BY_EMBEDDING,
    "weights": _BY_EMBEDDING,
    "clusters": ("cluster",),
    "neighbours": ("ood",),
    "tau": ("tau",),
    "keep": ("tau",),
}


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser(
        "data",
        help="look at a trial table, check it, split it, upload it",
        description="Look at a trial table, check it, add a split to it, or upload it to the Hub.",
        epilog="examples:\n  fmri-models data info DIR\n  fmri-models data validate DIR\n"
        "  fmri-models data split DIR --name kfold --by kfold\n  fmri-models data push DIR user/name --private",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    add_info(actions)
    _add_validate(actions)
    _add_split(actions)
    _add_push(actions)


def run_validate(args: argparse.Namespace) -> dict[str, Any]:
    from ..data.validation import validate_table

    notes: list[str] = []
    with bar(name="Checking files and pictures") as progress:

        def on(step: str) -> None:
            progress.set_postfix_str(step, refresh=False)
            progress.update()

        findings = validate_table(args.table, on, notes.append)
    for note in notes:
        print(one_line(f"note: {note}", most=2000))
    for finding in findings:
        print(one_line(finding, most=2000))
    result = {"table": args.table, "notes": notes, "findings": findings}
    if findings:
        raise FailedWithResultError(
            f"{args.table} has {counted(len(findings), 'problem')}; prepare the table again.", result
        )
    print(f"{one_line(args.table)}: nothing wrong.")
    return result


def run_split(args: argparse.Namespace) -> dict[str, Any]:
    from ..data.split_trials import SplitTrials
    from ..data.splits import add_split
    from ..data.table import TrialTable

    _check_split_options(args)
    check_name(args.name, "split name")
    table = TrialTable.open(args.table)
    if not args.table.is_dir():
        raise FmriModelsError(
            f"{args.table} is on the Hub, and a split is written into a folder; fetch the table with `hf download "
            f"--repo-type dataset {args.table} --local-dir DIR`, and split that."
        )
    if args.name in table.split_names():
        raise FmriModelsError(f"The split {args.name!r} exists in {args.table}; choose another name.")
    trials = SplitTrials.of_table(table)
    drawn = _draw_by_embedding(args, table, trials) if args.by in _BY_EMBEDDING else _draw(args, table, trials)
    add_split(table, args.name, drawn)
    for note in drawn.notes:
        print(one_line(note, most=2000))
    split = about_split(TrialTable.open(args.table), args.name)
    print(split_line(args.name, split))
    return {"table": args.table, "name": args.name, "notes": drawn.notes, **split}


def _check_split_options(args: argparse.Namespace) -> None:
    """Refuses options that mean nothing for a way of splitting, or not together."""
    for option, ways in _OPTIONS_OF.items():
        if getattr(args, option) is not None and args.by not in ways:
            args.usage_error(f"--{option.replace('_', '-')} does not go with --by {args.by}")
    if (args.trials is not None or args.of is not None) and args.by != "fewer":
        args.usage_error(f"--trials and --of do not go with --by {args.by}")
    if args.trials is None and args.by == "fewer":
        args.usage_error("--by fewer needs --trials, the number of training trials of a subject")
    if args.embeddings is not None and args.embedder is not None:
        args.usage_error("give --embedder, which makes embeddings, or --embeddings, which has them")
    if args.embeddings is not None and args.weights is not None:
        args.usage_error("--weights are those of an --embedder, and --embeddings needs none")
    if args.tau is not None and args.keep is not None:
        args.usage_error("--keep chooses tau; give one of both")
    if args.folds is not None and args.test_fraction is not None:
        args.usage_error("--folds says how much each fold tests; leave --test-fraction out")


def run_push(args: argparse.Namespace) -> dict[str, Any]:
    from ..data.table import TrialTable

    table = TrialTable.open(args.table)
    address = table.push_to_hub(
        args.repository,
        commit_message=args.message,
        private=args.private or None,
        revision=args.revision,
        permission=args.permission,
        pictures=not args.without_pictures,
    )
    print(f"uploaded to {one_line(address)}")
    return {"table": args.table, "repository": args.repository, "commit": address}


def _add_validate(actions: argparse._SubParsersAction) -> None:
    parser = actions.add_parser(
        "validate",
        help="check every file of a table",
        description="Read and check every file of a trial table; one line a finding, exit code 1 if there is any.",
        epilog="example:\n  fmri-models data validate outputs/demo/data",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("table", metavar="DIR", type=Path, help="the trial table")
    parser.set_defaults(run=run_validate)


def _add_split(actions: argparse._SubParsersAction) -> None:
    parser = actions.add_parser(
        "split",
        help="add a split",
        description="Draw a split over all trials of a table and write it beside the others. Betas are not copied.\n\n"
        "  stimulus   a share of the stimuli is tested\n"
        "  kfold      each stimulus is tested in one of the folds, categories spread evenly\n"
        "  run        leave one run out (or groups of runs, with --folds)\n"
        "  semantic   whole categories are tested\n"
        "  cluster    whole clusters of pictures (k-means on embeddings) are tested\n"
        "  ood        the pictures farthest from all others are tested\n"
        "  tau        no tested picture is nearer than tau to one learned from, and both are matched in distribution\n"
        "  fewer      the split --of with --trials training trials of each subject and the same test\n"
        "  imagery    trials in which a picture was imagined are tested, pictures seen are learned from\n\n"
        "A picture that is there under two ids counts as one stimulus. Validation is drawn from the training\n"
        "trials by stimulus; by run where the runs of a fold's test show stimuli that are learned from.",
        epilog="example:\n  fmri-models data split outputs/demo/data --name kfold --by kfold --folds 10 --seed 0",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("table", metavar="DIR", type=Path, help="the trial table")
    parser.add_argument("--name", required=True, help="the split's name")
    parser.add_argument("--by", required=True, choices=_WAYS, help="what is split by")
    parser.add_argument(
        "--folds", type=int, metavar="N", help="number of folds (kfold: 10; run: one a run; cluster: one with a test)"
    )
    parser.add_argument(
        "--embedder",
        metavar="NAME",
        help="what embeds the pictures (cluster, ood, tau): a network that measures, such as efficientnet_lite0, or an "
        "image generator's name, folder or repository (default: what fits the pictures, which is printed)",
    )
    parser.add_argument(
        "--embeddings",
        metavar="FILE",
        type=Path,
        help="embeddings of your own (cluster, ood, tau): .npz with ids and embeddings, or .npy in the table's order",
    )
    parser.add_argument("--weights", metavar="DIR", help="folder with the weights of an --embedder that measures")
    parser.add_argument("--clusters", type=int, metavar="K", help="number of clusters (cluster: two a test set)")
    parser.add_argument(
        "--neighbours", type=int, metavar="K", help="nearest others that say how far a picture is (ood: 10)"
    )
    parser.add_argument(
        "--tau", type=float, metavar="T", help="least cosine distance of tested and learned pictures (tau)"
    )
    parser.add_argument(
        "--keep",
        type=float,
        metavar="F",
        help="share of the other pictures that is to be left where --tau is not given (tau: 0.9)",
    )
    parser.add_argument("--trials", type=int, metavar="N", help="training trials of a subject (fewer)")
    parser.add_argument("--of", metavar="NAME", help="the split that is to have fewer (fewer: default)")
    parser.add_argument(
        "--seed", type=int, action=SeedOption, default=0, metavar="N", help="draws the split (default: 0)"
    )
    parser.add_argument("--test-fraction", type=float, metavar="F", help="share of the stimuli to test (default: 0.1)")
    parser.add_argument(
        "--validation-fraction", type=float, default=0.1, metavar="F",
        help="share of the training stimuli for validation (default: 0.1; 0: none)",
    )  # fmt: skip
    parser.set_defaults(run=run_split, usage_error=parser.error)


def _add_push(actions: argparse._SubParsersAction) -> None:
    parser = actions.add_parser(
        "push",
        help="upload a table to the Hub",
        description="Upload a trial table to the Hub as a data set, with its card and all splits, in one commit. It\n"
        "then opens everywhere by its name, user/name. Tables whose terms forbid it are refused; of anything else,\n"
        "the licence of the stimuli says whether they may be published.",
        epilog="examples:\n  fmri-models data push outputs/demo/data user/name --private\n"
        "  fmri-models data push data/god user/name --without-pictures",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("table", metavar="DIR", type=Path, help="the trial table")
    parser.add_argument("repository", metavar="REPO", help="user/name, or a name in your namespace")
    parser.add_argument("--private", action="store_true", help="a repository that is made is private")
    parser.add_argument(
        "--without-pictures", action="store_true", help="leave the pictures out, and upload the rest of the table"
    )
    parser.add_argument("--revision", metavar="NAME", help="branch (default: the main one)")
    parser.add_argument("--message", metavar="TEXT", help="first line of the commit")
    parser.add_argument(
        "--permission",
        metavar="TEXT",
        help="the written permission to pass data on whose terms forbid it, in a line that the card keeps",
    )
    parser.set_defaults(run=run_push)


def _draw(args: argparse.Namespace, table: "TrialTable", trials: "SplitTrials") -> "DrawnSplit":
    from ..data import schema, splits

    fractions = {"seed": args.seed, "validation_fraction": args.validation_fraction}
    if args.by == "fewer":
        name = args.of or schema.DEFAULT_SPLIT
        repeats, how = table.repeats_stimuli(name), table.split_how(name)
        earlier = {f"of_{key}" if key in ("by", "seed") else key: value for key, value in how.items()}
        return splits.split_fewer(
            trials, table.split_rows(name), args.trials, repeats_stimuli=repeats, made_with=earlier, **fractions
        )
    if args.by == "imagery":
        return splits.split_by_imagery(trials, **fractions)
    test_fraction = 0.1 if args.test_fraction is None else args.test_fraction
    if args.by == "kfold":
        folds = splits.DEFAULT_FOLDS if args.folds is None else args.folds
        return splits.split_kfold(trials, folds=folds, **fractions)
    if args.by == "run":
        return splits.split_by_run(trials, folds=args.folds, **fractions)
    if args.by == "semantic":
        return splits.split_semantic(trials, test_fraction=test_fraction, **fractions)
    return splits.split_by_stimulus(trials, test_fraction=test_fraction, **fractions)


def _draw_by_embedding(args: argparse.Namespace, table: "TrialTable", trials: "SplitTrials") -> "DrawnSplit":
    from ..command_output import load_libraries

    load_libraries()
    from ..data import split_by_embedding as ways
    from ..data.near_copies import PictureSketches
    from ..data.stimulus_embeddings import embedded_ids, file_embeddings
    from ..evaluation.stimulus_features import embeddings_by

    ids = embedded_ids(trials)
    if args.embeddings is not None:
        embeddings = file_embeddings(table, ids, args.embeddings)
    else:
        embeddings = embeddings_by(table, ids, args.embedder, args.weights)
    options = {
        "seed": args.seed,
        "validation_fraction": args.validation_fraction,
        "test_fraction": 0.1 if args.test_fraction is None else args.test_fraction,
        # Those without a picture are left out, and are compared by their embeddings alone.
        "sketches": PictureSketches(table.stimuli, set(trials.stimulus_ids), "Comparing pictures"),
    }
    if args.by == "cluster":
        return ways.split_by_cluster(trials, embeddings, clusters=args.clusters, folds=args.folds, **options)
    if args.by == "ood":
        neighbours = ways.DEFAULT_NEIGHBOURS if args.neighbours is None else args.neighbours
        return ways.split_by_distance(trials, embeddings, neighbours=neighbours, **options)
    keep = ways.DEFAULT_KEEP if args.keep is None else args.keep
    return ways.split_by_tau(trials, embeddings, tau=args.tau, keep=keep, **options)
