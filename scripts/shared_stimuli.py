"""How many shared stimuli does one subject's decoder need to read another subject? On simulated subjects.

    python scripts/shared_stimuli.py --out outputs/shared_stimuli

Two simulated subjects see some thousand scenes each, a tenth of them the same. The decoder of the first is fitted; the
second is read by it through maps that are learned from a share of the shared training stimuli (three draws of each
share below one). Beside them stand the second subject's own decoder of all of its trials, and a null: the map learned
with stimuli exchanged. What is measured is two-way identification of decoded image embeddings among the test stimuli
(chance .5). `summary.json` has the figures, and a table is printed.

Ferrante et al. (2024) report that a tenth of the data nearly suffices; they align on test pictures, which is not done
here.
"""

import argparse
import json
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fmri_models import FmriToImagePipeline
from fmri_models.alignment.subject_alignment import SubjectMap
from fmri_models.data import TrialTable
from fmri_models.data.targets import cached_targets
from fmri_models.evaluation.metrics import two_way_identification
from fmri_models.models.linear import aligned_subjects
from fmri_models.simulation import simulate
from fmri_models.training.recipe import load_recipe
from fmri_models.training.trainer import train

FIRST, SECOND = "subj01", "subj02"
SHARES = (1.0, 0.5, 0.25, 0.1, 0.05)
METHODS = ("ridge", "procrustes", "template", "shared_response")
DRAWS = 3


def run(out: Path, stimuli: int, voxels: int, dimensions: int) -> dict[str, Any]:
    """Simulates, trains and measures; what is there is not done again."""
    data = out / "data"
    if not data.is_dir():
        simulate(
            "builtin:scenes", data, num_subjects=2, num_voxels=voxels, num_train=stimuli, num_test=100, repetitions=2
        )
    own = identified(trained(out, data, "own"), data)
    aligned: dict[str, dict[str, list[float]]] = {method: {} for method in METHODS}
    counts = {}
    for share in SHARES:
        for method in METHODS:
            scores = []
            for seed in range(1 if share == 1 else DRAWS):
                options = [
                    f"alignment={method}", f"shared_share={share}", f"shared_seed={seed}",
                    f"shared_dimensions={dimensions}",
                ]  # fmt: skip
                folder = trained(out, data, f"{method}_{share:g}_{seed}", aligned=options)
                scores.append(identified(folder, data))
                counts[f"{share:g}"] = alignment_of(folder)["stimuli"]
            aligned[method][f"{share:g}"] = scores
    return {
        "settings": {"stimuli": stimuli, "voxels": voxels, "dimensions": dimensions, "draws": DRAWS},
        "own": own,
        "null": identified(null(out, data), data),
        "shared_stimuli": counts,
        "aligned": aligned,
    }


def trained(out: Path, data: Path, name: str, aligned: list[str] | None = None) -> Path:
    """A pipeline of both subjects: each with its own decoder, or the second read by the first one's."""
    folder = out / "models" / name
    if not (folder / "model_index.json").is_file():
        options = [] if aligned is None else [f"aligned_to={FIRST}", *aligned]
        overrides = [f"data={data}", f"out={folder}", "targets=[image_embeds]"]
        train(load_recipe("linear", [*overrides, *(f"stages.0.objective.{option}" for option in options)]))
    return folder


def null(out: Path, data: Path) -> Path:
    """The map learned from responses of the second subject to other stimuli than the first one's."""
    align = aligned_subjects.align_subjects

    def exchanged(responses: Mapping[str, torch.Tensor], to: str, *options: Any) -> dict[str, SubjectMap]:
        order = torch.randperm(len(responses[to]), generator=torch.Generator())
        return align({name: each if name == to else each[order] for name, each in responses.items()}, to, *options)

    aligned_subjects.align_subjects = exchanged
    try:
        return trained(out, data, "null", aligned=["alignment=ridge"])
    finally:
        aligned_subjects.align_subjects = align


def alignment_of(folder: Path) -> dict[str, Any]:
    """What the saved model says of its alignment."""
    return FmriToImagePipeline.from_pretrained(folder).brain_model.config.alignment


def identified(folder: Path, data: Path) -> float:
    """Two-way identification of the second subject's decoded embeddings, repetitions averaged."""
    pipe, table = FmriToImagePipeline.from_pretrained(folder), TrialTable.open(data)
    trials = table.trials(SECOND, "test")
    inputs = pipe.processor(trials.fmri(), subject=SECOND, session=trials.sessions)
    decoded = pipe.decode(inputs["fmri"], inputs["subject_ids"]).image_embeds.flatten(1).numpy()
    shown = sorted(set(trials.stimulus_ids.tolist()))
    means = np.stack([decoded[trials.stimulus_ids == each].mean(axis=0) for each in shown])
    truth = np.asarray(cached_targets(table, pipe.image_generator, "image_embeds", shown), dtype=np.float32)
    return float(two_way_identification(torch.from_numpy(truth), torch.from_numpy(means)))


def markdown(summary: dict[str, Any]) -> str:
    """The table that docs/methods/linear.md shows."""
    counts = summary["shared_stimuli"]
    lines = [
        f"| map | {' | '.join(f'{count} ({float(share):.0%})' for share, count in counts.items())} |",
        f"|---|{'---:|' * len(counts)}",
    ]
    for method, scores in summary["aligned"].items():
        cells = [
            f"{statistics.mean(found):.3f}" + (f" ({min(found):.3f} to {max(found):.3f})" if len(found) > 1 else "")
            for found in (scores[share] for share in counts)
        ]
        lines.append(f"| `{method}` | {' | '.join(cells)} |")
    lines += ["", f"Own decoder: {summary['own']:.3f}; `ridge` with stimuli exchanged: {summary['null']:.3f}."]
    return "\n".join(lines)


def main() -> None:
    """Measures, writes summary.json and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--stimuli", type=int, default=3000, help="training stimuli of each subject")
    parser.add_argument("--voxels", type=int, default=1500)
    parser.add_argument("--dimensions", type=int, default=10, help="of shared_response; fewer than the fewest stimuli")
    given = parser.parse_args()
    summary = run(given.out, given.stimuli, given.voxels, given.dimensions)
    (given.out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    print(markdown(summary))


if __name__ == "__main__":
    main()
