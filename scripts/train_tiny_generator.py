"""Trains the components of the embedded tiny generator on built-in scenes and writes them to `fmri_models/assets`.

    python scripts/train_tiny_generator.py all --work outputs/tiny_generator

Stages: `autoencoder`, `clip` and `classifier` train one network each, `encoders` writes them to the assets, `unet`
trains the diffusion model on what the assets' encoders give, `card` adds it, measures everything and writes the card;
`all` is the six in turn. A stage that was interrupted goes on where it was when the same command is
typed again (a kill loses at most a minute, and the result is equal to an uninterrupted run's); a finished one is
skipped. `--minutes` stops after a while and leaves the rest to the next call. The course of the training is in
`WORK/<stage>/log.jsonl`.
"""

import argparse
import math
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts.tiny_generator.assets import ENCODER_STAGES, add_diffusion_model, assemble
from scripts.tiny_generator.card import write_card
from scripts.tiny_generator.diffusion_model import UNetStage
from scripts.tiny_generator.pictures import Data
from scripts.tiny_generator.settings import Settings
from scripts.tiny_generator.stage import Stage
from scripts.tiny_generator.training import train

STAGES = ("autoencoder", "clip", "classifier", "encoders", "unet", "card")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=(*STAGES, "all"))
    parser.add_argument("--work", type=Path, required=True, help="folder for pictures, checkpoints and logs")
    parser.add_argument("--out", type=Path, default=Path("fmri_models/assets"), help="folder for the assets")
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop after this long, to go on later")
    parser.add_argument("--settings", type=Path, help="JSON file that changes sizes and steps")
    options = parser.parse_args(arguments)
    deadline = time.monotonic() + 60 * options.minutes
    settings = Settings.from_file(options.settings)
    data = Data.load(settings, options.work)
    for name in STAGES if options.stage == "all" else (options.stage,):
        if name == "encoders":
            assemble(settings, data, options.work, options.out)
        elif name == "card":
            add_diffusion_model(settings, data, options.work, options.out)
            write_card(settings, options.work, options.out)
        elif not train(build_stage(name, settings, data, options.work, options.out), options.work, deadline):
            return


def build_stage(name: str, settings: Settings, data: Data, work: Path, assets: Path) -> Stage:
    """The stage of a name."""
    return UNetStage(settings, data, work, assets) if name == "unet" else ENCODER_STAGES[name](settings, data)


if __name__ == "__main__":
    main()
