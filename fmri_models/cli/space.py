"""`fmri-models space`: the demo as a web page."""

import argparse
import importlib.util
from types import ModuleType

from ..errors import FmriModelsError
from ..shipped import shipped_folder
from .console import add_unseen_session

_LAST_PORT = 2**16 - 1


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser(
        "space",
        help="look at a decoder in the browser",
        description="Serve a page on this machine that shows test pictures, their reconstructions and the most similar "
        "pictures: of the demo where it was run, else of the example that the package carries. It needs the extra "
        "`space` (gradio) and no network.",
        epilog="example:\n  fmri-models space --port 7860",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", metavar="DIR_OR_REPO", help="the pipeline ($FMRI_MODEL; the demo's; the example)")
    parser.add_argument("--data", metavar="DIR_OR_REPO", help="the trial table ($FMRI_DATA; the demo's; the example's)")
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
    load_app().launch(model=args.model, data=args.data, port=args.port, unseen_session=args.unseen_session)


def load_app() -> ModuleType:
    """Imports the Space's `app.py`, which lies beside the package and not in it."""
    path = shipped_folder("space") / "app.py"
    spec = importlib.util.spec_from_file_location("fmri_models_space_app", path)
    if spec is None or spec.loader is None:
        raise FmriModelsError(f"{path} cannot be imported; install fmri_models again.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
