"""`fmri-models train`."""

import argparse


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser(
        "train",
        help="train a recipe on a trial table",
        description="Train what a recipe says; the result is a pipeline folder.",
        epilog="example:\n  fmri-models train linear data=outputs/demo/data out=outputs/linear subjects=[subj01]",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("recipe", help="name of a shipped recipe, or a YAML file")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="values that replace the recipe's")
    parser.add_argument("--resume", action="store_true", help="keep folds that are complete, train the others")
    parser.add_argument("--overwrite", action="store_true", help="replace an output folder that has content")
    parser.add_argument("--dry-run", action="store_true", help="print parameters, memory, disk and time; train nothing")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    from ..training.recipe import load_recipe

    recipe = load_recipe(args.recipe, args.overrides)
    if args.dry_run:
        from ..training.estimate import estimate

        print(estimate(recipe))
        return
    from ..training.trainer import train

    folders = train(recipe, resume=args.resume, overwrite=args.overwrite)
    for folder in folders:
        print(f"saved {folder}")
    print(f"\nnext:\n  fmri-models evaluate --model {recipe.out} --data {recipe.data} --out {recipe.out}-report")
