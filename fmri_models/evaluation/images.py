"""`evaluate --images`: the report of anybody's reconstructions, matched with the true pictures by file name."""

import hashlib
from collections import Counter
from os import PathLike
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..errors import FmriModelsError
from ..saving import check_output_folder
from .protocols import Protocol, get_protocol
from .rendering import write_report
from .report import Report
from .scoring import RowData, score_rows

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")


def evaluate_images(
    recon_dir: str | PathLike,
    truth_dir: str | PathLike,
    out: str | PathLike,
    protocol: str | Protocol | None = None,
    seed: int = 0,
    overwrite: bool = False,
) -> Report:
    """Scores a folder of reconstructions against a folder of true pictures and writes the report.

    There is no model here, so no brain control can be computed: the rows are `brain` (the reconstructions) and
    `mean_image` (the average of the true pictures, which uses them), with the permutation test.

    Args:
        recon_dir: Reconstructions; a file has the name of its true picture, the suffix may differ.
        truth_dir: True pictures.
        out: Folder for the report.
        protocol: Name or protocol; `standard` if None.
        seed: Of bootstrap, permutation and the choice of pictures in the grid.
        overwrite: Write into a folder that has content.

    Raises:
        FmriModelsError: A folder or name is missing on one side, or a file cannot be decoded.
    """
    started = perf_counter()
    check_output_folder(out, overwrite)
    chosen = protocol if isinstance(protocol, Protocol) else get_protocol(protocol)
    names, truth, recon, notes = load_matched(recon_dir, truth_dir)
    rows = {"brain": RowData(recon), "mean_image": RowData(truth.mean(0, keepdim=True).expand_as(truth))}
    scores = score_rows(rows, truth, names, chosen, seed=seed)
    report = Report.from_scores(
        scores,
        chosen,
        data={
            "name": Path(truth_dir).name,
            "fingerprint": _fingerprint(names, truth),
            "simulated": None,
            "mean_noise_ceiling": None,
        },
        model={"images": Path(recon_dir).name},
        timing={"total_s": perf_counter() - started},
        seed=seed,
        notes=[
            "The reconstructions were given as files: without the model there are no brain controls, so only the mean "
            "image and re-paired reconstructions stand beside them. mean_image is the average of the true test "
            "pictures (uses_test_images).",
            *notes,
        ],
        uses_test_images=["mean_image"],
    )
    write_report(out, report, scores, rows, truth)
    return report


def load_matched(recon_dir: str | PathLike, truth_dir: str | PathLike) -> tuple[list[str], Tensor, Tensor, list[str]]:
    """Pictures of two folders by name.

    Returns:
        Names, true pictures and reconstructions (N, C, H, W) float32 in [0, 1], and sentences about what was changed.
    """
    recon_files, truth_files = _by_name(recon_dir), _by_name(truth_dir)
    _check_names(recon_files, truth_files, Path(recon_dir), Path(truth_dir))
    names = sorted(truth_files)
    truth = [_opened(truth_files[name]) for name in names]
    recon = [_opened(recon_files[name]) for name in names]
    # Grey only if everything is; one colored picture makes the set a colored one.
    mode = "L" if all(picture.mode == "L" for picture in truth + recon) else "RGB"
    size, share = Counter(picture.size for picture in truth).most_common(1)[0]
    notes = []
    if share < len(truth):
        notes.append(
            f"{len(truth) - share} of {len(truth)} true pictures were resized to the most frequent size, "
            f"{size[0]}x{size[1]}."
        )
    resized = sum(picture.size != size for picture in recon)
    if resized:
        notes.append(
            f"{resized} of {len(recon)} reconstructions were resized to the true pictures' {size[0]}x{size[1]} "
            "(bicubic, antialiased), which changes pixel metrics."
        )
    return names, _stacked(truth, size, mode), _stacked(recon, size, mode), notes


def _fingerprint(names: list[str], pictures: Tensor) -> str:
    """SHA-256 over names and pixels, by which `compare` knows reports on the same pictures."""
    digest = hashlib.sha256("\n".join(names).encode("utf-8"))
    digest.update((pictures * 255).round().byte().numpy().tobytes())
    return digest.hexdigest()


def _by_name(folder: str | PathLike) -> dict[str, Path]:
    folder = Path(folder)
    if not folder.is_dir():
        raise FmriModelsError(f"There is no folder {folder}; give one with pictures.")
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())
    if not files:
        raise FmriModelsError(f"The folder {folder} has no pictures ({', '.join(SUFFIXES)}).")
    named: dict[str, Path] = {}
    for path in files:
        if path.stem in named:
            raise FmriModelsError(
                f"{folder} has two pictures with the name {path.stem} ({named[path.stem].name}, {path.name}); keep one."
            )
        named[path.stem] = path
    return named


def _check_names(recon: dict[str, Path], truth: dict[str, Path], recon_dir: Path, truth_dir: Path) -> None:
    if not recon.keys() & truth.keys():
        raise FmriModelsError(
            f"No name in {recon_dir} (such as {min(recon)}) occurs in {truth_dir} (such as {min(truth)}); name each "
            "reconstruction as its true picture."
        )
    missing = [
        f"{folder} lacks {len(names)}: {_listed(names)}"
        for folder, names in ((recon_dir, truth.keys() - recon.keys()), (truth_dir, recon.keys() - truth.keys()))
        if names
    ]
    if missing:
        raise FmriModelsError(
            f"The two folders have different names: {'; '.join(missing)}. Give both the same pictures."
        )


def _listed(names: set[str], limit: int = 10) -> str:
    in_order = sorted(names)
    return ", ".join(in_order[:limit]) + (f" and {len(in_order) - limit} more" if len(in_order) > limit else "")


def _opened(path: Path) -> Image.Image:
    try:
        with Image.open(path) as file:
            picture = file.copy() if file.mode in ("L", "RGB", "1", "P", "RGBA", "LA", "CMYK", "YCbCr") else None
            mode = file.mode
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise FmriModelsError(f"The picture {path} cannot be decoded ({error}); replace it.") from error
    if picture is None:
        raise FmriModelsError(f"The picture {path} has the mode {mode}; expected 8 bits a channel, so convert it.")
    return picture.convert("L") if picture.mode in ("L", "1", "LA") else picture.convert("RGB")


def _stacked(pictures: list[Image.Image], size: tuple[int, int], mode: str) -> Tensor:
    arrays = [
        np.asarray((p if p.size == size else p.resize(size, Image.Resampling.BICUBIC)).convert(mode)) for p in pictures
    ]
    stacked = torch.from_numpy(np.stack(arrays)).float() / 255
    return stacked[:, None] if mode == "L" else stacked.permute(0, 3, 1, 2).contiguous()
