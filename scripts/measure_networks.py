"""Does a network see more in pictures than their pixels? The table of docs/extractors.md.

    python scripts/measure_networks.py efficientnet_lite0 open_nsfw_resnet50 [--scenes 160] [--weights DIR]

A "reconstruction" is another built-in scene that shows the same in another place and on another background, or the true
one mirrored or blurred; two-way identification has to find what was shown, among all pictures and among those of an
equal background. Pixels and a network with random weights stand beside.
"""

import argparse
import random
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor

from fmri_models.evaluation.extractors import NetworkExtractor, NodeReader, Preprocessing, load_extractor
from fmri_models.evaluation.similarities import correlation_matrix, identification_shares, is_constant
from fmri_models.guides.layers_of_networks import torchvision_models
from fmri_models.scenes import SEED_RANGES, Scene, SceneFactors, scene, scene_seeds

_SIGMA = 4.0
_BACKGROUND = ("ground", "time_of_day")
# Beside the scenes that are shown.
_OTHERS = 20_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("networks", nargs="*", default=["efficientnet_lite0", "open_nsfw_resnet50"])
    parser.add_argument("--scenes", type=int, default=160)
    parser.add_argument("--weights", help="folder with weights")
    args = parser.parse_args()
    shown = [scene(seed) for seed in scene_seeds("test", args.scenes)]
    backgrounds = [" ".join(getattr(each.factors, name) for name in _BACKGROUND) for each in shown]
    truth = _pictures(shown)
    reconstructions = {
        "same kind, colour, size": _pictures(_alike(shown, ("kind", "colour", "size"), ("place", *_BACKGROUND))),
        "same kind, size": _pictures(_alike(shown, ("kind", "size"), ("colour", "place", *_BACKGROUND))),
        "mirrored": truth.flip(3),
        "blurred": _blurred(truth),
    }
    print("| network | " + " | ".join(f"{name} | … equal backgrounds" for name in reconstructions) + " |")
    print("|---" * (1 + 2 * len(reconstructions)) + "|")
    for name, features in _networks(args.networks, args.weights).items():
        of_truth = features(truth)
        cells = []
        for pictures in reconstructions.values():
            similarity = correlation_matrix(of_truth, features(pictures))
            for groups in (None, backgrounds):
                scores = identification_shares(similarity, groups, is_constant(of_truth)).diagonal()
                scores = scores[~scores.isnan()]
                cells.append(f"{scores.mean():.3f} ± {scores.std() / len(scores) ** 0.5:.3f}")
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


def _networks(names: Sequence[str], weights: str | None) -> dict[str, Callable[[Tensor], Tensor]]:
    torch.manual_seed(0)
    network = torchvision_models().mobilenet_v2().eval()
    untrained = NetworkExtractor("random", NodeReader(network, "features"), Preprocessing(224, antialias=True))
    return {
        "pixels": lambda pictures: pictures.flatten(1),
        "MobileNetV2, random weights": lambda pictures: _pooled(untrained(pictures)),
        **{name: load_extractor(name, weights) for name in names},
    }


def _pooled(features: Tensor) -> Tensor:
    return features.unflatten(1, (1280, -1)).mean(2)


def _alike(shown: Sequence[Scene], same: Sequence[str], other: Sequence[str]) -> list[Scene]:
    """For each scene another one, drawn among those that have some factors alike and others different."""
    draw = random.Random(0)

    def fits(one: SceneFactors, another: SceneFactors) -> bool:
        return all(getattr(one, name) == getattr(another, name) for name in same) and not any(
            getattr(one, name) == getattr(another, name) for name in other
        )

    return [scene(draw.choice([seed for seed, found in _others() if fits(each.factors, found)])) for each in shown]


@cache
def _others() -> list[tuple[int, SceneFactors]]:
    last = SEED_RANGES["test"].stop
    return [(seed, scene(seed).factors) for seed in range(last - _OTHERS, last)]


def _pictures(scenes: Sequence[Scene]) -> Tensor:
    return torch.from_numpy(np.stack([each.image for each in scenes])).permute(0, 3, 1, 2) / 255


def _blurred(pictures: Tensor) -> Tensor:
    reach = int(3 * _SIGMA)
    weights = torch.exp(-(torch.arange(-reach, reach + 1.0) ** 2) / (2 * _SIGMA**2))
    weights = (weights / weights.sum()).expand(3, 1, -1)
    padded = torch.nn.functional.pad(pictures, (reach,) * 4, mode="replicate")
    rows = torch.nn.functional.conv2d(padded, weights[..., None, :], groups=3)
    return torch.nn.functional.conv2d(rows, weights[..., None], groups=3)


if __name__ == "__main__":
    main()
