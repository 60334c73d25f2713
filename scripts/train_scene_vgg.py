"""Trains `fmri_models/assets/scene_vgg`: a small VGG that names the factors of built-in scenes.

    python scripts/train_scene_vgg.py --work outputs/scene_vgg

Its training scenes are those of the embedded generator's networks, none of which is ever a stimulus of a simulation.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from tiny_generator.pictures import Pictures, chunks, render
from torch.nn import functional as F

from fmri_models.evaluation.scene_factors import FACTOR_VALUES
from fmri_models.guides.scene_vgg import CONFIG_NAME, HIDDEN, SCENE_VGG_FOLDER, WEIGHTS_NAME, WIDTHS, SceneVgg
from fmri_models.saving import atomic_folder

BATCH_SIZE = 64
LEARNING_RATE = 1e-3
SIZES = [len(values) for values in FACTOR_VALUES.values()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("outputs/scene_vgg"), help="where the pictures are drawn")
    parser.add_argument("--out", type=Path, default=SCENE_VGG_FOLDER)
    parser.add_argument("--pictures", type=int, default=12_000)
    parser.add_argument("--steps", type=int, default=1_200)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    train = render("generator", args.pictures, args.seed, args.work)
    network = trained(train, args.steps, args.seed)
    test = render("generator_test", 1000, args.seed, args.work)
    figures = accuracy(network, test)
    print(json.dumps(figures, indent=2))
    save(network, args.out, figures, args.steps, args.pictures)


def trained(pictures: Pictures, steps: int, seed: int) -> SceneVgg:
    """The network after so many steps of AdamW with a learning rate that falls to zero on half a cosine."""
    network = SceneVgg(sum(SIZES)).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), LEARNING_RATE, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps, pct_start=0.1)
    rng = np.random.default_rng(seed)
    for step in range(steps):
        positions = np.sort(rng.choice(len(pictures), BATCH_SIZE, replace=False))
        logits = network((2 * pictures.batch(positions) - 1).contiguous(memory_format=torch.channels_last))
        loss = loss_of(logits, torch.from_numpy(pictures.labels[positions]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 50 == 0:
            print(f"step {step}: loss {float(loss):.3f}", flush=True)
    return network.eval()


def loss_of(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Sum of the cross entropies of all factors."""
    each = [F.cross_entropy(part, labels[:, column]) for column, part in enumerate(logits.split(SIZES, dim=1))]
    return torch.stack(each).sum()


@torch.inference_mode()
def accuracy(network: SceneVgg, pictures: Pictures) -> dict[str, float]:
    """Share of pictures of which each factor is named right."""
    logits = torch.cat([network(2 * pictures.batch(chosen) - 1) for chosen in chunks(len(pictures), 250)])
    parts = zip(FACTOR_VALUES, logits.split(SIZES, dim=1), strict=True)
    return {
        name: float(np.mean(part.argmax(dim=1).numpy() == pictures.labels[:, column]))
        for column, (name, part) in enumerate(parts)
    }


def save(network: SceneVgg, out: Path, figures: dict[str, float], steps: int, pictures: int) -> None:
    """Writes the weights in half precision, and how the network is built and what it can do."""
    config = {
        "num_outputs": sum(SIZES),
        "widths": list(WIDTHS),
        "hidden": HIDDEN,
        "training": {"pictures": pictures, "steps": steps, "batch_size": BATCH_SIZE, "learning_rate": LEARNING_RATE},
        "accuracy_of_1000_test_scenes": figures,
        "license": "apache-2.0",
    }
    with atomic_folder(out, overwrite=True) as partial:
        (partial / CONFIG_NAME).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        tensors = {name: tensor.half().contiguous() for name, tensor in network.state_dict().items()}
        save_file(tensors, partial / WEIGHTS_NAME)


if __name__ == "__main__":
    main()
