"""Reports on decoders that draw no pictures: decoded embeddings by retrieval, predicted labels by accuracy."""

import hashlib
from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch

from ..data.csv_files import read_csv
from ..errors import FmriModelsError
from ..names import check_line, listed, one_line
from ..reading import read_bytes
from ..seeds import check_seed
from .bootstrap import PERMUTATIONS
from .named_metrics import get_metric
from .pairings import stimulus_pairings
from .patterns import load_array
from .protocols import Protocol
from .report import Report
from .report_folder import check_report_folder, write_report
from .scores import Scores
from .similarities import cosine_matrix, losses_in_columns, losses_in_rows

# What guessing finds more often than not is left out.
_HIGHEST_CHANCE = 0.5
_MOST_ROWS = 2**20
_NO_PICTURES = (
    "There are no pictures here, and no model: nothing is measured but what was given, with re-paired items beside it."
)

RETRIEVAL = Protocol(
    "retrieval",
    "Retrieval in the whole test set both ways, by the cosine of decoded and true embeddings.",
    tuple(f"retrieval_query_{query}_top{k}" for query in ("brain", "image") for k in (1, 5)),
)
LABELS = Protocol("labels", "Whether predicted labels are the true ones.", ("label_accuracy",))


def evaluate_embeddings(
    decoded: str | PathLike,
    truth: str | PathLike,
    out: str | PathLike,
    seed: int = 0,
    overwrite: bool = False,
) -> Report:
    """Scores decoded embeddings against those of what was shown, row by row, and writes the report.

    Args:
        decoded: A .npy file (N, …), an embedding an item.
        truth: A .npy file of the same shape: the embedding of what was shown. Equal rows are one stimulus.
        out: Folder for the report.
        seed: Of bootstrap and permutation.
        overwrite: Write into a folder that has content.

    Raises:
        FmriModelsError: A file can't be read, shapes differ, a value is NaN or infinite, there are fewer than two
            stimuli, or the output folder can't be written.
    """
    started, seed = perf_counter(), check_seed(seed)
    check_report_folder(out, overwrite)
    brain, shown = (_embeddings(path) for path in (decoded, truth))
    if brain.shape != shown.shape:
        raise FmriModelsError(
            f"{one_line(decoded)} has the shape {tuple(brain.shape)} and {one_line(truth)} {tuple(shown.shape)}; "
            "expected a row of each for every item, in the same order and space."
        )
    _, first, stimuli = np.unique(shown.numpy(), axis=0, return_index=True, return_inverse=True)
    stimuli = stimuli.reshape(-1)
    if len(first) < 2:
        raise FmriModelsError(f"{one_line(truth)} has one embedding alone, and retrieval needs others to tell it from.")
    names = np.array([f"row{row:06d}" for row in range(len(stimuli))])[first][stimuli]
    cosines = cosine_matrix(shown[first], brain)
    not_beaten, others = losses_in_rows(cosines, torch.from_numpy(stimuli))
    ranks = {"brain": losses_in_columns(cosines), "image": not_beaten}
    # Responses of a stimulus with more repetitions have fewer others.
    rivals = {"brain": np.full(len(first), len(first)), "image": others[first].numpy() + 1}
    asked = {name: _query_and_rank(name) for name in RETRIEVAL.metrics}
    chances = {name: float(np.minimum(1, top_k / rivals[query]).mean()) for name, (query, top_k) in asked.items()}
    hits = {
        name: (ranks[query] < top_k).double().numpy()
        for name, (query, top_k) in asked.items()
        if chances[name] <= _HIGHEST_CHANCE
    }
    return _report(
        RETRIEVAL,
        lambda name, stimulus, item: hits[name][stimulus, item],
        stimuli,
        names,
        {name: chances[name] for name in hits},
        out,
        seed,
        data={"name": one_line(Path(truth).name), "fingerprint": _fingerprint(shown.numpy().tobytes())},
        model={"images": one_line(Path(decoded).name)},
        started=started,
    )


def evaluate_labels(
    predicted: str | PathLike,
    truth: str | PathLike,
    out: str | PathLike,
    seed: int = 0,
    overwrite: bool = False,
) -> Report:
    """Scores a classifier's labels against the true ones, matched by stimulus, and writes the report.

    Args:
        predicted: A CSV file with the columns `stimulus_id` and `label`, a line an item; a stimulus may have several.
        truth: A CSV file with the same columns, a line a stimulus.
        out: Folder for the report.
        seed: Of bootstrap and permutation.
        overwrite: Write into a folder that has content.

    Raises:
        FmriModelsError: A file can't be read, a stimulus is in one of them alone or has two true labels, or the output
            folder can't be written.
    """
    started, seed = perf_counter(), check_seed(seed)
    check_report_folder(out, overwrite)
    items, known = _labels(predicted), _labels(truth)
    label_of = dict(known)
    if len(label_of) < len(known):
        names = [name for name, _ in known]
        twice = next(name for name in names if names.count(name) > 1)
        raise FmriModelsError(f"{one_line(truth)} has the stimulus {one_line(twice)} twice; expected a label for each.")
    tested = {name for name, _ in items}
    for file, missing in ((truth, tested - label_of.keys()), (predicted, label_of.keys() - tested)):
        if missing:
            raise FmriModelsError(
                f"{one_line(file)} lacks {len(missing)} stimuli of the other file ({listed(sorted(missing))}); give "
                "both the same."
            )
    order = sorted(label_of)
    place = {name: number for number, name in enumerate(order)}
    true, given = np.array([label_of[name] for name in order]), np.array([label for _, label in items])
    stimuli = np.array([place[name] for name, _ in items])
    right = (true[:, None] == given[None]).astype(np.float64)
    return _report(
        LABELS,
        lambda _, stimulus, item: right[stimulus, item],
        stimuli,
        np.array([name for name, _ in items]),
        {"label_accuracy": 1 / len(set(true.tolist()))},
        out,
        seed,
        data={"name": one_line(Path(truth).name), "fingerprint": _fingerprint(repr(sorted(known)).encode())},
        model={"images": one_line(Path(predicted).name)},
        started=started,
    )


def _report(
    protocol: Protocol,
    scored: Callable[[str, np.ndarray, np.ndarray], np.ndarray],
    stimuli: np.ndarray,
    names: np.ndarray,
    chances: dict[str, float],
    out: str | PathLike,
    seed: int,
    data: dict[str, Any],
    model: dict[str, Any],
    started: float,
) -> Report:
    """Scores the true pairing and others, sums up, and writes the report.

    Args:
        protocol: Names the metrics.
        scored: Scores of a metric for pairs of stimuli and items.
        stimuli: (N,) number of what each item is of.
        names: (N,) of the stimuli.
        chances: Metric ▶ what guessing scores, of those that are measured.
        out: Folder for the report.
        seed: Of bootstrap and permutation.
        data: For the report.
        model: For the report.
        started: When this began.
    """
    count = np.arange(len(stimuli))
    pairings, exhaustive = stimulus_pairings(stimuli, [count], PERMUTATIONS, seed)
    values: dict[str, np.ndarray | None] = {
        name: scored(name, stimuli, count) if name in chances else None for name in protocol.metrics
    }
    left_out = [name for name in protocol.metrics if name not in chances]
    scores = Scores(
        values={"brain": values},
        subjects=np.full(len(stimuli), "subj01"),
        stimulus_ids=names,
        seeds=np.full(len(stimuli), seed, dtype=np.int64),
        permuted={name: scored(name, pairings, np.broadcast_to(count, pairings.shape)) for name in chances},
        exhaustive=exhaustive,
        pool_size=float(stimuli.max() + 1),
        chances=chances,
        notes=_on_guessing(left_out),
    )
    report = Report.from_scores(
        scores,
        protocol,
        data={**data, "simulated": None, "mean_noise_ceiling": None},
        model=model,
        timing={"total_s": perf_counter() - started},
        seed=seed,
        notes=[_NO_PICTURES],
    )
    write_report(out, report, scores, {}, None)
    return report


def _query_and_rank(metric: str) -> tuple[str, int]:
    """Who looks for whom, and among how many it may be."""
    query, _, top_k = metric.removeprefix("retrieval_query_").partition("_top")
    return query, int(top_k)


def _on_guessing(left_out: Sequence[str]) -> list[str]:
    if not left_out:
        return []
    labels = ", ".join(get_metric(name).label for name in left_out)
    return [f"{labels}: left out, because with so few stimuli guessing succeeds more often than not."]


def _embeddings(path: str | PathLike) -> torch.Tensor:
    """(N, values) float64."""
    values = load_array(path)
    found = torch.from_numpy(np.ascontiguousarray(values, dtype=np.float64)).flatten(1)
    if not len(found) or not torch.isfinite(found).all():
        what = "no rows" if not len(found) else "NaN or infinite values"
        raise FmriModelsError(f"{one_line(path)} has {what}; expected an embedding of finite numbers for each item.")
    return found


def _labels(path: str | PathLike) -> list[tuple[str, str]]:
    """Stimulus and label of each line."""
    what = f"The file of labels {one_line(path)}"
    data = read_bytes(Path(path), "file of labels", "give a CSV file")
    columns = read_csv(data, what, ["stimulus_id", "label"], _MOST_ROWS)
    found = list(zip(columns["stimulus_id"], columns["label"], strict=True))
    if not found:
        raise FmriModelsError(f"{what} has no rows; expected one an item.")
    for row, texts in enumerate(found, 1):
        if not all(texts):
            raise FmriModelsError(f"{what} has an empty field in row {row}; expected a stimulus and its label.")
        for text in texts:
            check_line(text, "stimulus or label", most=300)
    return found


def _fingerprint(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
