"""`fmri-models space`: the demo as a web page."""

import argparse
import importlib.util

from ..command_output import load_libraries
from ..errors import FmriModelsError
from .console import add_unseen_session

_LAST_PORT = 2**16 - 1


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser(
        "space",
        help="look at a decoder in the browser",
        description="Serve a page on this machine: pictures and what is reconstructed of them, ranked test pictures, "
        "what each region contributes, methods side by side. Without options it shows the demos in outputs/ and the "
        "examples that the package carries. It needs the extra `space` and no network.",
        epilog="example:\n  fmri-models space --port 7860",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--model", metavar="DIR_OR_REPO", help="the pipeline, or several with commas between ($FMRI_MODEL)"
    )
    parser.add_argument("--data", metavar="DIR_OR_REPO", help="the trial table ($FMRI_DATA)")
    parser.add_argument("--port", type=_port, metavar="N", help="port to listen on (default: a free one from 7860)")
    add_unseen_session(parser)
    parser.set_defaults(run=run)


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and 1 <= int(text) <= _LAST_PORT):
        raise argparse.ArgumentTypeError(f"{text!r} is no port; expected a number from 1 to {_LAST_PORT}")
    return int(text)


def run(args: argparse.Namespace) -> None:
    if importlib.util.find_spec("gradio") is None:
        raise FmriModelsError("gradio is not installed; install it with `pip install 'fmri_models[space]'`.")
    load_libraries()
    from ..space.page import launch

    launch(model=args.model, data=args.data, port=args.port, unseen_session=args.unseen_session)
