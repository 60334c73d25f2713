"""`fmri-models completion`: what a shell needs to complete commands, options and their values."""

import argparse
from typing import Any

from .results import commands_of

SHELLS = ("bash", "zsh", "fish")
# Arguments that name files or folders, by how the help calls their values.
_FOLDERS, _FILES = ("DIR",), ("FILE", ".csv", ".npy", ".json", "PATH", "CHECKPOINT", "WHAT", "SCRIPT")


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser(
        "completion",
        help="print what a shell completes commands with",
        description="Print a script with which a shell completes the commands, their options and the values of these.",
        epilog='examples:\n  eval "$(fmri-models completion bash)"     # in ~/.bashrc\n'
        '  fmri-models completion zsh > "${fpath[1]}/_fmri-models"\n'
        "  fmri-models completion fish > ~/.config/fish/completions/fmri-models.fish",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("shell", choices=SHELLS)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    print(completion(args.shell))


def completion(shell: str) -> str:
    """The script for a shell, made of the commands' own parser."""
    import shtab

    from .main import build_parser

    parser = build_parser()
    _prepare(parser)
    return str(shtab.complete(parser, shell=shell))


def _prepare(parser: argparse.ArgumentParser) -> None:
    """Says of each argument what its values are, as far as the parser's own choices do not."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction) or action.choices is not None:
            continue
        if choices := _choices(parser, action):
            # Only completed by: others are refused by the command, in a sentence.
            action.choices = choices
        elif (paths := _paths_of(action)) is not None:
            action.complete = paths  # type: ignore[attr-defined]
    for command in commands_of(parser).values():
        _prepare(command)


def _choices(parser: argparse.ArgumentParser, action: argparse.Action) -> list[str]:
    """Names that an argument takes and argparse doesn't know, such as those of recipes."""
    command = parser.prog.split()[-1]
    if (command, action.dest) == ("train", "recipe"):
        from ..training.recipe_files import recipe_names

        return recipe_names()
    if (command, action.dest) == ("evaluate", "protocol"):
        from ..evaluation.protocols import PROTOCOLS

        return sorted(PROTOCOLS)
    if (command, action.dest) == ("prepare", "dataset"):
        from .prepare import dataset_names

        return dataset_names()
    if (command, action.dest) == ("convert", "method"):
        from ..registry import METHODS

        return sorted(method.name for method in METHODS.in_order() if method.converter is not None)
    if action.dest == "part":
        return ["train", "validation", "test"]
    return []


def _paths_of(action: argparse.Action) -> Any:
    """What the shell offers for an argument that names a file or a folder; None for others."""
    import shtab

    named = action.metavar if isinstance(action.metavar, str) else ""
    if any(word in named for word in _FILES):
        return shtab.FILE
    return shtab.DIRECTORY if any(word in named for word in _FOLDERS) or action.dest == "out" else None
