"""`fmri-models simulate`."""

import argparse
from typing import Any

from ..names import one_line, shell_word
from .console import SeedOption


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser(
        "simulate",
        help="make a trial table of simulated brain responses to pictures",
        description="Show pictures to simulated brains and write their responses as a trial table. The responses are "
        "single-trial betas, made directly: no HRF and no GLM are simulated. The table and every report on it say that "
        "it is simulated. Equations, constants and limits are in docs/simulator.md.",
        epilog="examples:\n"
        "  fmri-models simulate --stimuli builtin:scenes --subjects 4 --out outputs/simulated\n"
        "  fmri-models simulate --stimuli photos.zip --size 64 --subjects 1 --voxels 2000 --out outputs/photos",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--stimuli",
        required=True,
        metavar="WHAT",
        help="builtin:scenes, a folder or zip file of pictures (index.csv if there is one), or a trial table",
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="folder of the trial table to be written")
    parser.add_argument("--subjects", type=int, default=1, metavar="N", help="number of brains (default: 1)")
    parser.add_argument(
        "--first-subject",
        type=int,
        default=1,
        metavar="N",
        help="number of the first brain: 4 with --subjects 1 is subj04 alone (default: 1)",
    )
    parser.add_argument(
        "--voxels",
        type=int,
        default=3000,
        metavar="N",
        help="voxels of the first subject; the others have up to a tenth more or fewer (default: 3000)",
    )
    amount = parser.add_mutually_exclusive_group()
    amount.add_argument(
        "--train",
        type=int,
        metavar="N",
        help="training stimuli of each subject, a tenth of them seen by all (default: 1000, or what there is)",
    )
    amount.add_argument("--trials", type=int, metavar="N", help="trials of each subject in all, instead of --train")
    parser.add_argument(
        "--validation", type=int, metavar="N", help="validation stimuli (default: 100, or a tenth of the pictures)"
    )
    parser.add_argument("--test", type=int, metavar="N", help="test stimuli (default: 100, or a tenth of the pictures)")
    parser.add_argument(
        "--repetitions",
        type=int,
        default=3,
        metavar="N",
        help="how often each stimulus is shown, each time in another session (default: 3)",
    )
    parser.add_argument(
        "--signal-to-noise",
        type=float,
        default=1.0,
        metavar="X",
        help="multiply the signal-to-noise ratio of all voxels (default: 1; at 1.73 one trial is as good as the mean "
        "of three)",
    )
    parser.add_argument(
        "--unlabelled",
        type=int,
        default=0,
        metavar="N",
        help="further trials of each subject without a stimulus, in the part `unlabelled` (default: 0)",
    )
    parser.add_argument(
        "--unlabelled-kinds",
        nargs="+",
        choices=("rest", "viewing"),
        default=("rest", "viewing"),
        help="of what kinds they are: noise alone, or responses to further pictures that are withheld (default: half "
        "of each)",
    )
    parser.add_argument(
        "--size",
        type=int,
        metavar="PIXELS",
        help="crop pictures to their central square and resize it (default: leave them as they are)",
    )
    parser.add_argument(
        "--seed", type=int, action=SeedOption, default=0, metavar="N", help="draws everything (default: 0)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an output folder that has content")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> dict[str, Any]:
    from ..data.table import TrialTable
    from ..simulation import simulate

    folder = simulate(
        args.stimuli,
        args.out,
        num_subjects=args.subjects,
        num_voxels=args.voxels,
        num_train=args.train,
        num_validation=args.validation,
        num_test=args.test,
        num_trials=args.trials,
        repetitions=args.repetitions,
        image_size=args.size,
        seed=args.seed,
        overwrite=args.overwrite,
        progress=True,
        report=_say,
        signal_to_noise=args.signal_to_noise,
        unlabelled=args.unlabelled,
        unlabelled_kinds=args.unlabelled_kinds,
        first_subject=args.first_subject,
    )
    table = TrialTable.open(folder)
    for finding in table.findings:
        _say(finding)
    print(f"saved {one_line(folder, most=5000)} (simulated)")
    command = f"fmri-models train linear {shell_word(f'data={folder}')} {shell_word(f'out={folder}-linear')}"
    print(f"\nnext:\n  {command}")
    return {"table": folder, "fingerprint": table.fingerprint, "findings": table.findings, "next": command}


def _say(sentence: str) -> None:
    print(one_line(sentence, most=5000))
